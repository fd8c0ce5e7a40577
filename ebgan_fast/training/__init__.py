"""The training program: `train` runs a `TrainConfig`, and `load_generator` loads the generator that a run trained."""

from .config import TrainConfig
from .loop import train
from .pictures import save_folder, save_grid
from .presets import preset
from .run.checkpoint import CheckpointError
from .sampling import LoadedGenerator, load_generator, sample_images
from .session import TrainResult
from .statistics import NonFiniteError

__all__ = [
    "CheckpointError",
    "LoadedGenerator",
    "NonFiniteError",
    "TrainConfig",
    "TrainResult",
    "load_generator",
    "preset",
    "sample_images",
    "save_folder",
    "save_grid",
    "train",
]

"""The training program: `train` runs a `TrainConfig`, `load_generator` takes up what it leaves."""

from .checkpoint import CheckpointError
from .config import TrainConfig
from .loop import TrainResult, train
from .presets import preset
from .samples import LoadedGenerator, load_generator, sample_images, save_folder, save_grid
from .trainer import NonFiniteError

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

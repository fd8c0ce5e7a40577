"""Fused kernels for Energy-Based GAN training (Zhao, Mathieu, LeCun 2016, arXiv:1609.03126).

`EBGAN` holds the settings of a GAN and computes both updates with one pass of the discriminator over the generated
batch. `one_pass_backward` does the same for losses of your own. `ebgan_fast.functional` has the losses as functions,
which can also be imported from here. `ebgan_fast.nn` has them as Modules. `use_backend` chooses the backend that runs
the ops, and `backends` lists the backends that can run.
"""

# torch must be imported before the extension: the extension's OpenMP then uses torch's runtime and obeys
# torch.set_num_threads.
import torch  # noqa: F401  isort: skip

from . import functional, game, nn
from .functional import (
    discriminator_loss,
    generator_loss,
    hinge_margin_loss,
    pulling_away_term,
    reconstruction_energy,
)
from .game import EBGAN, one_pass_backward
from .ops.backends import BackendStatus, BackendUnavailableError, backends, use_backend
from .results import DiscriminatorResult, GameResult, GeneratorResult

__version__ = "0.1.0"

__all__ = [
    "EBGAN",
    "BackendStatus",
    "BackendUnavailableError",
    "DiscriminatorResult",
    "GameResult",
    "GeneratorResult",
    "__version__",
    "backends",
    "discriminator_loss",
    "functional",
    "game",
    "generator_loss",
    "hinge_margin_loss",
    "nn",
    "one_pass_backward",
    "pulling_away_term",
    "reconstruction_energy",
    "use_backend",
]

"""Fused kernels for Energy-Based GAN training (Zhao, Mathieu, LeCun 2016, arXiv:1609.03126).

`EBGAN` is the game as one object, with both updates over one pass of the discriminator. `one_pass_backward` is that
step for losses of your own. `ebgan_fast.functional` holds the losses as functions, also reachable from here, and
`ebgan_fast.nn` as Modules. `use_backend` chooses what runs them, and `backends` says what can.
"""

# Before anything of ours: the extension's OpenMP then binds to torch's runtime and obeys torch.set_num_threads.
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

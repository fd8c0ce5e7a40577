"""The ops on a GPU, in Triton."""

from .energy import discriminator_loss, hinge_margin_loss, reconstruction_energy, reconstruction_energy_backward
from .pulling_away import generator_loss, pulling_away_term, pulling_away_term_backward
from .scaling import scale_gradients, scale_gradients_

__all__ = [
    "discriminator_loss",
    "generator_loss",
    "hinge_margin_loss",
    "pulling_away_term",
    "pulling_away_term_backward",
    "reconstruction_energy",
    "reconstruction_energy_backward",
    "scale_gradients",
    "scale_gradients_",
]

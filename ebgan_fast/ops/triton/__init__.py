"""The ops on a GPU, in Triton."""

from .energy import discriminator_loss, hinge_margin_loss, reconstruction_energy, reconstruction_energy_backward

__all__ = [
    "discriminator_loss",
    "hinge_margin_loss",
    "reconstruction_energy",
    "reconstruction_energy_backward",
]

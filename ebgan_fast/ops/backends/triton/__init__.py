"""The launches of the ops on a GPU, in Triton. `../protocol.py` defines them."""

from .energy import gradient, hinge, loss
from .pulling_away import term, term_gradient
from .scaling import scale

__all__ = ["gradient", "hinge", "loss", "scale", "term", "term_gradient"]

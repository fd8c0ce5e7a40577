"""The paper's networks."""

from .mlp import AutoEncoder, Generator

__all__ = ["AutoEncoder", "Generator"]

"""MNIST, from an installed package or a folder of IDX files, and the batches that feed a run."""

from .batches import ShuffledBatches, to_signed_unit
from .idx import DataError, read_idx
from .mnist import Mnist, load_mnist

__all__ = ["DataError", "Mnist", "ShuffledBatches", "load_mnist", "read_idx", "to_signed_unit"]

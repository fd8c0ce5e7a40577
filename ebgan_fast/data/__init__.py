"""Images from local files: MNIST, or folders and archives of your own, packed once; and the batches that feed a run."""

from .errors import DataError
from .idx import read_idx
from .image_set import ImageSet, TensorImages, pad_to_square
from .mnist import Mnist, load_mnist
from .packed import PackedImages
from .pixels import to_pixels, to_signed_unit
from .stream import ImageStream

__all__ = [
    "DataError",
    "ImageSet",
    "ImageStream",
    "Mnist",
    "PackedImages",
    "TensorImages",
    "load_mnist",
    "pad_to_square",
    "read_idx",
    "to_pixels",
    "to_signed_unit",
]

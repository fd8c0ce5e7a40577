"""Images from local files, and the batches that a run trains on.

The images are MNIST, or those of a folder or archive of your own, which `ebgan-fast prepare` packs once.
"""

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

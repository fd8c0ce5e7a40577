"""Sources of images: folders, archives and arrays on the local disk, each read image by image in its stored form."""

from .names import KINDS, Kind
from .opening import open_source
from .source import LOST, Joined, Source, Tally, stamp

__all__ = ["KINDS", "LOST", "Joined", "Kind", "Source", "Tally", "open_source", "stamp"]

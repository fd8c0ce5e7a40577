"""Where images come from: folders and archives on the local disk, each read image by image as it was stored."""

from .opening import Source, open_source

__all__ = ["Source", "open_source"]

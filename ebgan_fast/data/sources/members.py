"""The members of an archive: find its images, and follow its links."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Container, Iterable

from .names import COMPRESSED, SUFFIX_KINDS, is_hidden, is_image, looks_like_image, suffix_of
from .source import DANGLING, HIDDEN, NO_SUFFIX

_TO_FOLDERS = "links to folders inside an archive"  # the images in these folders are taken under their own names
_STEPS = 16  # links in a chain that are followed


def images_among(
    files: Container[str],
    links: dict[str, str],
    names: list[str],
    head: Callable[[str], bytes],
    tell: Callable[[str, str], None],
) -> dict[str, str]:
    """Return the name of each image with the name of the member that holds its bytes.

    Args:
        files: the names of members with bytes of their own.
        links: the path, from the archive's root, to which each link leads.
        names: the names of all members, files and links.
        head: returns the first bytes of a file.
        tell: called with the kind and the name of each member that is no image.
    """
    found = {}
    folders = _folders_of(names) if links else set()
    for name in names:
        if is_hidden(name):
            tell(HIDDEN, name)
            continue
        suffix, target = suffix_of(name), _followed(name, links, files)
        if is_image(name):
            if target in files:
                found[name] = target
            else:
                tell(DANGLING, name)
        elif name in links and target in folders:
            tell(_TO_FOLDERS, name)
        elif suffix in SUFFIX_KINDS or suffix in COMPRESSED:
            tell(f"{suffix} inside, to be unpacked first", name)
        elif suffix:
            tell(suffix, name)
        elif target in files and looks_like_image(head(target)):
            found[name] = target
        else:
            tell(NO_SUFFIX, name)
    return found


def from_root(link: str, target: str) -> str:
    """Return the path from an archive's root to which a symbolic link leads.

    Args:
        link: the link's own path.
        target: the path that the link names, which starts at the link's folder.
    """
    return posixpath.normpath(posixpath.join(posixpath.dirname(link), target))


def _folders_of(names: Iterable[str]) -> set[str]:
    """Return all folders that hold members, each path as `from_root` writes it."""
    folders = {"."}
    for name in names:
        folder = posixpath.dirname(name)
        while folder and folder not in folders:
            folders.add(folder)
            folder = posixpath.dirname(folder)
    return folders


def _followed(name: str, links: dict[str, str], files: Container[str]) -> str:
    """Return the path to which a member leads through links, as far as the archive holds them."""
    for _ in range(_STEPS):
        if name in files or name not in links:
            break
        name = links[name]
    return name

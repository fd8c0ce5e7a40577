"""Members of an archive: which are images, and what its links lead to."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Container

from .names import COMPRESSED, SUFFIX_KINDS, is_hidden, is_image, looks_like_image, suffix_of
from .source import DANGLING, HIDDEN, NO_SUFFIX, Tally

_STEPS = 16  # of a link that leads to a link


def images_among(
    files: Container[str], links: dict[str, str], names: list[str], head: Callable[[str], bytes], aside: Tally
) -> dict[str, str]:
    """Return the member that holds each image; what is none is counted.

    Args:
        files: members with content of their own.
        links: the path, from the archive's root, that each other member names.
        names: all members, files and links.
        head: gives the first bytes of a file.
        aside: where to count.
    """
    found = {}
    for name in names:
        if is_hidden(name):
            aside.add(HIDDEN, name)
            continue
        suffix = suffix_of(name)
        if suffix and not is_image(name):
            packed = suffix in SUFFIX_KINDS or suffix in COMPRESSED
            aside.add(f"{suffix} inside, to be unpacked first" if packed else suffix, name)
        elif (target := _followed(name, links, files)) is None:
            aside.add(DANGLING, name)
        elif suffix or looks_like_image(head(target)):
            found[name] = target
        else:
            aside.add(NO_SUFFIX, name)
    return found


def from_root(link: str, target: str) -> str:
    """Return the path within an archive that a symbolic link names: it is from the link's own folder."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(link), target))


def _followed(name: str, links: dict[str, str], files: Container[str]) -> str | None:
    """The member that a path leads to, over links; None if the archive doesn't hold it."""
    for _ in range(_STEPS):
        if name in files:
            return name
        if name not in links:
            return None
        name = links[name]
    return None

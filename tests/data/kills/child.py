"""The process that is killed: it packs images, and notes each event in its folder."""

from __future__ import annotations

import signal
from pathlib import Path

from ebgan_fast.data.prepare import prepare_images

from ...training.kills.cases import Kill
from ...training.kills.watching import Watch, noting

SIZE = 8


def process(source: Path, out: Path, per_shard: int, workers: int, notes: Path, kill: Kill | None) -> None:
    """Pack the images of a source, note each event, and die at the kill's event.

    Args:
        source: the folder of the images.
        out: the folder to make, or to go on with.
        per_shard: the number of images in a shard.
        workers: the number of processes that read images.
        notes: the file to which the process writes its events.
        kill: the kill at an event; None for none.
    """
    note = noting(notes)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent that ignores it passes this on
    Watch(out, lambda title: note("event", title), kill).install()
    note("begun", "")
    prepared = prepare_images(source, out, SIZE, workers=workers, shard_bytes=per_shard * 3 * SIZE * SIZE)
    note("ended", f"{prepared.images} 0")

"""A process that packs images, to be killed: it notes what it does in the folder."""

from __future__ import annotations

import signal
from pathlib import Path

from ebgan_fast.data.prepare import prepare_images

from ...training.kills.cases import Kill
from ...training.kills.watching import Watch, noting

SIZE = 8


def process(source: Path, out: Path, per_shard: int, workers: int, notes: Path, kill: Kill | None) -> None:
    """Pack the images of a source.

    Args:
        source: the images.
        out: the folder to make, or to go on with.
        per_shard: images of a shard.
        workers: processes.
        notes: the file of what it does.
        kill: a kill at an event.
    """
    note = noting(notes)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which whoever started this may ignore
    Watch(out, lambda title: note("event", title), kill).install()
    note("begun", "")
    prepared = prepare_images(source, out, SIZE, workers=workers, shard_bytes=per_shard * 3 * SIZE * SIZE)
    note("ended", f"{prepared.images} 0")

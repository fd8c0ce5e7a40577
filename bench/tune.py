"""The command `tune`: try other tiles on this GPU and write those that are faster into the Triton kernels' tables."""

from __future__ import annotations

from pathlib import Path

from . import devices, files
from .knobs import KNOBS, Knob
from .session import check_counts
from .terminal import note, progress, short

ROUNDS = 15


def tune(only: tuple[str, ...] = (), rounds: int = ROUNDS, out: Path | None = None) -> int:
    """Time other tiles of the Triton kernels on this GPU, and keep those that save 2 % or more.

    Each tile's results are checked before its time counts. There are over a thousand to compile, a few seconds each.
    The tables are written after every entry, so an interrupted run loses the entry at hand alone, and a run started
    again finds what it has compiled.

    Args:
        only: Parts of an entry's name, such as "gram" or "energy rows"; entries that hold none of them stay.
        rounds: Times each tile is timed; the median counts.
        out: Tables to write. None: those that the kernels use.
    """
    chosen = _chosen(only)
    check_counts(rounds=(rounds,))
    device = devices.gpu()
    if device.backend != "triton":
        raise ValueError(f"got ebgan_fast's backend {device.backend}, expected triton, whose tables these are")
    from .tuner import Tuner  # imports Triton, which a machine without a GPU may lack

    tuner = Tuner(device, rounds, out)
    files.check_replaceable(tuner.path, "out")
    with progress(len(chosen)) as (describe, advance):
        for knob in chosen:
            describe(knob.name)
            tuner.turn(knob)
            advance()
    print(f"tables: {short(tuner.path)}\ntrials: {short(tuner.trials)}")
    note("other tiles have other budgets: python -m tests.ops.triton.test_budgets, then run the tests")
    return 0


def _chosen(only: tuple[str, ...]) -> list[Knob]:
    for part in only:
        if not any(part in knob.name for knob in KNOBS):
            raise ValueError(f"only: got {part!r}, expected a part of one of: {'; '.join(knob.name for knob in KNOBS)}")
    return [knob for knob in KNOBS if not only or any(part in knob.name for part in only)]

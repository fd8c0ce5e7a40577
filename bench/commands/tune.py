"""The command `tune`: try other tiles on this GPU, and write the faster ones into the Triton kernels' tables."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from pathlib import Path

from ebgan_fast import backends

from ..terminal import note, progress, short
from ..timing import devices
from ..tuning.knobs import KNOBS, SWEEPS, Knob
from .session import check_appendable, check_least, check_replaceable

ROUNDS = 15


def tune(
    only: tuple[str, ...] = (),
    rounds: int = ROUNDS,
    sweeps: int = SWEEPS,
    cases: int | None = None,
    seconds: float | None = None,
    jobs: int = 1,
    out: Path | None = None,
    trials: Path | None = None,
) -> int:
    """Time other tiles of the Triton kernels on this GPU, and keep those that save 2 % or more.

    Each tile's results are checked before its time counts. There are over a thousand tiles to compile, a few seconds
    each. The tables are written after every entry, so an interrupted run loses the entry at hand alone. A run that is
    started again finds what it has compiled.

    Args:
        only: Parts of an entry's name, such as "gram" or "energy rows". Entries that hold none of them stay as they
            are. Entries of the first part come first.
        rounds: Times each tile is timed; the median counts.
        sweeps: Most times that the groups of fields of one entry are gone through.
        cases: The number of shapes that an entry's tiles are timed on. None: all.
        seconds: Seconds after which no entry is begun. None: all entries are tried.
        jobs: Processes that compile an entry's tiles before they are timed. 1: each tile is compiled at its turn.
        out: Tables to write. None: the tables that the kernels use.
        trials: File of JSON lines to add everything that was tried to. None: bench/results/tune-NAME.jsonl.
    """
    began = time.monotonic()
    chosen = _chosen(only)
    check_least(1, rounds=rounds, sweeps=sweeps, jobs=jobs)
    if cases is not None:
        check_least(1, cases=cases)
    device = devices.gpu()
    if "triton" not in (device.backend, *device.others):
        why = backends()["triton"].reason
        raise ValueError(f"got no backend triton, whose tables these are, expected one that can run ({why})")
    device = dataclasses.replace(device, backend="triton", others=())  # the GPU's first choice may be another backend
    from ..tuning.tuner import Compilers, Tuner  # imports Triton, which a machine without a GPU may lack

    done, wrong = 0, 0
    with contextlib.ExitStack() as stack:
        compilers = stack.enter_context(Compilers(jobs)) if jobs > 1 else None
        tuner = Tuner(device, rounds, out, sweeps, cases, trials, compilers.compile if compilers else None)
        check_replaceable(tuner.path, "out")
        if trials is not None:
            check_appendable(trials, "trials")
        describe, advance = stack.enter_context(progress(len(chosen)))
        for knob in chosen:
            if seconds is not None and time.monotonic() - began > seconds:
                break
            describe(knob.name)
            try:
                tuner.turn(knob)
            except ValueError as error:  # about this entry alone: the others are tried all the same
                note(str(error))
                wrong += 1
            done += 1
            advance()
    print(f"tables: {short(tuner.path)}\ntrials: {short(tuner.trials)}")
    print(f"tuned {done} of {len(chosen)} entries, {tuner.changed} of them anew")
    note("other tiles have other budgets: python -m tests.ops.triton.test_budgets, then run the tests")
    return 1 if wrong else 0


def _chosen(only: tuple[str, ...]) -> list[Knob]:
    """Return the knobs whose names hold one of the parts, in the order of the parts; all knobs for no part."""
    for part in only:
        if not any(part in knob.name for knob in KNOBS):
            raise ValueError(f"only: got {part!r}, expected a part of one of: {'; '.join(knob.name for knob in KNOBS)}")
    if not only:
        return list(KNOBS)
    return list({knob.name: knob for part in only for knob in KNOBS if part in knob.name}.values())

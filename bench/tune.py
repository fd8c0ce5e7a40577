"""The command `tune`: try other tiles on this GPU and write those that are faster into the Triton kernels' tables."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from pathlib import Path

from ebgan_fast import backends

from . import devices, files
from .knobs import KNOBS, Knob
from .search import SWEEPS
from .session import check_counts
from .terminal import note, progress, short

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

    Each tile's results are checked before its time counts. There are over a thousand to compile, a few seconds each.
    The tables are written after every entry, so an interrupted run loses the entry at hand alone, and a run started
    again finds what it has compiled.

    Args:
        only: Parts of an entry's name, such as "gram" or "energy rows"; entries that hold none of them stay. Those of
            the first part come first.
        rounds: Times each tile is timed; the median counts.
        sweeps: Most times that the fields of one entry are gone through.
        cases: Shapes that an entry's tiles are timed on, the first of its list. None: all.
        seconds: No entry is begun after so long. None: all are.
        jobs: Processes that compile an entry's tiles before they are timed. 1: each is compiled when its turn comes.
        out: Tables to write. None: those that the kernels use.
        trials: File of JSON lines to add everything that was tried to. None: bench/results/tune-NAME.jsonl.
    """
    began = time.monotonic()
    chosen = _chosen(only)
    check_counts(rounds=(rounds,), sweeps=(sweeps,), jobs=(jobs,))
    if cases is not None:
        check_counts(cases=(cases,))
    device = devices.gpu()
    if "triton" not in (device.backend, *device.others):
        why = backends()["triton"].reason
        raise ValueError(f"got no backend triton, whose tables these are, expected one that can run ({why})")
    device = dataclasses.replace(device, backend="triton", others=())  # the GPU's first choice may be another
    from .compiling import Compilers
    from .tuner import Tuner  # imports Triton, which a machine without a GPU may lack

    done, wrong = 0, 0
    with contextlib.ExitStack() as stack:
        compilers = stack.enter_context(Compilers(jobs)) if jobs > 1 else None
        tuner = Tuner(device, rounds, out, sweeps, cases, trials, compilers.compile if compilers else None)
        files.check_replaceable(tuner.path, "out")
        if trials is not None:
            files.check_appendable(trials, "trials")
        describe, advance = stack.enter_context(progress(len(chosen)))
        for knob in chosen:
            if seconds is not None and time.monotonic() - began > seconds:
                break
            describe(knob.name)
            try:
                tuner.turn(knob)
            except ValueError as error:  # of this entry: the others are still worth their time
                note(str(error))
                wrong += 1
            done += 1
            advance()
    print(f"tables: {short(tuner.path)}\ntrials: {short(tuner.trials)}")
    print(f"tuned {done} of {len(chosen)} entries, {tuner.changed} of them anew")
    note("other tiles have other budgets: python -m tests.ops.triton.test_budgets, then run the tests")
    return 1 if wrong else 0


def _chosen(only: tuple[str, ...]) -> list[Knob]:
    for part in only:
        if not any(part in knob.name for knob in KNOBS):
            raise ValueError(f"only: got {part!r}, expected a part of one of: {'; '.join(knob.name for knob in KNOBS)}")
    if not only:
        return list(KNOBS)
    return list({knob.name: knob for part in only for knob in KNOBS if part in knob.name}.values())

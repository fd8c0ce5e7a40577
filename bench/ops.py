"""The command `ops`: measure the chosen cases, print their table, and write it down."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import torch

from . import cases, providers
from .measure import measure
from .other_commit import check_threads, pair
from .rows import Result
from .session import DeviceName, Memory, Session, check_counts

ROUNDS, QUICK_ROUNDS = 20, 7
# Two threads show what sharing the memory costs; more cores are left to who has them.
THREADS = tuple(range(1, min(2, os.cpu_count() or 1) + 1))

DType = Literal["float32", "bfloat16", "float16", "float64"]


def ops(
    device: DeviceName = "cpu",
    quick: bool = False,
    threads: tuple[int, ...] | None = None,
    rounds: int | None = None,
    only: tuple[str, ...] = (),
    dtype: tuple[DType, ...] = ("float32",),
    compile: bool = True,
    compare: str | None = None,
    out: Path | None = None,
    memory: Memory = "returned",
) -> int:
    """Time every loss, forward and backward: ebgan_fast on each backend, eager torch, torch.compile, the formulas of
    public code (in float32, with freed memory returned), and the machine's own ceilings.

    Args:
        device: Where the tensors are. On "cuda" every case is timed twice: as it is called, and replayed from a CUDA
            graph, without the calls.
        quick: Some of the cases, one thread and 7 rounds: a minute and a half. On "cuda" six cases, without the
            reference and the formulas of public code.
        threads: Numbers of threads, one after the other. None: 1 and 2 (1 with --quick and --compare), and whatever
            torch has on "cuda".
        rounds: Times each case is timed. None: 20.
        only: Parts of "op shape"; a case that holds none of them is left out.
        dtype: Dtypes of the inputs, one after the other.
        compile: Time torch.compile too.
        compare: A commit of this repository, whose package is built and timed by turns with this one, each in a
            process of its own.
        out: File of JSON lines to add to. None: bench/results/ops-cpu.jsonl, or ops-NAME.jsonl of the GPU's name, for
            a whole run alone.
        memory: What becomes of freed memory: "returned" to the system as the C library likes, which is what a user's
            process does, or "kept" as the training program keeps it, so that no fresh gradient waits to be mapped.
    """
    chosen = _chosen(only, device if quick else None)
    if rounds is None:
        rounds = QUICK_ROUNDS if quick else ROUNDS
    if threads is None:
        threads = (torch.get_num_threads(),) if device == "cuda" else THREADS[:1] if quick or compare else THREADS
    check_counts(threads=threads, rounds=(rounds,))
    if compare and device == "cpu":
        check_threads(threads)
    if not dtype:
        raise ValueError("dtype: got none, expected at least one")
    session = Session.begin("ops", device, out, memory)
    wanted = [(count, getattr(torch, kind), case) for count in threads for kind in dtype for case in chosen]
    watches = session.device.watches
    with contextlib.ExitStack() as stack:
        apart = pair(compare, stack) if compare else []

        def measurements(describe: Callable[[str], None], advance: Callable[[], None]) -> Iterator[Result]:
            on_the_gpu_quickly = quick and device == "cuda"
            for count, kind, case in wanted:
                # Some take a second a call: once, under the conditions that most users have, is enough.
                with_published = kind == torch.float32 and session.memory == "returned" and not on_the_gpu_quickly
                # One for all watches: torch.compile takes seconds for each.
                contestants = providers.of(case, session.device, compile, with_published, not on_the_gpu_quickly)
                for watch in watches:
                    describe(f"{case.name} {kind}, threads {count}, {watch}")
                    setting = session.setting(rounds, threads=count, dtype=kind, watch=watch)
                    yield measure(case, setting, contestants, advance, apart)

        partial = left_out(device, threads, rounds, only, dtype, compile, memory, quick, compare)
        return session.finish(len(wanted) * len(watches) * rounds, measurements, partial)


def _chosen(only: tuple[str, ...], quick_on: DeviceName | None) -> list[cases.Case]:
    """`quick_on`: the device on which `--quick` keeps some of them; None: keep all."""
    for part in only:
        if not any(part in case.name for case in cases.CASES):
            names = "; ".join(case.name for case in cases.CASES)
            raise ValueError(f"only: got {part!r}, expected a part of one of: {names}")
    fitting = [case for case in cases.CASES if not only or any(part in case.name for part in only)]
    chosen = [case for case in fitting if quick_on is None or quick_on in case.quick]
    if not chosen:
        raise ValueError(f"only: got {' '.join(only)}, of which --quick keeps none: leave it out")
    return chosen


def left_out(
    device: str,
    threads: tuple[int, ...],
    rounds: int,
    only: tuple[str, ...],
    dtype: tuple[str, ...],
    compile: bool,
    memory: str,
    quick: bool,
    compare: str | None,
) -> list[str]:
    """Return why a run holds less, or other things, than the default file should."""
    wanted = THREADS if device == "cpu" else ()
    reasons = {
        "--quick": quick,
        "--only": bool(only),
        "--no-compile": not compile,
        "--compare": compare is not None,
        "without float32": "float32" not in dtype,
        f"without threads {' '.join(map(str, wanted))}": not set(wanted) <= set(threads),
        f"under {ROUNDS} rounds": rounds < ROUNDS and not quick,
        "memory kept": memory == "kept",
    }
    return [reason for reason, holds in reasons.items() if holds]

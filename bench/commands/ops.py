"""The command `ops`: time every loss beside eager torch, torch.compile and public code."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch

from ..processes.other_commit import check_threads, pair
from ..results.rows import Result
from ..subjects import cases
from ..timing import providers
from ..timing.measure import measure
from .session import Advance, Describe, DeviceName, Memory, Session, check_least

ROUNDS, QUICK_ROUNDS = 20, 7
# Two threads show what sharing the memory costs. A machine's other cores are not measured.
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
        threads: Numbers of threads, one after the other. None: 1 and 2 (1 with --quick and --compare), and torch's own
            number on "cuda".
        rounds: Times each case is timed. None: 20.
        only: Parts of "op shape". A case that holds none of them is left out.
        dtype: Dtypes of the inputs, one after the other.
        compile: Time torch.compile too.
        compare: A commit of this repository. Its package is built, and timed by turns with this one, each in a process
            of its own.
        out: File of JSON lines to add to. None: bench/results/ops-cpu.jsonl, or ops-NAME.jsonl with the GPU's name,
            which takes whole runs only.
        memory: What happens to freed memory. "returned": it goes back to the system, as in a user's process. "kept":
            it stays, as in the training program, so that no new gradient waits for pages to be mapped.
    """
    chosen = _chosen(only, device if quick else None)
    if rounds is None:
        rounds = QUICK_ROUNDS if quick else ROUNDS
    if threads is None:
        threads = (torch.get_num_threads(),) if device == "cuda" else THREADS[:1] if quick or compare else THREADS
    check_least(1, threads=threads, rounds=rounds)
    if compare and device == "cpu":
        check_threads(threads)
    if not dtype:
        raise ValueError("dtype: got none, expected at least one")
    session = Session.begin("ops", device, out, memory)
    wanted = [(count, getattr(torch, kind), case) for count in threads for kind in dtype for case in chosen]
    watches = session.device.watches
    with contextlib.ExitStack() as stack:
        processes = pair(compare, stack) if compare else []

        def measurements(describe: Describe, advance: Advance) -> Iterator[Result]:
            on_the_gpu_quickly = quick and device == "cuda"
            for count, kind, case in wanted:
                # Some public formulas take a second a call. They are timed once, under the conditions of most users.
                with_published = kind == torch.float32 and session.memory == "returned" and not on_the_gpu_quickly
                # The watches share the contestants, because torch.compile takes seconds for each.
                contestants = providers.of(case, session.device, compile, with_published, not on_the_gpu_quickly)
                for watch in watches:
                    describe(f"{case.name} {kind}, threads {count}, {watch}")
                    setting = session.setting(rounds, threads=count, dtype=kind, watch=watch)
                    yield measure(case, setting, contestants, advance, processes)

        partial = left_out(device, threads, rounds, only, dtype, compile, memory, quick, compare)
        return session.finish(len(wanted) * len(watches) * rounds, measurements, partial)


def _chosen(only: tuple[str, ...], quick_on: DeviceName | None) -> list[cases.Case]:
    """Return the cases to time.

    Args:
        only: Parts of the cases' names. Empty: all cases.
        quick_on: The device on which `--quick` keeps some cases. None: keep all.
    """
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
    """Return the reasons why a run holds less than the command's own file should, or other rows."""
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

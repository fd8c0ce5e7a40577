"""The command `ops`: measure the chosen cases, print their table, and write it down."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch

from ebgan_fast.training.memory import keep_freed_memory

from . import cases, devices, files, provenance, rows, table
from .devices import Device
from .measure import measure
from .terminal import note, progress, short

ROUNDS = 20
# Two threads show what sharing the memory costs; more cores are left to who has them.
THREADS = tuple(range(1, min(2, os.cpu_count() or 1) + 1))

DType = Literal["float32", "bfloat16", "float16", "float64"]


def ops(
    device: Literal["cpu", "cuda"] = "cpu",
    threads: tuple[int, ...] | None = None,
    rounds: int = ROUNDS,
    only: tuple[str, ...] = (),
    dtype: tuple[DType, ...] = ("float32",),
    compile: bool = True,
    out: Path | None = None,
    memory: Literal["returned", "kept"] = "returned",
) -> int:
    """Time every loss, forward and backward, against eager torch and torch.compile, and the machine's own ceilings.

    Args:
        device: Where the tensors are. On "cuda" every case is timed twice: as it is called, and replayed from a CUDA
            graph, without the calls.
        threads: Numbers of threads, one after the other. None: 1 and 2, and whatever torch has on "cuda".
        rounds: Times each case is timed; the best counts.
        only: Parts of "op shape"; a case that holds none of them is left out.
        dtype: Dtypes of the inputs, one after the other.
        compile: Time torch.compile too.
        out: File of JSON lines to replace. None: bench/results/ops-cpu.jsonl, or ops-NAME.jsonl of the GPU's name, for
            a whole run alone.
        memory: What becomes of freed memory: "returned" to the system as the C library likes, which is what a user's
            process does, or "kept" as the training program keeps it, so that no fresh gradient waits to be mapped.
    """
    chosen = _chosen(only)
    if threads is None:
        threads = THREADS if device == "cpu" else (torch.get_num_threads(),)
    _check(threads, rounds, dtype, out)
    place = devices.cpu() if device == "cpu" else devices.gpu()
    partial = _partial(place, threads, rounds, only, dtype, compile, memory)
    memory = _apply(memory)
    environment = provenance.environment(place.torch, place.backend)
    if device == "cpu" and (newer := provenance.stale_extension()):
        note(f"{newer} is newer than the built extension: build it again, or the source hash tells another story")
    settings = [
        (watch, count, kind, case) for watch in place.watches for count in threads for kind in dtype for case in chosen
    ]
    measured: list[rows.Row] = []
    try:
        with progress(len(settings) * rounds) as (describe, advance):
            for watch, count, kind, case in settings:
                describe(f"{case.name} {kind}, threads {count}, {watch}")
                measured.append(
                    measure(
                        case,
                        getattr(torch, kind),
                        place,
                        watch,
                        count,
                        rounds=rounds,
                        with_compile=compile,
                        memory=memory,
                        environment=environment,
                        after_round=advance,
                    )
                )
    except KeyboardInterrupt:
        if measured:
            table.show(measured)
        raise
    table.show(measured)
    wrong = _complain(measured)
    _keep(measured, out or place.results("ops"), out is None, [*partial, *(["wrong results"] if wrong else [])])
    return 1 if wrong else 0


def _chosen(only: tuple[str, ...]) -> list[cases.Case]:
    for part in only:
        if not any(part in case.name for case in cases.CASES):
            names = "; ".join(case.name for case in cases.CASES)
            raise ValueError(f"only: got {part!r}, expected a part of one of: {names}")
    return [case for case in cases.CASES if not only or any(part in case.name for part in only)]


def _check(threads: tuple[int, ...], rounds: int, dtype: tuple[str, ...], out: Path | None) -> None:
    for name, values in (("threads", threads), ("rounds", (rounds,))):
        if not values or min(values) < 1:
            raise ValueError(f"{name}: got {' '.join(map(str, values)) or 'none'}, expected at least 1")
    if not dtype:
        raise ValueError("dtype: got none, expected at least one")
    if out is not None:
        files.check_replaceable(out, "out")


def _partial(
    place: Device,
    threads: tuple[int, ...],
    rounds: int,
    only: tuple[str, ...],
    dtype: tuple[str, ...],
    compile: bool,
    memory: str,
) -> list[str]:
    """Why a run holds less than the default file should."""
    wanted = THREADS if place.torch.type == "cpu" else ()
    reasons = {
        "--only": bool(only),
        "--no-compile": not compile,
        "without float32": "float32" not in dtype,
        f"without threads {' '.join(map(str, wanted))}": not set(wanted) <= set(threads),
        f"under {ROUNDS} rounds": rounds < ROUNDS,
        "memory kept": memory == "kept",
    }
    return [reason for reason, holds in reasons.items() if holds]


def _apply(memory: Literal["kept", "returned"]) -> Literal["kept", "returned"]:
    """Must come before any tensor is allocated; what the system then does."""
    if memory == "returned":
        return memory
    if keep_freed_memory():
        return "kept"
    note("this system's allocator cannot be told to keep freed memory: measured with memory returned")
    return "returned"


def _complain(measured: list[rows.Row]) -> bool:
    """Whether any result is wrong. Another provider that a CUDA graph does not take is none."""
    wrong = False
    for row in measured:
        for provider, why in row.wrong.items():
            note(f"{provider} at {row.op} {row.shape} {row.dtype}, {row.setting}: {why}")
            wrong |= row.watch == "called" or provider == rows.PACKAGE
    return wrong


def _keep(measured: list[rows.Row], path: Path, is_default: bool, partial: list[str]) -> None:
    if is_default and partial:
        note(f"not a whole run ({', '.join(partial)}): {short(path)} is left as it is; --out FILE writes these rows")
        return
    rows.write(measured, path)
    print(f"written to {short(path)}")

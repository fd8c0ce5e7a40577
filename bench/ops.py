"""The command `ops`: measure the chosen cases, print their table, and write it down."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ebgan_fast.ops.backends import choose
from ebgan_fast.training.memory import keep_freed_memory

from . import cases, provenance, rows, table
from .measure import measure

RESULTS = provenance.ROOT / "bench" / "results" / "ops-cpu.jsonl"
ROUNDS = 20
# Two threads show what sharing the memory costs; more cores are left to who has them.
THREADS = tuple(range(1, min(2, os.cpu_count() or 1) + 1))

DType = Literal["float32", "bfloat16", "float16", "float64"]


def ops(
    device: Literal["cpu"] = "cpu",
    threads: tuple[int, ...] = THREADS,
    rounds: int = ROUNDS,
    only: tuple[str, ...] = (),
    dtype: tuple[DType, ...] = ("float32",),
    compile: bool = True,
    out: Path | None = None,
    memory: Literal["returned", "kept"] = "returned",
) -> int:
    """Time every loss, forward and backward, against eager torch and torch.compile, and the machine's own ceilings.

    Args:
        device: Where the tensors are.
        threads: Numbers of threads, one after the other.
        rounds: Times each case is timed; the best counts.
        only: Parts of "op shape"; a case that holds none of them is left out.
        dtype: Dtypes of the inputs, one after the other.
        compile: Time torch.compile too.
        out: File of JSON lines to replace. None: bench/results/ops-cpu.jsonl, for a whole run alone.
        memory: What becomes of freed memory: "returned" to the system as the C library likes, which is what a user's
            process does, or "kept" as the training program keeps it, so that no fresh gradient waits to be mapped.
    """
    chosen = _chosen(only)
    _check(threads, rounds, dtype, out)
    partial = _partial(threads, rounds, only, dtype, compile, memory)
    memory = _apply(memory)
    environment = provenance.environment()
    if newer := provenance.stale_extension():
        _note(f"{newer} is newer than the built extension: build it again, or the source hash tells another story")
    settings = [(count, kind, case) for count in threads for kind in dtype for case in chosen]
    measured: list[rows.Row] = []
    try:
        with _progress(len(settings) * rounds) as (describe, advance):
            for count, kind, case in settings:
                describe(f"{case.name} {kind}, threads {count}")
                measured.append(
                    measure(
                        case,
                        getattr(torch, kind),
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
    wrong = [
        f"{provider} at {row.op} {row.shape} {row.dtype}, threads {row.threads}: {why}"
        for row in measured
        for provider, why in row.wrong.items()
    ]
    for line in wrong:
        _note(line)
    _keep(measured, out, [*partial, *(["wrong results"] if wrong else [])])
    return 1 if wrong else 0


def _chosen(only: tuple[str, ...]) -> list[cases.Case]:
    for part in only:
        if not any(part in case.name for case in cases.CASES):
            names = "; ".join(case.name for case in cases.CASES)
            raise ValueError(f"only: got {part!r}, expected a part of one of: {names}")
    return [case for case in cases.CASES if not only or any(part in case.name for part in only)]


def _check(threads: tuple[int, ...], rounds: int, dtype: tuple[str, ...], out: Path | None) -> None:
    """Minutes before anything could be written."""
    for name, values in (("threads", threads), ("rounds", (rounds,))):
        if not values or min(values) < 1:
            raise ValueError(f"{name}: got {' '.join(map(str, values)) or 'none'}, expected at least 1")
    if not dtype:
        raise ValueError("dtype: got none, expected at least one")
    if out is not None and (out.is_dir() or not os.access(out.absolute().parent, os.W_OK)):
        raise ValueError(f"out: got {out}, expected a file in a folder that exists and can be written to")
    if (backend := choose("cpu")) != "cpu":
        raise ValueError(f"got ebgan_fast's backend {backend}, expected cpu: `ebgan-fast doctor` says what it lacks")


def _partial(
    threads: tuple[int, ...], rounds: int, only: tuple[str, ...], dtype: tuple[str, ...], compile: bool, memory: str
) -> list[str]:
    """Why a run holds less than the default file should."""
    reasons = {
        "--only": bool(only),
        "--no-compile": not compile,
        "without float32": "float32" not in dtype,
        f"without threads {' '.join(map(str, THREADS))}": not set(THREADS) <= set(threads),
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
    _note("this system's allocator cannot be told to keep freed memory: measured with memory returned")
    return "returned"


def _keep(measured: list[rows.Row], out: Path | None, partial: list[str]) -> None:
    if out is None and partial:
        _note(
            f"not a whole run ({', '.join(partial)}): {_short(RESULTS)} is left as it is; --out FILE writes these rows"
        )
        return
    path = out or RESULTS
    rows.write(measured, path)
    print(f"written to {_short(path)}")


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _note(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr)


@contextlib.contextmanager
def _progress(rounds: int) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """(describe, advance by a round): a bar on a terminal, silence elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Drawn between rounds alone: a thread that redraws would be timed with the kernels.
    with Progress(
        *columns, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=rounds)
        yield (
            lambda text: bar.update(task, description=text, refresh=True),
            lambda: bar.update(task, advance=1, refresh=True),
        )

"""The command `memory`: what a loss takes beyond its inputs, at the peak of forward and backward."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import cases, devices, provenance, providers
from .cases import Case
from .correctness import leaves
from .provenance import ROOT
from .rows import MemoryRow, Result
from .session import DeviceName, Session

CASES: tuple[Case, ...] = (
    cases.discriminator(64, 3, 64, 64),
    cases.discriminator(64, 3, 128, 128),
    cases.generator(64, 3, 64, 64, d=16384),
    cases.energy(64, 3, 128, 128),
    cases.pulling_away(64, 16384),
    cases.pulling_away(2048, 512),
    cases.pulling_away(4096, 256),
)


def memory(device: DeviceName = "cpu", compile: bool = True, out: Path | None = None) -> int:
    """Find the peak of every provider's memory, each in a process of its own, one thread.

    On the CPU it is the system's figure for the process (Linux), scratch memory of the C++ kernels and freed memory
    that the allocator keeps included.

    Args:
        device: Where the tensors are.
        compile: Measure torch.compile too.
        out: File of JSON lines to add to. None: bench/results/memory-cpu.jsonl, or memory-NAME.jsonl of the GPU's
            name, for a whole run alone.
    """
    if device == "cpu" and not Path("/proc/self/clear_refs").exists():
        raise ValueError("memory on the CPU: got a system without /proc/self/clear_refs, expected Linux")
    session = Session.begin("memory", device, out)
    wanted = [(case, [one.name for one in providers.of(case, session.device, compile)]) for case in CASES]

    def measurements(describe: Callable[[str], None], advance: Callable[[], None]) -> Iterator[Result]:
        for case, names in wanted:
            peak, first_call, wrong = {}, {}, {}
            for name in names:
                describe(f"{case.name}, {name}")
                answer = asked(case, name, device)
                if isinstance(answer, str):
                    wrong[name] = answer
                else:
                    peak[name], first_call[name] = answer["peak"], answer["first_call"]
                advance()
            yield _row(case, session, peak, first_call, wrong)

    return session.finish(sum(len(names) for _, names in wanted), measurements, ["--no-compile"] * (not compile))


def asked(case: Case, provider: str, device: str) -> dict[str, Any] | str:
    """Return what a process of its own measured, or why there is nothing."""
    command = [sys.executable, "-m", "bench.memory_process", case.name, provider, device]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"cannot run: {next(iter(reversed(done.stderr.strip().splitlines())), done.returncode)}"
    answer: dict[str, Any] | str = json.loads(done.stdout)
    return answer


def _row(
    case: Case, session: Session, peak: dict[str, int], first_call: dict[str, float], wrong: dict[str, str]
) -> MemoryRow:
    drawn = case.inputs(torch.float32)
    return MemoryRow(
        run=session.run,
        op=case.op,
        shape=case.shape,
        dtype="float32",
        threads=1,
        device=session.device.torch.type,
        memory=session.memory,
        inputs=sum(value.nbytes for value in drawn.values() if isinstance(value, Tensor)),
        gradients=sum(leaf.nbytes for leaf in leaves(drawn).values()),
        peak=peak,
        first_call=first_call,
        wrong=wrong,
        date=provenance.now(),
        **session.environment,
    )


def named(case: str, provider: str, device: str) -> tuple[Case, providers.Provider, devices.Device]:
    """Return the case, the provider and the device that a process was asked for."""
    (chosen,) = (one for one in CASES if one.name == case)
    place = devices.named(device)
    (asked,) = (one for one in providers.of(chosen, place) if one.name == provider)
    return chosen, asked, place

"""The command `memory`: find the memory that a loss takes beyond its inputs, at the peak of forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..processes import memory_peak
from ..results.rows import MemoryRow, Result
from ..subjects import cases
from ..subjects.calls import leaves
from ..subjects.cases import Case
from ..timing import providers
from .session import Advance, Describe, DeviceName, Session


def memory(device: DeviceName = "cpu", compile: bool = True, out: Path | None = None) -> int:
    """Find the peak of every provider's memory, each in a process of its own, one thread.

    On the CPU it is the system's figure for the process (Linux), scratch memory of the C++ kernels and freed memory
    that the allocator keeps included.

    Args:
        device: Where the tensors are.
        compile: Measure torch.compile too.
        out: File of JSON lines to add to. None: bench/results/memory-cpu.jsonl, or memory-NAME.jsonl with the GPU's
            name, which takes whole runs only.
    """
    if device == "cpu" and not Path("/proc/self/clear_refs").exists():
        raise ValueError("memory on the CPU: got a system without /proc/self/clear_refs, expected Linux")
    session = Session.begin("memory", device, out)
    wanted = [(case, [one.name for one in providers.of(case, session.device, compile)]) for case in cases.LARGE]

    def measurements(describe: Describe, advance: Advance) -> Iterator[Result]:
        for case, names in wanted:
            peak, first_call, wrong = {}, {}, {}
            for name in names:
                describe(f"{case.name}, {name}")
                answer = memory_peak.asked(case, name, device)
                if isinstance(answer, str):
                    wrong[name] = answer
                else:
                    peak[name], first_call[name] = answer["peak"], answer["first_call"]
                advance()
            yield _row(case, session, peak, first_call, wrong)

    return session.finish(sum(len(names) for _, names in wanted), measurements, ["--no-compile"] * (not compile))


def _row(
    case: Case, session: Session, peak: dict[str, int], first_call: dict[str, float], wrong: dict[str, str]
) -> MemoryRow:
    drawn = case.inputs(torch.float32)
    return MemoryRow(
        op=case.op,
        shape=case.shape,
        dtype="float32",
        threads=1,
        memory=session.memory,
        inputs=sum(value.nbytes for value in drawn.values() if isinstance(value, Tensor)),
        gradients=sum(leaf.nbytes for leaf in leaves(drawn).values()),
        peak=peak,
        first_call=first_call,
        wrong=wrong,
        **session.conditions(),
    )

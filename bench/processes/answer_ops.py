"""The answering end of `other_commit.PackageProcess`, which times a package's ops.

The package may be an old commit's. So this module imports no more of ebgan_fast than its public functions.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

import ebgan_fast

from ..subjects import cases
from ..subjects.calls import Judge, on, results, step
from ..terminal import first_line
from ..timing.watches import Called, Clock, Replayed, WallClock, Watch, clock_of


def _watch(device: torch.device, name: str) -> Watch:
    if device.type == "cpu":
        return WallClock()
    return Called() if name == "called" else Replayed()


def _prepared(question: dict[str, Any]) -> tuple[str | None, Clock]:
    """Return why the package gets no time on a case, or None, and the case's clock."""
    torch.set_num_threads(question["threads"])
    device = torch.device(question["device"])
    case = next(case for case in (*cases.CASES, *cases.TINY) if case.name == question["case"])
    drawn = case.inputs(getattr(torch, question["dtype"]))
    copies = [on(drawn, device) for _ in range(question["copies"])]
    try:
        complaint = Judge(case, copies[0]).complaint(results(case.package, copies[0]))
        clock = clock_of(step(case.package, copies, question["mode"]), _watch(device, question["watch"]))
    except Exception as error:  # an old commit may raise anything
        return f"cannot run: {first_line(error)}", lambda repeats: 0.0
    return complaint, clock


def serve() -> None:
    """Answer questions until the other end is closed."""
    clock: Clock = lambda repeats: 0.0  # noqa: E731
    for line in sys.stdin:
        question = json.loads(line)
        answer: dict[str, Any] = {}
        if question["question"] == "where":
            answer["where"] = ebgan_fast.__file__
        elif question["question"] == "prepare":
            answer["complaint"], clock = _prepared(question)
        else:
            answer["seconds"] = clock(question["repeats"])
        print(json.dumps(answer), flush=True)

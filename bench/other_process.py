"""The other end of `other_commit`: answers one question a line. It imports no more of ebgan_fast than its public
functions, as the commit may be an old one."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

import ebgan_fast

from . import cases
from .correctness import Judge, results
from .cuda_timing import Called, Replayed
from .steps import first_line, step
from .timing import Clock, WallClock, Watch


def _watch(device: torch.device, name: str) -> Watch:
    if device.type == "cpu":
        return WallClock()
    return Called() if name == "called" else Replayed()


def _prepared(question: dict[str, Any]) -> tuple[str | None, Clock]:
    torch.set_num_threads(question["threads"])
    device = torch.device(question["device"])
    case = next(case for case in (*cases.CASES, *cases.TINY) if case.name == question["case"])
    drawn = case.inputs(getattr(torch, question["dtype"]))
    copies = [cases.on(drawn, device) for _ in range(question["copies"])]
    watch = _watch(device, question["watch"])
    try:
        complaint = Judge(case, copies[0]).complaint(results(case.package, copies[0]))
        ready = watch.prepared(step(case.package, copies, question["mode"]))
    except Exception as error:  # whatever an old commit may raise
        return f"cannot run: {first_line(error)}", lambda repeats: 0.0
    return complaint, lambda repeats: watch.seconds(ready, repeats)


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

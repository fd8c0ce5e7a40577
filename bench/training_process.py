"""The other end of `other_training`: builds, checks and times training steps, as it is asked to."""

from __future__ import annotations

import contextlib
import gc
import json
import sys
from typing import Any

import torch

import ebgan_fast

from . import first_step
from .steps import first_line
from .training_step import Timed, Wanted, timed, warm


def _keep_freed_memory() -> None:
    """As the training program does, where the commit has it."""
    with contextlib.suppress(ImportError):
        from ebgan_fast.training.memory import keep_freed_memory

        keep_freed_memory()


def _begin(question: dict[str, Any]) -> None:
    torch.set_num_threads(question["threads"])
    torch.backends.cudnn.benchmark = question["cudnn_benchmark"]
    _keep_freed_memory()
    warm(torch.device(question["device"]))


def _check(wanted: Wanted) -> None:
    images = wanted.images()
    first_step.check(first_step.Begin.of(wanted.config(), images), images)


def _prepared(wanted: Wanted, stack: contextlib.ExitStack) -> Timed:
    """A step; one that can't run leaves nothing on the stack."""
    with contextlib.ExitStack() as own:
        one = timed(lambda: wanted.step(own), torch.device(wanted.device))
        stack.enter_context(own.pop_all())
    return one


def serve() -> None:
    """Answer questions until the other end is closed."""
    contestants: dict[str, Timed] = {}
    with contextlib.ExitStack() as stack:
        for line in sys.stdin:
            question = json.loads(line)
            answer: dict[str, Any] = {}
            try:
                if question["question"] == "where":
                    answer["where"] = ebgan_fast.__file__
                elif question["question"] == "begin":
                    _begin(question)
                elif question["question"] == "check":
                    _check(Wanted(**question["wanted"]))
                elif question["question"] == "prepare":
                    wanted = Wanted(**question["wanted"])
                    wanted.images()  # the memory that they take is not the step's
                    contestants[question["name"]] = one = _prepared(wanted, stack)
                    answer |= {"first_call": one.first_call, "peak": one.peak}
                else:
                    answer["seconds"] = contestants[question["name"]].clock(question["repeats"])
            except Exception as error:  # whatever an old commit may raise
                answer["complaint"] = (
                    str(error) if isinstance(error, ValueError) else f"cannot run: {first_line(error)}"
                )
            if (
                "complaint" in answer
            ):  # out here its tensors are nobody's any more, and the next step may need the memory
                gc.collect()
                torch.cuda.empty_cache()
            print(json.dumps(answer), flush=True)

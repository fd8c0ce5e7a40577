"""The other end of `other_training`: builds, checks and times training steps, as it is asked to."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

import torch

import ebgan_fast

from . import first_step, peak
from .steps import complaint
from .trainer import keep_freed_memory
from .training_step import Timed, Wanted, contestant, warm


def _begin(question: dict[str, Any]) -> None:
    torch.set_num_threads(question["threads"])
    torch.backends.cudnn.benchmark = question["cudnn_benchmark"]
    keep_freed_memory()  # as the training program of the commit does
    warm(torch.device(question["device"]))


def _check(wanted: Wanted) -> None:
    images = wanted.images()
    first_step.check(first_step.Begin.of(wanted.config(), images), images)


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
                    contestants[question["name"]] = one = contestant(wanted, stack)
                    answer |= {"first_call": one.first_call, "peak": one.peak}
                else:
                    answer["seconds"] = contestants[question["name"]].clock(question["repeats"])
            except Exception as error:  # whatever an old commit may raise
                answer["complaint"] = complaint(error)
            if "complaint" in answer:
                # Out here its tensors are nobody's any more, and the next step may need the memory.
                peak.release()
            print(json.dumps(answer), flush=True)

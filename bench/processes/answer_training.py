"""The answering end of `other_commit.TrainingProcess`, which builds, checks and times training steps.

The package may be an old commit's. So this module imports no more of ebgan_fast than `training_step` does.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

import torch

import ebgan_fast

from ..subjects import training_step
from ..subjects.training_step import Wanted, keep_freed_memory
from ..terminal import complaint
from ..timing import watches
from ..timing.contestants import Timed, contestant, warm


def _begin(question: dict[str, Any]) -> None:
    torch.set_num_threads(question["threads"])
    torch.backends.cudnn.benchmark = question["cudnn_benchmark"]
    keep_freed_memory()  # as the training program of the commit does
    warm(torch.device(question["device"]))


def _check(wanted: Wanted) -> None:
    images = wanted.images()
    training_step.check(training_step.Begin.of(wanted.config(), images), images)


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
                    wanted.images()  # read here, so that their memory does not count as the step's
                    contestants[question["name"]] = one = contestant(wanted, stack)
                    answer |= {"first_call": one.first_call, "peak": one.peak}
                else:
                    answer["seconds"] = contestants[question["name"]].clock(question["repeats"])
            except Exception as error:  # an old commit may raise anything
                answer["complaint"] = complaint(error)
            if "complaint" in answer:
                # Outside the handler the error no longer holds the tensors, whose memory the next step may need.
                watches.release()
            print(json.dumps(answer), flush=True)

"""Training steps in a process of their own: those of another commit's package, or with another choice of cuDNN's.

torch keeps cuDNN's choices in one table for the process, and looks there first, whatever
`torch.backends.cudnn.benchmark` said when they were made. So steps with and without it can't share a process.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .asked import Asked
from .provenance import ROOT
from .training_step import Timed, Wanted


class TrainingProcess(Asked):
    """Times steps one by one on demand; idle in between.

    Args:
        name: in words, for messages.
        device: of the steps.
        threads: processor threads.
        cudnn_benchmark: whether cuDNN tries its algorithms.
        paths: where to import from; this commit's by default.
    """

    def __init__(
        self,
        name: str,
        device: torch.device,
        threads: int,
        cudnn_benchmark: bool = False,
        paths: Sequence[Path] = (ROOT,),
    ) -> None:
        super().__init__(name, "training_process", paths)
        self._cudnn_benchmark = cudnn_benchmark
        self._told("begin", device=str(device), threads=threads, cudnn_benchmark=cudnn_benchmark)

    def _told(self, question: str, **details: Any) -> dict[str, Any]:
        answer = self.ask(question, **details)
        if "complaint" in answer:
            raise ValueError(f"{self.name}: {answer['complaint']}")
        return answer

    def check(self, wanted: Wanted) -> None:
        """Raises ValueError where the first losses of the step are not right."""
        self._told("check", wanted=dataclasses.asdict(wanted))

    def contestant(self, name: str, wanted: Wanted) -> Timed:
        """A step, after its first call. Raises ValueError where it can't run."""
        told = self._told("prepare", name=name, wanted=dataclasses.asdict(wanted))

        def clock(repeats: int) -> float:
            return float(self._told("time", name=name, repeats=repeats)["seconds"])

        return Timed(clock, told["first_call"], told["peak"], self._cudnn_benchmark)

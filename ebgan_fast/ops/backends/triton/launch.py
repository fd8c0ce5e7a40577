"""A kernel launch as one value, and the function that runs it.

Tests replace `run` with another function. It compiles the launch ahead of time for a GPU that is not present, or runs
it on a simulator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# The options of every compilation. With fused multiply-adds, a sum over lanes can have different last bits in different
# lanes: fma(a, a, b*b) is not fma(b, b, a*a). Then the lanes of one sample could disagree on whether the sample is past
# the margin. The kernels wait for memory or for tensor cores, so the saved instructions would gain nothing.
OPTIONS = {"enable_fp_fusion": False}


@dataclass(frozen=True)
class Launch:
    """A kernel with its grid and every argument by name, in the order of the kernel's signature, constants included."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    num_warps: int
    num_stages: int = 1


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among the arguments, including those in tuples."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple):
            yield from _tensors(value)


def run(launch: Launch) -> None:
    """Run the launch on the current stream of the device that holds its first tensor."""
    device = next(_tensors(launch.arguments.values())).device
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            _run_here(launch)
    else:
        _run_here(launch)


def _run_here(launch: Launch) -> None:
    options = {"num_warps": launch.num_warps, "num_stages": launch.num_stages, **OPTIONS}
    launch.kernel[launch.grid](**launch.arguments, **options)

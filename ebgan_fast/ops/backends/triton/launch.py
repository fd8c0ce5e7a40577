"""One way from an op to a kernel: everything that a launch needs as one value.

The tests put another function in the place of `run`: one that compiles the launch ahead of time for a GPU that is not
there, or runs it on a simulator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Options of every compile. A sum over lanes with products fused into it ends with other last bits in other lanes:
# fma(a, a, b*b) is not fma(b, b, a*a). Lanes of one sample could then disagree on which side of the margin it is. The
# kernels wait for memory or for tensor cores, so the instructions saved are worth nothing.
OPTIONS = {"enable_fp_fusion": False}


@dataclass(frozen=True)
class Launch:
    """A kernel with its grid and every argument by name, in the order of its signature, constants included."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    num_warps: int
    num_stages: int = 1


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among arguments, of tuples too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple):
            yield from _tensors(value)


def run(launch: Launch) -> None:
    """Run it on the current stream of the device that holds its first tensor."""
    device = next(_tensors(launch.arguments.values())).device
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            _run_here(launch)
    else:
        _run_here(launch)


def _run_here(launch: Launch) -> None:
    options = {"num_warps": launch.num_warps, "num_stages": launch.num_stages, **OPTIONS}
    launch.kernel[launch.grid](**launch.arguments, **options)

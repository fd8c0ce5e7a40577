"""The processes of a run: one alone, or those that torchrun started, with what they tell each other."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn.parallel import DistributedDataParallel

# The first process scores and draws while the others wait in their next collective.
_PATIENCE = timedelta(hours=1)

# torch 2.13 names it anew and warns of the old name.
_NAMES = inspect.signature(DistributedDataParallel).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers"


@dataclass
class World:
    """The processes of a run. Without arguments: this process alone.

    Attributes:
        rank: this process, from 0; the first one writes all files.
        size: how many there are.
        group: for tensors on the run's device; None when alone.
        control: for tensors on the CPU; None when alone. On the CPU the same as `group`.
    """

    rank: int = 0
    size: int = 1
    group: ProcessGroup | None = None
    control: ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def data_parallel(self, net: nn.Module) -> nn.Module:
        """`net` with gradients averaged over the processes as backward fills them.

        Buffers stay each process's own: batch norm in training looks at its batch alone, and the samples'
        statistics are measured afresh.
        """
        if self.size == 1:
            return net
        own_buffers: dict[str, Any] = {_SYNC_BUFFERS: False}
        return DistributedDataParallel(net, **own_buffers)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes of a tensor on the CPU."""
        if self.control is not None:
            dist.all_reduce(values, group=self.control)
            values /= self.size
        return values

    def any(self, here: bool) -> bool:
        """Whether it holds for any process."""
        if self.control is None:
            return here
        votes = torch.tensor(int(here))
        dist.all_reduce(votes, dist.ReduceOp.MAX, group=self.control)
        return bool(votes)

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.any(False)


class StopVote:
    """Whether any process was asked to stop, answered by all at the same step without waiting for one another.

    A signal reaches processes at different steps, and one that left alone would leave the others waiting for its
    gradients. So each step's votes are counted in the background and read a step later.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._pending: tuple[Tensor, dist.Work] | None = None

    def __call__(self, received: int | None) -> int | None:
        """Vote with the signal received so far, or None; returns the largest of the votes of a step earlier."""
        if self._world.control is None:
            return received
        counted = self._count()
        votes = torch.tensor(received or 0)
        work = dist.all_reduce(votes, dist.ReduceOp.MAX, group=self._world.control, async_op=True)
        assert work is not None
        self._pending = votes, work
        return counted

    def close(self) -> None:
        """Wait for the votes under way."""
        self._count()

    def _count(self) -> int | None:
        if self._pending is None:
            return None
        votes, work = self._pending
        self._pending = None
        work.wait()
        return int(votes) or None


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """The world that torchrun's environment variables describe; this process alone without them.

    A thread of gloo that lets go of a Python tensor while the interpreter ends aborts the process, and a group's
    threads end with the last reference to it, which DistributedDataParallel (torch 2.13) never drops. So the default
    group carries gradients alone, and all other tensors have a group whose threads have ended on leaving.

    Args:
        device: of the run; NCCL joins GPUs, gloo all else.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    world = World(dist.get_rank(), size)
    try:
        world.control = dist.new_group(backend="gloo", timeout=_PATIENCE)
        world.group = dist.group.WORLD if on_gpu else world.control
        yield world
    finally:
        world.group = world.control = None
        dist.destroy_process_group()


def own_device(name: str) -> torch.device:
    """The device that a config's name means for this process.

    "auto" is a GPU if there is one. On GPUs each process of torchrun takes the one of its local rank.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device

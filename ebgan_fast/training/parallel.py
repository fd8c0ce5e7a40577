"""The processes of a run, one or those that torchrun started: their devices, how they communicate, and how they
stop."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn.parallel import DistributedDataParallel

from .._console import first_line, shown

# How long a collective operation waits. Meanwhile the first process may draw; for longer work there is `Absence`.
_PATIENCE = timedelta(hours=1)

# torch 2.13 has renamed this argument, and warns of the old name.
_NAMES = inspect.signature(DistributedDataParallel).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers"

# Windows lacks the last two. Closing a terminal sends SIGHUP. A batch system can be told to send SIGUSR1 before a job's
# time limit.
_SIGNAL_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
_SIGNALS = tuple(getattr(signal, name) for name in _SIGNAL_NAMES if hasattr(signal, name))
_INSISTENT = (signal.SIGINT, signal.SIGTERM)


@dataclass
class World:
    """The processes of a run. Without arguments: this process alone.

    Attributes:
        rank: the number of this process, from 0. The first process, rank 0, writes all files.
        size: the number of processes.
        group: the process group for tensors on the run's device; None for a single process.
        control: the process group for tensors on the CPU; None for a single process. In a run on the CPU, it is
            `group`.
    """

    rank: int = 0
    size: int = 1
    group: ProcessGroup | None = None
    control: ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def data_parallel(self, net: nn.Module) -> nn.Module:
        """Return `net` with gradients averaged over the processes while backward computes them.

        Buffers aren't exchanged. In training, batch norm uses its own process's part of the batch alone. For samples,
        its statistics are measured again.
        """
        if self.size == 1:
            return net
        own_buffers: dict[str, Any] = {_SYNC_BUFFERS: False}
        return DistributedDataParallel(net, **own_buffers)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over the processes of a tensor on the CPU."""
        if self.control is not None:
            dist.all_reduce(values, group=self.control)
            values /= self.size
        return values

    def largest(self, *here: int) -> tuple[int, ...]:
        """Return the largest value over the processes, for each of the numbers."""
        if self.control is None:
            return here
        numbers = torch.tensor(here)
        dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self.control)
        return tuple(numbers.tolist())

    def any(self, here: bool) -> bool:
        """Return True in every process if `here` is True in any of them."""
        return bool(self.largest(here)[0])


class StoppedError(Exception):
    """The error that ends long work when a signal has come.

    Attributes:
        number: the number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class StopSignals:
    """A context in which SIGINT, SIGTERM, SIGHUP and SIGUSR1 are noted in `received`, so that the loop can stop.

    A second SIGINT or a second SIGTERM stops at once, by SystemExit with status 128 + its number. Other repeated
    signals count once: a closed terminal sends SIGHUP twice, and torchrun sends SIGTERM after the terminal's SIGINT.

    A signal that the program was started to ignore stays ignored, such as SIGHUP under nohup. SIGINT doesn't, because
    shells ignore it for programs in the background. Python delivers signals to the main thread alone, so the context
    does nothing in other threads. On exit, the earlier handlers are restored.

    Attributes:
        received: the number of the first signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._seen: set[int] = set()
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # None stands for a handler that wasn't installed from Python. It can't be restored.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
        self._before.clear()

    def check(self) -> None:
        """Raise a StoppedError if a signal has come."""
        if self.received is not None:
            raise StoppedError(self.received)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number in self._seen and number in _INSISTENT:
            raise SystemExit(128 + number)
        self._seen.add(number)
        if self.received is None:
            self.received = number


class StopVote:
    """A vote of all processes on stopping for a signal, so that all stop after the same step.

    A signal reaches the processes in different steps. If one process left alone, the others would wait for its
    gradients. So the votes of each step are counted in the background, and the result is read one step later. No
    process waits for another.

    Args:
        world: the processes of the run.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._pending: tuple[Tensor, dist.Work] | None = None

    def __call__(self, received: int | None) -> int | None:
        """Vote in this step, and return the result of the step before.

        Args:
            received: the signal that this process has received so far, or None.

        Returns:
            The largest signal number among the votes of the step before, or None if there was no signal.
        """
        if self._world.control is None:
            return received
        counted = self._count()
        votes = torch.tensor(received or 0)
        work = dist.all_reduce(votes, dist.ReduceOp.MAX, group=self._world.control, async_op=True)
        assert work is not None
        self._pending = votes, work
        return counted

    def close(self) -> None:
        """Wait for the votes that are being counted."""
        self._count()

    def _count(self) -> int | None:
        if self._pending is None:
            return None
        votes, work = self._pending
        self._pending = None
        work.wait()
        return int(votes) or None


class Absence:
    """A time in which all other processes wait for the first one, however long its work takes.

    A collective operation gives up after an hour. So the first process tells the others once a minute that it is still
    working. Each time, every process also learns of a signal that another process has received.

    Args:
        world: the processes of the run.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._met = time.monotonic()

    def at_work(self, received: int | None, *, every: float = 60.0) -> int | None:
        """Tell the other processes that the first one is still working, if the last time was `every` seconds ago.

        The first process calls this now and then while it works.

        Args:
            received: the signal that this process has received, or None.
            every: the number of seconds between two such messages.

        Returns:
            The largest signal number that is known from any process, or None.
        """
        if self._world.size > 1 and time.monotonic() - self._met >= every:
            received = self._meet(True, received)[1]
            self._met = time.monotonic()
        return received

    def over(self, received: Callable[[], int | None]) -> int | None:
        """End the absence in the first process. In the others, wait for its end.

        Args:
            received: a function that returns the signal that this process has received, or None. It is called for each
                message of the first process.

        Returns:
            The largest signal number of any process, or None.
        """
        while True:
            at_work, largest = self._meet(False, received())
            if not at_work:
                return largest

    def _meet(self, at_work: bool, received: int | None) -> tuple[bool, int | None]:
        some, number = self._world.largest(at_work, received or 0)
        return bool(some), number or None


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Yield the world that torchrun's environment variables describe. Without these variables, it is this process
    alone.

    gloo aborts the process if one of its threads frees a Python tensor while the interpreter shuts down. A group's
    threads end with the last reference to the group, and DistributedDataParallel (torch 2.13) never drops its reference
    to the default group. So only gradients use the default group. All other tensors use a second group, whose threads
    have ended when the block is left.

    Args:
        device: the device of the run. NCCL connects GPUs, and gloo all other devices.

    Raises:
        ValueError: the variables make no sense, the processes can't connect, or two of them have the same GPU.
    """
    size = _from_environment("WORLD_SIZE", 1, least=1)
    if size == 1:
        yield World()
        return
    # With a rank of `size` or more, torch would wait half an hour for the missing processes.
    for name, least, most in (("RANK", 0, size - 1), ("MASTER_PORT", 0, 65535)):
        if name in os.environ:
            _from_environment(name, None, least=least, most=most)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    except (ValueError, RuntimeError) as error:  # for missing variables, and for failures of the network
        raise ValueError(
            f"WORLD_SIZE: got {size} processes that don't come together ({first_line(error)}), expected those that "
            "torchrun starts; without WORLD_SIZE this process runs alone"
        ) from error
    world = World(dist.get_rank(), size)
    try:
        world.control = dist.new_group(backend="gloo", timeout=_PATIENCE)
        if on_gpu:
            _check_own_gpus(world, device)
        world.group = dist.group.WORLD if on_gpu else world.control
        yield world
    finally:
        world.group = world.control = None
        dist.destroy_process_group()


def _check_own_gpus(world: World, device: torch.device) -> None:
    """Raise a ValueError in every process if two of them have the same GPU. NCCL would wait for ever, or fail."""
    here = socket.gethostname(), str(torch.cuda.get_device_properties(device).uuid)
    every: list[tuple[str, str]] = [here] * world.size
    dist.all_gather_object(every, here, group=world.control)
    for rank, gpu in enumerate(every):
        if (first := every.index(gpu)) != rank:
            raise ValueError(
                f"device: got one GPU of {gpu[0]} for the processes {first} and {rank}, expected one for each: let "
                "torchrun start as many as there are GPUs"
            )


def _from_environment(name: str, default: int | None, *, least: int, most: int | None = None) -> int:
    """Return the number in an environment variable that torchrun or a batch system sets.

    Args:
        name: the variable.
        default: the number if the variable isn't set. None: it is known to be set.
        least: the smallest number that makes sense.
        most: the largest number that makes sense. None: there is no limit.

    Raises:
        ValueError: the variable holds something else.
    """
    text = os.environ.get(name, str(default))
    try:
        number = int(text)
    except ValueError:  # not a number, or thousands of digits
        number = least - 1
    if number < least or (most is not None and number > most):
        wanted = f"of at least {least}" if most is None else f"of {least} to {most}"
        without = "" if default is None else f"; without {name} it is {default}"
        raise ValueError(
            f"{name}: got {shown(text)} in the environment, expected a whole number {wanted}, as torchrun sets it"
            f"{without}"
        )
    return number


def own_device(name: str) -> torch.device:
    """Return the device that a config's name means for this process.

    "auto" is a GPU if there is one. Under torchrun, each process takes the GPU of its local rank. If a process sees a
    single GPU, it takes that one: batch systems may show each task only its own GPU.

    Args:
        name: "auto", or a torch device.

    Raises:
        ValueError: there is no such GPU, or LOCAL_RANK is not a number.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type != "cuda" or device.index is not None:
        return device
    rank, count = _from_environment("LOCAL_RANK", 0, least=0), torch.cuda.device_count()
    if count == 1:
        return torch.device("cuda", 0)
    if rank >= count > 0:
        raise ValueError(
            f"LOCAL_RANK: got {rank}, expected less than {count}, the GPUs that this process sees: let torchrun start "
            f"at most {count} processes on this machine"
        )
    return torch.device("cuda", rank)


def usable_device(name: str) -> torch.device:
    """Return the device that a command's --device names. "auto" is a GPU if there is one.

    Args:
        name: "auto", or a torch device.

    Raises:
        ValueError: the name isn't a device, or this process of torchrun has no such device.
    """
    if problem := device_problem(name):
        raise ValueError(problem)
    return own_device(name)


def device_problem(name: str) -> str | None:
    """Return a sentence that says why a config's device can't be used here, or None if it can."""
    if name == "auto":
        return None
    try:
        if not torch.empty(1, device=name).is_meta:
            return None
        problem = "it holds no values"  # the device "meta", on which torch.empty succeeds
    except (RuntimeError, AssertionError, ImportError) as error:  # ImportError: the device needs another package
        problem = str(error).partition("\n")[0]
    return f"device: got {name!r}, expected a device that torch can use here ({problem})"

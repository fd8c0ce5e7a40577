"""The processes of a run, one alone or those that torchrun started: their devices, their words, and their end."""

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

# The first process draws while the others wait in their next collective. For longer work there is `Absence`.
_PATIENCE = timedelta(hours=1)

# torch 2.13 names it anew and warns of the old name.
_NAMES = inspect.signature(DistributedDataParallel).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers"

# Windows lacks the last two. A batch system sends SIGUSR1 before its limit where it is asked to; a terminal that is
# closed sends SIGHUP.
_SIGNAL_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
_SIGNALS = tuple(getattr(signal, name) for name in _SIGNAL_NAMES if hasattr(signal, name))
_INSISTENT = (signal.SIGINT, signal.SIGTERM)


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

    def largest(self, *here: int) -> tuple[int, ...]:
        """The largest of the processes' numbers, in each place."""
        if self.control is None:
            return here
        numbers = torch.tensor(here)
        dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self.control)
        return tuple(numbers.tolist())

    def any(self, here: bool) -> bool:
        """Return True if it holds for any process."""
        return bool(self.largest(here)[0])


class StoppedError(Exception):
    """A signal has come while something long was under way, which is given up.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


class StopSignals:
    """Inside the `with` block, SIGINT, SIGTERM, SIGHUP and SIGUSR1 are noted in `received` for the loop to act upon.

    A second SIGINT, or a second SIGTERM, stops at once, by SystemExit with status 128 + its number. Other repeats are
    taken for one: a closed terminal sends SIGHUP twice, and torchrun sends SIGTERM after the terminal's SIGINT. A
    signal that the program was started to ignore, as nohup does with SIGHUP, stays ignored; SIGINT, which shells ignore
    in their background, doesn't. Python delivers signals to the main thread alone, so in any other thread this does
    nothing. The handlers that were there come back at the end.

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
            # None: a handler that wasn't installed from Python, which can't be put back.
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
    """The processes' answer to a signal that one of them has had, given by all at the same step.

    A signal reaches processes at different steps, and one that left alone would leave the others waiting for its
    gradients. So each step's votes are counted in the background and read a step later. No process waits for another.
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


class Absence:
    """Lets the other processes wait for the first one, however long its work takes.

    A collective would give up after an hour. So the first process says once a minute that it is still at work, and
    every process learns each time of a signal that another one has had.

    Args:
        world: the processes of the run.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._met = time.monotonic()

    def at_work(self, received: int | None, *, every: float = 60.0) -> int | None:
        """Tell the others, if it is time; the first process calls it now and then as it works.

        Args:
            received: the signal that this process has had.
            every: seconds between two times.

        Returns:
            The largest of the processes' signals, as far as they are known.
        """
        if self._world.size > 1 and time.monotonic() - self._met >= every:
            received = self._meet(True, received)[1]
            self._met = time.monotonic()
        return received

    def over(self, received: Callable[[], int | None]) -> int | None:
        """End the absence in the first process; wait for that in the others.

        Args:
            received: asked at each meeting for the signal that this process has had.

        Returns:
            The largest of the processes' signals.
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
    """The world that torchrun's environment variables describe; this process alone without them.

    A thread of gloo that lets go of a Python tensor while the interpreter ends aborts the process, and a group's
    threads end with the last reference to it, which DistributedDataParallel (torch 2.13) never drops. So the default
    group carries gradients alone, and all other tensors have a group whose threads have ended on leaving.

    Args:
        device: of the run; NCCL joins GPUs, gloo all else.

    Raises:
        ValueError: the variables make no sense, the processes don't come together, or two of them have one GPU.
    """
    size = _told("WORLD_SIZE", 1, least=1)
    if size == 1:
        yield World()
        return
    # torch waits half an hour for a process whose rank is beyond the others'.
    for name, least, most in (("RANK", 0, size - 1), ("MASTER_PORT", 0, 65535)):
        if name in os.environ:
            _told(name, None, least=least, most=most)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    except (ValueError, RuntimeError) as error:  # of variables that are missing, or of the network
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
    """Raise a ValueError, in every process, if two of them have one GPU, for which NCCL would wait or fail."""
    here = socket.gethostname(), str(torch.cuda.get_device_properties(device).uuid)
    every: list[tuple[str, str]] = [here] * world.size
    dist.all_gather_object(every, here, group=world.control)
    for rank, gpu in enumerate(every):
        if (first := every.index(gpu)) != rank:
            raise ValueError(
                f"device: got one GPU of {gpu[0]} for the processes {first} and {rank}, expected one for each: let "
                "torchrun start as many as there are GPUs"
            )


def _told(name: str, default: int | None, *, least: int, most: int | None = None) -> int:
    """The number that torchrun or a batch system has put into an environment variable.

    Args:
        name: the variable.
        default: the number where it isn't set. None: it is set.
        least: the smallest that makes sense.
        most: the largest; None if there is none.

    Raises:
        ValueError: something else is there.
    """
    text = os.environ.get(name, str(default))
    try:
        number = int(text)
    except ValueError:  # no number, or one of thousands of digits
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
    """The device that a config's name means for this process.

    "auto" is a GPU if there is one. On GPUs each process of torchrun takes the one of its local rank, or the only one
    that it sees: batch systems may show each task its own GPU alone.

    Raises:
        ValueError: there is no such GPU, or LOCAL_RANK is no number.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type != "cuda" or device.index is not None:
        return device
    rank, count = _told("LOCAL_RANK", 0, least=0), torch.cuda.device_count()
    if count == 1:
        return torch.device("cuda", 0)
    if rank >= count > 0:
        raise ValueError(
            f"LOCAL_RANK: got {rank}, expected less than {count}, the GPUs that this process sees: let torchrun start "
            f"at most {count} processes on this machine"
        )
    return torch.device("cuda", rank)


def usable_device(name: str) -> torch.device:
    """The device of a command's --device: "auto" is a GPU if there is one.

    Raises:
        ValueError: no device's name, or one that isn't here, for this process of torchrun.
    """
    if problem := device_problem(name):
        raise ValueError(problem)
    return own_device(name)


def device_problem(name: str) -> str | None:
    """Return what is wrong with a config's device, in a sentence, or None."""
    if name == "auto":
        return None
    try:
        if not torch.empty(1, device=name).is_meta:
            return None
        problem = "it holds no values"  # "meta" parses and allocates all the same
    except (RuntimeError, AssertionError, ImportError) as error:  # ImportError: a device of another package
        problem = str(error).partition("\n")[0]
    return f"device: got {name!r}, expected a device that torch can use here ({problem})"

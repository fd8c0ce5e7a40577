"""Run a program's CTAs one after another. Each CTA runs as one vector over its threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from .dataflow import only_feeds
from .decoder import BARRIER, BRANCH, EXIT, Decoded
from .errors import Divergence, Endless, SimulationError, Unsupported
from .formats import UNSIGNED, Array
from .memory import GlobalMemory
from .ordering import Order
from .parser import Program
from .races import Knowledge
from .report import Report
from .shared import SharedMemory


@dataclass
class Launch:
    """One launch, with everything that its CTAs share."""

    program: Program
    code: list[Decoded]
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    parameters: dict[str, Array]  # the bytes of each
    memory: GlobalMemory
    shared_bytes: int
    shared_granule: int
    poison: int
    instruction_limit: int  # of one CTA
    released: dict[int, Knowledge] = field(default_factory=dict)  # what an acquire learns, by its address
    report: Report = field(default_factory=Report)
    order: list[tuple[int, int, int]] = field(default_factory=list)  # the order in which the CTAs run
    _feeds: dict[tuple[int, int], bool] = field(default_factory=dict)

    def run(self, ctas: Sequence[tuple[int, int, int]]) -> Report:
        self.order = list(ctas)
        now = 1
        with np.errstate(all="ignore"):
            for position, index in enumerate(ctas):
                cta = Cta(self, position, index, now)
                cta.run()
                now = cta.now + 1
        self.report.ctas = len(ctas)
        return self.report

    def only_feeds(self, load: int, store: int) -> bool:
        if (load, store) not in self._feeds:
            self._feeds[load, store] = only_feeds(self.program, load, store)
        return self._feeds[load, store]

    def cta_at(self, position: int) -> tuple[int, int, int]:
        return self.order[position]


class Cta:
    """The state of one CTA: its registers, shared memory and control flow.

    A register is an array over the threads, which is replaced and never written into.
    """

    def __init__(self, launch: Launch, position: int, index: tuple[int, int, int], now: int) -> None:
        self.launch = launch
        self.report = launch.report
        self.index = index
        self.threads = int(np.prod(launch.block))
        self.order = Order(position, self.threads, len(launch.order), now)
        self.now = now
        every = np.arange(self.threads)
        self.every = every
        self.warps = every >> 5
        self.lane = every & 31
        self.numbers = (every + position * self.threads).astype(np.int32)
        self.special = self._special_registers(every)
        poison = {
            size: np.full(self.threads, launch.poison & (1 << 8 * size) - 1, UNSIGNED[size]) for size in (1, 2, 4, 8)
        }
        poison[0] = np.zeros(self.threads, bool)
        self.registers: list[Array] = [poison[size] for _, size in launch.program.registers.values()]
        self.memory = launch.memory
        self.shared = SharedMemory(launch.shared_bytes, launch.shared_granule, launch.poison)
        self.local = np.zeros((self.threads, launch.program.local_bytes), np.uint8)
        self.call_arguments: dict[str, Array] = {}  # the .param space of a call
        self.copies: list[Any] = []  # asynchronous copies that are in no group yet
        self.copy_groups: list[list[Any]] = []
        self.alive = np.ones(self.threads, bool)
        self.here = 0  # the number of the current instruction
        self.loads: dict[int, int] = {}  # by the time of a load since the last barrier: the number of its instruction

    def _special_registers(self, every: Array) -> dict[str, Array]:
        x, y, _ = self.launch.block
        values = {
            "%tid.x": every % x,
            "%tid.y": every // x % y,
            "%tid.z": every // (x * y),
            "%laneid": every & 31,
            "%warpid": every >> 5,
            "%nwarpid": every * 0 + self.threads // 32,
        }
        for axis, name in enumerate("xyz"):
            values[f"%ntid.{name}"] = every * 0 + self.launch.block[axis]
            values[f"%ctaid.{name}"] = every * 0 + self.index[axis]
            values[f"%nctaid.{name}"] = every * 0 + self.launch.grid[axis]
        return {name: value.astype(np.uint32) for name, value in values.items()}

    def special_register(self, name: str) -> Array:
        if name not in self.special:
            self.fail(Unsupported, f"special register {name}", None)
        return self.special[name]

    def fail(self, error: type[SimulationError], message: str, thread: int | None) -> NoReturn:
        where = f"CTA {self.index}" + (f", thread {thread}" if thread is not None else "")
        instruction = self.launch.program.instructions[self.here]
        source = f" ({instruction.source})" if instruction.source else ""
        where += f", PTX line {instruction.line}{source}: {instruction.text}"
        raise error(f"{message} [{self.launch.program.name}, {where}]")

    def thread_of(self, position: int, lanes: Array | None) -> int:
        return position if lanes is None else int(lanes[position])

    def lanes_or_all(self, lanes: Array | None) -> Array:
        return self.every if lanes is None else lanes

    def thread_numbers(self, lanes: Array | None, times: int) -> Array:
        numbers = self.numbers if lanes is None else self.numbers[lanes]
        return numbers if times == 1 else np.repeat(numbers, times)

    def was_copy(self, time: int) -> bool:
        """Return True if the value loaded at this time goes only into the value that is being stored now."""
        return time in self.loads and self.launch.only_feeds(self.loads[time], self.here)

    def full(self, value: Array) -> Array:
        """Return an operand as an array over all threads. An immediate operand is a NumPy scalar."""
        return np.full(self.threads, value) if value.ndim == 0 else value

    def run(self) -> None:
        """Run the CTA.

        Threads at different instructions form groups. The group that is furthest behind runs, so that threads that part
        at a branch meet again where its arms do.
        """
        waiting: dict[int, Array] = {}  # the threads at a barrier
        groups: dict[int, Array] = {0: self.alive.copy()}
        while groups:
            here = min(groups)
            mask = groups.pop(here)
            self._run_group(here, mask, groups, waiting)
            if not groups and waiting:
                groups = self._pass_barrier(waiting)
                waiting = {}

    def _pass_barrier(self, waiting: dict[int, Array]) -> dict[int, Array]:
        if len(waiting) > 1:
            lines = sorted(self.launch.code[at].instruction.line for at in waiting)
            self.fail(Divergence, f"threads wait at different barriers, PTX lines {lines}", None)
        if not self.alive.all():
            self.here = next(iter(waiting))
            ended = np.flatnonzero(~self.alive)
            self.fail(Divergence, f"a barrier that {len(ended)} threads don't reach, having ended", int(ended[0]))
        self.now += 1
        self.order.barrier(self.now)
        self.loads.clear()
        self.shared.history.forget_logs()
        self.report.barriers += 1
        return {at + 1: mask for at, mask in waiting.items()}

    def _run_group(self, here: int, threads: Array, groups: dict[int, Array], waiting: dict[int, Array]) -> None:
        """Run a group of threads until it reaches another group, splits, waits or ends."""
        code, stop = self.launch.code, min(groups, default=len(self.launch.code))
        standing = np.count_nonzero(threads)
        mask = None if standing == self.threads else threads
        warps = int(threads.reshape(-1, 32).any(1).sum())
        begin = self.now
        while here < stop:
            decoded = code[here]
            self.here = here
            self.now += 1
            active = mask
            if decoded.guard is not None:
                active = decoded.guard(self)
                if mask is not None:
                    active = active & mask
                count = np.count_nonzero(active)
                if count == 0:
                    here += 1
                    continue
                if count == standing:
                    active = mask
            if decoded.control is None:
                decoded.execute(self, active)
                here += 1
            elif decoded.control == BRANCH and active is mask:
                here = decoded.target
            else:
                self._part(decoded, here, threads, active, groups, waiting)
                break
            if self.now - self.order.first_time > self.launch.instruction_limit:
                self.fail(Endless, f"{self.launch.instruction_limit} instructions in one CTA", None)
        else:
            if here < len(code):
                _join(groups, here, threads)
        self.report.instructions += (self.now - begin) * warps

    def _part(
        self,
        decoded: Decoded,
        here: int,
        threads: Array,
        active: Array | None,
        groups: dict[int, Array],
        waiting: dict[int, Array],
    ) -> None:
        """Let the threads that pass the guard branch, wait or end. The others go on."""
        taken = threads if active is None else active
        rest = threads & ~taken
        if decoded.control == EXIT:
            self.alive &= ~taken
        elif decoded.control == BARRIER:
            _join(waiting, here, taken)
        else:
            _join(groups, decoded.target, taken)
        if rest.any():
            _join(groups, here + 1, rest)


def _join(groups: dict[int, Array], at: int, threads: Array) -> None:
    groups[at] = groups[at] | threads if at in groups else threads

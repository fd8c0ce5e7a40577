"""Run new cases for a given time: each instruction set in turn, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

ROOT = Path(__file__).parents[3]
SWITCH = "EBGAN_FAST_CPU_ISA"
PLAIN = "reference"
"""The name of the turn without kernels, which runs on any machine."""
TURN = 60.0
"""Seconds that a process runs before the next instruction set has its turn."""
SILENCE = 120.0
"""Seconds without a line after which a process counts as hung.

The slowest case takes less than 10, and so do the imports before the first. A loaded machine may need several times as
long.
"""

Say = Callable[[str], None]


@dataclass
class Tally:
    """The number of cases, and the failed ones."""

    cases: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """The number of cases by op, dtype and instruction set."""
    failed: list[str] = field(default_factory=list)
    """A line for each failing case."""

    def of(self, isa: str) -> int:
        """Return the number of cases that ran on an instruction set."""
        return sum(count for (_, _, each), count in self.cases.items() if each == isa)

    def __str__(self) -> str:
        sets = sorted({isa for _, _, isa in self.cases})
        rows = sorted({(op, dtype) for op, dtype, _ in self.cases})
        lines = [f"{'cases':34}" + "".join(f"{isa:>12}" for isa in sets)]
        for op, dtype in rows:
            lines.append(f"{op:24}{dtype:10}" + "".join(f"{self.cases[op, dtype, isa]:12}" for isa in sets))
        lines.append(f"fuzz: {self.cases.total()} cases, {len(self.failed)} failed")
        return "\n".join(lines)


def work(seeds: Iterator[int], backend: str, until: float, say: Say) -> None:
    """Run cases until that time, and print a line when each begins and another when it ends."""
    from .checking import problems
    from .drawing import draw

    for seed in seeds:
        if time.time() > until:
            return
        say(json.dumps({"seed": seed}))
        try:
            case = draw(seed)
            found = problems(case, backend)
            op, dtype = case.op, str(case.dtype).removeprefix("torch.")
        except Exception as error:  # also of the op; the next case still runs
            found, op, dtype = [f"{type(error).__name__}: {error}"], "raised", ""
        say(json.dumps({"seed": seed, "op": op, "dtype": dtype, "found": found}))


def again(seed: int, isa: str) -> str:
    """Return the command that runs a case once more."""
    return f"python -m tests.ops.fuzz --case {seed} --isa {isa}"


def _lines(output: IO[str], silence: float) -> Iterator[str]:
    """Yield the lines of a process as they come; raise TimeoutError where none comes for so many seconds."""
    came: SimpleQueue[str | None] = SimpleQueue()

    def read() -> None:
        for line in output:
            came.put(line)
        came.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = came.get(timeout=silence)
        except Empty:
            raise TimeoutError from None
        if line is None:
            return
        yield line


class Run:
    """Processes that take turns, one instruction set after another.

    Args:
        sets: names of instruction sets, or PLAIN.
        say: the function that takes lines of progress, and a line for each failing case.
        command: the arguments of this Python that start a worker, which prints as `work` does; `_process` adds to them.
        silence: seconds after which a process that prints nothing is killed.
    """

    def __init__(
        self,
        sets: Sequence[str],
        say: Say,
        command: Sequence[str] = ("-m", "tests.ops.fuzz"),
        silence: float = SILENCE,
    ) -> None:
        self.tally = Tally()
        self._sets, self._say, self._command, self._silence = sets, say, command, silence

    def __call__(self, seconds: float, first: int) -> None:
        """Run cases for so many seconds, from the seed `first` on."""
        until = time.time() + seconds
        turn = min(TURN, seconds / len(self._sets))
        while time.time() < until:
            for isa in self._sets:
                first = self._turn(isa, first, min(until, time.time() + turn))

    def _turn(self, isa: str, first: int, until: float) -> int:
        """Run one set until that time, and return the next seed.

        When a process dies or hangs, another starts after the case at which it did.
        """
        began, failed, count = time.time(), len(self.tally.failed), 0
        while time.time() < until:
            before = first
            first, done, fault = self._process(isa, before, until)
            count += done
            if fault is None:
                break
            self._fail(isa, max(before, first - 1), f"the process {fault}")
            if first == before:  # it ran no case, and nor would the next one
                break
        new = len(self.tally.failed) - failed
        self._say(f"{isa:12} {time.time() - began:4.0f} s {count:6} cases, {new} failed")
        return first

    def _process(self, isa: str, first: int, until: float) -> tuple[int, int, str | None]:
        """Run one process; return the seed after its last one, the number of cases done, and how it failed, or None."""
        # Waiting threads sleep: with NumPy's threads spinning, torch's would get less time.
        variables = {"OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        if isa != PLAIN:
            variables[SWITCH] = isa
        command = [sys.executable, *self._command, "--work", str(first), str(until), "--isa", isa]
        following, done = first, 0
        with subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True
        ) as it:
            assert it.stdout is not None
            try:
                for line in _lines(it.stdout, self._silence):
                    said = json.loads(line)
                    following = said["seed"] + 1
                    if "op" in said:
                        done += 1
                        self._note(isa, said)
                status = it.wait(self._silence)
            except (TimeoutError, subprocess.TimeoutExpired):
                it.kill()
                return following, done, f"said nothing for {self._silence:g} s"
            except BaseException:
                it.kill()
                raise
        return following, done, f"ended with status {status}" if status else None

    def _note(self, isa: str, said: dict[str, Any]) -> None:
        self.tally.cases[said["op"], said["dtype"], isa] += 1
        found = said["found"]
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            self._fail(isa, said["seed"], f"{said['op']} {said['dtype']} {found[0]}{more}")

    def _fail(self, isa: str, seed: int, what: str) -> None:
        line = f"FAILED {isa}: {what} | {again(seed, isa)}"
        self.tally.failed.append(line)
        self._say(line)

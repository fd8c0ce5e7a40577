"""Fresh cases for as long as was asked, each instruction set in turn in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
SWITCH = "EBGAN_FAST_CPU_ISA"
PLAIN = "reference"
"""The name of the turn without kernels, which any machine has."""
TURN = 60.0
"""Seconds that a process runs before the next set has its turn."""

Say = Callable[[str], None]


@dataclass
class Tally:
    """Counts of cases, and those that failed."""

    cases: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By op, dtype and instruction set."""
    failed: list[str] = field(default_factory=list)
    """A line for each failing case."""

    def __str__(self) -> str:
        sets = sorted({isa for _, _, isa in self.cases})
        rows = sorted({(op, dtype) for op, dtype, _ in self.cases})
        lines = [f"{'cases':34}" + "".join(f"{isa:>12}" for isa in sets)]
        for op, dtype in rows:
            lines.append(f"{op:24}{dtype:10}" + "".join(f"{self.cases[op, dtype, isa]:12}" for isa in sets))
        lines.append(f"fuzz: {self.cases.total()} cases, {len(self.failed)} failed")
        return "\n".join(lines)


def work(seeds: Iterator[int], backend: str, until: float, say: Say) -> None:
    """Run cases until that time: a line when one begins, and another when it ends."""
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
        except Exception as error:  # of the op too: the next case is to run
            found, op, dtype = [f"{type(error).__name__}: {error}"], "raised", ""
        say(json.dumps({"seed": seed, "op": op, "dtype": dtype, "found": found}))


def again(seed: int, isa: str) -> str:
    """The command that runs a case once more."""
    return f"python -m tests.ops.fuzz --case {seed} --isa {isa}"


class Run:
    """Turns of processes.

    Args:
        sets: names of instruction sets, or PLAIN.
        say: takes lines of progress, and a line for each failing case.
        command: starts a process that prints what `work` says: the arguments of this Python, which `turn` completes.
    """

    def __init__(self, sets: Sequence[str], say: Say, command: Sequence[str] = ("-m", "tests.ops.fuzz")) -> None:
        self.tally = Tally()
        self._sets, self._say, self._command = sets, say, command

    def __call__(self, seconds: float, first: int) -> None:
        """Run cases from the seed `first` on."""
        until = time.time() + seconds
        turn = min(TURN, seconds / len(self._sets))
        while time.time() < until:
            for isa in self._sets:
                first = self._turn(isa, first, min(until, time.time() + turn))

    def _turn(self, isa: str, first: int, until: float) -> int:
        """Run one set until that time; returns the next seed.

        A process that dies is followed by another, which begins behind the case that killed it.
        """
        began, failed, count = time.time(), len(self.tally.failed), 0
        while time.time() < until:
            before = first
            first, done, status = self._process(isa, before, until)
            count += done
            if status == 0:
                break
            self._fail(isa, max(before, first - 1), f"the process ended with status {status}")
            if first == before:  # without a case: so would the next one
                break
        new = len(self.tally.failed) - failed
        self._say(f"{isa:12} {time.time() - began:4.0f} s {count:6} cases, {new} failed")
        return first

    def _process(self, isa: str, first: int, until: float) -> tuple[int, int, int]:
        """Run one process; returns the seed behind its last, how many cases were done, and the exit status."""
        # Threads that wait asleep: NumPy's would take the turns of torch's.
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
                for line in it.stdout:
                    said = json.loads(line)
                    following = said["seed"] + 1
                    if "op" in said:
                        done += 1
                        self._note(isa, said)
            except BaseException:
                it.kill()
                raise
        return following, done, it.returncode

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

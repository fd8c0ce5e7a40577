"""The tuner tries the entries of the Triton kernels' tables against alternatives on one GPU, and keeps the faster ones.

`Tuner` turns one knob after another. `descend` searches through a knob's alternatives, and `compare` checks and times
some entries on one case. `Compilers` compile ahead what is timed: a kernel takes most of a second of a core.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import multiprocessing
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from ebgan_fast import use_backend
from ebgan_fast._files import replacing
from ebgan_fast.ops.backends.triton import tables as in_use

from ..results import provenance
from ..results.rows import LEAST_GAIN
from ..subjects.calls import BOTH, Judge, on, results, step
from ..subjects.cases import Arguments, Case
from ..terminal import first_line
from ..timing.devices import Device
from ..timing.providers import inputs_on
from ..timing.rounds import interleaved, multiples
from ..timing.watches import Step, Watch
from .knobs import KNOBS, SWEEPS, Entry, Knob, Tables, dump

CompileAhead = Callable[[Sequence[Tables], Sequence[tuple[Case, torch.dtype]]], None]
"""Compiles what tables launch, given the tables and the cases and dtypes that they are tried on."""
Ratios = Callable[[Sequence[Entry]], list[float | None]]
"""Returns the times of entries over that of the first; None for an entry that gives no right results."""


class Tuner:
    """The knobs' entries on one GPU. Each knob is turned against the tables as the last knob left them.

    Args:
        device: The GPU.
        rounds: Times each entry is timed.
        out: The tables to write. None: those that the kernels use.
        sweeps: Most times that the groups of one knob are gone through.
        cases: The number of each knob's cases. None: all.
        trials: The file of JSON lines to which everything that was tried is added. None: the device's own.
        compile_ahead: Compiles everything before it is timed. None: each entry is compiled at its turn.
    """

    def __init__(
        self,
        device: Device,
        rounds: int,
        out: Path | None,
        sweeps: int = SWEEPS,
        cases: int | None = None,
        trials: Path | None = None,
        compile_ahead: CompileAhead | None = None,
    ) -> None:
        self.path = out or in_use.TABLES
        self.trials = trials or device.results("tune")
        """The file of JSON lines to which everything that was tried is added."""
        self.changed = 0
        """The number of entries that another tile took."""
        self._sweeps, self._cases, self._compile_ahead = sweeps, cases, compile_ahead
        self._device = device
        self._architecture = in_use.architecture(device.torch)
        self._rounds = rounds
        self._tables: Tables = json.loads(in_use.TABLES.read_text(encoding="utf-8"))
        self._environment = provenance.environment(device.torch, device.backend)

    def turn(self, knob: Knob) -> None:
        """Search for a faster entry, time it once more against the entry in use, and write it if it is faster again.

        Args:
            knob: The knob.

        Raises:
            ValueError: The entry in use does not give right results.
        """
        start = knob.current(self._tables, self._architecture)
        found = descend(knob, start, lambda entries: self.ratios(knob, entries), self._sweeps)
        if found == start:
            print(f"{knob.name}: stays {_fields(knob, start)}")
            return
        gained = self.ratios(knob, [start, found])[1]
        if gained is None or gained >= LEAST_GAIN:
            print(f"{knob.name}: stays {_fields(knob, start)}, for {_fields(knob, found)} was faster only once")
            return
        print(f"{knob.name}: {_fields(knob, start)} becomes {_fields(knob, found)}, {gained:.2f} of its time")
        self.changed += 1
        self._tables = knob.turned(self._tables, self._architecture, {**found, "why": self._why(knob, start, gained)})
        with replacing(self.path) as file:
            file.write(f"{dump(self._tables)}\n".encode())

    def _why(self, knob: Knob, start: Entry, gained: float) -> str:
        versions = self._environment["versions"]
        return (
            f"measured: {gained:.2f} of the time of {_fields(knob, start)} ({self._environment['processor']}, "
            f"{versions['compiler']}, torch {versions['torch']}, {_today()})"
        )

    def ratios(self, knob: Knob, entries: Sequence[Entry]) -> list[float | None]:
        """Return the times of entries over that of the first: the geometric mean over the knob's cases and dtypes.

        Args:
            knob: The knob.
            entries: The entries to try.
        """
        contestants = [knob.turned(self._tables, self._architecture, entry) for entry in entries]
        logs: list[float | None] = [0.0] * len(entries)
        settings = [(case, dtype) for case in knob.cases[: self._cases] for dtype in knob.dtypes]
        if self._compile_ahead is not None:
            self._compile_ahead(contestants, settings)
        for case, dtype in settings:
            outcomes = compare(contestants, case, dtype, self._device, "replayed", self._rounds)
            kind = str(dtype).removeprefix("torch.")
            self._log(knob, f"{case.name} {kind}", entries, [dataclasses.asdict(outcome) for outcome in outcomes])
            for index, outcome in enumerate(outcomes):
                log, ratio = logs[index], outcome.ratio
                logs[index] = None if log is None or ratio is None else log + math.log(ratio)
        return [None if log is None else math.exp(log / len(settings)) for log in logs]

    def _log(self, knob: Knob, case: str, entries: Sequence[Entry], outcomes: Sequence[dict[str, Any]]) -> None:
        self.trials.parent.mkdir(parents=True, exist_ok=True)
        with self.trials.open("a", encoding="utf-8") as file:
            for entry, outcome in zip(entries, outcomes, strict=True):
                turned = {key: value for key, value in entry.items() if key != "why"}
                row = {"entry": knob.name, "case": case, "tile": turned, **outcome, "date": _today()}
                file.write(json.dumps({**row, **self._environment}) + "\n")


def _fields(knob: Knob, entry: Entry) -> str:
    return ", ".join(f"{name} {entry[name]}" for group in knob.groups for name in group)


def _today() -> str:
    return datetime.now(timezone.utc).date().isoformat()


# ---- The search


def descend(knob: Knob, start: Entry, ratios: Ratios, sweeps: int = SWEEPS) -> Entry:
    """Return the entry that no alternative in one group beats by `LEAST_GAIN`; `start` if none beats that.

    Another sweep might find a better entry, so with few sweeps the result need not be the best.

    Args:
        knob: The knob, whose groups of fields are turned one after another.
        start: The entry in use.
        ratios: Times entries against the first of them.
        sweeps: Most times that the groups are gone through.

    Raises:
        ValueError: The entry to beat does not give right results.
    """
    current = start
    for _ in range(sweeps):
        before = current
        for number in range(len(knob.groups)):
            contestants = [current, *list(knob.alternatives(current))[number]]
            found = ratios(contestants)
            if found[0] is None:
                raise ValueError(f"{knob.name}: the entry in use, {current}, does not give right results here")
            _, index = min((ratio, index) for index, ratio in enumerate(found) if ratio is not None)
            if (found[index] or 1.0) < LEAST_GAIN:
                current = contestants[index]
        if current == before or len(knob.groups) == 1:
            break
    return current


# ---- The trial of some entries on one case


@dataclass(frozen=True)
class Outcome:
    """The outcome of one entry on one case."""

    seconds: float | None = None
    """The median of the rounds."""
    ratio: float | None = None
    """The entry's time over the first entry's: the median of the rounds."""
    complaint: str | None = None
    """The reason why there is no time."""


def compare(
    contestants: Sequence[Tables], case: Case, dtype: torch.dtype, device: Device, watch: str, rounds: int
) -> list[Outcome]:
    """Check entries against the reference, time those that are right together, and return an outcome for each.

    Args:
        contestants: The tables, each with one of the entries. The ratios are to the first, and None if that is wrong.
        case: The case.
        dtype: The dtype of its inputs.
        device: The GPU.
        watch: The name of the device's watch.
        rounds: Times each entry is timed.
    """
    copies = inputs_on(device, case, dtype)
    judge = Judge(case, copies[0])
    with use_backend("triton"):  # on this GPU another backend may be the first choice
        ready = [_ready(tables, case, copies, judge, device.watches[watch]) for tables in contestants]
        steps = {str(index): step for index, (step, _) in enumerate(ready) if step is not None}
        seconds = interleaved(steps, rounds, watch=device.watches[watch])
    first = seconds.get("0")

    def outcome(index: int) -> Outcome:
        mine = seconds.get(str(index))
        if mine is None:
            return Outcome(complaint=ready[index][1])
        ratio = statistics.median(multiples(mine, first)) if first else None
        return Outcome(statistics.median(mine) / len(copies), ratio)

    return [outcome(index) for index in range(len(contestants))]


def _ready(
    tables: Tables, case: Case, copies: Sequence[Arguments], judge: Judge, watch: Watch
) -> tuple[Step | None, str | None]:
    """Return the prepared step of an entry, or the reason why there is none."""
    try:
        with in_use.replaced(tables):
            complaint = judge.complaint(results(case.package, copies[0]))
        if complaint is not None:
            return None, complaint
        return watch.prepared(_under(tables, step(case.package, copies, BOTH))), None
    except Exception as error:  # Triton raises errors of many types for a tile that needs more than the GPU has
        return None, f"cannot run: {first_line(error)}"


def _under(tables: Tables, wanted: Step) -> Step:
    """Return the step, which runs under the tables."""

    def run() -> None:
        with in_use.replaced(tables):
            wanted()

    return run


# ---- Compiling ahead


class Compilers:
    """A pool of processes that compile, each with a context of its own on the GPU.

    The builders and formulas of a case are local functions, which no process can send to another. So a case is sent as
    its place among the cases of the knobs.

    Args:
        jobs: The number of processes.
    """

    def __init__(self, jobs: int) -> None:
        # Spawned: a forked process cannot use the GPU that its parent has used.
        self._pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))

    def __enter__(self) -> Compilers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def compile(self, contestants: Sequence[Tables], settings: Sequence[tuple[Case, torch.dtype]]) -> None:
        """Compile all that tables launch, and return when that is done. Timing finds a tile that cannot be compiled.

        Args:
            contestants: The tables.
            settings: The cases and dtypes that they are tried on.
        """
        with contextlib.suppress(BrokenExecutor):  # a tile may end its process; each is then compiled at its turn
            asked = [(tables, place_of(case), dtype) for case, dtype in settings for tables in contestants]
            for future in [self._pool.submit(run_once, *one) for one in asked]:
                future.result()


def place_of(case: Case) -> tuple[int, int]:
    """Return the number of a knob that has the case, and the case's number there."""
    return next(
        (number, index) for number, knob in enumerate(KNOBS) for index, it in enumerate(knob.cases) if it is case
    )


def run_once(tables: Tables, place: tuple[int, int], dtype: torch.dtype, device: str = "cuda") -> None:
    """Run a case once under tables, so that Triton compiles what the case launches.

    Args:
        tables: The tables.
        place: The case's place, as `place_of` returns it.
        dtype: The dtype of its inputs.
        device: The device of its inputs.
    """
    number, index = place
    case = KNOBS[number].cases[index]
    with use_backend("triton"), contextlib.suppress(Exception), in_use.replaced(tables):
        # A tile may need more than the GPU has.
        results(case.package, on(case.inputs(dtype), torch.device(device)))

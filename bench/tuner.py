"""The tables' entries, each against its alternatives on one GPU."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from ebgan_fast.ops.backends.triton import tables as in_use

from . import files, provenance
from .cases import Case
from .devices import Device
from .knobs import Entry, Knob, Tables, dump
from .search import GAIN, SWEEPS, descend
from .trial import compare

CompileAhead = Callable[[Sequence[Tables], Sequence[tuple[Case, torch.dtype]]], None]
"""Given tables and what they are tried on."""


class Tuner:
    """Turns one knob after the other, each against the tables as the last one left them."""

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
        """`out`: the tables to write; None: those that the kernels use. `cases`: of each knob; None: all."""
        self.path = out or in_use.TABLES
        self.trials = trials or device.results("tune")
        """JSON lines of everything that was tried, appended to."""
        self.changed = 0
        """Entries that another tile took."""
        self._sweeps, self._cases, self._compile_ahead = sweeps, cases, compile_ahead
        self._device = device
        self._architecture = in_use.architecture(device.torch)
        self._rounds = rounds
        self._tables: Tables = json.loads(in_use.TABLES.read_text(encoding="utf-8"))
        self._environment = provenance.environment(device.torch, device.backend)

    def turn(self, knob: Knob) -> None:
        start = knob.current(self._tables, self._architecture)
        found = descend(knob, start, lambda entries: self.ratios(knob, entries), self._sweeps)
        if found == start:
            print(f"{knob.name}: stays {_fields(knob, start)}")
            return
        gained = self.ratios(knob, [start, found])[1]
        if gained is None or gained >= GAIN:
            print(f"{knob.name}: stays {_fields(knob, start)}, for {_fields(knob, found)} was faster only once")
            return
        print(f"{knob.name}: {_fields(knob, start)} becomes {_fields(knob, found)}, {gained:.2f} of its time")
        self.changed += 1
        self._tables = knob.turned(self._tables, self._architecture, {**found, "why": self._why(knob, start, gained)})
        files.replace(self.path, dump(self._tables) + "\n")

    def _why(self, knob: Knob, start: Entry, gained: float) -> str:
        versions = self._environment["versions"]
        return (
            f"measured: {gained:.2f} of the time of {_fields(knob, start)} ({self._environment['processor']}, "
            f"{versions['compiler']}, torch {versions['torch']}, {_today()})"
        )

    def ratios(self, knob: Knob, entries: Sequence[Entry]) -> list[float | None]:
        """The geometric mean over the knob's cases and dtypes."""
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

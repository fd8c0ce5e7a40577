"""The frame of every measuring command: conditions, progress, the table, the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ebgan_fast.memory import keep_freed_memory

from . import devices, files, provenance, rows, table
from .devices import Device
from .measure import Setting
from .rows import Result
from .terminal import note, progress, short

DeviceName = Literal["cpu", "cuda"]
Memory = Literal["returned", "kept"]
Measurements = Callable[[Callable[[str], None], Callable[[], None]], Iterator[Result]]
"""Given what describes and what advances the progress bar."""


def check_counts(**counts: Sequence[int]) -> None:
    """Raises ValueError for none, or for less than one."""
    for name, values in counts.items():
        if not values or min(values) < 1:
            raise ValueError(f"{name}: got {' '.join(map(str, values)) or 'none'}, expected at least 1")


@dataclass(frozen=True)
class Session:
    """One run of one command, from its conditions to its rows in a file."""

    command: str
    device: Device
    out: Path | None
    """The file; None: the command's own, which only a whole run is added to."""
    run: str
    memory: Memory
    environment: dict[str, Any]

    @classmethod
    def begin(cls, command: str, device: DeviceName, out: Path | None = None, memory: Memory = "returned") -> Session:
        """Must come before any tensor is allocated. Raises ValueError for what cannot be measured, or written to."""
        if out is not None:
            files.check_appendable(out, "out")
        place = devices.named(device)
        if device == "cpu" and (newer := provenance.stale_extension()):
            note(f"{newer} is newer than the built extension: build it again, or the source hash tells another story")
        environment = provenance.environment(place.torch, place.backend)
        return cls(command, place, out, provenance.now(), _applied(memory), environment)

    def setting(self, rounds: int, **changes: Any) -> Setting:
        """Return how its cases are timed, but for what changes from case to case."""
        common: dict[str, Any] = {
            "device": self.device,
            "run": self.run,
            "memory": self.memory,
            "environment": self.environment,
        }
        return Setting(rounds=rounds, **common, **changes)

    def finish(self, steps: int, measurements: Measurements, partial: Sequence[str]) -> int:
        """Measure under a bar of so many steps, print, and write down; returns the exit status.

        `partial` says why the run holds less than the command's own file should. An interrupted run prints what it has.
        A file that was asked for gets each row as it comes: a run that is killed loses the one at hand.
        """
        measured: list[Result] = []
        try:
            with progress(steps) as (describe, advance):
                for row in measurements(describe, advance):
                    measured.append(row)
                    if self.out is not None:
                        rows.append(row, self.out)
        except KeyboardInterrupt:
            if measured:
                table.show(measured)
            raise
        table.show(measured)
        wrong = _complain(measured)
        self._keep(measured, [*partial, *(["wrong results"] if wrong else [])])
        return 1 if wrong else 0

    def _keep(self, measured: list[Result], partial: Sequence[str]) -> None:
        path = self.out or self.device.results(self.command)
        if self.out is None and partial:
            note(
                f"not a whole run ({', '.join(partial)}): {short(path)} is left as it is; --out FILE writes these rows"
            )
            return
        if self.out is None:
            rows.append_all(measured, path)
        print(f"added to {short(path)}")


def _applied(memory: Memory) -> Memory:
    """Return what the system then does."""
    if memory == "returned":
        return memory
    if keep_freed_memory():
        return "kept"
    note("this system's allocator cannot be told to keep freed memory: measured with memory returned")
    return "returned"


def _complain(measured: list[Result]) -> bool:
    """Return True if any result is wrong. Another provider that a CUDA graph does not take is none."""
    wrong = False
    for row in measured:
        for provider, why in row.wrong.items():
            note(f"{provider} at {row.op} {row.shape} {row.dtype}, {row.setting}: {why}")
            wrong |= row.setting != "replayed" or provider in (rows.PACKAGE, *rows.KERNELS)
    return wrong

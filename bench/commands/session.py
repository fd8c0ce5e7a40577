"""The frame of every measuring command: its arguments' checks, the conditions, progress, the table and the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ebgan_fast.memory import keep_freed_memory

from ..pages import tables
from ..results import provenance, rows
from ..results.rows import Fault, Result
from ..terminal import note, progress, short
from ..timing import devices
from ..timing.devices import Device
from ..timing.measure import Setting

DeviceName = Literal["cpu", "cuda"]
Memory = Literal["returned", "kept"]
Describe = Callable[[str], None]
"""Says in the progress bar what is measured now."""
Advance = Callable[[], None]
"""Advances the progress bar by a step."""
Measurements = Callable[[Describe, Advance], Iterator[Result]]
"""Measures, and yields each row as it comes."""

# ---- The checks of arguments


def check_least(least: int, **values: int | Sequence[int]) -> None:
    """Raise ValueError for an argument below the least value, or without any value."""
    for name, value in values.items():
        several = [value] if isinstance(value, int) else list(value)
        if not several or min(several) < least:
            said = " ".join(map(str, several)) or "none"
            raise ValueError(f"{name}: got {said}, expected at least {least}")


def check_replaceable(path: Path, name: str) -> None:
    """Raise ValueError, with the argument's name, if a file cannot be written anew."""
    if path.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise ValueError(f"{name}: got {path}, expected a file in a folder that exists and can be written to")


def check_appendable(path: Path, name: str) -> None:
    """Raise ValueError, with the argument's name, if nothing can be added to a file."""
    check_replaceable(path, name)
    if path.exists() and not os.access(path, os.W_OK):
        raise ValueError(f"{name}: got {path}, expected a file that can be written to")


# ---- The run


@dataclass(frozen=True)
class Session:
    """One run of one command, from its conditions to its rows in a file."""

    command: str
    device: Device
    out: Path | None
    """The file to add rows to. None: the command's own file, to which only a whole run is added."""
    run: str
    """The time at which the run began."""
    memory: Memory
    environment: dict[str, Any]

    @classmethod
    def begin(
        cls,
        command: str,
        device: DeviceName,
        out: Path | None = None,
        memory: Memory = "returned",
        whole: bool = False,
    ) -> Session:
        """Begin a run, before any tensor is allocated.

        Args:
            command: The command, or another one whose file takes the rows.
            device: The type of the device.
            out: The file to add rows to. None: the command's own.
            memory: What the allocator does with freed memory.
            whole: True if the whole package is measured, False for the ops.

        Raises:
            ValueError: The device cannot be measured, or the file cannot be written to.
        """
        if out is not None:
            check_appendable(out, "out")
        place = devices.named(device)
        if device == "cpu" and (newer := provenance.stale_extension()):
            note(f"{newer} is newer than the built extension: build it again, or the source hash tells another story")
        environment = provenance.environment(place.torch, place.backend, whole)
        return cls(command, place, out, provenance.now(), _applied(memory), environment)

    def conditions(self) -> dict[str, Any]:
        """Return the fields that every row of the run has, with the date of this moment."""
        return {"run": self.run, "device": self.device.torch.type, "date": provenance.now(), **self.environment}

    def setting(self, rounds: int, **changes: Any) -> Setting:
        """Return the conditions under which the run's cases are timed.

        Args:
            rounds: Times each case is timed.
            **changes: The conditions that change from case to case.
        """
        common: dict[str, Any] = {
            "device": self.device,
            "run": self.run,
            "memory": self.memory,
            "environment": self.environment,
        }
        return Setting(rounds=rounds, **common, **changes)

    def finish(self, steps: int, measurements: Measurements, partial: Sequence[str] = ()) -> int:
        """Measure under a progress bar, print the table, add the rows to the file, and return the exit status.

        A file that the user named gets each row as it comes, so that a killed run loses only the row at hand. The
        command's own file gets the rows at the end, if the run is whole. An interrupted run prints the rows it has.

        Args:
            steps: The steps of the progress bar.
            measurements: Yields the rows.
            partial: The reasons why the run holds less than the command's own file should.
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
                tables.show(measured)
                self._keep(measured, [*partial, "interrupted"])
            raise
        if not measured:
            return 0
        tables.show(measured)
        faults = [(row, fault) for row in measured for fault in row.faults()]
        spoiled = any(fault.fails and not row.keeps_faults for row, fault in faults)
        self._keep(measured, [*partial, *(["wrong results"] if spoiled else [])])
        return _told([fault for _, fault in faults])

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


def _told(faults: Sequence[Fault]) -> int:
    """Print the faults, and return the exit status."""
    for fault in faults:
        note(fault.text)
    return int(any(fault.fails for fault in faults))


def _applied(memory: Memory) -> Memory:
    """Set the allocator, and return what it then does with freed memory."""
    if memory == "returned":
        return memory
    if keep_freed_memory():
        return "kept"
    note("this system's allocator cannot be told to keep freed memory: measured with memory returned")
    return "returned"

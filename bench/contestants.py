"""The training steps that `train` times, and those that fell out of the race."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from . import peak
from .steps import complaint
from .terminal import note
from .training_step import Timed


@dataclass
class Field:
    """The contestants, and what is known of them."""

    spares: bool = False
    """Go on with the others where one can't run."""
    contestants: dict[str, Timed] = dataclasses.field(default_factory=dict)
    wrong: str | None = None
    """The fault of the first losses, in words."""
    compared: str | None = None
    """The other commit."""
    failed: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, who: str, build: Callable[[], Timed]) -> None:
        """Build a contestant, and make its first call."""
        try:
            self.contestants[who] = build()
        except Exception as error:  # out of memory, or what else a GPU has in store
            if not self.spares:
                raise
            self.drop(who, error)
        if who in self.failed:  # here its tensors are nobody's any more
            peak.release()

    def drop(self, who: str, error: Exception) -> None:
        """Go on without one."""
        self.failed[who] = complaint(error)
        note(f"{who}: {self.failed[who]}")
        self.contestants.pop(who, None)

    def complaint(self) -> str:
        return "; ".join(f"{who}: {why}" for who, why in self.failed.items())

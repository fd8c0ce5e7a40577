"""The training loop of a trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from ..framework.study import Tick

# The default of TrainConfig.log_every: a trainer keeps the losses of so many steps, and a check looks at these.
_STEPS_BETWEEN_CHECKS = 100


class StepsAndChecks(Protocol):
    """The methods that all trainers have."""

    def step(self) -> object: ...

    def check_finite(self) -> None: ...

    def close(self) -> None: ...


def train(
    trainer: StepsAndChecks, steps: int, tick: Tick, looks: Mapping[int, Callable[[], None]] | None = None
) -> None:
    """Do all steps of a trial, and close the trainer.

    Args:
        trainer: the trainer.
        steps: the number of steps.
        tick: called before each step.
        looks: functions to call after certain steps, by the number of the step, counted from 1.

    Raises:
        NonFiniteError: a loss or weight became infinite or NaN.
    """
    try:
        for step in range(1, steps + 1):
            tick()
            trainer.step()
            if step % _STEPS_BETWEEN_CHECKS == 0 or step == steps:
                trainer.check_finite()
            if looks and step in looks:
                looks[step]()
    finally:
        trainer.close()

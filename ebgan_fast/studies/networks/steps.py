"""The steps of a trial's training."""

from __future__ import annotations

from typing import Protocol

from ..framework.study import Tick

# TrainConfig.log_every's default: the trainer checks its losses over the steps since the last check, and keeps so many.
_STEPS_BETWEEN_CHECKS = 100


class StepsAndChecks(Protocol):
    """The methods that all trainers have."""

    def step(self) -> object: ...

    def check_finite(self) -> None: ...

    def close(self) -> None: ...


def train(trainer: StepsAndChecks, steps: int, tick: Tick) -> None:
    """Do all steps of a trial.

    Raises:
        NonFiniteError: a loss or weight became infinite or NaN.
    """
    try:
        for step in range(1, steps + 1):
            tick()
            trainer.step()
            if step % _STEPS_BETWEEN_CHECKS == 0 or step == steps:
                trainer.check_finite()
    finally:
        trainer.close()

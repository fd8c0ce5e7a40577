"""The numbers of every step, which stay on the device and are averaged when a line of the log is due."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .config import TrainConfig
from .parallel import World

# The columns of the statistics, which have one row per step.
STATISTICS = ("loss_d", "loss_g", "energy_real", "energy_fake", "hinge_active", "pulling_away")


class NonFiniteError(RuntimeError):
    """The error of a run that can't go on, because a loss or weight became infinite or NaN.

    Example:
        >>> from pathlib import Path
        >>> from ebgan_fast.models import Mlp
        >>> from ebgan_fast.training import NonFiniteError, TrainConfig, train
        >>> networks = Mlp(size_g=32, size_d=32)
        >>> config = TrainConfig(out=Path("runs/first"), steps=2, networks=networks, lr_d=1e30, device="cpu")
        >>> try:
        ...     train(config)
        ... except NonFiniteError as error:
        ...     print(error)  # doctest: +ELLIPSIS
        step 2: got loss_d ..., expected a finite number; the last good checkpoint is of step 0: ...
    """


class Statistics:
    """The rows of the current log interval, one per step, and the lengths of the gradients in its last step.

    They stay on the device until a line of the log is due, so that no step waits for the device.

    Args:
        config: the config of the run.
        device: the device of the steps.
        world: the processes of the run.
        takes_term: returns True for a step, counted from 1, that computes the pulling-away term.

    Attributes:
        rows: [log_every, len(STATISTICS)], one row per step.
        gradient_norms: [2], the length of the generator's gradient and that of the discriminator's.
    """

    def __init__(
        self, config: TrainConfig, device: torch.device, world: World, takes_term: Callable[[int], bool]
    ) -> None:
        self._config = config
        self._world = world
        self._takes_term = takes_term
        self.rows = torch.zeros(config.log_every, len(STATISTICS), device=device)
        self.gradient_norms = torch.zeros(2, device=device)

    def is_logged(self, step: int) -> bool:
        """Return True if a log interval ends with this step, counted from 1. Every process gets the same answer."""
        return step % self._config.log_every == 0 or step == self._config.steps

    def note(self, step: int, row: Tensor) -> None:
        """Store the row of this step, counted from 1."""
        self.rows[(step - 1) % self._config.log_every] = row

    def means(self, step: int) -> dict[str, float]:
        """Return the means over the processes and over the steps of a log interval up to `step`. Wait for the device.

        The lengths of the gradients are those of the interval's last step. The mean of the pulling-away term is over
        the steps that computed it, and is left out if there are none.

        Args:
            step: the last step done, counted from 1.

        Raises:
            NonFiniteError: a loss in the interval was infinite or NaN.
        """
        filled = (step - 1) % self._config.log_every + 1
        # Move to the CPU before the conversion: Apple's GPUs have no float64, and .to() with both at once gives zeros
        # in torch 2.14.
        rows = self._world.mean(self.rows[:filled].cpu().double())
        first = step - filled + 1
        for row, values in enumerate(rows.isfinite().tolist()):
            bad = [name for name, finite in zip(STATISTICS, values, strict=True) if not finite]
            if bad:
                value = float(rows[row, STATISTICS.index(bad[0])])
                raise NonFiniteError(f"step {first + row}: got {bad[0]} {value}, expected a finite number")
        means = dict(zip(STATISTICS, rows.mean(0).tolist(), strict=True))
        taken = [row for row in range(filled) if self._takes_term(first + row)]
        if len(taken) < filled:
            del means["pulling_away"]
            if taken:
                means["pulling_away"] = float(rows[taken, STATISTICS.index("pulling_away")].mean())
        norms = dict(zip(("grad_norm_g", "grad_norm_d"), self.gradient_norms.tolist(), strict=True))
        # float16 gradients may overflow. That step's update is then skipped, and the scale is halved.
        return means | {name: norm for name, norm in norms.items() if math.isfinite(norm)}

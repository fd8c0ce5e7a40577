"""The margin that the data suggest."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .trainer import Trainer

_CONVERGED_SHARE = 0.1  # of the steps, the last ones: what the mean is taken over


def mean_real_energy(trainer: Trainer, steps: int, on_step: Callable[[int], None]) -> float:
    """The mean energy of real images under an auto-encoder trained on them alone.

    The paper's appendix E starts its search for the margin there: the hinge's term of the loss lies in [0, m], and this
    makes it as large as the real images' term.

    Args:
        trainer: before its first step. Its discriminator is trained, its other parts are left alone but for the
            stream of images: use another one for the run.
        steps: of training, at least 1. The mean is over the last tenth of them.
        on_step: told the steps done.

    Returns:
        In the units of the config's norm; the same on all processes.
    """
    energies: list[torch.Tensor] = []
    for step in range(steps):
        energies.append(trainer.autoencoder_step())
        on_step(step + 1)
    last = torch.stack(energies[-max(1, round(steps * _CONVERGED_SHARE)) :])
    return float(trainer.world.mean(last.mean().to("cpu", torch.float64)))

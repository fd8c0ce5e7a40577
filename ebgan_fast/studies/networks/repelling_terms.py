"""Terms that repel the codes of a generated batch: the paper's term, and terms that other code computes instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ...data.image_set import ImageSet
from ...ops.tensors import Coefficient
from ...training.config import TrainConfig
from ...training.step import Trainer

Term = Literal["none", "paper", "no square", "batch axis"]

TERMS: tuple[Term, ...] = ("none", "paper", "no square", "batch axis")


def no_square(code: Tensor) -> Tensor:
    """Return the mean cosine between two codes of [N, d]. Opposite codes lower it as much as equal codes raise it."""
    unit = normalize(code)
    return _mean_over_pairs(unit @ unit.T)


def batch_axis(code: Tensor) -> Tensor:
    """Return equation 14 on codes [N, d] in which each feature is divided by its length over the batch.

    The paper divides each code by its own length.
    """
    unit = normalize(code, dim=0)
    return _mean_over_pairs((unit @ unit.T) ** 2)


def trainer_with(term: Term, config: TrainConfig, images: ImageSet) -> Trainer:
    """Return a trainer whose generator's loss has this term. The term's weight is the config's weight of the paper's
    term."""
    if term == "paper":
        return Trainer(config, images)
    return _TrainerWithOther(config, images, _OTHERS.get(term))


_OTHERS: dict[str, Callable[[Tensor], Tensor]] = {"no square": no_square, "batch axis": batch_axis}


class _TrainerWithOther(Trainer):
    """A trainer whose generator's loss has another term instead of the paper's, or none.

    It computes the paper's term in every step for the log. So the means over a log interval compare with those of a
    trainer that has the paper's term in its loss.
    """

    def __init__(self, config: TrainConfig, images: ImageSet, term: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__(replace(config, pt_weight=0.0), images)
        self._weight = config.pt_weight
        self._term = term

    def takes_term(self, step: int) -> bool:
        return True

    def generator_loss(
        self, recon: Tensor, fakes: Tensor, code: Tensor, upstream: Coefficient
    ) -> tuple[Tensor, Tensor]:
        loss, pulling_away = super().generator_loss(recon, fakes, code, upstream)
        if self._term is not None:
            loss = loss + self._weight * self._term(code)
        return loss, pulling_away


def _mean_over_pairs(products: Tensor) -> Tensor:
    """Return the mean of the N (N - 1) entries of a matrix [N, N] off its diagonal."""
    n = len(products)
    return torch.where(torch.eye(n, dtype=torch.bool, device=products.device), 0.0, products).sum() / (n * (n - 1))

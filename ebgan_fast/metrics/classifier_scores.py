"""Classifier-based scores of generated digits: the inception score and the EBGAN paper's swapped form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_CLASSES = 10


@dataclass(frozen=True)
class DigitScore:
    """Scores of N samples, see `score`. The two divergences are in nats."""

    exp_score: float
    """exp of the mean KL(p(y|x) || p(y)), averaged over the splits: 1 (worst) to 10 (best)."""
    exp_score_std: float
    """Standard deviation of that over the splits (of the population, as is usual); 0 for one split."""
    kl_conditional_marginal: float
    """Mean KL(p(y|x) || p(y)) over all samples: 0 to ln 10 = 2.303."""
    kl_marginal_conditional: float
    """Mean KL(p(y) || p(y|x)) over all samples, the paper's I': 0 upwards, without a bound."""
    class_share: list[float]
    """Share of the samples whose likeliest class is 0, 1, ... 9; sums to 1."""


def score(logits: Tensor, splits: int = 10) -> DigitScore:
    """Score samples x by a classifier's p(y|x) = softmax(logits) and the marginal p(y) = mean_x p(y|x).

    Salimans et al. 2016 (Improved Techniques for Training GANs, section 4) define the inception score
    exp(E_x KL(p(y|x) || p(y))); as in their code it is taken over consecutive splits, each with a marginal of
    its own. Zhao et al. 2016 compare their grid search by I' = E_x KL(p(y) || p(y|x)) (section 4.1, appendix
    C): the arguments swapped, and no exp. The 2 printed above it in section 4.1 marks a footnote and is often
    misread as a square. I' is unbounded: a classifier that is sure of every sample takes it far above ln 10,
    so it compares models only under one classifier.

    All in float64 on log-probabilities, with no epsilon: a probability that underflows adds its limit, 0. This is done
    on the CPU, as not every device has float64.

    Args:
        logits: [N, 10], floating point, on any device, in an order that has nothing to do with the class.
        splits: how many parts, equal up to one sample, 1 to N.

    Raises:
        TypeError: `logits` isn't a floating-point tensor.
        ValueError: another shape, a value that isn't finite, fewer samples than splits, or `splits` below 1.
    """
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise TypeError(f"got logits of {getattr(logits, 'dtype', type(logits))}, expected a floating-point tensor")
    if logits.dim() != 2 or logits.shape[1] != _CLASSES:
        raise ValueError(f"got logits of shape {list(logits.shape)}, expected [N, {_CLASSES}]")
    if not 1 <= splits <= len(logits):
        raise ValueError(f"got {splits} splits of {len(logits)} samples, expected 1 to {len(logits)} splits")
    log_p = logits.detach().cpu().double().log_softmax(1)
    if not torch.isfinite(log_p).all():
        raise ValueError(f"got logits that aren't finite in {_bad_rows(log_p)} of {len(logits)} rows, expected finite")
    log_marginal = _log_marginal(log_p)
    parts = torch.stack([_mean_kl(part, _log_marginal(part)).exp() for part in log_p.tensor_split(splits)])
    share = torch.bincount(log_p.argmax(1), minlength=_CLASSES).double() / len(log_p)
    return DigitScore(
        exp_score=parts.mean().item(),
        exp_score_std=parts.std(correction=0).item(),
        kl_conditional_marginal=_mean_kl(log_p, log_marginal).item(),
        kl_marginal_conditional=_mean_kl(log_marginal, log_p).item(),
        class_share=share.tolist(),
    )


@torch.no_grad()
def score_images(
    classifier: Callable[[Tensor], Tensor], images: Tensor, batch_size: int = 500, splits: int = 10
) -> DigitScore:
    """`score` of `classifier(images)`, in batches and without gradients.

    Args:
        classifier: images to logits [B, 10], such as `DigitClassifier`.
        images: [N, ...] in the form that the classifier takes, float32 in [-1, 1], on its device.
        batch_size: images at a time, at least 1.
        splits: parts whose scores' spread is given, at most N.

    Raises:
        ValueError: batch_size below 1, or fewer images than splits.
    """
    if batch_size < 1:
        raise ValueError(f"got batch_size {batch_size}, expected at least 1")
    return score(torch.cat([classifier(batch) for batch in torch.split(images, batch_size)]), splits)


def _log_marginal(log_p: Tensor) -> Tensor:
    """log of the mean probability of each class: [1, 10]."""
    return log_p.logsumexp(0, keepdim=True) - math.log(len(log_p))


def _mean_kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    """Mean over samples of KL(a || b); [N, 10] and [1, 10] in either order."""
    return (log_a.exp() * (log_a - log_b)).sum(1).mean()


def _bad_rows(log_p: Tensor) -> int:
    return int((~torch.isfinite(log_p)).any(1).sum())

"""Scores of generated images by a classifier: the inception score, and the EBGAN paper's form of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_DIGITS = 10


@dataclass(frozen=True)
class ClassifierScore:
    """The scores of N samples by a classifier of K classes; see `inception_score`. The divergences are in nats.

    Example:
        >>> import torch
        >>> from ebgan_fast.metrics import ClassifierScore, inception_score
        >>> found = inception_score(torch.zeros(40, 3))  # a classifier that can't tell anything
        >>> isinstance(found, ClassifierScore), round(found.exp_score, 6)
        (True, 1.0)
    """

    exp_score: float
    """The inception score, 1 (worst) to K (best): the mean over the splits of exp(mean KL(p(y|x) || p(y)))."""
    exp_score_std: float
    """The standard deviation of the inception score over the splits (of the population, as usual); 0 for one split."""
    kl_conditional_marginal: float
    """The mean KL(p(y|x) || p(y)) over all samples: 0 to ln K, which is 2.303 for ten classes."""
    kl_marginal_conditional: float
    """The mean KL(p(y) || p(y|x)) over all samples, the EBGAN paper's I'. It is at least 0 and has no upper bound."""
    class_share: list[float]
    """The share of the samples whose likeliest class is 0, 1, ... K - 1. The shares sum to 1."""


DigitScore = ClassifierScore
"""The `ClassifierScore` of a classifier of the ten digits, which `score` returns."""


def inception_score(logits: Tensor, splits: int = 10) -> ClassifierScore:
    """Return the inception score and the EBGAN paper's swapped form, from a classifier's logits of samples.

    The classifier gives p(y|x) = softmax(logits) for a sample x, and the marginal is p(y) = mean_x p(y|x). Salimans et
    al. 2016 (Improved Techniques for Training GANs, section 4) define the inception score
    exp(E_x KL(p(y|x) || p(y))). As in their code it is computed for consecutive splits, each with its own marginal.

    Zhao et al. 2016 compare the models of their grid search by I' = E_x KL(p(y) || p(y|x)) (section 4.1, appendix C):
    with swapped arguments, and without exp. The 2 printed above I' in section 4.1 marks a footnote; it is often misread
    as a square. I' has no upper bound: if a classifier is sure of every sample, I' is far above ln K. So I' compares
    models only if one classifier scores them all.

    Everything is computed in float64 from log-probabilities, without an epsilon: a probability that underflows adds its
    limit, 0. This is done on the CPU, because not every device has float64.

    Args:
        logits: [N, K], K at least 2, floating point, on any device. The order must not depend on the class.
        splits: the number of parts, equal up to one sample, 1 to N.

    Returns:
        Both scores, and each class's share of the samples. Divergences are in nats.

    Raises:
        TypeError: `logits` isn't a floating-point tensor.
        ValueError: `logits` has another shape, a value that isn't finite, or fewer samples than splits; or `splits` is
            below 1.

    Example:
        >>> import torch
        >>> from ebgan_fast.metrics import inception_score
        >>> sure = 1000 * torch.eye(5).repeat(8, 1)  # forty samples, each surely of one of five classes
        >>> found = inception_score(sure, splits=4)
        >>> round(found.exp_score, 6), found.class_share
        (5.0, [0.2, 0.2, 0.2, 0.2, 0.2])
    """
    _check_logits(logits)
    if not 1 <= splits <= len(logits):
        raise ValueError(f"got {splits} splits of {len(logits)} samples, expected 1 to {len(logits)} splits")
    log_p = logits.detach().cpu().double().log_softmax(1)
    _check_finite(log_p)
    log_marginal = _log_marginal(log_p)
    parts = torch.stack([_mean_kl(part, _log_marginal(part)).exp() for part in log_p.tensor_split(splits)])
    share = torch.bincount(log_p.argmax(1), minlength=log_p.shape[1]).double() / len(log_p)
    return ClassifierScore(
        exp_score=parts.mean().item(),
        exp_score_std=parts.std(correction=0).item(),
        kl_conditional_marginal=_mean_kl(log_p, log_marginal).item(),
        kl_marginal_conditional=_mean_kl(log_marginal, log_p).item(),
        class_share=share.tolist(),
    )


def score(logits: Tensor, splits: int = 10) -> DigitScore:
    """Score generated digits by the logits of a classifier of the ten digits: the `inception_score` of ten classes.

    Args:
        logits: [N, 10], floating point, on any device. The order must not depend on the class.
        splits: the number of parts, equal up to one sample, 1 to N.

    Returns:
        Both scores, and each digit's share of the samples. Divergences are in nats.

    Raises:
        TypeError: `logits` isn't a floating-point tensor.
        ValueError: `logits` has another shape, a value that isn't finite, or fewer samples than splits; or `splits` is
            below 1.

    Example:
        >>> import torch
        >>> from ebgan_fast.metrics import score
        >>> threes = torch.zeros(40, 10)
        >>> threes[:, 3] = 1000.0
        >>> found = score(threes)  # sure of each, but all are the same digit
        >>> round(found.exp_score, 6), found.class_share[3]
        (1.0, 1.0)
    """
    _check_logits(logits, _DIGITS, "inception_score takes any number of classes")
    return inception_score(logits, splits)


@torch.no_grad()
def score_images(
    classifier: Callable[[Tensor], Tensor], images: Tensor, batch_size: int = 500, splits: int = 10
) -> DigitScore:
    """Score images of digits by a classifier, in batches and without gradients: the `score` of `classifier(images)`.

    Args:
        classifier: a function from images to logits [B, 10], such as a `DigitClassifier`.
        images: [N, ...] in the shape that the classifier takes, float32 in [-1, 1], on its device.
        batch_size: the number of images in a batch, at least 1.
        splits: the number of parts, 1 to N. The standard deviation is that of the parts' scores.

    Returns:
        Both scores, and each digit's share of the images.

    Raises:
        ValueError: `batch_size` is below 1, or there are fewer images than splits.

    Example:
        >>> import torch
        >>> from ebgan_fast.metrics import DigitClassifier, score_images
        >>> images = torch.rand(30, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
        >>> untrained = DigitClassifier(channels=(2, 3, 4)).eval()
        >>> found = score_images(untrained, images, batch_size=16)
        >>> 1 <= found.exp_score <= 10, len(found.class_share)
        (True, 10)
    """
    if batch_size < 1:
        raise ValueError(f"got batch_size {batch_size}, expected at least 1")
    return score(torch.cat([classifier(batch) for batch in torch.split(images, batch_size)]), splits)


class InceptionScore:
    """The inception score and the EBGAN paper's swapped form, for samples that arrive in batches.

    `update` adds samples. `compute` returns the `inception_score` of all samples added so far. Splits are parts of all
    samples, so all logits are kept, on the CPU. The parts follow the order of the updates, which must not depend on the
    class.

    The metric is a plain object. As an attribute of a Module it adds no parameters and nothing to the `state_dict`.

    Args:
        classifier: a function in eval mode from images to logits [B, K], such as a `DigitClassifier`. None: `update`
            takes logits.
        splits: the number of parts, at least 1. The standard deviation is that of the parts' scores.

    Raises:
        TypeError: `classifier` can't be called.
        ValueError: `splits` is below 1.

    Example:
        >>> import torch
        >>> from ebgan_fast.metrics import InceptionScore
        >>> metric = InceptionScore(splits=2)
        >>> for _ in range(4):
        ...     metric.update(1000 * torch.eye(5))  # five samples, each surely of a class of its own
        >>> found = metric.compute()
        >>> round(found.exp_score, 6), round(found.exp_score_std, 6)
        (5.0, 0.0)
    """

    def __init__(self, classifier: Callable[[Tensor], Tensor] | None = None, *, splits: int = 10) -> None:
        if classifier is not None and not callable(classifier):
            raise TypeError(
                f"classifier: got {type(classifier).__name__}, expected a function or Module of images, or None; "
                "give the number of splits by name, such as splits=10"
            )
        if splits < 1:
            raise ValueError(f"splits: got {splits}, expected at least 1")
        self.classifier = classifier
        self.splits = splits
        self._logits: list[Tensor] = []

    @torch.no_grad()
    def update(self, samples: Tensor) -> None:
        """Add a batch of samples. If an error is raised, the metric is unchanged.

        Args:
            samples: with a classifier, images in the shape that it takes, on its device. Without one, finite logits
                [N, K] of a floating-point dtype, on any device. All batches must have the same K, at least 2.

        Raises:
            TypeError: the logits aren't a floating-point tensor.
            ValueError: the logits have another shape or K, or aren't finite.
        """
        logits = samples if self.classifier is None else self.classifier(samples)
        if self._logits:
            _check_logits(logits, self._logits[0].shape[1], "as many classes as before; reset() forgets those")
        else:
            _check_logits(logits)
        _check_finite(logits)
        if len(logits) == 0:
            return
        self._logits.append(logits.detach().to("cpu", copy=True))  # the next batch may be written into the same memory

    def compute(self) -> ClassifierScore:
        """Return the scores of all samples so far; see `inception_score`.

        Raises:
            ValueError: there are fewer samples than splits.
        """
        count = sum(map(len, self._logits))
        if count < self.splits:
            raise ValueError(
                f"samples: got {count}, expected at least {self.splits}, one for each split; update(...) adds some, "
                "and fewer splits need fewer"
            )
        return inception_score(torch.cat(self._logits), self.splits)

    def reset(self) -> None:
        """Forget all samples."""
        self._logits = []


def _check_logits(logits: Tensor, classes: int | None = None, more: str = "with at least two classes") -> None:
    """Raise an error if `logits` isn't floating-point [N, K].

    Args:
        logits: the value to check.
        classes: the K that is expected. None: any K of at least 2.
        more: the way out, for the message.

    Raises:
        TypeError: `logits` isn't a floating-point tensor.
        ValueError: `logits` has another shape.
    """
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise TypeError(f"got logits of {getattr(logits, 'dtype', type(logits))}, expected a floating-point tensor")
    if logits.dim() != 2 or logits.shape[1] < 2 or classes not in (None, logits.shape[1]):
        raise ValueError(
            f"got logits of shape {list(logits.shape)}, expected [N, {classes or 'K'}], one logit for each class; "
            f"{more}"
        )


def _check_finite(logits: Tensor) -> None:
    bad = int((~torch.isfinite(logits)).any(1).sum())
    if bad:
        raise ValueError(
            f"got logits that aren't finite in {bad} of {len(logits)} rows, expected finite ones; look "
            "at the images of those rows and at the classifier"
        )


def _log_marginal(log_p: Tensor) -> Tensor:
    """Return the log of the mean probability of each class, [1, K]."""
    return log_p.logsumexp(0, keepdim=True) - math.log(len(log_p))


def _mean_kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    """Return the mean over samples of KL(a || b). Either argument is [N, K], the other [1, K]."""
    return (log_a.exp() * (log_a - log_b)).sum(1).mean()

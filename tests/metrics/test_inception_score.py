from __future__ import annotations

import dataclasses
import math
import warnings

import pytest
import torch
from torch import Tensor
from torchmetrics.image.inception import InceptionScore as TheirInceptionScore

from ebgan_fast.data import Mnist, to_signed_unit
from ebgan_fast.metrics import DigitClassifier, DigitScore, InceptionScore, inception_score, score, score_images
from tests.ops.budget import ULPS


def rounding(samples: int, largest: float = 10 * math.log(10)) -> float:
    """Return a bound on the rounding of a score whose terms are at most `largest`.

    The default `largest` is 10 ln 10: exp of a divergence of ln 10 is 10. A sum over N samples and 10 classes has at
    most N + 10 roundings of half a unit, in any order. A score takes two such sums, for the marginal and for the mean,
    and the few units of budget.py for exp, log and quotients.
    """
    return (samples + 10 + ULPS) * torch.finfo(torch.float64).eps * largest


def certain(labels: list[int]) -> Tensor:
    """Return logits whose softmax is one-hot: exp(-1000) is 0 in float64."""
    return 1000 * torch.nn.functional.one_hot(torch.tensor(labels), 10).float()


def two_classes(p: float, count: int) -> Tensor:
    """Return logits of `count` samples, alternately with (p, 1-p) and (1-p, p) on classes 0 and 1, and 0 elsewhere."""
    logits = torch.full((count, 10), -1000.0, dtype=torch.float64)
    logits[0::2, 0] = logits[1::2, 1] = math.log(p)
    logits[0::2, 1] = logits[1::2, 0] = math.log(1 - p)
    return logits


def test_every_class_and_no_doubt_scores_ten() -> None:
    result = score(certain(list(range(10)) * 20), splits=10)
    assert result.exp_score == pytest.approx(10, abs=rounding(200))
    assert result.exp_score_std == pytest.approx(0, abs=rounding(200))
    assert result.kl_conditional_marginal == pytest.approx(math.log(10), abs=rounding(200))
    assert result.class_share == [0.1] * 10


SOME = torch.randn(10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("logits", [certain([3] * 40), torch.zeros(40, 10), SOME.expand(40, 10)])
def test_the_same_prediction_throughout_scores_one(logits: Tensor) -> None:
    result = score(logits)
    assert result.exp_score == pytest.approx(1, abs=rounding(40))
    assert result.kl_conditional_marginal == pytest.approx(0, abs=rounding(40))
    assert result.kl_marginal_conditional == pytest.approx(0, abs=rounding(40))


@pytest.mark.parametrize("p", [0.5, 0.6, 0.9, 0.999])
def test_two_soft_classes(p: float) -> None:
    """The divergences are known: half of the samples have (p, 1-p), half (1-p, p), so the marginal is (1/2, 1/2).

    For every sample KL(p(y|x) || p(y)) = p ln 2p + (1-p) ln 2(1-p), and
    KL(p(y) || p(y|x)) = -ln(2p) / 2 - ln(2(1-p)) / 2. The other eight classes have probability 0 on both sides and add
    the limit 0.
    """
    forward = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    swapped = -math.log(2 * p) / 2 - math.log(2 * (1 - p)) / 2
    result = score(two_classes(p, 40), splits=10)
    assert result.kl_conditional_marginal == pytest.approx(forward, abs=rounding(40))
    assert result.kl_marginal_conditional == pytest.approx(swapped, abs=rounding(40))
    assert result.exp_score == pytest.approx(math.exp(forward), abs=rounding(40))
    assert result.exp_score_std == pytest.approx(0, abs=rounding(40))
    if p > 0.5:
        assert result.kl_marginal_conditional > result.kl_conditional_marginal


def test_the_swapped_divergence_has_no_bound_and_no_epsilon() -> None:
    """The value is 0.9 * 1000 - ln 10: ln p(y|x) is -1000 for the nine other classes and 0 for the sample's own."""
    result = score(certain(list(range(10)) * 2), splits=2)
    assert result.kl_marginal_conditional == pytest.approx(900 - math.log(10), abs=rounding(20, 1000))


def test_each_split_has_its_own_marginal() -> None:
    """One half has two classes and scores 2, the other has one and scores 1. The whole has the entropy 1.5 ln 2.

    Its shares are 1/4, 1/4 and 1/2.
    """
    logits = certain([0, 1] * 10 + [2] * 20)
    halves = score(logits, splits=2)
    assert halves.exp_score == pytest.approx(1.5, abs=rounding(40))
    assert halves.exp_score_std == pytest.approx(0.5, abs=rounding(40))
    assert halves.kl_conditional_marginal == pytest.approx(1.5 * math.log(2), abs=rounding(40))
    assert halves.class_share == [0.25, 0.25, 0.5] + [0] * 7
    whole = score(logits, splits=1)
    assert whole.exp_score == pytest.approx(2**1.5, abs=rounding(40))
    assert whole.exp_score_std == 0
    assert whole.kl_conditional_marginal == halves.kl_conditional_marginal


def test_splits_that_do_not_divide() -> None:
    """Seven samples make three splits of 3, 2 and 2 samples. Their classes 012 | 00 | 12 score 3, 1 and 2."""
    result = score(certain([0, 1, 2, 0, 0, 1, 2]), splits=3)
    assert result.exp_score == pytest.approx(2, abs=rounding(7))
    assert result.exp_score_std == pytest.approx(math.sqrt(2 / 3), abs=rounding(7))


def test_equals_the_definition_on_random_logits() -> None:
    logits = 3 * torch.randn(60, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = [[math.exp(v) / sum(math.exp(w) for w in row) for v in row] for row in logits.tolist()]

    def divergence(a: list[float], b: list[float]) -> float:
        return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True))

    def marginal(rows: list[list[float]]) -> list[float]:
        return [sum(column) / len(rows) for column in zip(*rows, strict=True)]

    parts = [p[i : i + 12] for i in range(0, 60, 12)]
    scores = [math.exp(sum(divergence(row, marginal(part)) for row in part) / 12) for part in parts]
    mean = sum(scores) / 5
    result = score(logits, splits=5)
    both = 2 * rounding(60)
    assert result.exp_score == pytest.approx(mean, abs=both)
    # The error of a standard deviation is at most the largest error of the scores.
    assert result.exp_score_std == pytest.approx(math.sqrt(sum((s - mean) ** 2 for s in scores) / 5), abs=both)
    whole = marginal(p)
    forward = sum(divergence(row, whole) for row in p) / 60
    swapped = sum(divergence(whole, row) for row in p) / 60
    assert result.kl_conditional_marginal == pytest.approx(forward, abs=both)
    assert result.kl_marginal_conditional == pytest.approx(swapped, abs=both)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_logits_are_widened_first(dtype: torch.dtype) -> None:
    logits = torch.randn(50, 10, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert score(logits) == score(logits.double())


@pytest.mark.parametrize(
    ("logits", "splits", "error", "message"),
    [
        (torch.zeros(20), 10, ValueError, r"got logits of shape \[20\], expected \[N, 10\]"),
        (torch.zeros(20, 9), 10, ValueError, r"got logits of shape \[20, 9\], expected \[N, 10\]"),
        (torch.zeros(2, 20, 10), 10, ValueError, r"got logits of shape \[2, 20, 10\]"),
        (torch.zeros(9, 10), 10, ValueError, "got 10 splits of 9 samples, expected 1 to 9 splits"),
        (torch.zeros(0, 10), 1, ValueError, "got 1 splits of 0 samples"),
        (torch.zeros(9, 10), 0, ValueError, "got 0 splits of 9 samples"),
        (
            torch.zeros(20, 10, dtype=torch.int64),
            10,
            TypeError,
            "got logits of torch.int64, expected a floating-point",
        ),
        ([[0.0] * 10], 1, TypeError, "got logits of <class 'list'>"),
    ],
)
def test_refuses(logits: Tensor, splits: int, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        score(logits, splits)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_refuses_what_is_not_finite(value: float) -> None:
    logits = torch.zeros(20, 10)
    logits[4, 3] = value
    with pytest.raises(ValueError, match="got logits that aren't finite in 1 of 20 rows, expected finite"):
        score(logits)


@pytest.mark.parametrize("batch_size", [1, 7, 20, 500])
def test_images_are_scored_in_batches_without_gradients(batch_size: int) -> None:
    images = torch.randn(20, 10, generator=torch.Generator().manual_seed(2), requires_grad=True)
    sizes: list[int] = []

    def classifier(batch: Tensor) -> Tensor:
        sizes.append(len(batch))
        result = 2 * batch
        assert not result.requires_grad
        return result

    assert score_images(classifier, images, batch_size, splits=4) == score(2 * images, splits=4)
    assert max(sizes) == min(batch_size, 20)
    assert sum(sizes) == 20


def test_images_need_a_batch_size() -> None:
    with pytest.raises(ValueError, match="got batch_size 0, expected at least 1"):
        score_images(lambda batch: batch, torch.zeros(20, 10), 0)


@pytest.mark.parametrize("classes", [2, 5, 1000])
def test_a_classifier_may_have_any_number_of_classes(classes: int) -> None:
    """The score is the number of classes if each sample's class is sure and each class is equally frequent."""
    sure = 1000 * torch.eye(classes)
    found = inception_score(sure, splits=1)
    bound = rounding(classes + classes, classes * math.log(classes) + 1)
    assert found.exp_score == pytest.approx(classes, abs=bound)
    assert found.class_share == [1 / classes] * classes
    if classes != 10:
        with pytest.raises(ValueError, match=r"expected \[N, 10\].*inception_score takes any number of classes"):
            score(sure, splits=1)


def random_logits(count: int, classes: int) -> Tensor:
    return 3 * torch.randn(count, classes, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_of_ten_classes_both_functions_say_the_same() -> None:
    found = inception_score(random_logits(40, 10), splits=4)
    assert isinstance(found, DigitScore)
    assert score(random_logits(40, 10), splits=4) == found


@pytest.mark.parametrize("classes", [1, 0])
def test_one_class_tells_nothing(classes: int) -> None:
    with pytest.raises(ValueError, match=r"expected \[N, K\], one logit for each class; with at least two classes"):
        inception_score(torch.zeros(20, classes))


@pytest.mark.parametrize("batch", [1, 7, 60])
def test_batches_score_as_all_at_once(batch: int) -> None:
    logits = random_logits(60, 6)
    metric = InceptionScore(splits=4)
    for part in logits.split(batch):
        kept = part.clone()
        metric.update(kept)
        kept.zero_()  # the next batch may be written into the same memory
    assert metric.compute() == metric.compute() == inception_score(logits, splits=4)
    metric.reset()
    metric.update(logits[:20, :3])
    assert metric.compute() == inception_score(logits[:20, :3], splits=4)


def test_torchmetrics_scores_the_same() -> None:
    """torchmetrics shuffles the samples, and returns the standard deviation of a sample instead of a population's."""

    class Given(torch.nn.Module):
        def forward(self, logits: Tensor) -> Tensor:
            return logits

    logits, splits = random_logits(60, 6), 5
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*will save all extracted features in buffer")
        theirs = TheirInceptionScore(feature=Given(), splits=splits)
    for part in logits.split(25):
        theirs.update(part)
    torch.manual_seed(4)
    mean, std = (float(value) for value in theirs.compute())
    torch.manual_seed(4)
    ours = InceptionScore(splits=splits)
    ours.update(logits[torch.randperm(60)])
    found = ours.compute()
    bound = 2 * rounding(60)
    assert found.exp_score == pytest.approx(mean, rel=0, abs=bound)
    assert found.exp_score_std == pytest.approx(std * math.sqrt((splits - 1) / splits), rel=0, abs=bound)


def test_a_metric_may_hold_the_classifier() -> None:
    def classifier(images: Tensor) -> Tensor:
        result = 2 * images
        assert not result.requires_grad
        return result

    images = random_logits(20, 6).requires_grad_()
    metric = InceptionScore(classifier, splits=2)
    metric.update(images[:12])
    metric.update(images[12:])
    assert metric.compute() == inception_score(2 * images, splits=2)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (torch.zeros(4, 7), ValueError, r"shape \[4, 7\], expected \[N, 6\].*as many classes as before; reset\(\)"),
        (torch.zeros(6), ValueError, r"got logits of shape \[6\], expected \[N, 6\]"),
        (
            torch.zeros(4, 6, dtype=torch.int64),
            TypeError,
            "got logits of torch.int64, expected a floating-point tensor",
        ),
        (torch.full((4, 6), math.nan), ValueError, "got logits that aren't finite in 4 of 4 rows, expected finite"),
    ],
)
def test_a_refused_batch_leaves_the_metric_as_it_was(batch: Tensor, error: type[Exception], message: str) -> None:
    metric = InceptionScore(splits=2)
    metric.update(random_logits(20, 6))
    with pytest.raises(error, match=message):
        metric.update(batch)
    assert metric.compute() == inception_score(random_logits(20, 6), splits=2)


def test_a_batch_of_nothing_says_nothing_of_the_classes() -> None:
    metric = InceptionScore(splits=1)
    metric.update(torch.empty(0, 7))
    metric.update(torch.zeros(3, 5))
    assert metric.compute().class_share[0] == 1


def test_metrics_that_cannot_compute() -> None:
    metric = InceptionScore()
    for count in (0, 9):
        metric.update(torch.zeros(count, 3))
        with pytest.raises(ValueError, match=f"samples: got {count}, expected at least 10, one for each split; update"):
            metric.compute()
    metric.update(torch.zeros(1, 3))
    metric.compute()
    with pytest.raises(ValueError, match="splits: got 0, expected at least 1"):
        InceptionScore(splits=0)
    with pytest.raises(TypeError, match=r"classifier: got int, expected a function or Module.*such as splits=10"):
        InceptionScore(10)  # type: ignore[arg-type]


def real_score(digit_classifier: DigitClassifier, images: Tensor) -> DigitScore:
    return score_images(digit_classifier, to_signed_unit(images))


@pytest.mark.xdist_group("digits")
@pytest.mark.slow
def test_real_test_digits_score_near_ten(mnist: Mnist, digit_classifier: DigitClassifier) -> None:
    """A perfect classifier's score is exp of the entropy of the class shares: 9.98 on these digits."""
    result = real_score(digit_classifier, mnist.test_images)
    assert 9.3 < result.exp_score < 10
    shares = torch.bincount(mnist.test_labels.long()) / len(mnist.test_labels)
    assert max(abs(got - share) for got, share in zip(result.class_share, shares.tolist(), strict=True)) < 0.01
    assert all(math.isfinite(value) for value in dataclasses.astuple(result)[:4])


@pytest.mark.xdist_group("digits")
@pytest.mark.slow
def test_damage_lowers_the_score(mnist: Mnist, digit_classifier: DigitClassifier) -> None:
    """Digits blended with other digits are harder to name, and a set of one digit has no variety."""
    images, labels = mnist.test_images[:4000], mnist.test_labels[:4000]
    whole = real_score(digit_classifier, images)
    blended = (images.float() / 2 + images.roll(1, 0).float() / 2).to(torch.uint8)
    assert real_score(digit_classifier, blended).exp_score < whole.exp_score - 1
    ones = real_score(digit_classifier, images[labels == 1])
    assert ones.exp_score < 1.2
    assert ones.class_share[1] > 0.98

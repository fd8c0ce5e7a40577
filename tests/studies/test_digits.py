"""What a generator of digits is said to cover, and the sweep's table of it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ebgan_fast.data import Mnist
from ebgan_fast.metrics import DigitClassifier
from ebgan_fast.studies import digits, margin_sweep
from ebgan_fast.studies.queue import Done
from ebgan_fast.studies.results import Results
from ebgan_fast.training.statistics import NonFiniteError


class Fixed(nn.Module):
    """Gives images in turn, whatever the noise."""

    noise_size = 2
    image_shape = (1, 28, 28)

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = nn.Parameter(images.float() / 127.5 - 1)

    def forward(self, noise: Tensor) -> Tensor:
        # Every batch starts anew: the sets below are as long as a batch.
        return self.images[torch.arange(len(noise)) % len(self.images)].unsqueeze(1)


@pytest.mark.slow
@pytest.mark.usefixtures("digit_classifier")
def test_real_digits_cover_all_and_one_image_only_its_own(mnist: Mnist) -> None:
    real = digits.digit_scores(Fixed(mnist.train_images[:250]), 1000, 0, None)  # type: ignore[arg-type]
    assert real["classes"] == 10
    assert real["exp_score"] > 9
    # Each image comes four times among the thousand, at a distance of 0 from itself.
    assert real["diversity"] == pytest.approx(1.0, abs=0.03)
    one = digits.digit_scores(Fixed(mnist.train_images[:1]), 1000, 0, None)  # type: ignore[arg-type]
    assert one["classes"] == 1
    assert one["class_share"][mnist.train_labels[0]] == 1.0
    assert one["diversity"] == 0.0  # copies of one image: every difference is 0
    # Equal images may get logits that differ by rounding, some 1e-5, and the divergence grows with their square.
    assert one["kl_conditional_marginal"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
def test_a_class_needs_one_sample_in_a_hundred(mnist: Mnist, digit_classifier: DigitClassifier) -> None:
    with torch.no_grad():
        sure = digit_classifier(mnist.train_images[:250].float() / 127.5 - 1).softmax(1).amax(1) > 0.99
    images, labels = mnist.train_images[:250][sure], mnist.train_labels[:250][sure]
    zeros, ones = images[labels == 0], images[labels == 1]
    for rare, classes in ((2, 1), (3, 2)):  # of 250, 0.8 and 1.2 %
        mixed = torch.cat([zeros[:1].repeat(250 - rare, 1, 1), ones[:rare]])
        assert digits.digit_scores(Fixed(mixed), 1000, 0, None)["classes"] == classes  # type: ignore[arg-type]


def test_scores_are_taken_where_the_generator_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that holds no values stands for a GPU until images and logits come back."""
    asked: list[torch.device] = []
    drawn: list[str] = []

    def classifier(data: None, device: torch.device) -> nn.Module:
        asked.append(device)
        return lambda images: (drawn.append(images.device.type), torch.zeros(len(images), 10))[1]

    monkeypatch.setattr(digits, "classifier", classifier)
    monkeypatch.setattr(digits, "spread", lambda images: 1.0)
    monkeypatch.setattr(digits, "real_spread", lambda data: 1.0)
    generator = Fixed(torch.zeros(10, 28, 28)).to("meta")
    found = digits.digit_scores(generator, 20, 0, None)  # type: ignore[arg-type]
    assert asked == [torch.device("meta")]
    assert drawn == ["meta"]
    assert found["exp_score"] == 1


def test_training_images_lie_on_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "mnist", lambda data: Mnist(*[torch.zeros(3, 28, 28, dtype=torch.uint8)] * 4))
    digits.training_images.cache_clear()
    try:
        images = digits.training_images(None, device="meta")
        assert images.gather(torch.arange(2)).is_meta
        assert digits.training_images(None, device="meta") is images
        assert not digits.training_images(None).gather(torch.arange(2)).is_meta
    finally:
        digits.training_images.cache_clear()


def test_training_checks_every_hundred_steps_and_closes() -> None:
    calls: list[str] = []

    class Recorder:
        def step(self) -> None:
            calls.append("step")

        def check_finite(self) -> None:
            calls.append("check")
            if calls.count("check") == 3:
                raise NonFiniteError("got loss nan, expected a finite number")

        def close(self) -> None:
            calls.append("close")

    ticks: list[int] = []
    digits.train(Recorder(), 150, lambda: ticks.append(1))
    assert [call for call in calls if call != "step"] == ["check", "check", "close"]
    assert calls.count("step") == len(ticks) == 150
    with pytest.raises(NonFiniteError):
        digits.train(Recorder(), 150, lambda: None)
    assert calls[-1] == "close"


def test_the_sweeps_table_has_a_row_for_each_margin() -> None:
    def run(margin: float, seed: int, classes: int | None) -> Done:
        result = None
        if classes is not None:
            result = {"classes": classes, "exp_score": float(classes), "kl_conditional_marginal": 1.0, "diversity": 0.5}
        return Done({"margin": margin, "seed": seed}, result, None if result else "got loss nan", 1.0)

    results = Results("margin-sweep", {}, {}, {}, "", [run(16, 1, 4), run(1, 0, 2), run(16, 0, 10), run(32, 0, None)])
    assert margin_sweep.table(results).splitlines()[2:] == [
        "| 1 | 2 | 2.00 | 1.00 | 0.50 |",
        "| 16 | 10, 4 | 7.00 | 1.00 | 0.50 |",
        "| 32 | 0 | - | - | - |",
    ]

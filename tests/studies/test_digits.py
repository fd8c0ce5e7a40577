"""The scores of a generator's digits: which digits are covered, on which device, and how often the digits are read."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ebgan_fast.data import Mnist
from ebgan_fast.metrics import DigitClassifier
from ebgan_fast.studies.framework.study import DigitOptions
from ebgan_fast.studies.semi_supervised import LadderDigits
from ebgan_fast.studies.sets import digits
from ebgan_fast.studies.sets.digits import Digits


class Fixed(nn.Module):
    """A generator that returns its images in turn, whatever the noise is."""

    noise_size = 2
    image_shape = (1, 28, 28)

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = nn.Parameter(images.float() / 127.5 - 1)

    def forward(self, noise: Tensor) -> Tensor:
        # Every batch starts with the first image: the sets below are as long as a batch.
        return self.images[torch.arange(len(noise)) % len(self.images)].unsqueeze(1)


@pytest.mark.slow
@pytest.mark.usefixtures("digit_classifier")
def test_real_digits_cover_all_and_one_image_only_its_own(mnist: Mnist) -> None:
    real = Digits(mnist).scores(Fixed(mnist.train_images[:250]), 1000, 0)  # type: ignore[arg-type]
    assert real["classes"] == 10
    assert real["exp_score"] > 9
    # Each image is four times among the thousand, and its copies have distance 0.
    assert real["diversity"] == pytest.approx(1.0, abs=0.03)
    one = Digits(mnist).scores(Fixed(mnist.train_images[:1]), 1000, 0)  # type: ignore[arg-type]
    assert one["classes"] == 1
    assert one["class_share"][mnist.train_labels[0]] == 1.0
    assert one["diversity"] == 0.0  # copies of one image: every difference is 0
    # Logits of equal images may differ by rounding, about 1e-5. The divergence grows with the square of that.
    assert one["kl_conditional_marginal"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
def test_a_class_needs_one_sample_in_a_hundred(mnist: Mnist, digit_classifier: DigitClassifier) -> None:
    with torch.no_grad():
        sure = digit_classifier(mnist.train_images[:250].float() / 127.5 - 1).softmax(1).amax(1) > 0.99
    images, labels = mnist.train_images[:250][sure], mnist.train_labels[:250][sure]
    zeros, ones = images[labels == 0], images[labels == 1]
    for rare, classes in ((2, 1), (3, 2)):  # 0.8 and 1.2 % of 250
        mixed = torch.cat([zeros[:1].repeat(250 - rare, 1, 1), ones[:rare]])
        assert Digits(mnist).scores(Fixed(mixed), 1000, 0)["classes"] == classes  # type: ignore[arg-type]


@pytest.fixture
def blank() -> Mnist:
    return Mnist(*[torch.zeros(count, 28, 28, dtype=torch.uint8) for count in (3, 3, 3, 3)])


def test_scores_are_taken_on_the_studys_device(monkeypatch: pytest.MonkeyPatch, blank: Mnist) -> None:
    """The device "meta", which holds no values, stands for a GPU until images and logits come back."""
    asked: list[torch.device] = []
    drawn: list[str] = []
    spread_on: list[str] = []

    def load_classifier(digits: Mnist, device: torch.device) -> Any:
        asked.append(device)
        return lambda images: (drawn.append(images.device.type), torch.zeros(len(images), 10))[1]

    def spread(images: Tensor) -> float:
        spread_on.append(images.device.type)
        return 1.0

    monkeypatch.setattr(digits, "load_classifier", load_classifier)
    monkeypatch.setattr(digits, "spread", spread)
    loaded = Digits(blank, "meta")
    generator = Fixed(torch.zeros(10, 28, 28)).to("meta")
    for _ in range(2):
        assert loaded.scores(generator, 20, 0)["exp_score"] == 1  # type: ignore[arg-type]
    assert asked == [torch.device("meta")]  # once
    assert drawn == ["meta", "meta"]
    assert spread_on == ["meta"] * 3  # twice for samples, once for the real digits


def test_images_lie_on_the_device_once(blank: Mnist) -> None:
    loaded = Digits(blank, "meta")
    assert loaded.images.gather(torch.arange(2)).is_meta
    assert loaded.images is loaded.images
    assert loaded.images.shape == (1, 32, 32)
    flat = LadderDigits(blank, "meta", 28)
    assert flat.flat.images.is_meta
    assert flat.flat.images is flat.flat.images


def _tell(loaded: Digits, answers: Connection) -> None:
    digits.load_mnist = None  # type: ignore[assignment]
    own = [part.is_shared() for part in loaded.mnist]
    answers.send((loaded.settings["data"], str(loaded.device), loaded.size, type(loaded).__name__, own))


@pytest.mark.parametrize("kind", [Digits, LadderDigits])
def test_another_process_is_sent_them_and_reads_none(mnist: Mnist, kind: type[Digits]) -> None:
    """The digits aren't sent through shared memory, of which a container has little."""
    loaded = kind(mnist, "meta", 28)
    context = multiprocessing.get_context("spawn")
    answers, sender = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(loaded, sender))
    process.start()
    sender.close()
    assert answers.recv() == (loaded.settings["data"], "meta", 28, kind.__name__, [False] * 4)
    process.join()


def test_they_are_those_of_the_options(tmp_path: Path, mnist: Mnist) -> None:
    loaded = LadderDigits.of(DigitOptions(tmp_path, device="cpu"), 28)
    assert isinstance(loaded, LadderDigits)
    assert all(torch.equal(one, other) for one, other in zip(loaded.mnist, mnist, strict=True))
    assert loaded.conditions() == {}

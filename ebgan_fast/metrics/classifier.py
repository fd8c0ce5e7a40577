"""The digit classifier behind the scores, trained once on the MNIST training set and kept in a cache."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from .._fitting import check_fits
from .._progress import Progress
from ..data.mnist import Mnist
from ..data.pixels import to_signed_unit
from . import cache
from .precision import without_tf32

_CLASSES = 10
_SIDE = 28
_PADDED = 32
_EXPECTED_ACCURACY = 0.99
_TEST_BATCH = 500
_STEPS_PER_REPORT = 20


@dataclass(frozen=True)
class Recipe:
    """The settings that decide a classifier's trained weights, up to rounding. Their hash names the cache file.

    The paper says "a 3-layer ConvNet" (appendix C). Read here as three convolutions and a linear readout on
    top: 5x5, 3x3, 3x3, each of stride 2, batch-normalized, ReLU. Four epochs of Adam on a one-cycle learning
    rate, each batch moved as one by up to a pixel, get 99.27 to 99.40 % of the test digits right (seeds 0 to 2)
    in about 35 s of one core. Three epochs reach 99.2 to 99.3 %, four without the moves 99.1 %.

    Example:
        >>> from ebgan_fast.metrics import Recipe
        >>> Recipe(epochs=1).batch_size, Recipe(seed=1).key() == Recipe().key()
        (256, False)
    """

    channels: tuple[int, int, int] = (16, 32, 64)
    epochs: int = 4
    batch_size: int = 256
    peak_lr: float = 0.01
    max_shift: int = 1
    seed: int = 0
    data: str = ""
    """Fingerprint of the digits; `load_classifier` fills it in."""
    version: int = 1
    """Version of the architecture, training loop and file format: count up when a change there alters the result."""

    def key(self) -> str:
        """Return sixteen hex digits that differ between recipes."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


class DigitClassifier(nn.Module):
    """A classifier of images into the ten digits, untrained; `load_classifier` gives a trained one.

    Args:
        channels: of its three convolutions.

    Example:
        >>> import torch
        >>> from ebgan_fast.metrics import DigitClassifier
        >>> untrained = DigitClassifier(channels=(4, 8, 16)).eval()
        >>> untrained(torch.zeros(5, 28, 28)).shape  # images in [-1, 1] to logits
        torch.Size([5, 10])
    """

    test_accuracy: float
    """Share of the test digits that it gets right, 0 to 1; 0 before it is trained."""

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs, kernel in zip((1, *channels), channels, (5, 3, 3), strict=False):
            layers += [
                nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        # Three halvings of 28, rounded up, leave 4x4.
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * 16, _CLASSES))
        # 6.6 s of a core for an epoch, 9.4 without.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.test_accuracy = 0.0

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [N, 10] of images in [-1, 1].

        Images are [N, 28, 28], or [N, 32, 32] or [N, 1024], whose margins of 2 are cut off.

        Raises:
            TypeError: integer images.
            ValueError: another shape.
        """
        with without_tf32():
            logits: Tensor = self.layers(_as_28x28(images))
        return logits


def _as_28x28(images: Tensor) -> Tensor:
    if not images.is_floating_point():
        raise TypeError(f"got {images.dtype} images, expected floating point in [-1, 1]")
    shape = tuple(images.shape[1:])
    if shape in ((_PADDED * _PADDED,), (_PADDED, _PADDED)):
        margin = (_PADDED - _SIDE) // 2
        inner = slice(margin, margin + _SIDE)
        return images.reshape(-1, 1, _PADDED, _PADDED)[..., inner, inner]
    if shape == (_SIDE, _SIDE):
        return images.unsqueeze(1)
    raise ValueError(f"got images of shape {list(images.shape)}, expected [N, 28, 28], [N, 32, 32] or [N, 1024]")


def load_classifier(
    digits: Mnist,
    *,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    recipe: Recipe | None = None,
    device: torch.device | str = "cpu",
) -> DigitClassifier:
    """Load the classifier of these digits, in eval mode: from the cache, or trained and put there.

    It is trained on the CPU by one thread, wherever it is wanted: scores by two classifiers don't compare, and a GPU
    would train another one. Processes that ask for the same one at the same time wait for the first to train it.

    Args:
        digits: what it is trained and tested on.
        cache_dir: where trained classifiers are kept. None: the folder that the environment variable
            EBGAN_FAST_CACHE names, else ~/.cache/ebgan_fast.
        progress: called with the share done, 0 to 1, and a line of text; the last tells the test accuracy.
        recipe: None is the one that the project's scores are measured with.
        device: where it is wanted.

    Raises:
        ValueError: the cache folder can't be made.
        OSError: it can't be written.

    Warns:
        UserWarning: the test accuracy is under 99 %, or a cache file was replaced that is damaged, or that another user
            may have written.

    Example:
        Black and white stand for two digits here; `ebgan_fast.data.load_mnist` gives the real ones.

        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from ebgan_fast.data import Mnist
        >>> from ebgan_fast.metrics import Recipe, load_classifier
        >>> labels = torch.tensor([0, 1], dtype=torch.uint8).repeat(32)
        >>> images = 255 * labels[:, None, None].expand(64, 28, 28)
        >>> digits = Mnist(images, labels, images, labels)
        >>> tiny = Recipe(channels=(2, 3, 4), epochs=5, batch_size=16)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     classifier = load_classifier(digits, cache_dir=Path(folder), recipe=tiny)
        >>> classifier.test_accuracy
        1.0
    """
    report = progress or (lambda share, text: None)
    recipe = replace(recipe or Recipe(), data=_fingerprint(digits))
    path = cache.cache_folder(cache_dir) / f"classifier-{recipe.key()}.pt"
    classifier = _initial(recipe)
    with cache.locked(path, lambda: report(0.0, "waiting for another process that trains the classifier")):
        expected = {"weights": classifier.state_dict(), "test_accuracy": 0.0}
        saved = cache.read(path, lambda content: check_fits(content, expected, path.name))
        if saved is None:
            with _one_thread():
                trained = _train(digits, recipe, report)
                saved = {"weights": trained.state_dict(), "test_accuracy": _accuracy(trained, digits)}
            cache.write(path, saved)
    classifier.load_state_dict(saved["weights"])
    classifier.test_accuracy = saved["test_accuracy"]
    report(1.0, f"classifier: {classifier.test_accuracy:.2%} of the test digits right")
    if classifier.test_accuracy < _EXPECTED_ACCURACY:
        warnings.warn(
            f"got a classifier with {classifier.test_accuracy:.2%} of the test digits right, "
            f"expected at least {_EXPECTED_ACCURACY:.0%}: scores by it don't compare with others",
            stacklevel=2,
        )
    return classifier.to(device).eval().requires_grad_(False)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Weights then don't depend on the number of threads, and cores shared with other work cost no waiting.

    With two threads every small loop ends in a barrier: beside other processes training took over eight times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _fingerprint(digits: Mnist) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in digits:
        digest.update(str(tuple(part.shape)).encode())
        digest.update(part.numpy().tobytes())
    return digest.hexdigest()


def _initial(recipe: Recipe) -> DigitClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return DigitClassifier(recipe.channels)


@torch.enable_grad()
def _train(digits: Mnist, recipe: Recipe, report: Progress) -> DigitClassifier:
    generator = torch.Generator().manual_seed(recipe.seed)
    classifier = _initial(recipe).train()
    images, labels = digits.train_images, digits.train_labels.long()
    batch_size = min(recipe.batch_size, len(images))
    steps = len(images) // batch_size
    optimizer = torch.optim.Adam(classifier.parameters(), lr=recipe.peak_lr)
    total = recipe.epochs * steps
    # A quarter of four steps, as a set of fewer than two batches has, would be a rise of no length.
    rise = 0.25 if total > 4 else 0.5
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.peak_lr, total_steps=total, pct_start=rise)
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(images), generator=generator)[: steps * batch_size]
        for step, chosen in enumerate(order.view(steps, batch_size)):
            if step % _STEPS_PER_REPORT == 0:
                done = (epoch * steps + step) / (recipe.epochs * steps)
                report(done, f"training the digit classifier, epoch {epoch + 1} of {recipe.epochs}")
            batch = _shifted(to_signed_unit(images[chosen]), recipe.max_shift, generator)
            loss = functional.cross_entropy(classifier(batch), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return classifier.eval()


def _shifted(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """All images moved alike, up to `most` pixels each way, wrapping round: digits have black edges."""
    down, right = torch.randint(-most, most + 1, (2,), generator=generator).tolist()
    return images.roll((down, right), (1, 2))


@torch.no_grad()
def _accuracy(classifier: DigitClassifier, digits: Mnist) -> float:
    right = 0
    for start in range(0, len(digits.test_labels), _TEST_BATCH):
        part = slice(start, start + _TEST_BATCH)
        likeliest = classifier(to_signed_unit(digits.test_images[part])).argmax(1)
        right += int((likeliest == digits.test_labels[part]).sum())
    return right / len(digits.test_labels)

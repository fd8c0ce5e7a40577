from __future__ import annotations

import copy
import dataclasses
import os
import time
import warnings
from pathlib import Path

import pytest
import torch

from ebgan_fast.data import Mnist, to_signed_unit
from ebgan_fast.metrics import DigitClassifier, Recipe, load_classifier
from tests.ops.budget import ULPS

from ..conftest import Fork

TINY = Recipe(channels=(2, 3, 4), epochs=2, batch_size=32)
UNDER = "ignore:got a classifier with:UserWarning"


def bars(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return easily distinguished images and their labels: class c has a white bar in rows 2c + 4 and 2c + 5."""
    labels = (torch.arange(count) % 10).to(torch.uint8)
    images = torch.zeros(count, 28, 28, dtype=torch.uint8)
    for index, label in enumerate(labels.tolist()):
        images[index, 2 * label + 4 : 2 * label + 6, 4:24] = 255
    return images, labels


@pytest.fixture
def digits() -> Mnist:
    return Mnist(*bars(160), *bars(50))


def weights_equal(one: DigitClassifier, other: DigitClassifier) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.xdist_group("digits")
@pytest.mark.slow
def test_the_projects_classifier_names_real_digits(mnist: Mnist, digit_classifier: DigitClassifier) -> None:
    logits = torch.cat([digit_classifier(to_signed_unit(part)) for part in torch.split(mnist.test_images, 1000)])
    right = int((logits.argmax(1) == mnist.test_labels).sum())
    assert right / 10_000 >= 0.99
    assert abs(right - 10_000 * digit_classifier.test_accuracy) <= could_tip(digit_classifier, mnist, logits) + 0.5


def could_tip(classifier: DigitClassifier, mnist: Mnist, logits: torch.Tensor) -> int:
    """Return the number of test digits whose class rounding may change, on another processor or in another batch.

    Both of the two largest logits may have an error of `rounding`, there and here. `rounding` is twice the largest
    error on the thousand digits whose two largest logits are closest, plus a few units.
    """
    best = logits.topk(2).values
    gaps, places = (best[:, 0] - best[:, 1]).sort()
    truth = copy.deepcopy(classifier).double()(to_signed_unit(mnist.test_images[places[:1000]]).double())
    error = (logits[places[:1000]] - truth).abs().max()
    rounding = 2 * error + ULPS * torch.finfo(torch.float32).eps * truth.abs().max()
    return int((gaps <= 4 * rounding).sum())


@pytest.mark.xdist_group("digits")
@pytest.mark.slow
def test_the_projects_second_load_is_instant(mnist: Mnist, digit_classifier: DigitClassifier) -> None:
    started = time.process_time()
    again = load_classifier(mnist)
    assert time.process_time() - started < 5, "training takes about 35 s of a core, reading 0.2"
    assert weights_equal(again, digit_classifier)


@pytest.mark.xdist_group("digits")
@pytest.mark.slow
def test_padded_images_give_the_same_logits(digit_classifier: DigitClassifier, mnist: Mnist) -> None:
    plain = to_signed_unit(mnist.test_images[:100])
    padded = torch.full((100, 32, 32), -1.0)
    padded[:, 2:30, 2:30] = plain
    logits = digit_classifier(plain)
    assert logits.shape == (100, 10)
    assert torch.equal(digit_classifier(padded), logits)
    assert torch.equal(digit_classifier(padded.flatten(1)), logits)
    padded[:, :2] = 1
    assert torch.equal(digit_classifier(padded), logits)


@pytest.mark.parametrize("shape", [(3, 784), (3, 30, 30), (3, 1, 28, 28), (28, 28), (1024,), (3, 3, 32, 32)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"got images of shape .*expected \[N, 28, 28\], \[N, 32, 32\] or \[N, 1024\]"):
        DigitClassifier((2, 3, 4))(torch.zeros(shape))


def test_bytes_are_refused() -> None:
    with pytest.raises(TypeError, match=r"got torch.uint8 images, expected floating point in \[-1, 1\]"):
        DigitClassifier((2, 3, 4))(torch.zeros(3, 28, 28, dtype=torch.uint8))


@pytest.mark.slow
@pytest.mark.filterwarnings(UNDER)
def test_training_learns(digits: Mnist, tmp_path: Path) -> None:
    """Forty-five steps suffice to tell ten bars apart; chance is 10 %. A shifted bar stays nearest to its own place."""
    learned = load_classifier(digits, cache_dir=tmp_path, recipe=Recipe(epochs=9, batch_size=32))
    assert learned.test_accuracy > 0.9


@pytest.mark.filterwarnings(UNDER)
@pytest.mark.parametrize("count", [2, 20, 300])
def test_a_small_set_trains_too(digits: Mnist, tmp_path: Path, count: int) -> None:
    """A set of one batch makes a schedule of only four steps."""
    few = Mnist(digits.train_images[:count], digits.train_labels[:count], digits.test_images, digits.test_labels)
    recipe = Recipe(channels=(2, 3, 4))
    assert 0 <= load_classifier(few, cache_dir=tmp_path, recipe=recipe).test_accuracy <= 1


@pytest.mark.filterwarnings(UNDER)
def test_cached_load_is_identical_and_trains_nothing(digits: Mnist, tmp_path: Path) -> None:
    lines: list[tuple[float, str]] = []
    first = load_classifier(digits, cache_dir=tmp_path, recipe=TINY, progress=lambda *line: lines.append(line))
    epochs = [f"training the digit classifier, epoch {epoch} of 2" for epoch in (1, 2)]
    assert [text for _, text in lines[:2]] == epochs
    shares = [share for share, _ in lines]
    assert shares == sorted(shares)
    assert lines[-1] == (1.0, f"classifier: {first.test_accuracy:.2%} of the test digits right")
    lines.clear()
    second = load_classifier(digits, cache_dir=tmp_path, recipe=TINY, progress=lambda *line: lines.append(line))
    assert len(lines) == 1
    assert weights_equal(first, second)
    likeliest = first(to_signed_unit(digits.test_images)).argmax(1)
    assert first.test_accuracy == second.test_accuracy == (likeliest == digits.test_labels).double().mean().item() > 0
    for classifier in (first, second):
        assert not classifier.training
        assert not any(parameter.requires_grad for parameter in classifier.parameters())


@pytest.mark.filterwarnings(UNDER)
def test_training_repeats_and_leaves_the_global_generator(digits: Mnist, tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = load_classifier(digits, cache_dir=tmp_path / "a", recipe=TINY)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    with torch.no_grad():
        second = load_classifier(digits, cache_dir=tmp_path / "b", recipe=TINY)
    assert weights_equal(first, second)
    other = load_classifier(digits, cache_dir=tmp_path / "a", recipe=dataclasses.replace(TINY, seed=1))
    assert not weights_equal(first, other)


@pytest.mark.filterwarnings(UNDER)
def test_the_classifier_is_the_same_one_on_any_device(digits: Mnist, tmp_path: Path) -> None:
    """A classifier trained on another device would score differently, so it is trained on the CPU and then moved."""
    moved = load_classifier(digits, cache_dir=tmp_path / "a", recipe=TINY, device="meta")
    assert {weight.device.type for weight in moved.state_dict().values()} == {"meta"}
    assert not moved.training
    kept = load_classifier(digits, cache_dir=tmp_path / "a", recipe=TINY)
    assert len(list((tmp_path / "a").glob("*.pt"))) == 1
    assert weights_equal(kept, load_classifier(digits, cache_dir=tmp_path / "b", recipe=TINY))


def test_every_field_of_a_recipe_names_another_file() -> None:
    changes: list[dict[str, object]] = [
        {"channels": (2, 3, 5)},
        {"epochs": 3},
        {"batch_size": 33},
        {"peak_lr": 0.02},
        {"max_shift": 0},
        {"seed": 1},
        {"data": "other"},
        {"version": TINY.version + 1},
    ]
    assert {name for change in changes for name in change} == {field.name for field in dataclasses.fields(Recipe)}
    keys = {TINY.key(), *(dataclasses.replace(TINY, **change).key() for change in changes)}  # type: ignore[arg-type]
    assert len(keys) == 1 + len(changes)


@pytest.mark.filterwarnings(UNDER)
def test_the_number_of_threads_changes_nothing(digits: Mnist, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        trained = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            # A recipe of the real size: torch doesn't divide short loops among threads, so they would show nothing.
            recipe = Recipe(epochs=1, batch_size=160)
            trained.append(load_classifier(digits, cache_dir=tmp_path / str(threads), recipe=recipe))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert weights_equal(trained[0], trained[1])
    assert weights_equal(trained[0], trained[2])


@pytest.mark.filterwarnings(UNDER)
def test_other_digits_are_another_classifier(digits: Mnist, tmp_path: Path) -> None:
    load_classifier(digits, cache_dir=tmp_path, recipe=TINY)
    changed = digits.train_images.clone()
    changed[3, 2, 1] ^= 1
    load_classifier(digits._replace(train_images=changed), cache_dir=tmp_path, recipe=TINY)
    assert len(list(tmp_path.glob("*.pt"))) == 2


@pytest.mark.parametrize("damage", ["truncated", "empty", "one bit", "foreign"])
def test_a_damaged_cache_file_is_trained_anew(digits: Mnist, tmp_path: Path, damage: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = load_classifier(digits, cache_dir=tmp_path, recipe=TINY)
    (path,) = tmp_path.glob("*.pt")
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    path.write_bytes(
        {"truncated": content[:-100], "empty": b"", "one bit": bytes(flipped), "foreign": b"text\n" * 99}[damage]
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = load_classifier(digits, cache_dir=tmp_path, recipe=TINY)
    about_cache = [str(one.message) for one in caught if "damaged" in str(one.message)]
    assert about_cache == [f"{path}: got a damaged cache file, which is made again"]
    assert weights_equal(first, again)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*damaged")
        warnings.filterwarnings("ignore", message="got a classifier")
        load_classifier(digits, cache_dir=tmp_path, recipe=TINY)


def test_low_accuracy_warns_each_time(digits: Mnist, tmp_path: Path) -> None:
    unteachable = digits._replace(test_labels=(digits.test_labels + 5) % 10)
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"got a classifier with [\d.]+% of the test digits right, expected at"):
            load_classifier(unteachable, cache_dir=tmp_path, recipe=TINY)


@pytest.mark.filterwarnings(UNDER)
def test_the_environment_names_the_folder(digits: Mnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBGAN_FAST_CACHE", str(tmp_path / "deep" / "cache"))
    load_classifier(digits, recipe=TINY)
    assert len(list((tmp_path / "deep" / "cache").glob("classifier-*.pt"))) == 1


@pytest.mark.filterwarnings(UNDER)
def test_home_is_the_last_resort(digits: Mnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EBGAN_FAST_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    load_classifier(digits, recipe=TINY)
    assert len(list((tmp_path / ".cache" / "ebgan_fast").glob("classifier-*.pt"))) == 1


def load_in_process(folder: Path, log: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    lines: list[str] = []
    print("here")
    while not (log / "go").exists():
        time.sleep(0.001)
    # 60 epochs take long enough for the other process to reach the lock.
    load_classifier(
        Mnist(*bars(160), *bars(50)),
        cache_dir=folder,
        recipe=dataclasses.replace(TINY, epochs=60),
        progress=lambda share, text: lines.append(text),
    )
    (log / f"{os.getpid()}.txt").write_text("\n".join(lines))


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
def test_of_two_processes_one_trains(fork: Fork, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    workers = [fork(load_in_process, tmp_path, log) for _ in range(2)]
    for worker in workers:
        worker.wait_for_line()
    (log / "go").touch()
    for worker in workers:
        assert worker.status() == 0, worker.said
    told = sorted(path.read_text() for path in log.glob("*.txt"))
    assert sum("training the digit classifier" in lines for lines in told) == 1
    assert len({lines.splitlines()[-1] for lines in told}) == 1
    assert [path.suffix for path in tmp_path.glob("classifier*")].count(".pt") == 1

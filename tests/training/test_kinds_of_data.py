"""Tests that the kind of data belongs to the data: any networks learn it, and scores and reports fit the images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ebgan_fast import cli
from ebgan_fast.data import DataError
from ebgan_fast.data.image_set import pad_to_square, without_margin
from ebgan_fast.data.training_set import kind_of, open_images
from ebgan_fast.metrics import classifier
from ebgan_fast.models import Conv, Mlp
from ebgan_fast.training import TrainConfig, load_generator, preset, sample_images, train

from ..data.layouts import pack
from .helpers import bars, write_idx
from .test_conv_runs import NETWORKS, blobs

pytestmark = pytest.mark.usefixtures("no_curves", "pixel_net")

GRAY = Conv("(8)4c-(8)4c2s-(6)4c2s-(4)4c2s-(1)3c", "6-2", "(6)4c2s-(8)4c2s", "(6)4c2s-(1)4c2s")
SHORT: dict[str, Any] = {"steps": 2, "batch_size": 8, "log_every": 1, "device": "cpu", "features": "pixels"}
DIGITS: dict[str, Any] = {"image_size": 32, "margin": 5.0}


def digits_by_layers(out: Path, data: Path) -> TrainConfig:
    """Return a config that trains a photographs preset, at its image size, on digits."""
    layers = GRAY.generator_layers.replace("-(1)3c", "-(4)4c2s-(1)3c")
    return preset("celeba64", out, data=data, networks=dataclasses.replace(GRAY, generator_layers=layers), **SHORT)


def digits_by_default(out: Path, data: Path) -> TrainConfig:
    return preset("mnist", out, data=data, networks=Mlp(z_dim=4, size_g=8, size_d=8), **DIGITS, **SHORT)


def colors_by_default(out: Path, data: Path) -> TrainConfig:
    """Return a config that trains the digits preset on packed photographs."""
    return preset("mnist", out, data=data, image_size=16, networks=Mlp(z_dim=4, size_g=8, size_d=8), **SHORT)


def colors_by_layers(out: Path, data: Path) -> TrainConfig:
    return preset("celeba64", out, data=data, image_size=16, networks=NETWORKS, **SHORT)


@pytest.fixture
def quick_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the real classifier, which takes 35 s, by an untrained one with the accuracy of chance."""
    made = classifier.DigitClassifier((2, 3, 4)).eval()
    made.test_accuracy = 0.1
    monkeypatch.setattr(cli, "load_classifier", lambda *_, **__: made)


@pytest.mark.usefixtures("quick_classifier")
@pytest.mark.parametrize("config", [digits_by_default, pytest.param(digits_by_layers, marks=pytest.mark.slow)])
def test_digits_train_are_judged_by_a_classifier_and_reported(
    digits_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    config: Callable[[Path, Path], TrainConfig],
) -> None:
    run = config(tmp_path / "run", digits_folder)
    assert train(run).step == 2
    side = run.image_size
    assert sample_images(load_generator(run.out / "checkpoint.pt").generator, 3, seed=0).shape == (3, 1, side, side)
    assert cli.main(["evaluate", str(run.out), "--samples", "50"]) == 0
    said = capsys.readouterr().out
    assert "50 generated digits, judged by a classifier of 10.00% test accuracy" in said
    assert "With fewer than 1,000 samples" in said
    assert cli.main(["report", str(run.out)]) == 0
    assert "With fewer than 1,000 samples" in (run.out / "report.html").read_text()
    if side == 32:  # a thousand images of 64 x 64 take twenty seconds
        assert cli.main(["evaluate", str(run.out), "--samples", "1000"]) == 0
        assert "With fewer than" not in capsys.readouterr().out
        assert cli.main(["report", str(run.out)]) == 0
        assert "With fewer than" not in (run.out / "report.html").read_text()
    assert not (run.out / "neighbors.png").exists()
    assert "Score: exp E KL(p(y|x) ‖ p(y))" in (run.out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("config", [colors_by_default, colors_by_layers])
def test_images_train_are_judged_by_a_net_and_reported(
    packed_blobs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    config: Callable[[Path, Path], TrainConfig],
) -> None:
    run = config(tmp_path / "run", packed_blobs)
    assert train(run).step == 2
    assert cli.main(["evaluate", str(run.out), "--samples", "50", "--features", "pixels"]) == 0
    said = capsys.readouterr().out
    assert "50 generated images against 40 training images" in said
    assert "FD (pixels)" in said
    assert "Compare it only with" not in said  # the net has eight features
    assert cli.main(["report", str(run.out), "--features", "pixels"]) == 0
    with Image.open(run.out / "neighbors.png") as picture:
        assert picture.size == (6 * 18 + 2, 8 * 18 + 2)


def test_a_run_scores_digits_too_where_a_net_is_named(
    digits_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = dataclasses.replace(digits_by_default(tmp_path / "run", digits_folder), evaluate_every=2, evaluate_samples=20)
    train(run)
    assert cli.main(["evaluate", str(run.out), "--samples", "20", "--features", "pixels"]) == 0
    assert "20 generated images against 50 training images" in capsys.readouterr().out


def test_a_distance_of_few_samples_says_what_it_is_worth(
    packed_blobs: Path, tmp_path: Path, pixel_net: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """A distance of few samples comes with a hint: once for a run's scores, and in `evaluate`. An FD of 10 samples by 8
    features has enough.
    """
    run = dataclasses.replace(
        colors_by_default(tmp_path / "run", packed_blobs), evaluate_every=1, evaluate_samples=8, steps=3
    )
    train(run)
    hints = [line for line in capsys.readouterr().out.splitlines() if "of only 8 samples for 8 features" in line]
    assert len(hints) == 1
    assert hints[0].startswith("hint: FD (pixels) of only 8 samples")
    cli.main(["evaluate", str(run.out), "--samples", "10"])
    assert "features is too large" not in capsys.readouterr().out


def test_kinds(packed_blobs: Path, digits_folder: Path, tmp_path: Path) -> None:
    assert kind_of(None, 32) == "digits"
    assert kind_of(digits_folder, 32) == "digits"
    assert kind_of(packed_blobs, 32) == "images"
    with pytest.raises(DataError, match=r"got something else than prepared images, .* prepare .* --size 32"):
        kind_of(tmp_path, 32)
    with pytest.raises(DataError, match="nowhere: got no such folder, expected one that ebgan-fast prepare made"):
        kind_of(tmp_path / "nowhere", 32)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(DataError, match="got none of train-labels"):  # a set of digits with missing files
        open_images(tmp_path, 32)


def test_digits_for_networks_of_colors_are_refused_with_the_way_out(digits_folder: Path, tmp_path: Path) -> None:
    run = preset("celeba64", tmp_path / "run", data=digits_folder, networks=NETWORKS, **SHORT)
    with pytest.raises(DataError, match=r"digits: got gray digits, expected images of 3 channels.*\(1\) map"):
        train(run)
    assert not run.out.exists()


def test_a_classifier_sees_digits_without_their_margin() -> None:
    digits = bars(3, seed=0)
    for side in (28, 29, 32, 64):
        assert torch.equal(without_margin(pad_to_square(digits, side)[:, 0]), digits)


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_images_of_another_kind_than_the_generators_are_refused(
    packed_blobs: Path, digits_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    colors = colors_by_default(tmp_path / "colors", packed_blobs)
    train(colors)
    assert cli.main([command, str(colors.out), "--data", str(digits_folder)]) == (0 if command == "report" else 1)
    gray = dataclasses.replace(digits_by_default(tmp_path / "gray", digits_folder))
    train(gray)
    capsys.readouterr()
    assert cli.main([command, str(gray.out), "--data", str(packed_blobs)]) == 1
    assert "got images of 3 channels, expected 1" in capsys.readouterr().err


def test_other_images_than_the_runs_are_told(
    packed_blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images other than the run's are allowed for a score, with a warning. They are never shown as the run's training
    images.
    """
    run = colors_by_default(tmp_path / "run", packed_blobs)
    train(run)
    others = tmp_path / "others"
    pack(others, blobs(50).gather(torch.arange(50)), [50])
    capsys.readouterr()
    assert cli.main(["evaluate", str(run.out), "--samples", "20", "--data", str(others), "--features", "pixels"]) == 0
    assert f"{others}: other images than those that the run was trained on" in capsys.readouterr().err
    assert cli.main(["report", str(run.out), "--data", str(others), "--features", "pixels"]) == 1
    assert "got other images, expected those that the run was trained on" in capsys.readouterr().err
    assert not (run.out / "neighbors.png").exists()


def test_folders_that_hold_digits_otherwise(digits_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"-ubyte: got a file, expected a folder .*four IDX files"):
        kind_of(digits_folder / "train-images-idx3-ubyte", 32)
    (tmp_path / "MNIST").mkdir()
    digits_folder_copy = tmp_path / "MNIST" / "raw"
    write_idx(digits_folder_copy, bars(5, seed=0))
    with pytest.raises(DataError, match=r"expected the one that holds them: .*raw$"):
        kind_of(tmp_path / "MNIST", 32)


def test_a_folder_of_digits_may_be_of_other_digits(tmp_path: Path) -> None:
    write_idx(tmp_path / "idx", bars(30, seed=4))
    assert torch.equal(open_images(tmp_path / "idx", 28).gather(torch.arange(30))[:, 0], bars(30, seed=4))

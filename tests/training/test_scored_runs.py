"""Tests of runs that score themselves: when and by what they score, and when a score fails or a run doesn't begin."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ebgan_fast.data import TensorImages
from ebgan_fast.data.training_set import open_images
from ebgan_fast.metrics.features import FeatureNet, load_feature_net
from ebgan_fast.training import sampling, scoring, session, train
from ebgan_fast.training.run import checkpoint
from ebgan_fast.training.sampling import load_generator
from ebgan_fast.training.scoring import Evaluator
from ebgan_fast.training.step import Trainer

from ..full_disk import room_for
from .helpers import CutOff, assert_same_run, cut_off_after
from .scoring import PixelNet, lines_of, scored

pytestmark = pytest.mark.usefixtures("no_curves", "pixel_net")


def test_a_run_scores_itself_and_goes_on_bit_for_bit(
    packed_blobs: Path,
    whole_scored: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scores = lines_of(whole_scored / "scores.jsonl")
    assert [line["step"] for line in scores] == [3, 6, 8]
    assert all((line["features"], line["samples"], line["real_images"]) == ("FD (pixels)", 50, 40) for line in scores)
    cut = scored(tmp_path / "cut", packed_blobs, steps=8)
    with monkeypatch.context() as patch:
        cut_off_after(patch, 7)  # after the score of step 6 and its checkpoint
        with pytest.raises(CutOff):
            train(cut)
    assert "step 6  FD (pixels) " in capsys.readouterr().out
    train(cut, resume=True)
    assert_same_run(tmp_path / "cut", whole_scored)
    for one, other in zip(lines_of(tmp_path / "cut" / "scores.jsonl"), scores, strict=True):
        assert {**one, "elapsed_s": 0} == {**other, "elapsed_s": 0}


def test_features_are_computed_at_the_first_score(
    packed_blobs: Path, tmp_path: Path, pixel_net: PixelNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda trainer: (calls.append(pixel_net.calls), step(trainer))[1])
    train(scored(tmp_path / "run", packed_blobs, steps=7))
    # Two images are tried at the start. Step 3 takes a batch of training and one of generated images, step 6 only the
    # latter.
    assert calls == [1, 1, 1, 3, 3, 3, 4]


@pytest.mark.parametrize("features", ["nowhere.pt", "efficientnet-lite0"])
def test_a_net_that_is_not_there_ends_a_run_before_it_begins(
    packed_blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features: str
) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(scoring, "load_feature_net", load_feature_net)
    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(ValueError, match=r"features: .*(expected .* a TorchScript file|needs its weights: pip)"):
        train(scored(tmp_path / "run", packed_blobs, features=features))
    assert not (tmp_path / "run").exists()


def test_a_cache_that_cannot_be_written_ends_a_run_before_it_begins(
    packed_blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "cache"):
        monkeypatch.setenv("EBGAN_FAST_CACHE", str(folder))
        with pytest.raises(ValueError, match=r"file.*: got a cache folder that can't be written .* EBGAN_FAST_CACHE"):
            train(scored(tmp_path / "run", packed_blobs))
    monkeypatch.setenv("EBGAN_FAST_CACHE", str(tmp_path / "small"))
    with room_for(0), pytest.raises(ValueError, match=r"small: got a cache folder that can't be written"):
        train(scored(tmp_path / "run", packed_blobs))
    assert not (tmp_path / "run").exists()


def test_a_net_that_cannot_take_the_images_ends_a_run_before_it_begins(
    packed_blobs: Path, tmp_path: Path, pixel_net: PixelNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(images: Tensor) -> None:
        raise RuntimeError("Traceback of TorchScript\nsizes don't match")

    monkeypatch.setattr(Trainer, "step", lambda trainer: pytest.fail("began"))
    pixel_net.before = fail
    with pytest.raises(
        ValueError, match=r"FD \(pixels\): got an error of images of 16 x 16 \(sizes don't match\), exp"
    ):
        train(scored(tmp_path / "run", packed_blobs))
    for bad, words in (
        (lambda images: images.float().mean((1, 2, 3)).log() * float("nan"), r"got features \[2\]"),
        (lambda images: images[:1].flatten(1).float(), r"got features \[1, 768\]"),
        (lambda images: images.flatten(1).float() / 0, "got features .* that aren't finite"),
    ):
        monkeypatch.setattr(scoring, "load_feature_net", lambda spec, bad=bad: FeatureNet(bad, "FD", "bad", 8))
        with pytest.raises(ValueError, match=f"FD: {words}.*expected finite features \\[2, d\\]"):
            train(scored(tmp_path / "run", packed_blobs))
    assert not (tmp_path / "run").exists()


def test_a_score_that_fails_is_a_line_and_costs_no_step(
    packed_blobs: Path,
    tmp_path: Path,
    pixel_net: PixelNet,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A score that fails costs no step: the step is saved and its grid drawn before. The run goes on, and a resume adds
    the last score.
    """
    with pytest.MonkeyPatch.context() as apart:
        apart.setenv("EBGAN_FAST_CACHE", str(tmp_path / "other"))
        train(scored(tmp_path / "whole", packed_blobs, steps=8, sample_every=3))
    saved: list[int] = []

    def fail(images: Tensor) -> None:
        if len(images) > 2:
            saved.append(checkpoint.read(tmp_path / "run" / "checkpoint.pt")["trainer"]["step"])
            raise KeyError("of the net")

    run = scored(tmp_path / "run", packed_blobs, steps=8, sample_every=3)
    pixel_net.before = fail
    capsys.readouterr()
    result = train(run)
    assert (result.step, result.stopped_by) == (8, None)
    said = [line for line in capsys.readouterr().out.splitlines() if "couldn't be scored" in line]
    assert said == [
        f"step {step} couldn't be scored (KeyError: 'of the net'); it is saved, and the run goes on"
        for step in (3, 6, 8)
    ]
    assert saved == [3, 6, 8]
    pixel_net.before = lambda images: None
    train(run, resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    assert [line["step"] for line in lines_of(tmp_path / "run" / "scores.jsonl")] == [8]


def test_time_of_scores_is_kept_when_a_run_goes_on(
    packed_blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time spent on scores counts after a resume, although a step's checkpoint is older than its score."""
    run = scored(tmp_path / "run", packed_blobs, steps=8)
    original = Evaluator.score

    def slow(*args: Any) -> dict[str, Any]:
        session.time.sleep(0.3)
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "score", slow)
        cut_off_after(patch, 3)
        with pytest.raises(CutOff):
            train(run)
    train(run, resume=True)
    times = [line["elapsed_s"] for line in lines_of(tmp_path / "run" / "scores.jsonl")]
    assert times == sorted(times)
    (spent,) = [line["elapsed_s"] for line in lines_of(tmp_path / "run" / "metrics.jsonl") if line["step"] == 4]
    assert spent > times[0] > 0.3


@pytest.mark.parametrize(("at_once", "largest"), [(7, 7), (100, 100), (250, 200), (500, 330)])
def test_the_noise_of_a_score_does_not_depend_on_the_batch(
    monkeypatch: pytest.MonkeyPatch, at_once: int, largest: int
) -> None:
    """The noise of a score does not depend on the batch. torch's random numbers depend on the count, so noise is always
    drawn for 100 samples.
    """
    seen: list[Tensor] = []

    class Generator(torch.nn.Module):
        noise_size = 3
        image_shape = (1, 2, 2)

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, noise: Tensor) -> Tensor:
            seen.append(noise)
            return noise.new_zeros(len(noise), 1, 2, 2)

    for module in (scoring, sampling):
        monkeypatch.setattr(module, "drawn_at_once", lambda *_: at_once)
    told: list[float] = []

    def progress(share: float, text: str) -> None:
        if text.startswith("generated images"):
            told.append(share)

    evaluator = Evaluator("pixels", TensorImages(torch.zeros(5, 1, 2, 2, dtype=torch.uint8)), torch.device("cpu"))
    line = evaluator.score(Generator(), 330, 5, progress)  # type: ignore[arg-type]
    assert line["samples"] == 330
    assert max(map(len, seen)) == largest
    rng = torch.Generator().manual_seed(5)
    assert torch.equal(torch.cat(seen), torch.cat([torch.randn(n, 3, generator=rng) for n in (100, 100, 100, 30)]))
    assert told == sorted(set(told))
    assert (told[0], told[-1]) == (0.0, 1.0)


def test_a_score_is_of_the_averaged_generator(packed_blobs: Path, tmp_path: Path) -> None:
    run = scored(tmp_path / "run", packed_blobs)
    train(run)
    generator, loaded, steps = load_generator(tmp_path / "run" / "checkpoint.pt")
    assert (loaded, steps) == (run, 6)
    line = lines_of(tmp_path / "run" / "scores.jsonl")[-1]
    again = Evaluator("pixels", open_images(run.data, run.image_size), torch.device("cpu")).score(
        generator, 50, run.seed
    )
    assert {name: line[name] for name in again} == again  # the same arithmetic as after a resume

"""Tests of a score that may take minutes: its progress is reported, and a signal ends it."""

from __future__ import annotations

import functools
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ebgan_fast.metrics import ImageScorer, image_scorer, kid
from ebgan_fast.metrics.frechet import gaussian
from ebgan_fast.training import display, scoring, train
from ebgan_fast.training.run import checkpoint

from .helpers import assert_same_run, files
from .scoring import PixelNet, lines_of, scored

pytestmark = pytest.mark.usefixtures("no_curves", "pixel_net")


# The batches are: training images, then generated images at step 3; generated images at steps 6 and 8, the last.
@pytest.mark.parametrize(("batch", "step", "scores"), [(1, 3, []), (2, 3, []), (3, 6, [3]), (4, 8, [3, 6])])
def test_a_signal_ends_a_score_which_is_made_up_for(
    packed_blobs: Path,
    whole_scored: Path,
    tmp_path: Path,
    pixel_net: PixelNet,
    capsys: pytest.CaptureFixture[str],
    batch: int,
    step: int,
    scores: list[int],
) -> None:
    run = scored(tmp_path / "run", packed_blobs, steps=8)
    pixel_net.calls, pixel_net.stop_at = -1, batch  # two images are tried before the first step
    result = train(run)
    assert (result.step, result.stopped_by) == (step, signal.SIGTERM)
    assert f"stopped by SIGTERM and saved at step {step} of 8; --resume goes on" in capsys.readouterr().out
    assert pixel_net.calls == batch
    assert checkpoint.read(tmp_path / "run" / "checkpoint.pt")["trainer"]["step"] == step
    path = tmp_path / "run" / "scores.jsonl"
    assert [line["step"] for line in lines_of(path)] == scores if path.exists() else not scores
    pixel_net.calls, pixel_net.stop_at = batch - 1, 0
    assert (train(run, resume=True).step, pixel_net.calls) == (8, batch + 4 - max(batch - 1, 1))
    assert_same_run(tmp_path / "run", whole_scored)
    for one, other in zip(lines_of(path), lines_of(whole_scored / "scores.jsonl"), strict=True):
        assert {**one, "elapsed_s": 0} == {**other, "elapsed_s": 0}
    before = files(tmp_path / "run")
    train(run, resume=True)  # the run has all its scores
    assert files(tmp_path / "run") == before


@pytest.mark.parametrize("distance", ["Frechet", "kernel"])
def test_a_signal_is_heard_while_distances_are_taken(
    packed_blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distance: str
) -> None:
    """A signal is handled after the first part of a set's Gaussian, or after the first of a hundred subsets."""
    monkeypatch.setattr(image_scorer, "gaussian", functools.partial(gaussian, rows=10))
    monkeypatch.setattr(scoring, "ImageScorer", functools.partial(ImageScorer, kid_subset_size=5))
    module, name = (torch.linalg, "qr") if distance == "Frechet" else (kid, "discrepancies")
    original, calls = getattr(module, name), 0

    def signaled(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        signal.raise_signal(signal.SIGTERM)
        return original(*args, **named)

    monkeypatch.setattr(module, name, signaled)
    result = train(scored(tmp_path / "run", packed_blobs))
    assert (result.step, result.stopped_by, calls) == (3, signal.SIGTERM, 1)
    assert not (tmp_path / "run" / "scores.jsonl").exists()


def test_a_second_signal_ends_a_score_at_once(packed_blobs: Path, tmp_path: Path, pixel_net: PixelNet) -> None:
    run = scored(tmp_path / "run", packed_blobs)

    def twice(images: Tensor) -> None:
        if len(images) > 2:  # two images are tried before the first step
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("the second signal was ignored")

    pixel_net.before = twice
    with pytest.raises(SystemExit) as stop:
        train(run)
    assert stop.value.code == 143


def test_a_long_score_is_told_of_without_a_terminal(
    packed_blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(display, "paced", lambda say: lambda share, text: say(text))
    train(scored(tmp_path / "run", packed_blobs, steps=3))
    said = [line for line in capsys.readouterr().out.splitlines() if re.search(r": \d+ of \d+ ?", line)]
    assert said == [
        "training images: 0 of 40",
        "training images: 40 of 40",
        "generated images: 0 of 50",
        "generated images: 50 of 50",
        "Frechet distance: 0 of 40 training images",
        "Frechet distance: 40 of 40 training images",
        "Frechet distance: 0 of 50 generated images",
        "Frechet distance: 50 of 50 generated images",
        *(f"kernel distance: {done} of 100 subsets" for done in range(101)),
    ]

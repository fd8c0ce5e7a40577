"""Runs that score themselves, and what reads a run's folder: scores, TensorBoard, the report, interpolations."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ebgan_fast.data import DataError, TensorImages
from ebgan_fast.metrics import ImageScorer, image_scorer, kernel_distance
from ebgan_fast.metrics.features import FeatureNet, load_feature_net
from ebgan_fast.metrics.frechet import gaussian
from ebgan_fast.models import Mlp
from ebgan_fast.training import TrainConfig, checkpoint, evaluation, logs, loop, samples, train
from ebgan_fast.training.evaluation import Evaluator
from ebgan_fast.training.images import load_images
from ebgan_fast.training.pictures import draw_interpolation, draw_neighbours
from ebgan_fast.training.samples import load_generator, sample_images
from ebgan_fast.training.trainer import Trainer

from ..data.layouts import pack
from ..data.test_packed import write_packed
from ..full_disk import room_for
from .conftest import leave_out_curves
from .helpers import CutOff, assert_same_run, cut_off_after, files
from .test_conv_runs import NETWORKS, blobs, small

pytestmark = pytest.mark.usefixtures("no_curves", "pixel_net")


class PixelNet:
    """A feature net of eight numbers: the channels' means in two halves, and two more.

    Attributes:
        calls: batches that it was given.
        stop_at: the number of the batch in which a SIGTERM comes.
        before: given each batch first; what it raises is the net's error.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.stop_at = 0
        self.before: Callable[[Tensor], None] = lambda images: None

    def __call__(self, images: Tensor) -> Tensor:
        self.calls += 1
        self.before(images)
        if self.calls == self.stop_at:
            signal.raise_signal(signal.SIGTERM)
        halves = torch.cat([half.float().mean((2, 3)) for half in images.chunk(2, 3)], dim=1)
        return torch.cat([halves, images.float().std((1, 2, 3))[:, None], halves[:, :1] ** 2 / 256], dim=1)


@pytest.fixture
def pixel_net(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> PixelNet:
    net = PixelNet()
    take_pixels(monkeypatch, net, tmp_path / "cache")
    return net


def take_pixels(patch: pytest.MonkeyPatch, net: PixelNet, cache: Path) -> None:
    """Let runs score by this net, and keep its features there."""
    patch.setenv("EBGAN_FAST_CACHE", str(cache))
    patch.setattr(evaluation, "load_feature_net", lambda spec: FeatureNet(net, f"FD ({spec})", f"pixels {spec}", 8))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blobs as `prepare` would pack them, to be read alone."""
    folder = tmp_path_factory.mktemp("blobs") / "packed"
    pack(folder, blobs().gather(torch.arange(40)), [40])
    return folder


@pytest.fixture(scope="module")
def whole(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 8 steps that was never cut off, to be read alone."""
    place = tmp_path_factory.mktemp("scored")
    with pytest.MonkeyPatch.context() as patch:
        leave_out_curves(patch)
        take_pixels(patch, PixelNet(), place / "cache")
        train(scored(place / "whole", packed, steps=8))
    return place / "whole"


def scored(out: Path, packed: Path, **fields: Any) -> TrainConfig:
    """A run of 6 steps, scored after 3 and 6, by default of networks without convolutions, which draw in no time."""
    defaults: dict[str, Any] = {
        "networks": Mlp(z_dim=4, n_layer_g=2, size_g=8, size_d=8),
        "data": packed,
        "flip": True,
        "evaluate_every": 3,
        "evaluate_samples": 50,
        "features": "pixels",
        "sample_every": 4,
        "checkpoint_every": 2,
        "threads": 1,
    }
    run = small(**{**defaults, **fields})
    return TrainConfig(**{**{name: getattr(run, name) for name in run.__dataclass_fields__}, "out": out})


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_scores_itself_and_goes_on_bit_for_bit(
    packed: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = lines_of(whole / "scores.jsonl")
    assert [line["step"] for line in scores] == [3, 6, 8]
    assert all((line["features"], line["samples"], line["real_images"]) == ("FD (pixels)", 50, 40) for line in scores)
    cut = scored(tmp_path / "cut", packed, steps=8)
    with monkeypatch.context() as patch:
        cut_off_after(patch, 7)  # after the score of step 6 and the checkpoint of step 6
        with pytest.raises(CutOff):
            train(cut)
    assert "step 6  FD (pixels) " in capsys.readouterr().out
    train(cut, resume=True)
    assert_same_run(tmp_path / "cut", whole)
    for one, other in zip(lines_of(tmp_path / "cut" / "scores.jsonl"), scores, strict=True):
        assert {**one, "elapsed_s": 0} == {**other, "elapsed_s": 0}


def test_features_are_computed_at_the_first_score(
    packed: Path, tmp_path: Path, pixel_net: PixelNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda trainer: (calls.append(pixel_net.calls), step(trainer))[1])
    train(scored(tmp_path / "run", packed, steps=7))
    # Two images at the start, the training images' batch and the generated ones' at step 3, the latter alone at step 6.
    assert calls == [1, 1, 1, 3, 3, 3, 4]


@pytest.mark.parametrize("features", ["nowhere.pt", "efficientnet-lite0"])
def test_a_net_that_is_not_there_ends_a_run_before_it_begins(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features: str
) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(evaluation, "load_feature_net", load_feature_net)
    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(ValueError, match=r"features: .*(expected .* a TorchScript file|needs its weights: pip)"):
        train(scored(tmp_path / "run", packed, features=features))
    assert not (tmp_path / "run").exists()


def test_a_cache_that_cannot_be_written_ends_a_run_before_it_begins(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "cache"):
        monkeypatch.setenv("EBGAN_FAST_CACHE", str(folder))
        with pytest.raises(ValueError, match=r"file.*: got a cache folder that can't be written .* EBGAN_FAST_CACHE"):
            train(scored(tmp_path / "run", packed))
    monkeypatch.setenv("EBGAN_FAST_CACHE", str(tmp_path / "small"))
    with room_for(0), pytest.raises(ValueError, match=r"small: got a cache folder that can't be written"):
        train(scored(tmp_path / "run", packed))
    assert not (tmp_path / "run").exists()


def test_a_net_that_cannot_take_the_images_ends_a_run_before_it_begins(
    packed: Path, tmp_path: Path, pixel_net: PixelNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(images: Tensor) -> None:
        raise RuntimeError("Traceback of TorchScript\nsizes don't match")

    monkeypatch.setattr(Trainer, "step", lambda trainer: pytest.fail("began"))
    pixel_net.before = fail
    with pytest.raises(
        ValueError, match=r"FD \(pixels\): got an error of images of 16 x 16 \(sizes don't match\), exp"
    ):
        train(scored(tmp_path / "run", packed))
    for bad, words in (
        (lambda images: images.float().mean((1, 2, 3)).log() * float("nan"), r"got features \[2\]"),
        (lambda images: images[:1].flatten(1).float(), r"got features \[1, 768\]"),
        (lambda images: images.flatten(1).float() / 0, "got features .* that aren't finite"),
    ):
        monkeypatch.setattr(evaluation, "load_feature_net", lambda spec, bad=bad: FeatureNet(bad, "FD", "bad", 8))
        with pytest.raises(ValueError, match=f"FD: {words}.*expected finite features \\[2, d\\]"):
            train(scored(tmp_path / "run", packed))
    assert not (tmp_path / "run").exists()


def test_a_score_that_fails_costs_no_step(
    packed: Path,
    tmp_path: Path,
    pixel_net: PixelNet,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The step is saved and its grid drawn before."""
    with pytest.MonkeyPatch.context() as apart:
        apart.setenv("EBGAN_FAST_CACHE", str(tmp_path / "other"))
        train(scored(tmp_path / "whole", packed, steps=8, sample_every=3))

    def fail(images: Tensor) -> None:
        if len(images) > 2:
            raise KeyError("of the net")

    run = scored(tmp_path / "run", packed, steps=8, sample_every=3)
    pixel_net.before = fail
    with pytest.raises(KeyError, match="of the net"):
        train(run)
    assert "step 3 couldn't be scored; it is saved, and --resume goes on" in capsys.readouterr().out
    assert checkpoint.read(tmp_path / "run" / "checkpoint.pt")["trainer"]["step"] == 3
    pixel_net.before = lambda images: None
    train(run, resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    assert [line["step"] for line in lines_of(tmp_path / "run" / "scores.jsonl")] == [3, 6, 8]


def test_time_of_scores_is_kept_when_a_run_goes_on(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of a step is older than its score."""
    run = scored(tmp_path / "run", packed, steps=8)
    original = Evaluator.score

    def slow(*args: Any) -> dict[str, Any]:
        loop.time.sleep(0.3)
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


# Batches: the training images' and the generated ones' at step 3; then generated ones' at steps 6 and 8, the last.
@pytest.mark.parametrize(("batch", "step", "scores"), [(1, 3, []), (2, 3, []), (3, 6, [3]), (4, 8, [3, 6])])
def test_a_signal_ends_a_score_which_is_made_up_for(
    packed: Path,
    whole: Path,
    tmp_path: Path,
    pixel_net: PixelNet,
    capsys: pytest.CaptureFixture[str],
    batch: int,
    step: int,
    scores: list[int],
) -> None:
    run = scored(tmp_path / "run", packed, steps=8)
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
    assert_same_run(tmp_path / "run", whole)
    for one, other in zip(lines_of(path), lines_of(whole / "scores.jsonl"), strict=True):
        assert {**one, "elapsed_s": 0} == {**other, "elapsed_s": 0}
    before = files(tmp_path / "run")
    train(run, resume=True)  # which has all its scores
    assert files(tmp_path / "run") == before


@pytest.mark.parametrize("distance", ["Frechet", "kernel"])
def test_a_signal_is_heard_while_distances_are_taken(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distance: str
) -> None:
    """After the first part of a set's Gaussian, or after the first of a hundred subsets."""
    monkeypatch.setattr(image_scorer, "gaussian", functools.partial(gaussian, rows=10))
    monkeypatch.setattr(evaluation, "ImageScorer", functools.partial(ImageScorer, kid_subset_size=5))
    module, name = (torch.linalg, "qr") if distance == "Frechet" else (kernel_distance, "discrepancies")
    original, calls = getattr(module, name), 0

    def signalled(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        signal.raise_signal(signal.SIGTERM)
        return original(*args, **named)

    monkeypatch.setattr(module, name, signalled)
    result = train(scored(tmp_path / "run", packed))
    assert (result.step, result.stopped_by, calls) == (3, signal.SIGTERM, 1)
    assert not (tmp_path / "run" / "scores.jsonl").exists()


def test_a_second_signal_ends_a_score_at_once(packed: Path, tmp_path: Path, pixel_net: PixelNet) -> None:
    run = scored(tmp_path / "run", packed)

    def twice(images: Tensor) -> None:
        if len(images) > 2:  # not those that are tried before the first step
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("the second signal was ignored")

    pixel_net.before = twice
    with pytest.raises(SystemExit) as stop:
        train(run)
    assert stop.value.code == 143


def test_a_long_score_is_told_of_without_a_terminal(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "paced", lambda say: lambda share, text: say(text))
    train(scored(tmp_path / "run", packed, steps=3))
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


@pytest.mark.parametrize(("at_once", "largest"), [(7, 7), (100, 100), (250, 200), (500, 330)])
def test_the_noise_of_a_score_does_not_depend_on_the_batch(
    monkeypatch: pytest.MonkeyPatch, at_once: int, largest: int
) -> None:
    """torch's random numbers depend on how many are asked for: always those of a hundred samples."""
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

    for module in (evaluation, samples):
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


def test_a_score_is_of_the_averaged_generator(packed: Path, tmp_path: Path) -> None:
    run = scored(tmp_path / "run", packed)
    train(run)
    generator, loaded, steps = load_generator(tmp_path / "run" / "checkpoint.pt")
    assert (loaded, steps) == (run, 6)
    line = lines_of(tmp_path / "run" / "scores.jsonl")[-1]
    again = Evaluator("pixels", load_images(run), torch.device("cpu")).score(generator, 50, run.seed)
    assert {name: line[name] for name in again} == again  # the same arithmetic, as after a resume


def test_pictures_of_a_run(packed: Path, tmp_path: Path) -> None:
    run = scored(tmp_path / "run", packed, networks=NETWORKS, steps=2, evaluate_every=0)
    train(run)
    generator, _, _ = load_generator(tmp_path / "run" / "checkpoint.pt")
    draw_interpolation(generator, tmp_path / "ways.png", rows=3, columns=5, seed=1)
    with Image.open(tmp_path / "ways.png") as ways:
        assert ways.size == (5 * 18 + 2, 3 * 18 + 2)
        first = np.asarray(ways)[2:18, 2:18]
    ends = torch.randn(2, 3, generator.noise_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = ((generator(ends[0, :1])[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    assert np.abs(first.astype(int) - expected.astype(int)).max() <= 1  # another batch, another rounding
    evaluator = Evaluator("pixels", load_images(run), torch.device("cpu"))
    draw_neighbours(evaluator, generator, tmp_path / "near.png", seed=0)
    with Image.open(tmp_path / "near.png") as near:
        assert near.size == (6 * 18 + 2, 8 * 18 + 2)
        pixels = np.asarray(near)
    training = {image.permute(1, 2, 0).numpy().tobytes() for image in blobs().gather(torch.arange(40))}
    for column in range(1, 6):
        assert pixels[2:18, 2 + 18 * column : 18 + 18 * column].tobytes() in training


def test_tensorboard_has_curves_and_grids(packed: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(scored(tmp_path / "run", packed, tensorboard=True))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    metrics = lines_of(tmp_path / "run" / "metrics.jsonl")
    assert [event.step for event in events.Scalars("loss_d")] == [line["step"] for line in metrics]
    # TensorBoard keeps float32.
    losses = torch.tensor([line["loss_d"] for line in metrics]).tolist()
    assert [event.value for event in events.Scalars("loss_d")] == losses
    assert [event.step for event in events.Scalars("fd")] == [3, 6]
    assert [event.step for event in events.Images("samples")] == [4, 6]


def test_without_tensorboard(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="tensorboard: got True without the package, expected pip install"):
        train(scored(tmp_path / "run", packed, tensorboard=True))


def test_the_margin_is_found_once_and_kept(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = scored(tmp_path / "run", packed, margin="auto", margin_auto_steps=10, evaluate_every=0, steps=4)
    train(run)
    said = capsys.readouterr().out
    assert "margin auto: training an auto-encoder on real images alone, 10 steps" in said
    margins = {line["margin"] for line in lines_of(tmp_path / "run" / "metrics.jsonl")}
    assert len(margins) == 1
    assert 0 < margins.pop() < 50
    monkeypatch.setattr("ebgan_fast.training.loop.mean_real_energy", lambda *_: pytest.fail("looked for it again"))
    longer = scored(tmp_path / "run", packed, margin="auto", margin_auto_steps=10, evaluate_every=0, steps=6)
    train(longer, resume=True)
    assert len({line["margin"] for line in lines_of(tmp_path / "run" / "metrics.jsonl")}) == 1


def test_images_that_do_not_fit_the_config(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got images of 16 x 16, expected 32 x 32: prepare them with --size 32"):
        load_images(small(data=packed, image_size=32))
    with pytest.raises(DataError, match="data: got nothing, expected a folder that ebgan-fast prepare made"):
        load_images(small(data=None))
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"photos: got something else .*: ebgan-fast prepare .*photos FOLDER --size 16"):
        load_images(small(data=tmp_path / "photos"))
    with pytest.raises(DataError, match="nowhere: no such folder"):
        load_images(small(data=tmp_path / "nowhere"))
    write_packed(tmp_path / "odd")
    with pytest.raises(DataError, match="got images of 5 x 4"):
        load_images(small(data=tmp_path / "odd"))


def test_a_flipped_bit_is_found_before_a_run_begins(packed: Path, tmp_path: Path) -> None:
    packed = shutil.copytree(packed, tmp_path / "packed")
    shard = packed / "shard_00000.bin"
    content = bytearray(shard.read_bytes())
    content[5] ^= 128
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"shard_00000\.bin: got bytes that have changed"):
        train(scored(tmp_path / "run", packed))
    assert not (tmp_path / "run").exists()


def test_samples_have_the_images_shape(packed: Path, tmp_path: Path) -> None:
    train(scored(tmp_path / "run", packed, networks=NETWORKS, steps=2, evaluate_every=0))
    generator, _, _ = load_generator(tmp_path / "run" / "checkpoint.pt")
    assert sample_images(generator, 3, seed=0).shape == (3, 3, 16, 16)
    assert NETWORKS.generator((3, 16, 16)).noise_size == generator.noise_size

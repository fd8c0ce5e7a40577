"""Tests of readers of a run, and of a run's inputs: interpolations, neighbors, TensorBoard, the margin, images."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ebgan_fast.data import DataError, ImageSet
from ebgan_fast.data.training_set import open_images
from ebgan_fast.training import TrainConfig, train
from ebgan_fast.training.pictures import draw_interpolation, draw_neighbors
from ebgan_fast.training.sampling import load_generator, sample_images
from ebgan_fast.training.scoring import Evaluator

from ..data.test_packed import write_packed
from .scoring import lines_of, scored
from .test_conv_runs import NETWORKS, blobs, small

pytestmark = pytest.mark.usefixtures("no_curves", "pixel_net")


def test_pictures_of_a_run(packed_blobs: Path, tmp_path: Path) -> None:
    run = scored(tmp_path / "run", packed_blobs, networks=NETWORKS, steps=2, evaluate_every=0)
    train(run)
    generator = load_generator(tmp_path / "run" / "checkpoint.pt").generator
    draw_interpolation(generator, tmp_path / "ways.png", rows=3, columns=5, seed=1)
    with Image.open(tmp_path / "ways.png") as ways:
        assert ways.size == (5 * 18 + 2, 3 * 18 + 2)
        first = np.asarray(ways)[2:18, 2:18]
    ends = torch.randn(2, 3, generator.noise_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = ((generator(ends[0, :1])[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    assert np.abs(first.astype(int) - expected.astype(int)).max() <= 1  # another batch size rounds differently
    evaluator = Evaluator("pixels", open_images(run.data, run.image_size), torch.device("cpu"))
    draw_neighbors(evaluator.scorer, generator, tmp_path / "near.png", seed=0)
    with Image.open(tmp_path / "near.png") as near:
        assert near.size == (6 * 18 + 2, 8 * 18 + 2)
        pixels = np.asarray(near)
    training = {image.permute(1, 2, 0).numpy().tobytes() for image in blobs().gather(torch.arange(40))}
    for column in range(1, 6):
        assert pixels[2:18, 2 + 18 * column : 18 + 18 * column].tobytes() in training


def test_tensorboard_has_curves_and_grids(packed_blobs: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(scored(tmp_path / "run", packed_blobs, tensorboard=True))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    metrics = lines_of(tmp_path / "run" / "metrics.jsonl")
    assert [event.step for event in events.Scalars("loss_d")] == [line["step"] for line in metrics]
    # TensorBoard keeps float32.
    losses = torch.tensor([line["loss_d"] for line in metrics]).tolist()
    assert [event.value for event in events.Scalars("loss_d")] == losses
    assert [event.step for event in events.Scalars("fd")] == [3, 6]
    assert [event.step for event in events.Images("samples")] == [4, 6]


def test_without_tensorboard(packed_blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ValueError, match="tensorboard: got True without the package, expected pip install"):
        train(scored(tmp_path / "run", packed_blobs, tensorboard=True))


def test_the_margin_is_found_once_and_kept(
    packed_blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = scored(tmp_path / "run", packed_blobs, margin="auto", margin_auto_steps=10, evaluate_every=0, steps=4)
    train(run)
    said = capsys.readouterr().out
    assert "margin auto: training an auto-encoder on real images alone, 10 steps" in said
    margins = {line["margin"] for line in lines_of(tmp_path / "run" / "metrics.jsonl")}
    assert len(margins) == 1
    assert 0 < margins.pop() < 50
    monkeypatch.setattr(
        "ebgan_fast.training.step.Trainer.mean_real_energy", lambda *_: pytest.fail("looked for it again")
    )
    longer = scored(tmp_path / "run", packed_blobs, margin="auto", margin_auto_steps=10, evaluate_every=0, steps=6)
    train(longer, resume=True)
    assert len({line["margin"] for line in lines_of(tmp_path / "run" / "metrics.jsonl")}) == 1


def opened(run: TrainConfig) -> ImageSet:
    return open_images(run.data, run.image_size, run.networks.channels)


def test_images_that_do_not_fit_the_config(packed_blobs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got images of 16 x 16, expected 32 x 32: prepare them with --size 32"):
        opened(small(data=packed_blobs, image_size=32))
    with pytest.raises(
        DataError, match=r"data: got nothing, expected images of 3 channels, .* folder that ebgan-fast prepare made"
    ):
        opened(small(data=None))
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"photos: got something else .*: ebgan-fast prepare .*photos FOLDER --size 16"):
        opened(small(data=tmp_path / "photos"))
    with pytest.raises(DataError, match="nowhere: got no such folder, expected one that ebgan-fast prepare made"):
        opened(small(data=tmp_path / "nowhere"))
    write_packed(tmp_path / "odd")
    with pytest.raises(DataError, match="got images of 5 x 4"):
        opened(small(data=tmp_path / "odd"))


def test_a_flipped_bit_is_found_before_a_run_begins(packed_blobs: Path, tmp_path: Path) -> None:
    packed = shutil.copytree(packed_blobs, tmp_path / "packed")
    shard = packed / "shard_00000.bin"
    content = bytearray(shard.read_bytes())
    content[5] ^= 128
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"shard_00000\.bin: got bytes that have changed"):
        train(scored(tmp_path / "run", packed))
    assert not (tmp_path / "run").exists()


def test_samples_have_the_images_shape(packed_blobs: Path, tmp_path: Path) -> None:
    train(scored(tmp_path / "run", packed_blobs, networks=NETWORKS, steps=2, evaluate_every=0))
    generator = load_generator(tmp_path / "run" / "checkpoint.pt").generator
    assert sample_images(generator, 3, seed=0).shape == (3, 3, 16, 16)
    assert NETWORKS.generator((3, 16, 16)).noise_size == generator.noise_size

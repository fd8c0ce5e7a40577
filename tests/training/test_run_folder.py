"""Tests of what a run refuses, and of the files that it leaves."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import pytest
import torch

from ebgan_fast.training import CheckpointError, load_generator, train
from ebgan_fast.training.config import read_json
from ebgan_fast.training.run import checkpoint
from ebgan_fast.training.step import Trainer

from .conftest import Configure
from .helpers import TIMING, CutOff, assert_same_run, bars, cut_off_after, files, write_idx

pytestmark = pytest.mark.usefixtures("no_curves")


def test_another_config_is_refused(configure: Configure, whole: Path) -> None:
    before = files(whole)
    with pytest.raises(
        ValueError, match=r"checkpoint\.pt: .* another config: margin \(got 11\.0, expected 10\.0\), lr_d"
    ):
        train(configure(out=whole, margin=11.0, lr_d=0.1), resume=True)
    assert files(whole) == before


def test_other_images_are_refused(configure: Configure, whole: Path, tmp_path: Path) -> None:
    write_idx(tmp_path / "others", bars(50, seed=1))
    before = files(whole)
    with pytest.raises(ValueError, match=r"checkpoint\.pt: got other images"):
        train(configure(out=whole, data=tmp_path / "others"), resume=True)
    assert files(whole) == before


def test_the_same_images_may_have_moved(configure: Configure, whole: Path, tmp_path: Path) -> None:
    write_idx(tmp_path / "moved", bars(50, seed=0))
    assert train(configure(out=whole, data=tmp_path / "moved"), resume=True).step == 20


def test_a_folder_in_use_is_refused(configure: Configure, whole: Path, tmp_path: Path) -> None:
    before = files(whole)
    with pytest.raises(ValueError, match=r"whole: got a folder that isn't empty, expected .*--resume"):
        train(configure(out=whole))
    assert files(whole) == before
    other = tmp_path / "mine"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(ValueError, match=r"mine: got a folder that isn't empty, expected .*no checkpoint"):
            train(configure(out=other), resume=resume)
        with pytest.raises(ValueError, match=r"notes\.txt: got a file"):
            train(configure(out=other / "notes.txt"), resume=resume)
    assert files(other) == {other / "notes.txt": b"mine"}


def test_killed_in_the_very_first_write(configure: Configure, whole: Path) -> None:
    run = configure()
    run.out.mkdir()
    (run.out / ".checkpoint.pt.partial").write_bytes(b"PK")
    train(run)
    assert_same_run(run.out, whole)


def test_a_truncated_checkpoint_is_refused_and_left_alone(configure: Configure, whole: Path) -> None:
    path = whole / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-100])
    before = files(whole)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: got a truncated file"):
        train(configure(out=whole), resume=True)
    assert files(whole) == before


def test_a_checkpoint_without_its_parts_is_refused(configure: Configure, whole: Path) -> None:
    path = whole / "checkpoint.pt"
    good = checkpoint.read(path)
    for part in ("generator", "noise_rng", "optimizer_d"):
        state = {**good, "trainer": {name: good["trainer"][name] for name in good["trainer"] if name != part}}
        checkpoint.write(path, state)
        with pytest.raises(CheckpointError, match="a state that doesn't fit"):
            train(configure(out=whole), resume=True)
    checkpoint.write(path, {name: good[name] for name in good if name != "config"})
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
        train(configure(out=whole), resume=True)


def test_bad_data_leaves_no_folder(configure: Configure, tmp_path: Path) -> None:
    run = configure(data=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="nowhere"):
        train(run)
    assert not run.out.exists()


def test_threads_are_put_back(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of threads is set back after a run. The run stops in its first step: pictures take long if two threads
    share a busy core.
    """
    before = torch.get_num_threads()
    seen: list[int] = []
    original = Trainer.step

    def noted(trainer: Trainer) -> None:
        seen.append(torch.get_num_threads())
        signal.raise_signal(signal.SIGTERM)
        original(trainer)

    monkeypatch.setattr(Trainer, "step", noted)
    assert train(configure(threads=before + 1)).step == 1
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("before", [True, False])
def test_cudnns_choice_is_switched_on_where_wanted_and_put_back(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, wanted: bool, before: bool
) -> None:
    """cuDNN's choice is set back also after a run that fails. A run that doesn't ask for it keeps the program's
    setting.
    """
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", before)
    seen: list[bool] = []
    original = Trainer.step

    def noted(trainer: Trainer) -> None:
        seen.append(torch.backends.cudnn.benchmark)
        original(trainer)
        if trainer.step_count == 2:
            raise KeyError("a fault")

    monkeypatch.setattr(Trainer, "step", noted)
    train(configure(cudnn_benchmark=wanted, steps=1))
    assert torch.backends.cudnn.benchmark == before
    with pytest.raises(KeyError):
        train(configure(out=configure().out / "other", cudnn_benchmark=wanted))
    assert seen == [wanted or before] * 3
    assert torch.backends.cudnn.benchmark == before


def test_a_checkpoint_from_before_a_setting_goes_on(
    configure: Configure, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = configure()
    with monkeypatch.context() as patch:
        cut_off_after(patch, 9)
        with pytest.raises(CutOff):
            train(run)
    path = run.out / "checkpoint.pt"
    state = checkpoint.read(path)
    del state["config"]["cudnn_benchmark"]
    checkpoint.write(path, state)
    assert load_generator(path).step == 6
    assert train(run, resume=True).step == 20
    assert_same_run(run.out, whole)


def test_the_run_folder(configure: Configure) -> None:
    run = configure(sample_every=8)
    result = train(run)
    assert read_json(run.out / "config.json") == run
    lines = [json.loads(line) for line in (run.out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20]
    assert result.stats == lines[-1]
    names = {"step", "loss_d", "loss_g", "energy_real", "energy_fake", "hinge_active", "pulling_away"}
    names |= {"grad_norm_g", "grad_norm_d"}
    assert all(set(line) == names | {"margin", "lr_g", "lr_d"} | TIMING for line in lines)
    for line in lines:
        last = line["step"] - 1
        assert line["margin"] == pytest.approx(2 + 8 * (1 + math.cos(math.pi * last / 20)) / 2)
        assert line["lr_g"] == line["lr_d"] == 0.001 * (1 - last / 20)
    pictures = sorted(path.name for path in (run.out / "samples").iterdir())
    assert pictures == ["step_000008.png", "step_000016.png", "step_000020.png"]

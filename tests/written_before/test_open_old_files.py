"""Tests that the current code opens what earlier versions wrote, and goes on with it."""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from ebgan_fast import cli
from ebgan_fast.data import PackedImages
from ebgan_fast.report import write_report
from ebgan_fast.studies.framework import owners
from ebgan_fast.training import TrainConfig, load_generator, sample_images, train

from ..training.conftest import leave_out_curves
from ..training.helpers import TIMING
from ..training.scoring import PixelNet, lines_of, take_pixels

HERE = Path(__file__).parent
RUNS = {"run": "digits", "run_images": "packed"}  # the folder of each run, and the folder of its images

# A lost optimizer, random state or average changes the results by a thousandth and more. The kernels of other
# processors change them by 2e-5 and less.
NEAR = 1e-4


@pytest.fixture(params=sorted(path.parent.name for path in HERE.glob("*/journal.log")))
def written(request: pytest.FixtureRequest) -> Path:
    """Return the folder of files that one version wrote."""
    return HERE / str(request.param)


@pytest.fixture(autouse=True)
def _small_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Use the test's own cache, draw no curves, and run on one thread: a second one only slows networks this small."""
    take_pixels(monkeypatch, PixelNet(), tmp_path / "cache")
    leave_out_curves(monkeypatch)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def state_of(run: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run / "checkpoint.pt", weights_only=True)["trainer"]
    return state


@pytest.mark.parametrize("name", RUNS)
def test_a_checkpoints_generator_draws(written: Path, name: str) -> None:
    generator, config, step = load_generator(written / name / "checkpoint.pt")
    assert step == 4
    state = state_of(written / name)
    assert [parameter.tolist() for parameter in generator.parameters()] == [
        value.tolist() for value in state["average"]
    ]
    told = json.loads((written / name / "config.json").read_text())
    networks = told.pop("networks")
    assert dataclasses.asdict(config.networks) == {field: networks[field] for field in networks if field != "family"}
    assert {
        field: value for field, value in vars(config).items() if field in told and field not in ("out", "data")
    } == {field: value for field, value in told.items() if field not in ("out", "data")}
    images = sample_images(generator, 5, seed=0)
    assert images.shape == {"run": (5, 1, 28, 28), "run_images": (5, 3, 8, 8)}[name]
    assert images.abs().amax() <= 1
    assert images.std(0).amax() > 0


def gone_on(written: Path, name: str, tmp_path: Path) -> tuple[TrainConfig, Path]:
    """Return the run's config, with the kept images, and a copy of its folder in which the run has ended."""
    run = shutil.copytree(written / name, tmp_path / name)
    config = load_generator(run / "checkpoint.pt").config
    config = dataclasses.replace(config, out=run, data=written / RUNS[name])
    result = train(config, resume=True)
    assert (result.step, result.stopped_by) == (6, None)
    return config, run


def apart(one: list[Any], other: list[Any], start: list[Any]) -> float:
    """Return the distance of two lists of tensors, relative to how far the second has moved from `start`."""
    first, second, before = (torch.cat([value.double().flatten() for value in each]) for each in (one, other, start))
    return float((first - second).norm() / (second - before).norm())


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_as_if_it_had_not_been_stopped(written: Path, name: str, tmp_path: Path) -> None:
    config, run = gone_on(written, name, tmp_path)
    train(dataclasses.replace(config, out=tmp_path / "whole"))
    for file, steps in (("metrics.jsonl", [3, 6]), ("scores.jsonl", [2, 4, 6])):
        if not (written / name / file).exists():
            continue
        old, new = ((folder / file).read_text().splitlines() for folder in (written / name, run))
        assert new[0] == old[0]
        assert [line["step"] for line in lines_of(run / file)] == steps
    if name == "run" and not torch.backends.mkl.is_available():
        pytest.skip("dropout draws other numbers where torch has no MKL, so that a run can't be repeated")
    found, wanted = (lines_of(folder / "metrics.jsonl")[-1] for folder in (run, tmp_path / "whole"))
    untimed = dict.fromkeys(TIMING, 0)
    assert {**found, **untimed} == pytest.approx({**wanted, **untimed}, rel=NEAR)
    state, whole, old_state = (state_of(folder) for folder in (run, tmp_path / "whole", written / name))
    for part in ("generator", "discriminator"):
        assert apart(*(list(each[part].values()) for each in (state, whole, old_state))) < NEAR
    assert apart(state["average"], whole["average"], old_state["average"]) < NEAR


@pytest.mark.parametrize("name", RUNS)
def test_a_report_shows_the_run(written: Path, name: str, tmp_path: Path) -> None:
    run = shutil.copytree(written / name, tmp_path / name)
    page = write_report(run).read_text()
    assert "3 of 6 steps in " in page
    assert "batches of 4" in page
    for grid in run.glob("samples/*.png"):
        assert base64.b64encode(grid.read_bytes()).decode() in page
    if name == "run_images":
        (score,) = lines_of(run / "scores.jsonl")
        assert f"FD (pixels) is {score['fd']:.4g} at step 2" in page


def test_a_packed_set_has_its_pixels(written: Path) -> None:
    """A packed set has its pixels: twelve pictures of 12 x 8 pixels by a formula, cut to their middle."""
    images = PackedImages(written / "packed")
    images.verify()
    assert (len(images), images.shape) == (12, (3, 8, 8))
    assert [shard.images for shard in images.shards] == [7, 5]
    assert images.skipped == ["pictures/03b.png"]
    expected = [
        [
            [
                [(5 * number + 3 * y * (channel + 1) + 7 * (x + 2) + 80 * channel) % 256 for x in range(8)]
                for y in range(8)
            ]
            for channel in range(3)
        ]
        for number in range(12)
    ]
    assert images.gather(torch.arange(12)).tolist() == expected


SWEEP = "--margins 1 4 16 --seeds 1 --steps 3 --batch-size 8 --size-g 8 --size-d 8 --samples 50 --workers 1"


@pytest.mark.filterwarnings("ignore:got a classifier")
def test_a_study_goes_on(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study goes on. One of its three trials is done, one runs in a process that was killed, and one waits."""
    monkeypatch.setattr(owners, "SECONDS_TO_DEATH", 0.6)  # that version signaled that it is alive in another way
    out = tmp_path / "sweep"
    out.mkdir()
    shutil.copy(written / "journal.log", out)
    place = ["--out", str(out), "--data", str(written / "digits"), "--device", "cpu"]
    assert cli.main(["margin-sweep", *place, *SWEEP.split()]) == 0
    assert "1 of 3 trials were done before" in capsys.readouterr().out
    first, *others = json.loads((out / "results.json").read_text())["trials"]
    notes = lines_of(written / "journal.log")
    (result,) = (note["user_attr"]["result"] for note in notes if "result" in note.get("user_attr", {}))
    began = next(datetime.fromisoformat(note["datetime_start"]) for note in notes if note.get("datetime_start"))
    ended = next(datetime.fromisoformat(note["datetime_complete"]) for note in notes if note.get("datetime_complete"))
    seconds = (ended - began).total_seconds()
    assert first == {"params": {"margin": 1.0, "seed": 0}, "result": result, "reason": None, "seconds": seconds}
    assert sorted(trial["params"]["margin"] for trial in others) == [4.0, 16.0]
    for trial in others:
        assert trial["reason"] is None
        assert trial["result"].keys() == result.keys()

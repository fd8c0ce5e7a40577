"""Tests that a run that was cut off and resumed equals a run that never was."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from ebgan_fast.training import session, train
from ebgan_fast.training.config import read_json, write_json
from ebgan_fast.training.run import checkpoint
from ebgan_fast.training.step import Trainer

from ..conftest import Fork
from .conftest import Configure
from .helpers import CutOff, assert_same_run, cut_off_after

pytestmark = pytest.mark.usefixtures("no_curves")


# Checkpoints come at 0, 6, 12, 18 and 20, log lines at 4, 8, 12, 16 and 20, a new epoch after 6, 12 and 18. So a run
# resumes from its start, inside a log interval whose line exists already or doesn't, and at the end of an interval.
@pytest.mark.parametrize("cut", [0, 9, 12, 17, 19])
def test_resumed_equals_uninterrupted(
    configure: Configure, whole: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    run = configure()
    with monkeypatch.context() as patch:
        cut_off_after(patch, cut)
        with pytest.raises(CutOff):
            train(run)
    assert checkpoint.read(run.out / "checkpoint.pt")["trainer"]["step"] == cut // 6 * 6
    torch.rand(3)  # in another process the global random numbers have another state
    result = train(run, resume=True)
    assert (result.step, result.stopped_by) == (20, None)
    assert_same_run(run.out, whole)


def train_and_die(config: Path, where: str) -> None:
    """Train in a process that is killed in step 16, or half-way through writing the checkpoint of step 18."""
    session.save_curves = lambda lines, path, title: None
    step, save = Trainer.step, torch.save

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def fatal_step(trainer: Trainer) -> None:
        if trainer.step_count == 15:
            die()
        step(trainer)

    def fatal_save(state: dict[str, Any], file: BinaryIO) -> None:
        if state["trainer"]["step"] == 18:
            file.write(b"PK" + bytes(1000))
            file.flush()
            die()
        save(state, file)

    if where == "step":
        Trainer.step = fatal_step  # type: ignore[method-assign]
    else:
        torch.save = fatal_save
    train(read_json(config))


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
@pytest.mark.parametrize("where", ["step", "checkpoint"])
def test_killed_without_warning(fork: Fork, configure: Configure, whole: Path, tmp_path: Path, where: str) -> None:
    """A run resumes after kill -9 in a step, and after kill -9 half-way through writing a checkpoint."""
    run = configure()
    write_json(run, tmp_path / "given.json")
    child = fork(train_and_die, tmp_path / "given.json", where)
    assert child.status() == -signal.SIGKILL, child.said
    assert checkpoint.read(run.out / "checkpoint.pt")["trainer"]["step"] == 12
    left = {path.name for path in run.out.glob(".*")}
    assert left == ({".lock", ".checkpoint.pt.partial"} if where == "checkpoint" else {".lock"})
    train(run, resume=True)
    assert not list(run.out.glob(".*"))
    assert_same_run(run.out, whole)


def test_a_longer_run_goes_on_from_the_end_of_a_shorter(configure: Configure, tmp_path: Path) -> None:
    """A longer run goes on from the end of a shorter one, even inside a log interval. The shorter run's last line then
    covers fewer steps.
    """
    fixed: dict[str, Any] = {"lr_decay": "none", "margin_steps": 12}
    train(configure(out=tmp_path / "whole", steps=16, **fixed))
    run = configure(steps=10, **fixed)
    assert train(run).stats is not None
    steps = [json.loads(line)["step"] for line in (run.out / "metrics.jsonl").read_text().splitlines()]
    assert steps == [4, 8, 10]
    (run.out / "samples" / "step_000010.png").unlink()  # the grid of the last step, which the whole run does not draw
    train(dataclasses.replace(run, steps=16), resume=True)
    assert_same_run(run.out, tmp_path / "whole")
    assert read_json(run.out / "config.json").steps == 16


def test_resuming_a_finished_run_changes_nothing(configure: Configure, whole: Path) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    result = train(configure(out=whole), resume=True)
    assert (result.step, result.stopped_by) == (20, None)
    assert result.stats == json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])
    assert before == {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}


def test_resume_starts_a_new_run(configure: Configure, whole: Path) -> None:
    run = configure()
    train(run, resume=True)
    assert_same_run(run.out, whole)


def test_a_metrics_line_cut_short_is_dropped(configure: Configure, whole: Path, monkeypatch: Any) -> None:
    run = configure()
    with monkeypatch.context() as patch:
        cut_off_after(patch, 17)
        with pytest.raises(CutOff):
            train(run)
    with (run.out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "loss')
    train(run, resume=True)
    assert_same_run(run.out, whole)

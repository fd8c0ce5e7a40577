"""Tests of runs that end before their last step: by a signal, or by a value that isn't finite."""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from ebgan_fast import cli
from ebgan_fast.data import PackedImages, residence
from ebgan_fast.training import NonFiniteError, TrainConfig, loop, train
from ebgan_fast.training.run import checkpoint
from ebgan_fast.training.step import Trainer

from ..conftest import Fork
from .conftest import Configure
from .helpers import assert_same_run, files
from .scoring import scored

pytestmark = pytest.mark.usefixtures("no_curves")


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)],
)
def test_a_signal_ends_the_step_and_saves(
    configure: Configure,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    status: int,
) -> None:
    run = configure()
    before = signal.getsignal(number)
    original = Trainer.step

    def signaled(trainer: Trainer) -> None:
        if trainer.step_count == 9:
            signal.raise_signal(number)
        original(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", signaled)
        result = train(run)
    assert (result.step, result.stopped_by) == (10, number)
    assert 128 + number == status
    assert signal.getsignal(number) is before
    assert f"stopped by {number.name} and saved at step 10 of 20" in capsys.readouterr().out
    assert checkpoint.read(run.out / "checkpoint.pt")["trainer"]["step"] == 10
    train(run, resume=True)
    assert_same_run(run.out, whole)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_at_once(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, status: int
) -> None:
    run = configure()
    before = signal.getsignal(number)

    def signaled(trainer: Trainer) -> None:
        signal.raise_signal(number)
        signal.raise_signal(number)
        pytest.fail("the second signal was ignored")

    monkeypatch.setattr(Trainer, "step", signaled)
    with pytest.raises(SystemExit) as stop:
        train(run)
    assert stop.value.code == status
    assert signal.getsignal(number) is before
    assert checkpoint.read(run.out / "checkpoint.pt")["trainer"]["step"] == 0


@pytest.mark.parametrize(
    "numbers",
    [(signal.SIGHUP, signal.SIGHUP), (signal.SIGUSR1, signal.SIGUSR1), (signal.SIGINT, signal.SIGTERM)],
    ids=["a closed terminal", "a batch system", "torchrun"],
)
def test_signals_that_come_twice_by_themselves_end_no_run_unsaved(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, numbers: tuple[signal.Signals, ...]
) -> None:
    run = configure()
    original = Trainer.step

    def signaled(trainer: Trainer) -> None:
        if trainer.step_count == 9:
            for number in numbers:
                signal.raise_signal(number)
        original(trainer)

    monkeypatch.setattr(Trainer, "step", signaled)
    result = train(run)
    assert (result.step, result.stopped_by) == (10, numbers[0])
    assert checkpoint.read(run.out / "checkpoint.pt")["trainer"]["step"] == 10


def test_a_hangup_that_is_ignored_stays_ignored(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hangup signal that is ignored, as under nohup, stays ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        original = Trainer.step
        monkeypatch.setattr(Trainer, "step", lambda trainer: (signal.raise_signal(signal.SIGHUP), original(trainer))[1])
        assert train(configure(steps=3)).step == 3
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def auto(packed: Path, out: Path) -> TrainConfig:
    return scored(out, packed, margin="auto", margin_auto_steps=12, evaluate_every=0, steps=4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_search_for_a_margin(
    packed_blobs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    """A signal ends the search for a margin. The folder exists already, and a resumed run searches again."""
    train(auto(packed_blobs, tmp_path / "whole"))
    run = auto(packed_blobs, tmp_path / "run")
    original, steps = Trainer.autoencoder_step, 0

    def signaled(trainer: Trainer) -> Tensor:
        nonlocal steps
        steps += 1
        if steps == 5:
            signal.raise_signal(number)
        return original(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "autoencoder_step", signaled)
        capsys.readouterr()
        result = train(run)
    assert (result.step, result.stopped_by, steps) == (0, number, 5)
    assert f"stopped by {number.name} and saved at step 0 of 4; --resume goes on" in capsys.readouterr().out
    train(run, resume=True)
    assert_same_run(run.out, tmp_path / "whole")


@pytest.mark.parametrize("part", ["verification", "load onto the device"])
def test_a_signal_ends_what_comes_before_the_first_step(
    packed_blobs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    part: str,
) -> None:
    run = scored(tmp_path / "run", packed_blobs, evaluate_every=0, steps=4)
    heard: list[str] = []

    def long_work(*given: Any) -> None:
        *_, progress = given
        signal.raise_signal(signal.SIGTERM)
        heard.append(part)
        progress(1, 5) if part == "load onto the device" else progress(0.2, "shard")
        pytest.fail("the signal was ignored")

    if part == "verification":
        monkeypatch.setattr(PackedImages, "verify", long_work)
    else:
        monkeypatch.setattr(residence, "free_memory", lambda device: 1 << 30)
        monkeypatch.setattr(residence, "on_device", long_work)
    result = train(run)
    assert heard == [part]
    assert (result.step, result.stopped_by, result.stats) == (0, signal.SIGTERM, None)
    assert "stopped by SIGTERM before its first step; nothing is written yet: " in capsys.readouterr().out
    assert not run.out.exists()


def test_a_signal_before_the_first_step_of_a_run_that_goes_on_leaves_it_as_it_was(
    configure: Configure, whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(whole)
    original = loop.settled

    def signaled(*given: Any) -> Any:
        signal.raise_signal(signal.SIGHUP)
        return original(*given)

    monkeypatch.setattr(loop, "settled", signaled)
    result = train(configure(out=whole), resume=True)
    assert (result.step, result.stopped_by) == (20, signal.SIGHUP)
    assert result.stats is not None
    assert "the run is as it was" in capsys.readouterr().out
    assert files(whole) == before


def program(*arguments: str) -> None:
    """Run the command line in this process, and exit with its status."""
    sys.exit(cli.main(arguments))


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_exit_status_of_a_stopped_process(
    fork: Fork, tmp_path: Path, digits_folder: Path, number: signal.Signals, status: int
) -> None:
    out = tmp_path / "run"
    sizes = ["--batch-size", "8", "--z-dim", "4", "--size-g", "16", "--size-d", "16", "--log-every", "5"]
    where = ["--out", str(out), "--data", str(digits_folder)]
    child = fork(program, "train", *where, *sizes, "--steps", "10000000", "--threads", "1")
    assert child.wait_for_line().startswith("step 5 of "), child.said
    child.send_signal(number)
    assert child.status() == status, child.said
    assert f"stopped by {number.name} and saved at step" in child.said
    assert checkpoint.read(out / "checkpoint.pt")["trainer"]["step"] >= 5


def test_outside_the_main_thread_no_handler_is_set(configure: Configure) -> None:
    results = []
    thread = threading.Thread(target=lambda: results.append(train(configure(steps=2))))
    thread.start()
    thread.join()
    assert [result.step for result in results] == [2]


def plant_nan(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    original = Trainer.step

    def poisoned(trainer: Trainer) -> None:
        if trainer.step_count == step:
            trainer.generator.layers[0].weight.data[0, 0] = float("nan")
        original(trainer)

    monkeypatch.setattr(Trainer, "step", poisoned)


# The step after 12 is found at the log line of 16. The step after 17 is found at the checkpoint of 18, before a log
# line.
@pytest.mark.parametrize(("planted", "kept"), [(12, 12), (17, 12), (18, 18)])
def test_a_nan_ends_the_run_and_the_good_checkpoint_stays(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, planted: int, kept: int
) -> None:
    run = configure(checkpoint_every=6)
    with monkeypatch.context() as patch:
        plant_nan(patch, planted)
        message = rf"step {planted + 1}: got loss_d nan.*last good checkpoint is of step {kept}: .*checkpoint\.pt"
        with pytest.raises(NonFiniteError, match=message):
            train(run)
    trainer = checkpoint.read(run.out / "checkpoint.pt")["trainer"]
    assert trainer["step"] == kept
    assert all(bool(value.isfinite().all()) for value in trainer["generator"].values())
    lines = [json.loads(line) for line in (run.out / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == planted // 4 * 4
    assert train(run, resume=True).step == 20  # from the good state, without the planted value

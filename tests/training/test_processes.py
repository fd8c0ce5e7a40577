"""Tests of runs of two processes (gloo): the joint batch as one process would compute it, stopping, resuming."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ebgan_fast._lock import FolderLock
from ebgan_fast.data.training_set import open_images
from ebgan_fast.metrics.features import FeatureNet
from ebgan_fast.training import TrainConfig, scoring, session, train
from ebgan_fast.training.config import read_json, write_json
from ebgan_fast.training.parallel import Absence, StopVote, World, joined, own_device
from ebgan_fast.training.run import checkpoint
from ebgan_fast.training.statistics import STATISTICS
from ebgan_fast.training.step import Trainer

from ..conftest import Fork
from ..forked import Child
from .conftest import Configure
from .plain_step import Budget
from .test_conv_runs import blobs, gradients, small, without_batch_statistics

pytestmark = pytest.mark.xdist_group("forked")

_ROOT = Path(__file__).parents[2]


def two_steps(folder: Path, fields: dict[str, Any]) -> None:
    """Train two steps as one process of several, and write gradients and statistics into a file."""
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as world:
        trainer = without_batch_statistics(Trainer(small(**fields), blobs(), world))
        for _ in range(2):
            trainer.step()
        found = trainer.statistics()
        torch.save((gradients(trainer), found, trainer.generator.state_dict()), folder / f"{world.rank}.pt")
        trainer.close()


def train_as(config: Path) -> None:
    """Train as one process of a run."""
    torch.set_num_threads(1)
    session.save_curves = lambda lines, path, title: None
    print("started")
    result = train(read_json(config), resume=True)
    print(result.step, result.stopped_by)


def train_scored(config: Path, signaled: Path) -> None:
    """Train as one process of a scored run. The feature net's first batch of training images sends this process a
    SIGTERM.
    """

    def net(images: Tensor) -> Tensor:
        if len(images) > 2 and not signaled.exists():
            signaled.touch()
            signal.raise_signal(signal.SIGTERM)
        return images.flatten(1)[:, :600:100].float()

    scoring.load_feature_net = lambda spec: FeatureNet(net, "FD", "key", 6)
    train_as(config)


def train_signaled_elsewhere(config: Path) -> None:
    """Train as one process of a scored run. The second process gets a SIGTERM while it waits for the first's score."""
    over, at_work = Absence.over, Absence.at_work
    rank = int(os.environ["RANK"])

    def signaled(absence: Absence, received: Callable[[], int | None]) -> int | None:
        asked = itertools.count()

        def while_waiting() -> int | None:
            if rank == 1 and next(asked) == 3:
                signal.raise_signal(signal.SIGTERM)
            return received()

        return over(absence, while_waiting)

    def at_each_call(absence: Absence, received: int | None) -> int | None:
        return at_work(absence, received, every=0.0)

    Absence.over, Absence.at_work = signaled, at_each_call  # type: ignore[assignment, method-assign]
    scoring.load_feature_net = lambda spec: FeatureNet(lambda x: x.flatten(1)[:, :600:100].float(), "FD", "key", 6)
    train_as(config)


def train_patiently(config: Path) -> None:
    """Train as one process of a run whose score reports at each part. A score that lasts hours reports each minute."""
    at_work = Absence.at_work
    met: list[int | None] = []

    def at_each_call(absence: Absence, received: int | None) -> int | None:
        met.append(at_work(absence, received, every=0.0))
        return met[-1]

    Absence.at_work = at_each_call  # type: ignore[assignment, method-assign]
    scoring.load_feature_net = lambda spec: FeatureNet(lambda x: x.flatten(1)[:, :600:100].float(), "FD", "key", 6)
    train_as(config)
    print(len(met) > 100 if os.environ["RANK"] == "0" else not met)


# Counts gloo's threads during a run and after it, while the trainer still exists. It runs in its own interpreter, whose
# exit status counts.
THREADS = """
from pathlib import Path
import torch
from ebgan_fast.data import TensorImages
from ebgan_fast.models import Mlp
from ebgan_fast.training import TrainConfig
from ebgan_fast.training.step import Trainer
from ebgan_fast.training.parallel import joined
torch.set_num_threads(1)
config = TrainConfig(out=Path("run"), networks=Mlp(size_g=8, size_d=8), batch_size=8, device="cpu")
def count():
    return sum(path.read_text() == "pt_gloo_runloop\\n" for path in Path("/proc/self/task").glob("*/comm"))
with joined(torch.device("cpu")) as world:
    trainer = Trainer(config, TensorImages(torch.zeros(8, 1, 32, 32, dtype=torch.uint8)), world)
    trainer.step()
    trainer.check_finite()
    during = count()
    trainer.close()
print(during, count())
"""


def places(ranks: int = 2) -> list[dict[str, str]]:
    """Return the environment variables that torchrun would set for each process of a run on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
    return [{**world, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def start(fork: Fork, target: Callable[..., object], *arguments: object, **environment: str) -> list[Child]:
    return [fork(target, *arguments, environment={**place, **environment}) for place in places()]


def finish(children: list[Child]) -> list[str]:
    """Return the output of processes that must end well."""
    for child in children:
        assert child.status() == 0, child.said
    return [child.said for child in children]


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [{}, {"pt_weight": 0.0}, {"pt_weight": 0.0, "accumulate": 2}, {"precision": "bfloat16"}],
    ids=["float32", "term for the log", "parts of a batch", "bfloat16"],
)
def test_two_processes_compute_the_joint_batch(fork: Fork, tmp_path: Path, fields: dict[str, Any]) -> None:
    """Two processes compute the losses and gradients of the joint batch, with the pulling-away term and its gradient.

    Batch statistics are left out, because each process takes them from its own images.
    """
    finish(start(fork, two_steps, tmp_path, fields))
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    budget = Budget(lambda: without_batch_statistics(Trainer(small(**fields), blobs())), steps=2)
    # Two processes divide a batch into other parts than one process does.
    names = {*STATISTICS, "grad_norm_g", "grad_norm_d"} - ({"pulling_away"} if "accumulate" in fields else set())
    for found, statistics, _ in results:
        budget.assert_gradients(found)
        budget.assert_statistics(statistics, names)
    (first, _, weights), (second, _, others) = results
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(value, others[name]) for name, value in weights.items() if "running" not in name)


@pytest.mark.slow
def test_threads_that_hold_tensors_end_with_the_run() -> None:
    """Threads that hold tensors end with the run. A thread that outlived the interpreter would abort the process.

    The two threads that stay exchange gradients only. DistributedDataParallel never releases their group.
    """
    children = [
        subprocess.Popen(
            [sys.executable, "-c", THREADS],
            env={**os.environ, **place, "OMP_NUM_THREADS": "1"},
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for place in places()
    ]
    try:
        said = [child.communicate(timeout=120)[0] for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert [text.split() for text in said] == [["4", "2"]] * 2
    assert [child.returncode for child in children] == [0, 0]


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.usefixtures("no_curves")
def test_a_run_of_two_processes_goes_on_in_one(fork: Fork, configure: Configure, tmp_path: Path) -> None:
    """A run of two processes goes on in one, and a run of one goes on in two.

    Without batch norm a run is the same up to rounding however it is divided, also one in float64.
    """
    plain = {"n_layer_g": 1, "n_layer_d": 2, "dropout_d": False, "lr_decay": "none"}
    run = configure(out=tmp_path / "pair", steps=12, margin_steps=20, **plain)
    write_json(run, tmp_path / "pair.json")
    said = finish(start(fork, train_as, tmp_path / "pair.json"))
    assert [text.splitlines()[-1] for text in said] == ["12 None"] * 2, said
    assert "step 12 of 12" in said[0]
    assert said[1].splitlines() == ["started", "12 None"]  # only the first process prints lines
    longer = dataclasses.replace(run, steps=20)
    assert train(longer, resume=True).step == 20
    lines = lines_of(run.out)
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20]
    budget = Budget(lambda: Trainer(longer, open_images(longer.data, longer.image_size)), steps=20)
    budget.assert_curves({name: [line[name] for line in lines] for name in STATISTICS}, longer.log_every)
    write_json(dataclasses.replace(longer, steps=24), tmp_path / "pair.json")
    said = finish(start(fork, train_as, tmp_path / "pair.json"))
    assert [text.splitlines()[-1] for text in said] == ["24 None"] * 2, said


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_at_one_step(fork: Fork, configure: Configure, tmp_path: Path) -> None:
    run = configure(out=tmp_path / "run", steps=1_000_000, margin_steps=5, lr_decay="none", log_every=5)
    write_json(run, tmp_path / "run.json")
    children = start(fork, train_as, tmp_path / "run.json")
    metrics = run.out / "metrics.jsonl"
    until = time.monotonic() + 60
    while time.monotonic() < until and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    children[1].send_signal(signal.SIGTERM)
    said = finish(children)
    ends = [text.splitlines()[-1].split() for text in said]
    assert ends[0] == ends[1], said
    assert ends[0][1] == str(int(signal.SIGTERM)), said
    assert checkpoint.read(run.out / "checkpoint.pt")["trainer"]["step"] == int(ends[0][0])


@pytest.mark.slow
def test_a_signal_in_a_score_stops_both(fork: Fork, configure: Configure, tmp_path: Path) -> None:
    """The other process waits for the one that scores, so a signal stops both. A resume adds the missing score, also of
    a last step.
    """
    cache = str(tmp_path / "cache")
    plain = {"lr_decay": "none", "margin_steps": 5, "evaluate_samples": 20, "dropout_d": False}
    for steps in (1000, 4):
        run = configure(out=tmp_path / f"run{steps}", steps=steps, evaluate_every=4, **plain)
        file, flag = tmp_path / "run.json", tmp_path / f"signaled{steps}"
        write_json(run, file)
        said = finish(start(fork, train_scored, file, flag, EBGAN_FAST_CACHE=cache))
        assert [text.splitlines()[-1] for text in said] == [f"4 {int(signal.SIGTERM)}"] * 2, said
        assert checkpoint.read(run.out / "checkpoint.pt")["trainer"]["step"] == 4
        assert not (run.out / "scores.jsonl").exists()
        write_json(dataclasses.replace(run, steps=4), file)
        said = finish(start(fork, train_scored, file, flag, EBGAN_FAST_CACHE=cache))
        assert [text.splitlines()[-1] for text in said] == ["4 None"] * 2
        assert [json.loads(line)["step"] for line in (run.out / "scores.jsonl").read_text().splitlines()] == [4]


SCORED = {"evaluate_every": 4, "evaluate_samples": 20, "dropout_d": False}


def trained(fork: Fork, target: Callable[..., object], run: TrainConfig, place: Path) -> list[str]:
    """Return the output of both processes of a run, with a cache of its own."""
    write_json(run, place / "run.json")
    return finish(start(fork, target, place / "run.json", EBGAN_FAST_CACHE=str(place / "cache")))


@pytest.mark.slow
def test_a_signal_to_the_other_process_ends_a_score(fork: Fork, configure: Configure, tmp_path: Path) -> None:
    run = configure(steps=8, **SCORED)
    said = trained(fork, train_signaled_elsewhere, run, tmp_path)
    assert [text.splitlines()[-1] for text in said] == [f"4 {int(signal.SIGTERM)}"] * 2, said
    assert not (run.out / "scores.jsonl").exists()


@pytest.mark.slow
def test_the_others_wait_as_long_as_a_score_takes(fork: Fork, configure: Configure, tmp_path: Path) -> None:
    """The first process contacts the others again and again, so that no collective operation times out."""
    run = configure(steps=8, **SCORED)
    said = trained(fork, train_patiently, run, tmp_path)
    assert [text.splitlines()[-2:] for text in said] == [["8 None", "True"]] * 2, said
    assert [json.loads(line)["step"] for line in (run.out / "scores.jsonl").read_text().splitlines()] == [4, 8]


@pytest.mark.slow
def test_a_folder_in_use_ends_every_process(fork: Fork, configure: Configure, whole: Path, tmp_path: Path) -> None:
    held = FolderLock(whole / ".lock", "go away")
    assert held.acquire() is None
    write_json(configure(out=whole), tmp_path / "run.json")
    children = start(fork, train_as, tmp_path / "run.json")
    assert [child.status() for child in children] == [1, 1]
    first, second = (child.said for child in children)
    assert f"in use by process {os.getpid()}" in first
    assert "a run that the first process couldn't begin" in second
    held.release()


def test_alone_a_vote_is_ones_own() -> None:
    vote = StopVote(World())
    assert vote(None) is None
    assert vote(15) == 15
    vote.close()


def test_each_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_device("cuda") == torch.device("cuda", 3)
    assert own_device("cuda:1") == torch.device("cuda", 1)
    assert own_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert own_device("auto") == torch.device("cuda", 3)

"""The command `graph` finds every difference between training with and without a graph, on a made-up GPU and graph."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import ebgan_fast
from bench.__main__ import main
from bench.commands import graph
from bench.commands.graph import Case
from bench.results import rows
from bench.subjects import training_step
from ebgan_fast.training import graph as recording
from ebgan_fast.training.graph import Compute
from ebgan_fast.training.step import Trainer
from tests.training.tape import TapeRecorder, in_place_of_cuda
from tests.training.test_conv_runs import NETWORKS

pytestmark = pytest.mark.usefixtures("made_up_gpu", "reference", "tapes")

SMALL = ("graph", "--batch-size", "4", "--steps", "9")
NAMES = [case.name for case in graph.CASES]


def _small(case: Case) -> Case:
    if case.preset == "mnist":
        return dataclasses.replace(case, networks={**case.networks, "size_g": 8, "size_d": 8, "n_layer_d": 2})
    layers = {name: value for name, value in dataclasses.asdict(NETWORKS).items() if name != "width"}
    return dataclasses.replace(case, fields={**case.fields, "image_size": 16}, networks=layers)


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch, same_threads: None) -> Iterator[None]:
    """Train small networks on the reference backend, because the CPU kernels read values, unlike those of a GPU."""
    torch.set_num_threads(1)
    monkeypatch.setattr(graph, "CASES", list(map(_small, graph.CASES)))
    with ebgan_fast.use_backend("reference"):
        yield


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[TapeRecorder]:
    return in_place_of_cuda(monkeypatch)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_graph_that_changes_nothing(
    tmp_path: Path, tapes: list[TapeRecorder], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "train.jsonl"
    assert main([*SMALL, "--out", str(out)]) == 0
    written = _rows(out)
    assert [row["case"] for row in written] == NAMES
    for row in written:
        assert (row["kind"], row["equal"], row["largest"], row["repeats"]) == ("graph", True, 0.0, None)
        assert (row["width"], row["batch_size"], row["steps"]) == (1.0, 4, 9)
    read = rows.read(out)
    assert [row.case for row in read if isinstance(row, rows.GraphRow)] == NAMES
    shown = capsys.readouterr().out
    said = "losses of 9 steps and the weights after them are the same with a CUDA graph, bit for bit"
    assert [line for line in shown.splitlines() if "losses" in line] == [f"{name}: {said}" for name in NAMES]
    assert [recorder.events.count("record") for recorder in tapes] == [1] * len(NAMES)
    assert not torch.backends.cudnn.deterministic


@pytest.fixture
def one_case(monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = (case for case in graph.CASES if case.preset == "mnist")
    monkeypatch.setattr(graph, "CASES", (case,))


def _off(monkeypatch: pytest.MonkeyPatch, step: int, every_run: bool) -> None:
    """Make the discriminator's loss of a step off by a share, which differs from run to run.

    Args:
        monkeypatch: The fixture.
        step: The number of the step.
        every_run: True for all runs, False for runs with a graph.
    """
    after = Trainer._after
    runs: list[Trainer] = []

    def off(trainer: Trainer) -> None:
        if trainer not in runs:
            runs.append(trainer)
        if trainer.step_count + 1 == step and (every_run or trainer.config.cuda_graph):
            trainer._row[0] *= 1 + 2.0 ** -(8 + len(runs))
        after(trainer)

    monkeypatch.setattr(Trainer, "_after", off)


@pytest.mark.usefixtures("one_case")
@pytest.mark.parametrize("repeats", [True, False])
def test_losses_that_differ_are_wrong_where_others_repeat(
    repeats: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _off(monkeypatch, 5, every_run=not repeats)
    out = tmp_path / "train.jsonl"
    assert main([*SMALL, "--out", str(out)]) == int(repeats)
    (row,) = _rows(out)
    assert (row["equal"], row["first"], row["repeats"]) == (False, 5, repeats)
    told = capsys.readouterr()
    without = "they repeat" if repeats else "they don't repeat either"
    said = f"losses of 9 steps differ with a CUDA graph, by up to {row['largest']:.1e} of their value, from step 5 on; "
    assert said + f"without one {without}" in (told.err if repeats else told.out)
    assert 2.0**-11 < row["largest"] < 2.0**-8


@pytest.mark.usefixtures("one_case")
def test_weights_alone_that_differ_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after = Trainer._after

    def off(trainer: Trainer) -> None:
        after(trainer)
        if trainer.step_count == 9 and trainer.config.cuda_graph:
            next(trainer.generator.parameters()).detach().mul_(2)

    monkeypatch.setattr(Trainer, "_after", off)
    out = tmp_path / "train.jsonl"
    assert main([*SMALL, "--out", str(out)]) == 1
    (row,) = _rows(out)
    assert (row["equal"], row["largest"], row["first"], row["repeats"]) == (False, 0.0, None, True)


def test_a_graph_that_cannot_run_costs_the_other_cases_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = TapeRecorder.record

    def cannot(recorder: TapeRecorder, compute: Compute) -> Compute:
        monkeypatch.setattr(TapeRecorder, "record", record)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(TapeRecorder, "record", cannot)
    out = tmp_path / "train.jsonl"
    assert main([*SMALL, "--out", str(out)]) == 1
    assert [row["case"] for row in _rows(out)] == NAMES[1:]
    said = f"bench: {NAMES[0]}: cannot run: RuntimeError: operation not permitted when stream is capturing"
    assert said in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--steps", "7"), "steps: got 7, expected at least 8"),
        (("--batch-size", "3"), "batch_size: got 3, expected at least 4"),
        (("--out", "/nowhere/at/all.jsonl"), "out: got /nowhere/at/all.jsonl"),
    ],
)
def test_numbers_that_cannot_be(arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", *arguments]) == 1
    assert words in capsys.readouterr().err


def test_a_timed_step_is_recorded_before_its_time_is_taken() -> None:
    assert training_step.WARM_UP == recording._WARM_UP

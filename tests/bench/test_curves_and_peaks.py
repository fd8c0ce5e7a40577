"""The commands `latency`, `scaling` and `memory` measure the right cases, and write the right rows."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import bench.commands.latency
import bench.commands.scaling
from bench.__main__ import main
from bench.commands.scaling import Curve
from bench.processes import memory_peak
from bench.results import rows
from bench.results.rows import Row
from bench.subjects import cases
from bench.subjects.calls import BOTH, FORWARD
from bench.subjects.cases import Case
from bench.timing import devices
from bench.timing.measure import Setting
from bench.timing.providers import Provider
from tests.limited_memory import Fork

pytestmark = pytest.mark.usefixtures("cpu_backend", "same_threads")

MEBIBYTE = 2**20
Measured = list[tuple[Case, Setting, list[Provider]]]


@pytest.fixture
def measured(make_row: Callable[..., Row], monkeypatch: pytest.MonkeyPatch) -> Measured:
    asked: Measured = []

    def measure(case: Case, setting: Setting, contestants: list[Provider], *rest: object) -> Row:
        asked.append((case, setting, contestants))
        return make_row(op=case.op, shape=case.shape, run=setting.run, threads=setting.threads, mode=setting.mode)

    for command in (bench.commands.latency, bench.commands.scaling):
        monkeypatch.setattr(command, "measure", measure)
    return asked


@pytest.mark.slow
def test_latency_is_of_every_op_in_both_modes(measured: Measured, results_file: Path) -> None:
    assert main(["latency"]) == 0
    found = rows.read(results_file.with_name("latency-cpu.jsonl"))
    every = {case.op for case in cases.CASES}
    assert {(row.op, row.mode) for row in found if isinstance(row, rows.LatencyRow)} == {
        (op, mode) for op in every for mode in (FORWARD, BOTH)
    }
    assert all(case.work.elements < 1000 for case, _, _ in measured)


def test_scaling_measures_what_its_curves_say(measured: Measured, results_file: Path) -> None:
    assert main(["scaling"]) == 0
    found = [row for row in rows.read(results_file.with_name("scaling-cpu.jsonl")) if isinstance(row, rows.ScalingRow)]
    assert {row.axis for row in found} == {"N", "d", "K", "threads"}
    assert {one.name for _, _, contestants in measured for one in contestants} == {"ebgan_fast", "eager"}
    assert all(
        (setting.threads == row.value) == (row.axis == "threads" or row.value == 1)
        for row, (_, setting, _) in zip(found, measured, strict=True)
    )
    assert main(["scaling", "--rounds", "2"]) == 0  # too few rounds for a whole run, which alone is added
    assert len(rows.read(results_file.with_name("scaling-cpu.jsonl"))) == len(found)


def _points(curve: Curve) -> list[tuple[int, Case]]:
    return [(value, curve.case(value)) for value in curve.values]


@pytest.mark.parametrize(
    "curve", [c for c in bench.commands.scaling.curves(1) if c.axis != "threads"], ids=lambda c: f"{c.axis}, {c.fixed}"
)
def test_the_exponent_expected_is_that_of_the_work(curve: Curve) -> None:
    """The package's exponent is that of the case's least work, and eager torch's that of the whole N x N matrix."""

    def grows(amounts: list[float], power: float) -> None:
        first, *others = zip(curve.values, amounts, strict=True)
        for value, amount in others:
            assert amount / first[1] == pytest.approx((value / first[0]) ** power)

    works = [case.work for _, case in _points(curve)]
    is_pulling_away = any(work.operations for work in works)
    grows([work.operations or work.elements for work in works], curve.package)
    if is_pulling_away:
        shapes = [tuple(map(int, case.shape.split("x"))) for _, case in _points(curve)]
        grows([n * n * d for n, d in shapes], curve.eager)
    else:
        assert curve.eager == curve.package


def test_threads_grow_to_the_machine_s() -> None:
    (curve, *_) = (curve for curve in bench.commands.scaling.curves(6) if curve.axis == "threads")
    assert (curve.values, [curve.threads(value) for value in curve.values]) == ([1, 2, 4], [1, 2, 4])


@pytest.fixture
def memory_case(monkeypatch: pytest.MonkeyPatch) -> Case:
    """Return the only case of `memory`. It is large against the memory that a process takes and returns by itself."""
    case = dataclasses.replace(cases.energy(64, 3, 64, 64), published={})
    monkeypatch.setattr(cases, "LARGE", (case,))
    return case


def _peaks() -> None:
    """Print the peaks of the package's loss and of one that takes 40 MiB more."""
    case = dataclasses.replace(cases.energy(64, 3, 64, 64), published={})

    def wasteful(recon: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        waste = torch.ones(40 * MEBIBYTE, dtype=torch.uint8)
        return case.formula(recon, target) + 0 * waste.sum()

    found = {}
    for name, loss in (("plain", case.package), ("wasteful", wasteful)):
        asked = (case, Provider(name, loss), devices.cpu())
        memory_peak.named = lambda *_, asked=asked: asked  # type: ignore[assignment]
        answer = memory_peak.measured("", name, "cpu")
        assert isinstance(answer, dict)
        assert answer["first_call"] > 0
        found[name] = answer["peak"]
    print("\n" + json.dumps(found))


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the peak from Linux's /proc")
def test_the_peak_is_that_of_everything_allocated(fork: Fork) -> None:
    """The peak counts every allocation. A new process measures it, as freed memory of earlier tests would hide it."""
    gradients = 2 * 64 * 3 * 64 * 64 * 4
    child = fork(_peaks)
    assert child.status() == 0, child.said
    found = json.loads(child.said.splitlines()[-1])
    assert gradients <= found["plain"] + MEBIBYTE
    assert found["plain"] < gradients + 8 * MEBIBYTE
    assert found["wasteful"] >= 40 * MEBIBYTE


def test_a_wrong_provider_has_no_memory(memory_case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = (
        memory_case,
        Provider("half", lambda recon, target: 0.5 * memory_case.formula(recon, target)),
        devices.cpu(),
    )
    monkeypatch.setattr(memory_peak, "named", lambda *_: asked)
    assert "loss is off" in str(memory_peak.measured("", "half", "cpu"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the peak from Linux's /proc")
def test_a_process_of_its_own_answers() -> None:
    case = next(case for case in cases.LARGE if case.op == "pulling_away_term")
    answer = memory_peak.asked(case, "ebgan_fast", "cpu")
    assert isinstance(answer, dict)
    assert answer["peak"] > 4 * 64 * 16384
    assert answer["first_call"] > 0


def test_a_process_that_fails_gives_its_last_line(
    memory_case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho Traceback >&2\necho 'MemoryError: too large' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert memory_peak.asked(memory_case, "ebgan_fast", "cpu") == "cannot run: MemoryError: too large"


@pytest.mark.slow
def test_an_unknown_provider_is_refused(memory_case: Case) -> None:
    with pytest.raises(ValueError, match="not enough values"):
        memory_peak.measured(memory_case.name, "no such provider", "cpu")


def test_an_answer_that_is_none_ends_in_status_1(
    memory_case: Case, results_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers: dict[str, Any] = {
        "ebgan_fast": {"peak": 100, "first_call": 0.5},
        "reference": {"peak": 200, "first_call": 0.25},
        "eager": "loss is off",
    }
    monkeypatch.setattr(memory_peak, "asked", lambda case, provider, device: answers[provider])
    assert main(["memory", "--no-compile"]) == 1
    streams = capsys.readouterr()
    assert "wrong" in streams.out
    assert "eager at reconstruction_energy 64x3x64x64 float32, 1 thread: loss is off" in streams.err
    out = results_file.with_name("mine.jsonl")
    assert main(["memory", "--no-compile", "--out", str(out)]) == 1
    (row,) = rows.read(out)
    assert isinstance(row, rows.MemoryRow)
    assert row.peak == {"ebgan_fast": 100, "reference": 200}
    assert row.first_call == {"ebgan_fast": 0.5, "reference": 0.25}
    assert row.tf32 == {"matmul": False, "cudnn": False}
    assert (row.inputs, row.gradients) == (6 * 2**20, 6 * 2**20)

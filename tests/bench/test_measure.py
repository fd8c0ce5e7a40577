"""From a case to its row."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from bench import formulas
from bench.cases import Case, Targets
from bench.devices import cpu
from bench.measure import _targets, measure
from bench.rows import Row

pytestmark = pytest.mark.usefixtures("cpu_backend", "same_threads")

ENVIRONMENT: dict[str, Any] = {
    "source_hash": "0" * 16,
    "versions": {},
    "processor": "",
    "isa": "",
    "omp_wait_policy": None,
    "omp_num_threads": None,
}


def _measure(case: Case, **settings: Any) -> Row:
    settings = {"rounds": 2, "with_compile": False, "memory": "kept", "environment": ENVIRONMENT, **settings}
    return measure(case, torch.float32, cpu(), "called", 1, **settings)


def test_the_figures_of_a_row_agree(small_case: Case) -> None:
    rounds = []
    row = _measure(small_case, after_round=lambda: rounds.append(1))
    assert row.seconds.keys() == row.median.keys() == {"ebgan_fast", "eager"}
    assert all(0 < row.seconds[name] <= row.median[name] for name in row.seconds)
    assert row.ratio_eager == row.seconds["eager"] / row.seconds["ebgan_fast"]
    work = {"GB/s": 2 * 4 * 8 * 32, "GFLOP/s": 3 * 8 * 8 * 32}[row.unit]  # whichever binds so small a case
    assert row.rate == pytest.approx(work / row.seconds["ebgan_fast"] / 1e9)
    assert row.share == pytest.approx(row.rate / float(row.ceiling["value"]))
    assert (row.target_eager, row.ratio_compile, row.target_compile) == (3.0, None, None)
    assert (row.rounds, len(rounds), row.wrong) == (2, 2, {})


def test_a_wrong_package_gets_no_time(small_case: Case) -> None:
    case = dataclasses.replace(small_case, package=lambda code: 0.99 * formulas.pulling_away_term(code))
    row = _measure(case)
    assert row.seconds.keys() == row.median.keys() == {"eager"}
    assert row.ratio_eager is row.rate is row.share is None
    assert "loss is off" in row.wrong["ebgan_fast"]


def test_a_provider_that_raises_gets_no_time_and_the_others_do(
    small_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(formula: object, dynamic: bool) -> object:
        def call(code: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no C++ compiler\nand many more lines")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    row = _measure(small_case, with_compile=True)
    assert row.wrong == {"compile": "cannot run: RuntimeError: no C++ compiler"}
    assert row.ratio_compile is None
    assert row.ratio_eager is not None


@pytest.mark.slow
def test_torch_compile_is_timed(small_case: Case) -> None:
    row = _measure(small_case, with_compile=True)
    assert row.wrong == {}
    assert row.ratio_compile == row.seconds["compile"] / row.seconds["ebgan_fast"]
    assert row.target_compile == 2.0


@pytest.mark.parametrize(
    ("dtype", "threads", "expected"),
    [
        (torch.float32, 1, Targets(3.0, 2.0)),
        (torch.float32, 2, Targets(2.7, 1.8)),
        (torch.float32, 3, None),
        (torch.bfloat16, 1, None),
    ],
)
def test_targets_are_those_of_float32_on_one_or_two_threads(
    small_case: Case, dtype: torch.dtype, threads: int, expected: Targets | None
) -> None:
    assert _targets(small_case, dtype, threads) == (expected and pytest.approx(expected))

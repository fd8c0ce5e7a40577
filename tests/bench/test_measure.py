"""The measurement of a case checks every provider, times those that are right, and gives a consistent row."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
import torch

from bench.results.rows import Row
from bench.subjects import formulas
from bench.subjects.calls import FORWARD
from bench.subjects.cases import Case
from bench.timing import measure as measuring
from bench.timing import providers, watches
from bench.timing.devices import cpu
from bench.timing.measure import Setting, measure, targets_of
from ebgan_fast.ops import backends

pytestmark = pytest.mark.usefixtures("cpu_backend", "same_threads", "low_ceilings")

ENVIRONMENT: dict[str, Any] = {
    "source_hash": "0" * 16,
    "versions": {},
    "processor": "",
    "isa": "",
    "omp_wait_policy": None,
    "omp_num_threads": None,
}


def _setting(**changes: Any) -> Setting:
    return Setting(
        **{"device": cpu(), "run": "now", "memory": "kept", "environment": ENVIRONMENT, "rounds": 2, **changes}
    )


def _measure(case: Case, with_compile: bool = False, elsewhere: Any = (), **changes: Any) -> Row:
    after_round = changes.pop("after_round", lambda: None)
    setting = _setting(**changes)
    return measure(case, setting, providers.of(case, setting.device, with_compile), after_round, elsewhere)


OURS = {"ebgan_fast", "reference"}
PUBLIC = {"full Gram", "broadcast NxNxd", "python loop"}


def test_the_figures_of_a_row_agree(small_case: Case) -> None:
    rounds = []
    row = _measure(small_case, after_round=lambda: rounds.append(1))
    assert row.seconds.keys() == {*OURS, "eager", *PUBLIC}
    assert row.ratio.keys() == row.seconds.keys() - {"ebgan_fast"}
    assert all(0 < low <= median <= high for low, median, high in (*row.seconds.values(), *row.ratio.values()))
    work = {"GB/s": 2 * 4 * 8 * 32, "GFLOP/s": 3 * 8 * 8 * 32}[row.unit]  # either may bound so small a case
    assert row.rate == pytest.approx(work / row.seconds["ebgan_fast"].median / 1e9)
    assert row.share == pytest.approx(row.rate / float(row.ceiling["value"]))
    assert row.targets == {"eager": 3.0}
    assert (row.rounds, len(rounds), row.wrong) == (2, 2, {})
    assert row.backend == "cpu"
    assert row.first_call is not None
    assert row.first_call.keys() == row.seconds.keys()
    assert row.peak is None  # one process holds all providers


def test_a_ratio_is_that_of_each_round(small_case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slows down between rounds changes the seconds, but no ratio."""

    def interleaved(clocks: dict[str, object], *settings: object) -> dict[str, list[float]]:
        return {name: [factor * (3.0 if name == "eager" else 1.0) for factor in (1, 10, 100)] for name in clocks}

    monkeypatch.setattr(measuring, "interleaved_clocks", interleaved)
    row = _measure(small_case, rounds=3)
    assert row.ratio["eager"] == pytest.approx((3, 3, 3))
    copies = cpu().copies(8 * 32 * 4)
    assert row.seconds["ebgan_fast"].median == pytest.approx(10 / copies)
    assert row.empty == 10


def test_a_wrong_package_gets_no_time(small_case: Case) -> None:
    case = dataclasses.replace(small_case, package=lambda code: 0.99 * formulas.pulling_away_term(code))
    row = _measure(case)
    assert row.seconds.keys() == {"eager", *PUBLIC}
    assert row.ratio == {}
    assert row.rate is row.share is None
    assert row.wrong.keys() == OURS
    assert "loss is off" in row.wrong["ebgan_fast"]


def test_the_reference_runs_on_its_backend(small_case: Case) -> None:
    ran = []

    def package(code: torch.Tensor) -> torch.Tensor:
        ran.append(backends.choose("cpu"))
        return formulas.pulling_away_term(code)

    row = _measure(dataclasses.replace(small_case, package=package, published={}))
    assert row.seconds.keys() == {*OURS, "eager"}
    untimed = 3  # the check, and two calls that find out if a provider is slow
    assert {name: ran.count(name) > untimed for name in ("cpu", "reference")} == {"cpu": True, "reference": True}


def test_a_provider_that_raises_gets_no_time_and_the_others_do(
    small_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(formula: object, dynamic: bool) -> object:
        def call(code: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no C++ compiler\nand many more lines")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    row = _measure(small_case, with_compile=True)
    assert row.wrong == {"torch.compile": "cannot run: RuntimeError: no C++ compiler"}
    assert row.ratio.keys() >= {"eager", *PUBLIC}


def test_only_the_forward_pass_is_timed_where_that_is_asked(small_case: Case) -> None:
    modes = []

    def package(code: torch.Tensor) -> torch.Tensor:
        modes.append(torch.is_grad_enabled())
        return formulas.pulling_away_term(code)

    row = _measure(dataclasses.replace(small_case, package=package), mode=FORWARD)
    assert row.mode == FORWARD
    assert row.targets == {}  # targets hold for both passes
    assert modes[0]  # the check takes gradients in this mode too
    assert not any(modes[-8:])


def test_slow_providers_run_on_one_copy(small_case: Case) -> None:
    seen = []

    def slow(code: torch.Tensor) -> torch.Tensor:
        seen.append(code.data_ptr())
        time.sleep(0.04)
        return formulas.pulling_away_term(code)

    row = _measure(dataclasses.replace(small_case, published={"slow": slow}))
    assert len(set(seen)) == 1
    assert row.seconds["slow"].median >= 0.04


class _OtherCommit:
    def __init__(self, complaint: str | None, name: str = "ebgan_fast at v0", seconds: float = 1.0) -> None:
        self.complaint, self.name, self.seconds = complaint, name, seconds
        self.copies = 0

    def prepare(self, case: Case, setting: Setting, copies: int) -> str | None:
        self.copies = copies
        return self.complaint

    def clock(self, repeats: int) -> float:
        return self.seconds * repeats * self.copies


def test_another_commit_is_timed_in_the_same_rounds(small_case: Case) -> None:
    row = _measure(small_case, elsewhere=[_OtherCommit(None)])
    assert row.seconds["ebgan_fast at v0"].median == pytest.approx(1.0)
    assert row.ratio["ebgan_fast at v0"].median > 0  # from a real clock; the next test has made-up times
    row = _measure(small_case, elsewhere=[_OtherCommit("loss is off")])
    assert row.wrong == {"ebgan_fast at v0": "loss is off"}


def test_this_commit_is_timed_where_the_other_is(small_case: Case) -> None:
    """This commit's package is timed by its own process alone, as the other commit's is."""
    ran = []

    def package(code: torch.Tensor) -> torch.Tensor:
        ran.append(backends.choose("cpu"))
        return formulas.pulling_away_term(code)

    case = dataclasses.replace(small_case, package=package)
    row = _measure(case, elsewhere=[_OtherCommit(None, "ebgan_fast", 2.0), _OtherCommit(None, seconds=3.0)])
    assert row.seconds["ebgan_fast"].median == pytest.approx(2.0)
    assert row.ratio["ebgan_fast at v0"].median == pytest.approx(1.5)
    assert set(ran) == {"reference"}


@pytest.mark.slow
def test_torch_compile_is_timed(small_case: Case) -> None:
    row = _measure(small_case, with_compile=True)
    assert row.wrong == {}
    assert row.ratio["torch.compile"].median > 0
    assert row.targets == {"eager": 3.0, "torch.compile": 2.0}


@pytest.mark.parametrize(
    ("dtype", "threads", "expected"),
    [
        (torch.float32, 1, {"eager": 3.0, "torch.compile": 2.0}),
        (torch.float32, 2, {"eager": 2.7, "torch.compile": 1.8}),
        (torch.float32, 3, {}),
        (torch.bfloat16, 1, {}),
    ],
)
def test_targets_are_those_of_float32_on_one_or_two_threads(
    small_case: Case, dtype: torch.dtype, threads: int, expected: dict[str, float]
) -> None:
    assert targets_of(small_case, _setting(dtype=dtype, threads=threads)) == pytest.approx(expected)


def test_the_first_call_is_the_one_that_compiles(small_case: Case) -> None:
    """The first call is that of the provider's first measurement. The row of a second watch has the same."""
    calls = []

    def compiles(code: torch.Tensor) -> torch.Tensor:
        calls.append(code)
        if len(calls) == 1:
            time.sleep(0.3)
        return formulas.pulling_away_term(code)

    device = cpu()
    contestants = [providers.Provider("ebgan_fast", compiles), providers.Provider("eager", small_case.formula)]
    rows = [measure(small_case, _setting(device=device, rounds=1), contestants) for _ in range(2)]
    for row in rows:
        assert row.first_call is not None
        assert row.first_call["ebgan_fast"] > 0.3 > row.first_call["eager"]
        assert row.seconds["ebgan_fast"].high < 0.3


def test_a_gpu_tells_the_peak_of_each_provider(small_case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peak is read from a made-up GPU, whose memory is what each step says that it takes."""

    class Memory:
        held = peak = 100

        def takes(self, amount: int) -> None:
            self.peak = max(self.peak, self.held + amount)

        def forget(self, device: object) -> None:
            self.peak = self.held

    memory = Memory()
    for name, answer in {
        "synchronize": lambda device: None,
        "memory_allocated": lambda device: memory.held,
        "reset_peak_memory_stats": memory.forget,
        "max_memory_allocated": lambda device: memory.peak,
    }.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    memory.takes(1000)  # before
    assert watches.rise(lambda: memory.takes(30), torch.device("cuda", 0)) == 30
    assert watches.rise(lambda: memory.takes(30), torch.device("cuda", 0), before=60) == 70
    assert watches.rise(lambda: memory.takes(30), torch.device("cpu")) is None

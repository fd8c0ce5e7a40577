"""Fixtures of the benchmark's tests: a small case, rows with made-up times, a made-up GPU, and a copy of the pages."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import ebgan_fast
from bench.commands import page
from bench.pages import figures, gpu
from bench.results.provenance import ROOT
from bench.results.rows import Row, Spread
from bench.subjects import cases
from bench.subjects.calls import BOTH
from bench.subjects.cases import Case, Targets
from bench.timing import ceilings, devices, watches


@pytest.fixture
def low_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the ceilings' copy and product small. The full product takes 0.2 s, and no test asks for its rate."""
    monkeypatch.setitem(ceilings.PRODUCT_SIDE, "cpu", 64)
    monkeypatch.setitem(ceilings.COPIED, "cpu", 2**14)


@pytest.fixture(scope="session")
def cpu_backend() -> None:
    """Skip a test if the compiled kernels are missing."""
    status = ebgan_fast.backends()["cpu"]
    if not status.available:
        pytest.skip(f"needs the compiled kernels: {status.reason}")


@pytest.fixture
def same_threads() -> Iterator[None]:
    """Restore torch's number of threads, which a measurement sets for the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_case() -> Case:
    return cases.pulling_away(8, 32, Targets(3.0, 2.0))


@pytest.fixture
def results_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a file in place of bench/results/ops-cpu.jsonl, with content that must not be lost."""
    path = tmp_path / "results" / "ops-cpu.jsonl"
    path.parent.mkdir()
    path.write_text("earlier rows\n")
    monkeypatch.setattr(devices, "RESULTS", path.parent)
    return path


def _spread(median: float) -> Spread:
    return Spread(0.9 * median, median, 1.1 * median)


@pytest.fixture
def make_row() -> Callable[..., Row]:
    """Return a function that makes a row with round numbers. Its arguments replace fields."""
    row = Row(
        run="2026-01-01T00:00:00+00:00",
        op="pulling_away_term",
        shape="8x32",
        dtype="float32",
        threads=1,
        device="cpu",
        watch="called",
        mode=BOTH,
        memory="kept",
        empty=0.0001,
        seconds={name: _spread(ms / 1e3) for name, ms in (("ebgan_fast", 1), ("eager", 4), ("torch.compile", 1.5))},
        ratio={"eager": _spread(4.0), "torch.compile": _spread(1.5)},
        unit="GFLOP/s",
        rate=30.0,
        ceiling={"name": "sgemm", "value": 60.0},
        share=0.5,
        targets={"eager": 3.0, "torch.compile": 2.0},
        rounds=20,
        wrong={},
        source_hash="0123456789abcdef",
        versions={"ebgan_fast": "0.1.0", "torch": "2.13.0", "python": "3.11", "compiler": "GNU 12"},
        processor="a processor",
        isa="avx2",
        omp_wait_policy=None,
        omp_num_threads="1",
        date="2026-01-01T00:00:00+00:00",
    )
    return lambda **fields: dataclasses.replace(row, **fields)


@pytest.fixture
def made_up_gpu(monkeypatch: pytest.MonkeyPatch) -> devices.Device:
    """Let `--device cuda` find this processor under a GPU's name, with a second backend and a second watch."""
    both = {"called": watches.WallClock(), "replayed": watches.WallClock()}
    gpu = devices.Device(torch.device("cpu"), both, "a-gpu", "cpu", ("reference",))
    monkeypatch.setattr(devices, "gpu", lambda: gpu)
    return gpu


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the files that the page is made of, so that a test can change them."""
    for name in ("bench", "docs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "README.md", tmp_path)
    choice = tmp_path / gpu.FIRST_CHOICE
    choice.parent.mkdir(parents=True)
    shutil.copy(ROOT / gpu.FIRST_CHOICE, choice)
    monkeypatch.setattr(page, "ROOT", tmp_path)
    real_complaints, real_record = figures.complaints, figures.record
    monkeypatch.setattr(figures, "complaints", lambda: real_complaints(tmp_path))
    monkeypatch.setattr(figures, "record", lambda drawn: real_record(drawn, tmp_path))
    return tmp_path


class Clock:
    """A clock in place of the module time. Steps move it, and nothing else does."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def perf_counter(self) -> float:
        return self.now

    def step(self, name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.calls.append(name)
            self.now += seconds

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watches, "time", clock)
    return clock

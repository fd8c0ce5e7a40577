"""The command `ops` writes the right rows at the right time, and ends with the right status."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import bench.commands.ops
import bench.commands.session
from bench.__main__ import main
from bench.results import rows
from bench.results.rows import Row
from bench.subjects import cases, formulas
from bench.subjects.cases import Case
from bench.terminal import short
from bench.timing.measure import Setting

pytestmark = pytest.mark.usefixtures("cpu_backend", "same_threads", "low_ceilings")

QUICK = ("ops", "--rounds", "1", "--no-compile", "--threads", "1")


@pytest.fixture
def one_case(small_case: Case, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setattr(cases, "CASES", (small_case,))
    return small_case


@pytest.fixture
def no_clock(make_row: Callable[..., Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make rows without measuring, and let the allocator always agree to keep freed memory."""

    def measure(case: Case, setting: Setting, *arguments: object) -> Row:
        same = {name: getattr(setting, name) for name in ("run", "threads", "memory", "rounds", "watch")}
        return make_row(op=case.op, shape=case.shape, **same)

    monkeypatch.setattr(bench.commands.ops, "measure", measure)
    monkeypatch.setattr(bench.commands.session, "keep_freed_memory", lambda: True)


def test_show_prints_the_table_that_ops_printed(
    one_case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    assert main([*QUICK, "--out", str(out)]) == 0
    printed = capsys.readouterr().out.replace(f"added to {short(out)}\n", "")
    assert "8x32" in printed
    assert main(["show", str(out)]) == 0
    assert capsys.readouterr().out == printed
    (row,) = rows.read(out)
    assert (row.op, row.shape, row.dtype, row.threads, row.memory) == (
        "pulling_away_term",
        "8x32",
        "float32",
        1,
        "returned",
    )


@pytest.mark.slow
@pytest.mark.usefixtures("no_clock")
def test_a_whole_run_is_added_to_the_results(results_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ops"]) == 0
    first, *lines = results_file.read_text().splitlines()
    assert first == "earlier rows"
    results_file.write_text("\n".join(lines) + "\n")
    written = rows.read(results_file)
    assert [(row.op, row.shape, row.threads) for row in written] == [
        (case.op, case.shape, threads) for threads in bench.commands.ops.THREADS for case in cases.CASES
    ]
    assert {row.memory for row in written} == {"returned"}
    assert len({row.run for row in written}) == 1
    assert "added to" in capsys.readouterr().out


@pytest.mark.usefixtures("no_clock")
def test_quick_keeps_every_op_and_little_else(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    assert main(["ops", "--quick", "--out", str(out)]) == 0
    written = rows.read(out)
    assert {row.op for row in written} == {case.op for case in cases.CASES}
    assert len(written) <= len(cases.CASES) / 2
    assert {(row.threads, row.rounds) for row in written if isinstance(row, Row)} == {
        (1, bench.commands.ops.QUICK_ROUNDS)
    }


@pytest.mark.usefixtures("no_clock", "made_up_gpu")
def test_quick_on_a_gpu_is_six_cases_called_and_replayed(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    dtypes = ("--dtype", "float32", "bfloat16")
    assert main(["ops", "--device", "cuda", "--quick", *dtypes, "--no-compile", "--out", str(out)]) == 0
    written = [row for row in rows.read(out) if isinstance(row, Row)]
    shapes = ["64x3x64x64", "64x3x128x128", "64x3x64x64, code 64x16384", "128x16384", "64x32768", "2048x512"]
    expected = [(shape, watch) for _ in range(2) for shape in shapes for watch in ("called", "replayed")]
    assert [(row.shape, row.watch) for row in written] == expected
    assert {row.rounds for row in written} == {bench.commands.ops.QUICK_ROUNDS}


@pytest.mark.usefixtures("made_up_gpu")
def test_quick_on_a_gpu_times_every_backend_beside_eager(
    small_case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every backend is timed, and public code is left out. "reference" stands for the GPU's second backend here."""
    monkeypatch.setattr(cases, "CASES", (dataclasses.replace(small_case, quick=("cuda",)),))
    out = tmp_path / "rows.jsonl"
    assert main([*QUICK, "--device", "cuda", "--quick", "--out", str(out)]) == 0
    called, replayed = (row for row in rows.read(out) if isinstance(row, Row))
    assert list(called.seconds) == ["ebgan_fast", "reference", "eager"]
    assert (called.watch, replayed.watch, called.backend) == ("called", "replayed", "cpu")
    assert called.first_call == replayed.first_call  # both watches share the first call


@pytest.mark.usefixtures("no_clock")
def test_a_file_that_was_asked_for_has_each_row_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row is written as soon as it is measured, so that a killed run loses only the row at hand."""
    out = tmp_path / "rows.jsonl"
    there: list[int] = []
    quick = bench.commands.ops.measure

    def counted(*arguments: object) -> Row:
        there.append(len(out.read_text().splitlines()) if out.exists() else 0)
        return quick(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.commands.ops, "measure", counted)
    assert main(["ops", "--quick", "--out", str(out)]) == 0
    assert there == list(range(len(rows.read(out))))


def test_public_formulas_are_timed_under_usual_conditions_alone(
    one_case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.commands.session, "keep_freed_memory", lambda: True)
    timed = {}
    for name, flags in {"usual": (), "kept": ("--memory", "kept"), "bfloat16": ("--dtype", "bfloat16")}.items():
        out = tmp_path / f"{name}.jsonl"
        assert main([*QUICK, *flags, "--out", str(out)]) == 0
        (row,) = rows.read(out)
        assert isinstance(row, Row)
        timed[name] = "full Gram" in row.seconds
    assert timed == {"usual": True, "kept": False, "bfloat16": False}


def test_threads_that_spin_are_not_compared(
    one_case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert main(["ops", "--threads", "2", "--compare", "HEAD"]) == 1
    assert "expected OMP_WAIT_POLICY=passive" in capsys.readouterr().err


@pytest.mark.usefixtures("no_clock")
@pytest.mark.parametrize(
    "subset",
    [
        ("--only", "64x256"),
        ("--quick",),
        ("--no-compile",),
        ("--rounds", "2"),
        ("--dtype", "bfloat16"),
        ("--memory", "kept"),
        ("--threads", "3"),
    ],
    ids=" ".join,
)
def test_less_than_a_whole_run_adds_nothing_unless_told_to(
    results_file: Path, tmp_path: Path, subset: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ops", *subset]) == 0
    assert results_file.read_text() == "earlier rows\n"
    assert "is left as it is" in capsys.readouterr().err
    out = tmp_path / "mine.jsonl"
    assert main(["ops", *subset, "--out", str(out)]) == 0
    assert rows.read(out)
    assert results_file.read_text() == "earlier rows\n"


@pytest.mark.usefixtures("no_clock")
def test_an_interrupted_run_adds_nothing_and_prints_what_it_has(
    results_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick, calls = bench.commands.ops.measure, []

    def interrupted(*arguments: object, **settings: object) -> Row:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return quick(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.commands.ops, "measure", interrupted)
    assert main(["ops"]) == 130
    streams = capsys.readouterr()
    assert results_file.read_text() == "earlier rows\n"
    assert cases.CASES[1].shape in streams.out
    assert cases.CASES[2].shape not in streams.out
    assert streams.err.endswith("bench: interrupted\n")


def test_a_wrong_provider_ends_in_status_1_after_the_table(
    small_case: Case, results_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = dataclasses.replace(small_case, package=lambda code: 0.99 * formulas.pulling_away_term(code))
    right = dataclasses.replace(small_case, shape="the same")
    monkeypatch.setattr(cases, "CASES", (wrong, right))
    monkeypatch.setattr(bench.commands.ops, "left_out", lambda *settings: [])
    assert main(QUICK) == 1
    streams = capsys.readouterr()
    lines = {line.split("float32")[0].split(maxsplit=1)[1].strip(): line for line in streams.out.splitlines()[1:3]}
    assert "wrong" in lines["8x32"]
    assert "wrong" not in lines["the same"]
    assert "bench: ebgan_fast at pulling_away_term 8x32 float32, 1 thread: loss is off" in streams.err
    assert results_file.read_text() == "earlier rows\n"


@pytest.mark.parametrize(("could", "memory"), [(True, "kept"), (False, "returned")])
def test_freed_memory_is_kept_before_anything_is_allocated(
    one_case: Case,
    tmp_path: Path,
    could: bool,
    memory: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    order: list[str] = []

    def keep_freed_memory() -> bool:
        order.append("keep")
        return could

    def inputs(dtype: torch.dtype) -> cases.Arguments:
        order.append("allocate")
        return one_case.inputs(dtype)

    monkeypatch.setattr(bench.commands.session, "keep_freed_memory", keep_freed_memory)
    monkeypatch.setattr(cases, "CASES", (dataclasses.replace(one_case, inputs=inputs),))
    out = tmp_path / "rows.jsonl"
    assert main([*QUICK, "--memory", "kept", "--out", str(out)]) == 0
    assert order == ["keep", "allocate"]
    assert [row.memory for row in rows.read(out)] == [memory]
    assert ("cannot be told" in capsys.readouterr().err) is not could


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_to_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o500)
    assert main(["ops", "--out", str(tmp_path / "rows.jsonl")]) == 1
    assert "out: got" in capsys.readouterr().err

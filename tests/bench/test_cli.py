"""The command line does a whole tiny run, and ends a user's mistake in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.results import rows
from bench.results.provenance import ROOT, source_hash
from bench.terminal import progress

pytestmark = pytest.mark.usefixtures("cpu_backend", "same_threads", "low_ceilings")


@pytest.mark.slow
def test_a_tiny_run_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, picture = tmp_path / "rows.jsonl", tmp_path / "rows.png"
    tiny = ("--only", "64x256", "--rounds", "1", "--no-compile", "--threads", "1")
    assert main(["ops", "--device", "cpu", *tiny, "--out", str(out)]) == 0
    (row,) = rows.read(out)
    assert (row.op, row.shape, row.dtype, row.threads, row.rounds) == ("pulling_away_term", "64x256", "float32", 1, 1)
    assert isinstance(row, rows.Row)
    names = {"ebgan_fast", "reference", "eager", "full Gram", "broadcast NxNxd", "python loop"}
    assert row.seconds.keys() == names, row.wrong
    assert row.memory == "returned"
    assert row.source_hash == source_hash()
    assert row.targets == {"eager": 3.0}
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:4] == ["op", "shape", "dtype", "timed"]
    assert table[1].split()[:4] == ["pulling_away_term", "64x256", "float32", "1"]
    assert main(["plot", str(out), str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


MISTAKES = {
    "device": (("ops", "--device", "tpu"), 2, "'tpu'"),
    "dtype": (("ops", "--dtype", "int8"), 2, "'int8'"),
    "command": (("measure",), 2, "measure"),
    "compare": (("ops", "--compare", "no-such-commit"), 1, "compare: got 'no-such-commit', expected a commit"),
    "compare an option": (("ops", "--compare", "--all"), 2, "--compare"),
    "quick without a case": (("ops", "--quick", "--only", "64x32768"), 1, "of which --quick keeps none"),
    "record": (("record", "docs/images/none.png"), 1, "record: got docs/images/none.png"),
    "only": (("ops", "--only", "no such shape"), 1, "only: got 'no such shape', expected a part of"),
    "threads": (("ops", "--threads", "1", "0"), 1, "threads: got 1 0, expected at least 1"),
    "no threads": (("ops", "--threads"), 1, "threads: got none"),
    "rounds": (("ops", "--rounds", "0"), 1, "rounds: got 0"),
    "out": (("ops", "--out", "/no/such/folder/rows.jsonl"), 1, "out: got /no/such/folder/rows.jsonl"),
    "show": (("show", "/no/such/file"), 1, "/no/such/file: No such file or directory"),
    "plot": (("plot", "README.md", "out.png"), 1, "README.md, line 1"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_in_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, status, words = MISTAKES[name]
    try:
        ended = main(arguments)
    except SystemExit as stop:
        ended = stop.code
    streams = capsys.readouterr()
    assert ended == status
    assert streams.err.startswith("bench: ")
    assert words in streams.err
    assert streams.err.count("\n") == 1
    assert streams.out == ""


@pytest.mark.slow
def test_a_mistake_leaves_no_traceback() -> None:
    command = [sys.executable, "-m", "bench", "ops", "--device", "tpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_progress_is_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(4) as (describe, advance):
        describe("one case")
        advance()
        advance()
        describe("another")
    said = ["bench: 0 of 4 done, now one case", "bench: 2 of 4 done, now another"]
    assert capsys.readouterr().err.splitlines() == said

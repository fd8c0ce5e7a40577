"""Bugs planted in a project of two files are caught, missed or not judged as expected, and a killed run continues."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import __main__ as command
from . import tree
from .judging import Ended, Note, Verdict, judge
from .plant import Planted
from .record import Record, state_of
from .running import Run

HERE = Path(__file__).parent
PACKAGE = "little_sums"
TOTAL = "def total(numbers):\n    result = 0\n    for number in numbers:\n        result += number\n    return result\n"
TESTS = """
import pytest

from little_sums import total


def test_three():
    assert total([1, 2, 3]) == 6


def test_nothing():
    assert total([]) == 0


@pytest.mark.skip(reason="no such machine")
def test_elsewhere():
    assert total([1]) == 1


def test_that_fails_by_itself():
    assert total([1]) == 2


@pytest.fixture
def made():
    return total([1])


def test_of_a_fixture(made):
    assert made == 1
"""
SLIP = Planted(
    name="the first number is left out",
    kind="data",
    file=f"{PACKAGE}/__init__.py",
    text="in numbers:",
    instead="in numbers[1:]:",
    test="tests/test_total.py::test_three",
)
SAME_LENGTH = dataclasses.replace(SLIP, name="a minus for a plus", text="+= number", instead="-= number")
UNNOTICED = dataclasses.replace(SLIP, name="what no test sees", test="tests/test_total.py::test_nothing")
EXPECTED = {
    SLIP: Verdict("caught"),
    SAME_LENGTH: Verdict("caught"),
    UNNOTICED: Verdict("missed"),
    dataclasses.replace(SLIP, name="of another time", text="in numbers[0:]:"): Verdict(
        "stale",
        f"{PACKAGE}/__init__.py has 'in numbers[0:]:'... 0 times, expected once; write the planted bug anew for the "
        "present text",
    ),
    dataclasses.replace(SLIP, name="another exception", instead="in numbers + None:"): Verdict(
        "not judged",
        "the test fails by 'TypeError: can only concatenate list (not \"NoneType\") to list', "
        "expected AssertionError or Failed",
    ),
    dataclasses.replace(SLIP, name="not even imported", text="return result", instead="return result +"): Verdict(
        "not judged", "pytest ended with status 4: E   SyntaxError: invalid syntax"
    ),
    dataclasses.replace(SLIP, name="only skipped", test="tests/test_total.py::test_elsewhere"): Verdict(
        "not judged", "the test was skipped: no such machine"
    ),
    dataclasses.replace(SLIP, name="a bad test", test="tests/test_total.py::test_that_fails_by_itself"): Verdict(
        "not judged", "the test fails without the bug: AssertionError: assert 1 == 2"
    ),
    dataclasses.replace(
        SLIP, name="a broken fixture", instead="in numbers + None:", test="tests/test_total.py::test_of_a_fixture"
    ): Verdict(
        "not judged",
        'an error in the test\'s setup: TypeError: can only concatenate list (not "NoneType") to list',
    ),
}


@pytest.fixture
def files() -> dict[str, bytes]:
    """The project's files, with the plugin that notes the ends of tests."""
    witness = {f"tests/planted/{name}": (HERE / name).read_bytes() for name in ("__init__.py", "witness.py")}
    texts = {f"{PACKAGE}/__init__.py": TOTAL, "tests/__init__.py": "", "tests/test_total.py": TESTS, "pytest.ini": ""}
    return {**witness, **{name: text.encode() for name, text in texts.items()}}


def judged(
    files: dict[str, bytes], folder: Path, plants: list[Planted], fresh: bool = False
) -> dict[Planted, tuple[Verdict, float]]:
    """Return the verdicts of one run, with their seconds."""
    told: dict[Planted, tuple[Verdict, float]] = {}

    def tell(plant: Planted, verdict: Verdict, seconds: float) -> None:
        told[plant] = verdict, seconds

    record = Record(folder / "verdicts.jsonl", state_of(files), fresh)
    Run(folder, files, folder, record, 2, tell, PACKAGE)(plants)
    return told


@pytest.mark.slow
def test_each_bug_gets_its_verdict(files: dict[str, bytes], tmp_path: Path) -> None:
    found = judged(files, tmp_path, list(EXPECTED))
    assert {plant.name: verdict for plant, (verdict, _) in found.items()} == {
        plant.name: verdict for plant, verdict in EXPECTED.items()
    }
    # Every copy is restored.
    for name in ("tree-0", "tree-1"):
        assert (tmp_path / name / PACKAGE / "__init__.py").read_text() == TOTAL


@pytest.mark.slow
def test_a_run_goes_on_where_another_was_killed(files: dict[str, bytes], tmp_path: Path) -> None:
    first = judged(files, tmp_path, [SLIP, UNNOTICED])
    assert all(seconds > 0 for _, seconds in first.values())
    with (tmp_path / "verdicts.jsonl").open("a") as file:
        file.write('{"state": "cut o')
    (tmp_path / "tree-0" / PACKAGE / "__init__.py").write_text("left as it was planted")
    again = judged(files, tmp_path, [SLIP, UNNOTICED, SAME_LENGTH])
    assert [again[plant][1] for plant in (SLIP, UNNOTICED)] == [0, 0]
    assert {plant: verdict for plant, (verdict, _) in again.items()} == {
        plant: EXPECTED[plant] for plant in (SLIP, UNNOTICED, SAME_LENGTH)
    }
    other = dataclasses.replace(SLIP, instead="in numbers[2:]:")
    assert judged(files, tmp_path, [other])[other][1] > 0
    assert judged(files, tmp_path, [SLIP], fresh=True)[SLIP][1] > 0
    files[f"{PACKAGE}/__init__.py"] += b"# another state of the sources\n"
    assert judged(files, tmp_path, [SLIP])[SLIP][1] > 0


def test_a_test_without_an_end_is_ended(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test that takes too long is ended, with the processes that it started."""
    files["tests/test_total.py"] = b"import subprocess\n\n\ndef test_it():\n    subprocess.run(['sleep', '600'])\n"
    monkeypatch.setattr(tree, "_SECONDS", 3)
    copy = tree.Tree(tmp_path, tmp_path / "tree", files, PACKAGE)
    assert judge(SLIP, copy.run(["tests"])) == Verdict("not judged", "the test took too long and was ended")


def test_another_copy_of_the_package_is_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    """A copy refuses to test another installation of the package, where no bug is planted."""
    copy = tree.Tree(tmp_path, tmp_path / "tree", files, "ebgan_fast")
    ended = copy.run(["tests"])
    assert ended.status == 4
    assert "ebgan_fast: got " in ended.last


def _notes() -> Iterator[tuple[Note, str]]:
    group = ("ExceptionGroup", "Exception", "ValueError", "AssertionError")
    yield Note("t", "call", "failed", group, "two failures"), "caught"
    yield Note("t", "call", "failed", ("OutOfBounds", "SimulationError", "Exception"), "load of 4 bytes"), "not judged"
    yield Note("t", "teardown", "failed", ("AssertionError",), "left behind"), "not judged"
    yield Note("t", "call", "passed", (), ""), "missed"


@pytest.mark.parametrize(("note", "outcome"), list(_notes()), ids=lambda it: getattr(it, "when", it))
def test_an_exception_must_be_the_expected_one(note: Note, outcome: str) -> None:
    assert judge(SLIP, Ended(int(note.outcome == "failed"), [note], "")).outcome == outcome


def test_the_exit_status_tells_of_any_bug_that_was_not_caught(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = dataclasses.replace(SLIP, text="of another time")
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(tree, "sources", lambda root: files)
    for plants, status, end in (
        ((SLIP,), 0, "1 caught, 0 missed, of 1; 0 s"),
        ((SLIP, UNNOTICED), 1, "1 caught, 1 missed, of 2; 0 s"),
        ((SLIP, stale), 1, "1 caught, 0 missed, 1 stale, of 2; 0 s"),
    ):
        monkeypatch.setattr(command, "PLANTS", plants)
        record = Record(tmp_path / "build" / "planted" / "verdicts.jsonl", state_of(files))
        record.note_verdict(SLIP, Verdict("caught"))
        record.note_verdict(UNNOTICED, Verdict("missed"))
        assert command.main([]) == status
        assert capsys.readouterr().out.splitlines()[-1] == f"planted: {end}"
    assert command.main(["a bug that there is not"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert command.main(["--jobs", "0"]) == 2
    assert command.main(["--list"]) == 0
    assert SLIP.name in capsys.readouterr().out

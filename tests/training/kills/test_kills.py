"""Tests of a few of the kills of `make kills`, and that each kill comes at the right place."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from signal import Signals

import pytest

from ...conftest import Fork
from . import __main__ as command
from .cases import AFTER, BEFORE, HALF, POLITE, SIGNALS, Case, Kill, at_events, at_moments
from .child import Trace
from .suite import Suite
from .watching import Watch

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for an open file's path")

KILL = Kill(Signals.SIGKILL, BEFORE, "flush 1 of .")
EVENTS = ["open 1 of metrics.jsonl", "write 1 of metrics.jsonl", "rename 1 of .checkpoint.pt.partial to checkpoint.pt"]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return Suite(tmp_path_factory.mktemp("kills") / "work")


@pytest.fixture(scope="module")
def of_events(suite: Suite) -> tuple[list[Case], int]:
    return suite.at_events()


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_killed_run_goes_on(suite: Suite, of_events: tuple[list[Case], int], number: Signals) -> None:
    """A killed run goes on. Each signal takes another sample of the kinds of events, and two moments; `make kills` has
    all.
    """
    kinds: dict[str, list[Case]] = {}
    for case in of_events[0]:
        if case.kills[-1].signal == number and "../cache" not in str(case):
            kinds.setdefault(re.sub(r"\d+", "", str(case.kills[-1])), []).append(case)
    some = [cases[len(cases) // 2] for cases in kinds.values()]
    some = some[2 * POLITE.index(number) + 1 :: 6] if number in POLITE else some[::3]
    some += [case for case in at_moments(8, seed=0) if case.kills[0].signal == number]
    assert len(some) > 4
    assert [f"{case} | {'; '.join(found)}" for case in some if (found := suite.run(case))] == []


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
def test_each_way_to_change_a_file_is_an_event(suite: Suite, of_events: tuple[list[Case], int]) -> None:
    cases, events = of_events
    titles = suite.wholes["packed"].trace.events
    assert {title.split()[0] for title in titles} >= {"open", "write", "flush", "rename", "mkdir", "lock", "remove"}
    for name in (
        "checkpoint.pt",
        "metrics.jsonl",
        "scores.jsonl",
        "config.json",
        "curves.png",
        "samples/step_000010.png",
    ):
        assert any(name in title for title in titles), name
    assert events > len(titles)
    assert any(len(case.kills) == 2 for case in cases)  # cases that kill at the start of a resume
    assert len(set(map(str, cases))) == len(cases)


def write_two_lines(run: Path, kill: Kill | None, notes: Path) -> None:
    """Write four bytes, and then replace them by two others."""
    titles: list[str] = []

    def note(title: str) -> None:
        titles.append(title)
        notes.write_text("\n".join(titles))

    Watch(run, note, kill).install()
    path, partial = run / "lines.txt", run / ".lines.txt.partial"
    path.write_text("abcd")
    with partial.open("wb", buffering=0) as file:
        file.write(b"ef")
    partial.replace(path)


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kill", "left"),
    [
        ("SIGKILL before open 1 of lines.txt", None),
        ("SIGKILL before write 1 of lines.txt", ""),
        ("SIGKILL half-way through write 1 of lines.txt", "ab"),
        ("SIGKILL after write 1 of lines.txt", "abcd"),
        ("SIGTERM before rename 1 of .lines.txt.partial to lines.txt", "abcd"),
        ("SIGKILL after rename 1 of .lines.txt.partial to lines.txt", "ef"),
        (None, "ef"),
    ],
)
def test_a_kill_comes_at_its_event(fork: Fork, tmp_path: Path, kill: str | None, left: str | None) -> None:
    run, parsed = tmp_path / "run", Kill.parse(kill) if kill else None
    run.mkdir()
    child = fork(write_two_lines, run, parsed, tmp_path / "notes")
    assert child.status() == (-parsed.signal if parsed else 0), child.said
    path = run / "lines.txt"
    assert (path.read_text() if path.exists() else None) == left
    if parsed is not None:
        assert (tmp_path / "notes").read_text().splitlines()[-1] == parsed.what


def test_a_case_is_what_its_text_says() -> None:
    cases = [*at_events("packed", EVENTS, (KILL,)), *at_moments(100, seed=1)]
    assert [Case.parse(str(case)) for case in cases] == cases
    assert {case.kills[0].signal for case in cases[-100:]} == set(SIGNALS)
    assert {len(case.kills) for case in cases[-100:]} == {1, 2}
    assert at_moments(100, seed=1) != at_moments(100, seed=2)
    for text in ("", "packed", "other: SIGKILL at 0.5", "packed: SIGKILL at noon", "packed: SIGWHAT at 0.5"):
        with pytest.raises(ValueError, match="got '"):
            Case.parse(text)


def test_each_event_has_each_signal() -> None:
    said = [str(case.kills[-1]) for case in at_events("packed", EVENTS)]
    for event in EVENTS:
        assert {f"{number.name} before {event}" for number in SIGNALS} <= set(said)
    assert [kill for kill in said if HALF in kill] == [f"SIGKILL half-way through {EVENTS[1]}"]
    assert [kill for kill in said if AFTER in kill] == [f"{number.name} after {EVENTS[-1]}" for number in SIGNALS]


def test_a_moment_is_a_share_of_a_process() -> None:
    trace = Trace(began=0.0, seconds=20.0, steps=[1, 2, 3], times=[4.0, 6.0, 10.0])
    assert trace.moment(0.0) == (None, 0.0)
    assert trace.moment(0.1) == (None, 2.0)
    assert trace.moment(0.25) == (1, 1.0)
    assert trace.moment(0.75) == (3, 5.0)
    # A process that resumes at step 2 takes 4 s for its start, and then the 14 s that are left.
    assert trace.moment(0.25, first=2) == (None, 4.5)
    assert trace.moment(0.5, first=2) == (3, 1.0)


def test_a_wrong_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--repeat", "packed: SIGKILL at noon"]) == 2
    assert command.main(["--jobs", "0"]) == 2
    assert capsys.readouterr().err.count("kills: ") == 2

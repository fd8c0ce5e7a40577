"""Some kills of `make kills` pass, and its suite finds what it should."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from pathlib import Path
from signal import Signals

import pytest

from ...training.kills.cases import AFTER, AT, BEFORE, HALF, Case, Kill
from ...training.kills.child import Trace
from . import __main__ as command
from . import suite as suites
from .suite import VARIANTS, Suite, at_moments, differences, of_whole_shards

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for processes and files")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return Suite(tmp_path_factory.mktemp("kills") / "work")


@pytest.fixture(scope="module")
def of_events(suite: Suite) -> tuple[list[Case], int]:
    return suite.at_events()


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
def test_a_killed_prepare_goes_on(suite: Suite, of_events: tuple[list[Case], int]) -> None:
    """Every sixth kind of event is tried, in a new folder and in later processes, and two random moments."""
    kinds: dict[str, Case] = {}
    for case in of_events[0]:
        kind = re.sub(r"\d+", "", str(case.kills[-1]))
        if case.kills[-1].signal == Signals.SIGKILL:
            kinds.setdefault(f"{len(case.kills)} {kind}", case)
    some = [*list(kinds.values())[::6], *at_moments(2, seed=0)]
    some += [Case("one worker", (Kill(Signals.SIGKILL, BEFORE, "write 1 of .prepare.json.partial"),))]
    assert len(some) > 8
    assert [f"{case} | {'; '.join(found)}" for case in some if (found := suite.run(case))] == []


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
def test_each_change_of_the_folder_is_an_event(suite: Suite, of_events: tuple[list[Case], int]) -> None:
    cases, events = of_events
    titles = suite.traces["one worker"].events
    assert {title.split()[0] for title in titles} == {
        *("mkdir", "open", "lock", "truncate", "write", "flush", "rename", "remove")
    }
    names = ["prepare.json", "index.json", *(f"shard_0000{n}.{end}" for n in range(4) for end in ("bin", "json"))]
    for name in names:
        assert f"rename 1 of .{name}.partial to {name}" in titles
    assert "write 1 of .lock" in titles
    assert events > len(titles)
    assert {case.kills[0].when for case in cases if len(case.kills) == 2} == {BEFORE, HALF, AFTER}
    texts = list(map(str, cases))
    assert len(set(texts)) == len(texts)
    assert [Case.parse(text, tuple(VARIANTS)) for text in texts] == cases
    for title in titles:
        assert f"one worker: SIGKILL before {title}" in texts
        assert (f"one worker: SIGKILL half-way through {title}" in texts) == title.startswith("write ")


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
def test_a_kill_that_never_came_is_told(suite: Suite) -> None:
    (line,) = suite.run(Case("one worker", (Kill(Signals.SIGKILL, BEFORE, "write 9 of .lock"),)))
    assert line.startswith("SIGKILL before write 9 of .lock: never came to it")


def test_moments_are_those_of_the_seed() -> None:
    cases = at_moments(20, seed=1)
    assert cases == at_moments(20, seed=1) != at_moments(20, seed=2)
    assert {case.variant for case in cases} == {"two workers", "two workers, then one"}
    assert [Case.parse(str(case), tuple(VARIANTS)) for case in cases] == cases
    assert {(case.kills[0].signal, case.kills[0].when) for case in cases} == {(Signals.SIGKILL, AT)}


def test_each_difference_of_two_folders_is_told() -> None:
    whole = {"a": b"1", "b": b"2"}
    assert differences(dict(whole), whole) == []
    assert differences({"a": b"3", ".b.partial": b""}, whole) == [
        ".b.partial: got a file, expected none",
        "a: got other bytes",
        "b: got no such file, expected one",
    ]


def test_a_shard_is_whole_once_it_has_its_record(tmp_path: Path) -> None:
    for name in ("prepare.json", "shard_0.bin", "shard_0.json", "shard_1.bin", ".shard_1.json.partial", ".lock"):
        (tmp_path / name).touch()
    before = of_whole_shards(tmp_path)
    assert list(before) == ["prepare.json", "shard_0.bin", "shard_0.json"]
    os.utime(tmp_path / "shard_0.bin", (0, 0))
    assert of_whole_shards(tmp_path)["shard_0.bin"] != before["shard_0.bin"]
    (tmp_path / "index.json").touch()
    assert "shard_1.bin" in of_whole_shards(tmp_path)


KILL = Kill(Signals.SIGKILL, BEFORE, "flush 1 of .")
TRACE = Trace(events=[KILL.what])


@pytest.mark.parametrize(
    ("kill", "status", "told"),
    [
        (KILL, -9, None),
        (KILL, 0, "ended with status 0"),
        (KILL, 1, "ended with status 1"),
        (KILL, None, "still running"),
        (dataclasses.replace(KILL, what="flush 2 of ."), -9, "never came to it"),
        (dataclasses.replace(KILL, signal=Signals.SIGINT), 1, None),
        (dataclasses.replace(KILL, signal=Signals.SIGINT), 0, "ended as if nothing had come"),
        (Kill(Signals.SIGKILL, AT, "0.9"), 0, None),
        (Kill(Signals.SIGKILL, AT, "0.9"), 1, "ended with status 1"),
        (None, 0, None),
        (None, 1, "the last: ended with status 1"),
    ],
)
def test_each_end_is_as_its_kill_makes_it(kill: Kill | None, status: int | None, told: str | None) -> None:
    found = suites._wrong_end(kill, status, TRACE)
    assert found is None if told is None else told in str(found)


def test_a_wrong_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--repeat", "packed: SIGKILL at 0.5"]) == 2
    assert command.main(["--moments", "-1"]) == 2
    assert capsys.readouterr().err.count("kills: got") == 1

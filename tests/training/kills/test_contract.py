"""Tests that `make kills` sees a difference in any file, and everything that a run reported and lost."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from signal import Signals
from typing import Any

import pytest
import torch

from ebgan_fast.training.run import checkpoint

from .cases import BEFORE, Kill
from .child import Trace
from .contract import Ended, Left, broken_promises, contents, differences


@pytest.fixture
def run(whole_scored: Path, tmp_path: Path) -> Path:
    """Return a run of 8 steps, scored after 3, 6 and 8, with every file that a run can have."""
    run = shutil.copytree(whole_scored, tmp_path / "run")
    shutil.copy(run / "checkpoint.pt", run / "best.pt")
    (run / "checkpoints").mkdir(exist_ok=True)
    shutil.copy(run / "checkpoint.pt", run / "checkpoints" / "step_000008.pt")
    (run / "curves.png").write_bytes(b"curves")
    return run


def edit_state(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def plant(path: Path) -> None:
        state = checkpoint.read(path)
        edit(state)
        checkpoint.write(path, {name: value for name, value in state.items() if name not in ("format", "version")})

    return plant


def edit_text(edit: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda path: path.write_text(edit(path.read_text()))


def edit_line(**values: Any) -> Callable[[Path], object]:
    """Return an edit that changes values in the first line."""

    def edit(text: str) -> str:
        first, _, others = text.partition("\n")
        return json.dumps({**json.loads(first), **values}) + "\n" + others

    return edit_text(edit)


def nudge(state: dict[str, Any]) -> None:
    """Change the last bit of one weight."""
    weight = next(iter(state["trainer"]["generator"].values()))
    weight.view(-1)[0] = torch.nextafter(weight.view(-1)[0], torch.tensor(9.0))


ALIKE = [
    ("checkpoint.pt", edit_state(lambda state: state.update(elapsed_s=1e6))),
    ("checkpoint.pt", edit_state(lambda state: state["config"].update(out="elsewhere"))),
    ("metrics.jsonl", edit_line(elapsed_s=1e6, steps_per_s=0.5, images_per_s=0.5, memory_gb=7)),
    ("scores.jsonl", edit_line(elapsed_s=1e6)),
    ("config.json", edit_text(lambda text: text.replace('"out": "', '"out": "/elsewhere'))),
    (".best.pt.partial", lambda path: path.write_bytes(b"PK")),
]

PLANTS = [
    ("checkpoint.pt", edit_state(nudge), "trainer: generator: .*got another tensor .*apart"),
    ("checkpoint.pt", edit_state(lambda state: state["trainer"].update(step=7)), "trainer: step: got 7, expected 8"),
    ("checkpoint.pt", edit_state(lambda state: state["trainer"].pop("noise_rng")), "trainer: got the names"),
    ("checkpoint.pt", lambda path: path.write_bytes(path.read_bytes()[:-100]), "can't be read: CheckpointError"),
    ("best.pt", edit_state(nudge), "trainer: generator"),
    ("best.pt", Path.unlink, "got no such file, expected one"),
    ("checkpoints/step_000008.pt", edit_state(nudge), "trainer: generator"),
    ("checkpoints/step_000006.pt", lambda path: path.write_bytes(b""), "got a file, expected none"),
    ("metrics.jsonl", edit_line(loss_d=0.5), "entry 1: loss_d: got 0.5, expected"),
    ("metrics.jsonl", edit_text(lambda text: text + text[:9]), "can't be read: JSONDecodeError"),
    ("metrics.jsonl", edit_text(lambda text: text + text.splitlines()[0] + "\n"), "got 5 entries, expected 4"),
    ("scores.jsonl", edit_line(fd=0.5), "entry 1: fd: got 0.5, expected"),
    ("scores.jsonl", edit_text(lambda text: text.partition("\n")[2]), "got 2 entries, expected 3"),
    ("config.json", edit_text(lambda text: text.replace('"steps": 8', '"steps": 9')), "steps: got 9, expected 8"),
    ("samples/step_000004.png", lambda path: path.write_bytes(path.read_bytes()[:-1]), r"got \d+ bytes, expected \d+"),
    ("samples/step_000004.png", Path.unlink, "got no such file, expected one"),
    ("curves.png", lambda path: path.write_bytes(b"curvet"), "got 6 bytes, expected 6 bytes"),
]


@pytest.mark.parametrize(("name", "change"), ALIKE)
def test_times_and_paths_make_no_difference(run: Path, name: str, change: Callable[[Path], object]) -> None:
    whole = contents(run)
    change(run / name)
    assert differences(contents(run), whole) == []


@pytest.mark.parametrize(("name", "plant", "told"), PLANTS)
def test_a_difference_is_told(run: Path, name: str, plant: Callable[[Path], object], told: str) -> None:
    whole = contents(run)
    plant(run / name)
    (line,) = differences(contents(run), whole)
    assert re.match(f"{re.escape(name)}: .*{told}", line)


def test_a_zero_differs_from_a_negative_one() -> None:
    zero = torch.zeros(2)
    assert differences({"a": zero}, {"a": zero.clone()}) == []
    assert differences({"a": zero}, {"a": -zero}) == [
        "a: got another tensor [2] torch.float32 than expected, up to 0 apart"
    ]
    assert differences({"a": 0.0}, {"a": -0.0}) == ["a: got 0.0, expected -0.0"]


KILL, TERM = Kill(Signals.SIGKILL, BEFORE, "flush 1 of ."), Kill(Signals.SIGTERM, BEFORE, "flush 1 of .")
# The output of a whole run: the first score, then a log line, then the end.
SCORE, LINE, DONE = "step 3  FD (pixels) 9.5  KID 1\n", "step 4 of 8  loss D 1\n", "done: 8 steps in 1 s: run\n"
STOPPED = "stopped by SIGTERM and saved at step 4 of 8; --resume goes on: run\n"
NOTHING = Left(None, False, frozenset(), frozenset(), ())
LEFT = Left(4, True, frozenset({2, 4}), frozenset({3}), ())
TRACE = Trace(began=0.0, events=["flush 1 of ."], steps=[1, 2, 3, 4], steps_at=[3])
ENDED = Ended(KILL, -Signals.SIGKILL, SCORE + LINE, TRACE)
POLITE = Ended(TERM, 0, SCORE + LINE + STOPPED, dataclasses.replace(TRACE, ended=(4, Signals.SIGTERM)))


def told_of(
    ended: Ended, left: Left, before: Left = NOTHING, said_before: str = "", unlike: tuple[str, ...] = ()
) -> str:
    return "; ".join(broken_promises(ended, left, before, said_before, 8, unlike))


def test_an_end_as_promised() -> None:
    assert told_of(ENDED, LEFT) == ""
    assert told_of(POLITE, LEFT) == ""
    late = dataclasses.replace(TRACE, steps=[*range(1, 9)], steps_at=[7], ended=(8, 0))
    assert told_of(Ended(TERM, 0, DONE, late), dataclasses.replace(LEFT, saved=8)) == ""
    # The signal came before the handler was set.
    assert told_of(Ended(TERM, -Signals.SIGTERM, "", Trace(events=["flush 1 of ."])), NOTHING) == ""
    # A line that an earlier process reported and that lies beyond the checkpoint is written again.
    assert told_of(dataclasses.replace(ENDED, said=""), LEFT, LEFT, SCORE + LINE + "step 6 of 8  loss D 1\n") == ""


@pytest.mark.parametrize(
    ("ended", "left", "told"),
    [
        ({}, {"logged": {2}}, "told of step 4, which metrics.jsonl has no line of"),
        ({}, {"scored": set()}, "told the score of step 3, which scores.jsonl has no line of"),
        ({}, {"saved": 2}, "told the score of step 3, and checkpoint.pt is of step 2"),
        ({}, {"broken": ("checkpoint.pt: truncated",)}, "checkpoint.pt: truncated"),
        ({"said": STOPPED}, {"saved": 3}, "told that SIGTERM stopped it at step 4, and checkpoint.pt is of step 3"),
        ({"said": STOPPED}, {}, "told that SIGTERM stopped it, which never came"),
        ({"said": DONE}, {}, "told that it is done: curves.png: got no such file"),
        ({"status": 1, "said": "Traceback\nOSError: no\n"}, {}, "ended with status 1, and last said: OSError: no"),
        ({"status": None}, {}, "was still running long after SIGKILL before flush 1 of ."),
        ({"trace": dataclasses.replace(TRACE, events=[])}, {}, "never came to flush 1 of ."),
    ],
)
def test_what_a_kill_may_not_lose(ended: dict[str, Any], left: dict[str, Any], told: str) -> None:
    found = told_of(
        dataclasses.replace(ENDED, **ended), dataclasses.replace(LEFT, **left), unlike=("curves.png: got no such file",)
    )
    assert told in found


@pytest.mark.parametrize(
    ("ended", "trace", "left", "told"),
    [
        (
            {"status": -15, "said": LINE},
            {"ended": None},
            {},
            "was killed by SIGTERM after step 4, expected it to stop by itself",
        ),
        ({}, {"ended": None}, {}, "never came back from train"),
        ({}, {}, {"saved": 3}, "returned at step 4, and checkpoint.pt is of step 3"),
        ({}, {"steps": [1, 2, 3, 4, 5]}, {}, "returned at step 4, and had done step 5; did 2 steps more after SIGTERM"),
        ({"said": DONE}, {"ended": (4, 0)}, {}, "returned at step 4 of 8 as if nothing had stopped it"),
        ({"said": ""}, {}, {}, "never told that it stopped"),
        ({"said": ""}, {"ended": (8, 0)}, {"saved": 8}, "never told that it is done"),
        ({}, {"ended": (4, 1)}, {}, "was stopped by signal 1, which never came"),
    ],
)
def test_how_a_polite_signal_may_not_end(
    ended: dict[str, Any], trace: dict[str, Any], left: dict[str, Any], told: str
) -> None:
    process = dataclasses.replace(POLITE, trace=dataclasses.replace(POLITE.trace, **trace), **ended)
    assert told in told_of(process, dataclasses.replace(LEFT, **left))


def test_what_an_earlier_process_saved_stays() -> None:
    ended = dataclasses.replace(ENDED, said="")
    assert "checkpoint.pt was there, and is gone" in told_of(ended, NOTHING, LEFT)
    assert "is of step 2, and was of step 4" in told_of(ended, dataclasses.replace(LEFT, saved=2), LEFT)
    assert "told the score of step 3, which" in told_of(
        ended, dataclasses.replace(LEFT, scored=frozenset()), LEFT, SCORE
    )
    renamed = dataclasses.replace(
        TRACE, events=["rename 1 of .checkpoint.pt.partial to checkpoint.pt", "flush 1 of ."], steps_at=[0, 3]
    )
    assert "checkpoint.pt was there, and is gone" in told_of(dataclasses.replace(ended, trace=renamed), NOTHING)


def test_what_is_left_is_read(run: Path) -> None:
    assert Left.of(run) == Left(8, True, frozenset({2, 4, 6, 8}), frozenset({3, 6, 8}), ())
    (run / "checkpoint.pt").write_bytes(b"PK")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9')  # not a whole line yet
    (run / "scores.jsonl").write_text('{"step": 3}\n{"st\n')
    left = Left.of(run)
    assert (left.saved, left.has_checkpoint, left.logged) == (None, True, frozenset({2, 4, 6, 8}))
    one, other = left.broken
    assert "checkpoint.pt: got a truncated file" in one
    assert "scores.jsonl: a line that can't be read" in other

"""The promise of a run: nothing that it reported is lost, and it goes on as if it had never been stopped."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Any

import torch

from ebgan_fast.training.run import checkpoint

from ..helpers import TIMING
from .cases import AT, Kill
from .child import Trace

Contents = dict[str, Any]
"""The files of a run's folder by name, each reduced to the values that are equal in every run of the same config."""

_LOGGED = re.compile(r"^step (\d+) of \d+ ", re.MULTILINE)
_SCORED = re.compile(r"^step (\d+)  FD \(", re.MULTILINE)
_STOPPED_BEFORE = re.compile(r"^stopped by (\w+) before its first step; ", re.MULTILINE)
_STOPPED = re.compile(r"^stopped by (\w+) and saved at step (\d+) ", re.MULTILINE)
_DONE = re.compile(r"^done: ", re.MULTILINE)


@dataclass(frozen=True)
class Unreadable:
    """Stands for the content of a file that can't be read."""

    reason: str


def contents(run: Path) -> Contents:
    """Return the content of each file in the folder, without times, paths and hidden files."""
    states: dict[int, Any] = {}  # by inode, because one file may have two names
    found = {}
    for path in sorted(run.rglob("*")):
        place = path.relative_to(run)
        if path.is_dir() or any(part.startswith(".") for part in place.parts):
            continue
        number = path.stat().st_ino
        if number not in states:
            try:
                states[number] = _content(path)
            except (OSError, ValueError, TypeError, KeyError) as error:
                states[number] = Unreadable(f"{type(error).__name__}: {error}")
        found[place.as_posix()] = states[number]
    return found


def _content(path: Path) -> Any:
    if path.suffix == ".pt":
        state = checkpoint.read(path)
        del state["elapsed_s"], state["config"]["out"]
        return state
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [{name: value for name, value in line.items() if name not in TIMING} for line in lines]
    if path.name == "config.json":
        fields = json.loads(path.read_text())
        del fields["out"]
        return fields
    return path.read_bytes()


def differences(got: Contents, expected: Contents) -> list[str]:
    """Return a line for each file that differs: its name, and the first difference."""
    found = [f"{name}: got no such file, expected one" for name in expected if name not in got]
    found += [f"{name}: got a file, expected none" for name in got if name not in expected]
    for name in expected:
        if name in got and (where := _difference(got[name], expected[name])) is not None:
            found.append(f"{name}: {where}")
    return found


def _difference(got: Any, expected: Any, at: str = "") -> str | None:
    """Return the first place where two values differ in a bit, with both values; None if there is none."""
    if isinstance(got, Unreadable):
        return f"can't be read: {got.reason}"
    if type(got) is not type(expected):
        return f"{at}got {type(got).__name__} {_short(got)}, expected {type(expected).__name__} {_short(expected)}"
    if isinstance(got, dict):
        if list(got) != list(expected):
            return f"{at}got the names {', '.join(map(str, got))}, expected {', '.join(map(str, expected))}"
        pairs = [(f"{at}{name}: ", got[name], expected[name]) for name in got]
    elif isinstance(got, (list, tuple)):
        if len(got) != len(expected):
            return f"{at}got {len(got)} entries, expected {len(expected)}"
        pairs = [(f"{at}entry {place + 1}: ", *pair) for place, pair in enumerate(zip(got, expected, strict=True))]
    elif isinstance(got, torch.Tensor):
        alike = got.dtype == expected.dtype and got.shape == expected.shape
        if alike and got.numpy().tobytes() == expected.numpy().tobytes():
            return None
        far = f", up to {float((got.double() - expected.double()).abs().max()):.3g} apart" if alike else ""
        return f"{at}got another tensor {list(got.shape)} {got.dtype} than expected{far}"
    else:
        return None if repr(got) == repr(expected) else f"{at}got {_short(got)}, expected {_short(expected)}"
    return next((where for pair in pairs if (where := _difference(pair[1], pair[2], pair[0])) is not None), None)


def _short(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


@dataclass(frozen=True)
class Ended:
    """A process that has ended, with its run still untouched.

    Attributes:
        kill: The kill that the process was to get.
        status: Its exit status, or minus the number of the signal that ended it. None if it had to be stopped.
        said: Its output.
        trace: The record of what it did.
        steps_at_signal: The number of steps that it had done when a signal came at a moment.
    """

    kill: Kill | None
    status: int | None
    said: str
    trace: Trace
    steps_at_signal: int = 0


@dataclass(frozen=True)
class Left:
    """The folder of a run as its ended process left it.

    Attributes:
        saved: The step of checkpoint.pt; None if the file is missing or can't be read.
        has_checkpoint: True if checkpoint.pt exists.
        logged, scored: The steps of the whole lines of metrics.jsonl and of scores.jsonl.
        broken: A line for each file that should be readable and isn't.
    """

    saved: int | None
    has_checkpoint: bool
    logged: frozenset[int]
    scored: frozenset[int]
    broken: tuple[str, ...]

    @classmethod
    def of(cls, run: Path) -> Left:
        broken, saved = [], None
        for path in [*run.glob("[!.]*.pt"), *run.glob("checkpoints/[!.]*.pt")]:
            try:
                step = checkpoint.read(path)["trainer"]["step"]
            except (ValueError, KeyError) as error:
                broken.append(str(error))
                continue
            if path == run / "checkpoint.pt":
                saved = step
        steps = []
        for name in ("metrics.jsonl", "scores.jsonl"):
            text = (run / name).read_text() if (run / name).exists() else ""
            try:
                steps.append(frozenset(json.loads(line)["step"] for line in text[: text.rfind("\n") + 1].splitlines()))
            except (ValueError, KeyError, TypeError) as error:
                broken.append(f"{name}: a line that can't be read: {error}")
                steps.append(frozenset())
        logged, scored = steps
        return cls(saved, (run / "checkpoint.pt").exists(), logged, scored, tuple(broken))


def broken_promises(
    ended: Ended, left: Left, before: Left, told_before: str, steps: int, unlike: Sequence[str]
) -> list[str]:
    """Return a line for each thing that a process reported and lost, and for each way in which it ended wrongly.

    Args:
        ended: The process.
        left: The folder that it left.
        before: The folder that the processes before it left.
        told_before: The output of the processes before it.
        steps: The number of steps of the whole run.
        unlike: The differences of the folder from an undisturbed run's.
    """
    found = list(left.broken)
    saved = -1 if left.saved is None else left.saved
    renamed = any(title.endswith(" to checkpoint.pt") for title in ended.trace.events[:-1])
    if not left.has_checkpoint and (renamed or before.has_checkpoint):
        found.append("checkpoint.pt was there, and is gone")
    if before.saved is not None and saved < before.saved:
        found.append(f"checkpoint.pt is of step {left.saved}, and was of step {before.saved}")
    for step in _steps(_LOGGED, ended.said) | {step for step in _steps(_LOGGED, told_before) if step <= saved}:
        if step not in left.logged:
            found.append(f"told of step {step}, which metrics.jsonl has no line of")
    for step in _steps(_SCORED, told_before + ended.said):
        if step not in left.scored:
            found.append(f"told the score of step {step}, which scores.jsonl has no line of")
        if step > saved:
            found.append(f"told the score of step {step}, and checkpoint.pt is of step {left.saved}")
    for name, step in _STOPPED.findall(ended.said):
        if int(step) != saved:
            found.append(f"told that {name} stopped it at step {step}, and checkpoint.pt is of step {left.saved}")
        if ended.kill is None or ended.kill.signal.name != name:
            found.append(f"told that {name} stopped it, which never came")
    if _DONE.search(ended.said):
        found += [f"told that it is done: {line}" for line in unlike]
    return found + _wrong_end(ended, left, before, steps)


def _steps(pattern: re.Pattern[str], said: str) -> set[int]:
    return {int(step) for step in pattern.findall(said)}


def _wrong_end(ended: Ended, left: Left, before: Left, steps: int) -> list[str]:
    kill, trace = ended.kill, ended.trace
    if ended.status is None:
        return [f"was still running long after {kill or 'it had begun'}"]
    if kill is not None and kill.when != AT and kill.what not in trace.events:
        return [f"never came to {kill.what}; {_last_words(ended)}"]
    if kill is not None and ended.status == -kill.signal:
        if kill.signal == SIGKILL:
            return []
        finished = _DONE.search(ended.said) or _STOPPED.search(ended.said)
        if trace.ended is not None or finished or not (trace.steps or ended.said.strip()):
            return []  # the handler was not set yet, or no longer
        return [
            f"was killed by {kill.signal.name} after step {_last_step(trace, before)}, expected it to stop by itself"
        ]
    if ended.status != 0:
        return [_last_words(ended)]
    if trace.ended is None:
        return [f"never came back from train; {_last_words(ended)}"]
    found = []
    step, stopped_by = trace.ended
    if step != (left.saved or 0):
        found.append(f"returned at step {step}, and checkpoint.pt is of step {left.saved}")
    if step != _last_step(trace, before):
        found.append(f"returned at step {step}, and had done step {_last_step(trace, before)}")
    if not stopped_by and step != steps:
        found.append(f"returned at step {step} of {steps} as if nothing had stopped it")
    if not stopped_by and not _DONE.search(ended.said):
        found.append("never told that it is done")
    if stopped_by and not (_STOPPED.search(ended.said) or _STOPPED_BEFORE.search(ended.said)):
        found.append("never told that it stopped")
    if stopped_by and (kill is None or stopped_by != kill.signal):
        found.append(f"was stopped by signal {stopped_by}, which never came")
    if kill is not None and kill.signal != SIGKILL:
        at = ended.steps_at_signal if kill.when == AT else trace.steps_at[trace.events.index(kill.what)]
        if len(trace.steps) > at + 1:
            found.append(f"did {len(trace.steps) - at} steps more after {kill}")
    return found


def _last_step(trace: Trace, before: Left) -> int:
    return trace.steps[-1] if trace.steps else before.saved or 0


def _last_words(ended: Ended) -> str:
    words: Mapping[bool, str] = {True: ended.said.strip().rpartition("\n")[2], False: "nothing"}
    return f"ended with status {ended.status}, and last said: {words[bool(ended.said.strip())]}"

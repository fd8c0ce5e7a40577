"""Judgments of how a program ended: its outcome, and the reason in one line."""

from __future__ import annotations

import re

from . import verdicts
from .processes import Ended

# The messages of torch, of ebgan_fast and of the programs that the stages run.
_NO_GPU = re.compile(
    r"sees no GPU|no GPU \(cuda|needs a GPU|no driver|Found no NVIDIA driver|No CUDA GPUs are available"
    r"|Torch not compiled with CUDA|cuda(InsufficientDriver|ErrorNoDevice)"
)
_SUMMARY = re.compile(r"^=* ?(\d+ \w+(?:, \d+ \w+)* in [\d.]+s.*?) ?=*$", re.MULTILINE)
# A test that failed or could not begin, in the lines of pytest -v: with workers, without workers, and in the summary.
_FAULT = re.compile(
    r"^(?:\[gw\d+\] \[ *\d+%\] )?(?:FAILED|ERROR) (\S+\.py\S*)|^(\S.*?) (?:FAILED|ERROR) +\[ *\d+%\]", re.MULTILINE
)
_COMPLAINT = re.compile(r"^(bench|ebgan-fast|small step): |^\w*(Error|Exception)\b")
_PROGRESS = re.compile(r"\d+ of \d+ done, now ")
_WHY_BYTES = 300


def judge(ended: Ended, gpu: bool | None, accepted: tuple[int, ...] = (0,)) -> tuple[str, str]:
    """Return the outcome of a program, and the reason.

    Args:
        ended: The program's end.
        gpu: True if the machine has a GPU. None: not known.
        accepted: The exit statuses of success.
    """
    if ended.status in accepted:
        return verdicts.PASSED, ""
    if not gpu and (said := _NO_GPU.search(ended.output)):
        return verdicts.NO_GPU, _line_at(ended.output, said.start())
    if ended.asked is not None:
        return verdicts.TIMED_OUT, f"its last words: {_short(ended.asked)}" if ended.asked else "it had printed nothing"
    if ended.status is None:
        return verdicts.FAILED, last_line(ended.output)
    end = f"signal {-ended.status}" if ended.status < 0 else f"status {ended.status}"
    return verdicts.FAILED, f"{end}: {_complaint(ended.output)}"


def judge_tests(ended: Ended, gpu: bool | None) -> tuple[str, str]:
    """Return the outcome of a run of pytest, and its summary as the reason.

    A run without a passed test has failed. A run that was out of time has failed if one of its tests has.

    Args:
        ended: The end of pytest.
        gpu: True if the machine has a GPU. None: not known.
    """
    outcome, why = judge(ended, gpu)
    summary = _summary(ended.output)
    if outcome == verdicts.TIMED_OUT and (fault := _fault(ended.output, summary)):
        return verdicts.FAILED, f"out of time; {summary or fault}"
    if outcome == verdicts.NO_GPU:
        return outcome, f"{why}; {summary}" if summary else why
    if outcome == verdicts.PASSED and not re.search(r"\b[1-9]\d* passed", summary):
        return verdicts.FAILED, f"no test passed: {summary or last_line(ended.output)}"
    if summary and ended.status is not None and ended.status >= 0:
        return outcome, summary
    return outcome, why


def _fault(output: str, summary: str) -> str:
    """Return the first test that has failed, in the end of the output that was kept; empty for none."""
    if found := _FAULT.search(output):
        return f"failed: {found[1] or found[2]}"
    return "failed" if re.search(r"\b[1-9]\d* (failed|errors?)\b", summary) else ""


def _summary(output: str) -> str:
    """Return pytest's last line of counts, with the reasons of skipped tests."""
    found = _SUMMARY.findall(output)
    if not found:
        return ""
    skipped = re.findall(r"^SKIPPED \[(\d+)\] [^:]+(?::\d+)?: (.*)$", output, re.MULTILINE)
    reasons = "; ".join(f"{count} skipped: {reason}" for count, reason in skipped[:3])
    return _short(f"{found[-1]}{'; ' + reasons if reasons else ''}")


def last_line(text: str) -> str:
    """Return the last line that is not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _short(lines[-1]) if lines else "it printed nothing"


def _complaint(text: str) -> str:
    """Return the last line that looks like a complaint, or the last line if none does."""
    lines = [line for line in text.splitlines() if _COMPLAINT.search(line) and not _PROGRESS.search(line)]
    return _short(lines[-1].strip()) if lines else last_line(text)


def _line_at(text: str, position: int) -> str:
    start = text.rfind("\n", 0, position) + 1
    return _short(text[start:].partition("\n")[0].strip())


def _short(text: str) -> str:
    return text if len(text) <= _WHY_BYTES else text[:_WHY_BYTES] + "..."

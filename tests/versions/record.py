"""The page docs/versions.md, which holds the results of the last `python -m tests.versions`: written and read back."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PAGE = "docs/versions.md"
_COLUMNS = ("torch", "triton", "numpy", "python")
_TITLE = "# One wheel, several versions\n"
_INTRODUCTION = """\
This page is for readers who ask which versions of torch and Triton work. One wheel serves all of them: the compiled
kernels link nothing of torch, and Triton's kernels are source.

`make test-versions` shows it. It builds the wheel once. Then it runs the op tests on that wheel in a fresh environment
for each row. It takes gigabytes and half an hour, so `make test` leaves it out. The tests check the form of this page.
"""


@dataclass(frozen=True)
class Environment:
    name: str
    requirements: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """The results of the op tests in one environment."""

    name: str
    versions: Mapping[str, str]
    passed: int
    failed: int
    """The number of failed tests, with those that raised an error outside the test."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """The number of skipped tests for each reason."""
    minutes: float = 0.0

    @classmethod
    def read(cls, report: Path, name: str, versions: Mapping[str, str], minutes: float, status: int) -> Result:
        """Read pytest's JUnit report and its exit status; a run that ended early has at least one failed test."""
        cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
        failed = sum(any(case.find(kind) is not None for kind in ("failure", "error")) for case in cases)
        reasons = [_reason(why) for case in cases if (why := case.find("skipped")) is not None]
        passed = len(cases) - failed - len(reasons)
        if status and not failed:
            failed = 1
        return cls(name, versions, passed, failed, Counter(reasons), minutes)


def _reason(skipped: ElementTree.Element) -> str:
    """Return the reason why a test was skipped; if its whole file was, the reason is at the end of the text."""
    whole_file = re.search(r"Skipped: (.*)['\"]\)$", skipped.text or "")
    return whole_file[1] if whole_file else skipped.get("message", "")


def page(wheel: str, date: str, results: Sequence[Result]) -> str:
    lines = [
        _TITLE,
        _INTRODUCTION,
        f"The last run, on {date}, of `{wheel}`:",
        "",
        "| environment | " + " | ".join(_COLUMNS) + " | passed | failed | skipped | minutes |",
        "|---|" + "---|" * len(_COLUMNS) + "---:|" * 4,
    ]
    for result in results:
        cells = [result.name, *(result.versions[column] for column in _COLUMNS), str(result.passed), str(result.failed)]
        lines.append("| " + " | ".join([*cells, str(sum(result.skipped.values())), f"{result.minutes:.0f}"]) + " |")
    lines += ["", "The skipped tests, with their number and reason:", ""]
    for result in results:
        lines += [f"* {result.name}, {count}: {reason}" for reason, count in sorted(result.skipped.items())]
    return "\n".join(lines) + "\n"


def read(text: str) -> list[Result]:
    """Return the rows of the page; raise ValueError for a page that `page` did not write."""
    rows = re.findall(
        r"^\| (\S.*?) \| " + r"(\S+) \| " * 4 + r"(\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE
    )
    found = []
    for name, *cells in rows:
        *versions, passed, failed, _, minutes = cells
        reasons = re.findall(rf"^\* {re.escape(name)}, (\d+): (.*)$", text, re.MULTILINE)
        skipped = {reason: int(count) for count, reason in reasons}
        by_name = dict(zip(_COLUMNS, versions, strict=True))
        found.append(Result(name, by_name, int(passed), int(failed), skipped, float(minutes)))
    wheel, date = re.search(r"`(\S+\.whl)`", text), re.search(r"on (\d{4}-\d\d-\d\d),", text)
    if not found or not wheel or not date or page(wheel[1], date[1], found) != text:
        raise ValueError(f"{PAGE}: got a page that python -m tests.versions did not write")
    return found

"""Plant bugs in copies of the repository, run the test named beside each, and report whether it caught the bug.

    make planted
    python -m tests.planted [NAME ...]

The exit status is 0 if every bug was caught, 1 if one was missed or could not be judged. A run that was killed
continues where it was, if no source has changed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from . import tree
from .judging import Verdict
from .plant import KINDS, Planted
from .plants import PLANTS, chosen
from .record import Record, state_of
from .running import Run

ROOT = Path(__file__).parents[2]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.planted", description="Are planted bugs caught?")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a part of a bug's name; all bugs without one")
    parser.add_argument("--group", action="append", choices=KINDS, default=[], help="only bugs of this kind")
    parser.add_argument("--list", action="store_true", help="show the bugs, and plant none")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="tests at a time (%(default)s)")
    parser.add_argument(
        "--fresh", action="store_true", help="judge all bugs again, also those that an earlier run judged"
    )
    return parser


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the bugs that the command line names, and return the exit status."""
    asked = _parser().parse_args(arguments)
    try:
        if asked.jobs < 1:
            raise ValueError(f"--jobs: got {asked.jobs}, expected at least 1")
        plants = chosen(PLANTS, asked.names, asked.group)
        files = tree.sources(ROOT)
    except ValueError as error:
        print(f"planted: {error}", file=sys.stderr)
        return 2
    if asked.list:
        for plant in plants:
            print(f"{plant.kind:13} {plant.name}\n{'':13} {plant.file} | {plant.test}")
        return 0
    counts: Counter[str] = Counter()
    started = time.monotonic()

    def tell(plant: Planted, verdict: Verdict, seconds: float) -> None:
        counts[verdict.outcome] += 1
        took = f"{seconds:6.1f} s" if seconds else "  before" if verdict.outcome in ("caught", "missed") else " " * 8
        print(f"{verdict.outcome:10} {took}  {plant.kind:13} {plant.name}", flush=True)
        if verdict.outcome != "caught":
            print(f"{'':20} {verdict.reason or plant.file} | {plant.test}", flush=True)

    work = ROOT / "build" / "planted"
    record = Record(work / "verdicts.jsonl", state_of(files), asked.fresh)
    before = signal.signal(signal.SIGTERM, _end)
    try:
        Run(ROOT, files, work, record, asked.jobs, tell)(plants)
    except KeyboardInterrupt:
        print("planted: interrupted; the next run goes on from here", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    others = "".join(f", {counts[outcome]} {outcome}" for outcome in ("stale", "not judged") if counts[outcome])
    print(
        f"planted: {counts['caught']} caught, {counts['missed']} missed{others}, of {len(plants)}; "
        f"{time.monotonic() - started:.0f} s"
    )
    return int(counts["caught"] < len(plants))


if __name__ == "__main__":
    sys.exit(main())

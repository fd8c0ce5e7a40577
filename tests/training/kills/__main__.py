"""Kills runs at every write, flush, rename and lock, and at random moments, resumes them, and looks at what is there.

    make kills
    python -m tests.training.kills [--moments 100] [--seed 0] [--only events|moments]
    python -m tests.training.kills --repeat "packed: SIGKILL before write 1 of metrics.jsonl"

Exit status 0 if nothing that a run told was ever lost and each ended as an undisturbed one, bit for bit; 1 otherwise.
Each case that failed is a line, with the command that runs it once more; its folder stays in build/kills.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import cases
from .cases import Case
from .suite import Suite
from .telling import run_and_tell

ROOT = Path(__file__).parents[3]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.training.kills", description="Does a killed run go on?")
    parser.add_argument("--moments", type=int, default=100, metavar="N", help="kills at random moments (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (%(default)s)")
    parser.add_argument("--only", choices=("events", "moments"), help="leave the other ones out")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="runs at a time (%(default)s)")
    parser.add_argument(
        "--repeat", metavar="CASE", help="run this case alone, as a failure names it, and show what it said"
    )
    return parser


def _repeat(suite: Suite, case: Case) -> int:
    found = suite.run(case, print)
    print("\n".join(found) or "resumed bit for bit")
    return int(bool(found))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; returns the exit status."""
    asked = _parser().parse_args(arguments)
    started = time.monotonic()
    try:
        if asked.jobs < 1 or asked.moments < 0:
            raise ValueError("--jobs, --moments: got less than 1 or 0")
        repeated = Case.parse(asked.repeat) if asked.repeat else None
    except ValueError as error:
        print(f"kills: {error}", file=sys.stderr)
        return 2
    suite = Suite(ROOT / "build" / "kills")
    if repeated is not None:
        return _repeat(suite, repeated)
    moments = 0 if asked.only == "events" else asked.moments
    at_events, events = ([], 0) if asked.only == "moments" else suite.at_events()
    chosen = [*at_events, *cases.at_moments(moments, asked.seed)]
    places = f"{events} events and {moments} moments"
    run = functools.partial(suite.run_all, chosen, asked.jobs)
    return run_and_tell(chosen, run, "tests.training.kills", places, "all resumed bit for bit", started)


if __name__ == "__main__":
    sys.exit(main())

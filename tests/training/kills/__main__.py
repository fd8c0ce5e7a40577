"""Kill runs at every write, flush, rename and lock, and at random moments; resume them, and check the files.

    make kills
    python -m tests.training.kills [--moments 100] [--seed 0] [--only events|moments]
    python -m tests.training.kills --repeat "packed: SIGKILL before write 1 of metrics.jsonl"

The exit status is 0 if every run kept everything that it reported and ended, bit for bit, as an undisturbed run. Else
it is 1. Each failed case is printed as a line, with the command that repeats it. Its folder stays in build/kills.
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
    parser = argparse.ArgumentParser(
        prog="python -m tests.training.kills", description="Check that a killed run goes on when it is resumed."
    )
    parser.add_argument("--moments", type=int, default=100, metavar="N", help="kills at random moments (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (%(default)s)")
    parser.add_argument("--only", choices=("events", "moments"), help="kills at events only, or at random moments only")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="runs at a time (%(default)s)")
    parser.add_argument(
        "--repeat", metavar="CASE", help="run only this case, named as in a failure's line, and show its output"
    )
    return parser


def _repeat(suite: Suite, case: Case) -> int:
    found = suite.run(case, print)
    print("\n".join(found) or "resumed bit for bit")
    return int(bool(found))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases that the arguments choose. Return the exit status."""
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

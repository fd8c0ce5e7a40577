"""Kills `prepare` at every event in its folder, and at random moments, and sees the same call finish bit for bit.

    make kills
    python -m tests.data.kills [--moments 50] [--seed 0] [--only events|moments]
    python -m tests.data.kills --repeat "one worker: SIGKILL before write 1 of .lock"

Exit status 0 if each folder ended as an undisturbed one, file for file, and no worker outlived its process; 1
otherwise. Each case that failed is a line, with the command that runs it once more; its folder stays in
build/kills-of-prepare.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ...training.kills.cases import Case
from ...training.kills.telling import run_and_tell
from .suite import VARIANTS, Suite, at_moments

ROOT = Path(__file__).parents[3]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.data.kills", description="Does a killed prepare go on?")
    parser.add_argument("--moments", type=int, default=50, metavar="N", help="kills at random moments (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (%(default)s)")
    parser.add_argument("--only", choices=("events", "moments"), help="leave the other ones out")
    parser.add_argument(
        "--repeat", metavar="CASE", help="run this case alone, as a failure names it, and show what it said"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; returns the exit status."""
    asked = _parser().parse_args(arguments)
    started = time.monotonic()
    try:
        if asked.moments < 0:
            raise ValueError(f"--moments: got {asked.moments}, expected at least 0")
        repeated = Case.parse(asked.repeat, tuple(VARIANTS)) if asked.repeat else None
    except ValueError as error:
        print(f"kills: {error}", file=sys.stderr)
        return 2
    suite = Suite(ROOT / "build" / "kills-of-prepare")
    if repeated is not None:
        found = suite.run(repeated, print)
        print("\n".join(found) or "finished bit for bit")
        return int(bool(found))
    at_events, events = ([], 0) if asked.only == "moments" else suite.at_events()
    moments = [] if asked.only == "events" else at_moments(asked.moments, asked.seed)
    chosen = [*at_events, *moments]
    places = f"{events} events and {len(moments)} moments"
    run = functools.partial(suite.run_all, chosen)
    return run_and_tell(chosen, run, "tests.data.kills", places, "all finished bit for bit", started, "prepare: ")


if __name__ == "__main__":
    sys.exit(main())

"""Kill `prepare` at every event in its folder and at random moments, and check that the next call finishes the set.

    make kills
    python -m tests.data.kills [--moments 50] [--seed 0] [--only events|moments]
    python -m tests.data.kills --repeat "one worker: SIGKILL before write 1 of .lock"

The exit status is 0 if each folder equals that of an undisturbed call, byte for byte, and no worker outlived its
process; else 1. Each failed case is printed as a line, with the command that runs it again. Its folder stays in
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
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments (%(default)s)")
    parser.add_argument("--only", choices=("events", "moments"), help="run the kills of this kind alone")
    parser.add_argument(
        "--repeat", metavar="CASE", help="run only this case, which a failure named, and show its output"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the kills that the command line asks for; return the exit status."""
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

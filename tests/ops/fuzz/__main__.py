"""Draw calls of the ops, run them on every instruction set, and hold the results against independent formulas.

    make fuzz MINUTES=10
    python -m tests.ops.fuzz --minutes 10
    python -m tests.ops.fuzz --case SEED [--isa NAME]

The exit status is 0 if every result was right. It is 1 if a result was wrong, if a process died or hung, or if no case
ran on an instruction set. Each failing case is a line, with the command that runs the case once more. Two runs draw
different cases.
"""

from __future__ import annotations

import argparse
import itertools
import os
import secrets
import subprocess
import sys
from collections.abc import Sequence

from .running import PLAIN, ROOT, SWITCH, Run, work


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.ops.fuzz", description="Do drawn calls give right results?")
    parser.add_argument("--minutes", type=float, default=10.0, help="the minutes for which new cases run (%(default)s)")
    parser.add_argument("--case", type=int, metavar="SEED", help="run only this case, and print it")
    parser.add_argument("--isa", metavar="NAME", help=f"an instruction set, or {PLAIN!r}; without one, each in turn")
    parser.add_argument("--work", nargs=2, metavar=("SEED", "UNTIL"), help=argparse.SUPPRESS)
    return parser


def _sets() -> list[str]:
    """Return the instruction sets of this processor, and the reference."""
    try:
        from ebgan_fast import _C
    except ImportError as error:
        print(f"fuzz: SKIPPED: the kernels of the CPU: {error}", file=sys.stderr)
        return [PLAIN]
    return [*_C.build_info()["isas_supported"], PLAIN]


def _backend(isa: str) -> str:
    return PLAIN if isa == PLAIN else "cpu"


def _case(seed: int, isa: str) -> int:
    """Run one case in a process on that instruction set, and return the exit status."""
    if isa not in (PLAIN, os.environ.get(SWITCH)):
        command = [sys.executable, "-m", "tests.ops.fuzz", "--case", str(seed), "--isa", isa]
        status = subprocess.run(command, cwd=ROOT, env={**os.environ, SWITCH: isa}).returncode
        if status not in (0, 1):  # after 0 or 1 the process has printed its verdict
            print(f"case {seed} on {isa}: the process ended with status {status}", flush=True)
        return status
    from .checking import problems
    from .drawing import draw

    case = draw(seed)
    print(f"case {seed} on {isa}: {case}", flush=True)
    found = problems(case, _backend(isa))
    for problem in found:
        print(f"  {problem}")
    print("  wrong" if found else "  right", flush=True)
    return int(bool(found))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for, and return the exit status."""
    asked = _parser().parse_args(arguments)
    if asked.work:
        first, until = asked.work
        work(itertools.count(int(first)), _backend(asked.isa), float(until), lambda line: print(line, flush=True))
        return 0
    sets = _sets()
    if asked.isa is not None and asked.isa not in sets:
        print(f"fuzz: --isa: got {asked.isa!r}, expected one of {', '.join(sets)}", file=sys.stderr)
        return 2
    if not 0 < asked.minutes <= 60 * 24:
        print(f"fuzz: --minutes: got {asked.minutes}, expected more than 0, and at most a day", file=sys.stderr)
        return 2
    sets = sets if asked.isa is None else [asked.isa]
    if asked.case is not None:
        statuses = [_case(asked.case, isa) for isa in sets]
        return int(any(statuses))  # a process that a signal killed has a status below 0
    run, status = Run(sets, lambda line: print(line, flush=True)), 0
    try:
        run(60 * asked.minutes, secrets.randbelow(2**40))
    except KeyboardInterrupt:
        print("fuzz: interrupted", file=sys.stderr)
        status = 130
    print(run.tally)
    idle = [] if status else [isa for isa in sets if not run.tally.of(isa)]
    if idle:
        print(f"fuzz: no case ran on {', '.join(idle)} in {asked.minutes:g} minutes", file=sys.stderr)
    return status or int(bool(run.tally.failed or idle))


if __name__ == "__main__":
    sys.exit(main())

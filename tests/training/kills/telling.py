"""Print the progress of a suite of kills, the command that repeats each failed case, and the verdict."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from .cases import Case

_SECONDS = 20.0  # seconds between two lines of progress
_MOST = 4  # the most broken promises in one line

Tell = Callable[[Case, list[str]], None]


def run_and_tell(
    chosen: Sequence[Case],
    run: Callable[[Tell], object],
    module: str,
    places: str,
    passed: str,
    started: float,
    what: str = "",
) -> int:
    """Run cases and print their results. Return the exit status.

    Args:
        chosen: The cases.
        run: A function that runs the cases. It passes each case's broken promises on when the case ends.
        module: The module of the command that repeats a case.
        places: The places of the kills, such as "9 events and 3 moments".
        passed: The verdict if no promise is broken.
        started: The time when the command began, by `time.monotonic`.
        what: The first words of the verdict.
    """
    failed: list[Case] = []
    done, told = 0, started

    def tell(case: Case, found: list[str]) -> None:
        nonlocal done, told
        done += 1
        if found:
            failed.append(case)
            print(f'FAILED {"; ".join(found[:_MOST])} | python -m {module} --repeat "{case}"', flush=True)
        if time.monotonic() - told >= _SECONDS:
            told = time.monotonic()
            print(f"{done} of {len(chosen)} cases, {len(failed)} failed, {told - started:.0f} s", flush=True)

    try:
        run(tell)
    except KeyboardInterrupt:
        print("kills: interrupted", file=sys.stderr)
        return 130
    kills = sum(len(case.kills) for case in chosen)
    verdict = f"{len(failed)} of {len(chosen)} cases failed" if failed else passed
    print(f"{what}{kills} kills at {places}: {verdict}; {time.monotonic() - started:.0f} s")
    return int(bool(failed))

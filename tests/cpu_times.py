"""Measure the CPU time of each test in seconds, including that of the processes that it starts.

    .venv/bin/pytest --cpu-times -n auto           # writes build/cpu-times
    .venv/bin/python -m tests.cpu_times            # prints the times by folder, and the 30 slowest tests

CPU time stays nearly the same on a busy machine; the time of a clock does not.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "build" / "cpu-times"


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    before = os.times()
    done = yield
    seconds = sum(os.times()[:4]) - sum(before[:4])  # of this process and its children, in user and system mode
    with open(FOLDER / str(os.getpid()), "a", encoding="utf-8") as file:
        file.write(f"{seconds:.3f}\t{item.nodeid}\n")
    return done


def read() -> Counter[str]:
    """Return the CPU seconds of every test, by its id."""
    times: Counter[str] = Counter()
    for path in FOLDER.iterdir():
        for line in path.read_text(encoding="utf-8").splitlines():
            seconds, test = line.split("\t", 1)
            times[test] += float(seconds)
    return times


def main() -> None:
    times = read()
    folders: Counter[str] = Counter()
    for test, seconds in times.items():
        folders[str(Path(test.split("::", 1)[0]).parent)] += seconds
    for heading, counted, most in (("folder", folders, None), ("test", times, 30)):
        print(f"{heading}, of {len(counted)}")
        for name, seconds in counted.most_common(most):
            print(f"{seconds:8.1f}  {name}")
    print(f"{times.total():8.1f}  in all, {len(times)} tests")


if __name__ == "__main__":
    main()

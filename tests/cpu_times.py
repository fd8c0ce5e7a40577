"""The time that each test takes, in seconds of a core, those of its own processes included.

    .venv/bin/pytest --cpu-times -n auto           # writes build/cpu-times
    .venv/bin/python -m tests.cpu_times            # prints them by folder, and the dearest tests

Seconds of a core say the same on a busy machine, where those of a clock do not.
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
    seconds = sum(os.times()[:4]) - sum(before[:4])  # its own and its children's, in user and system mode
    with open(FOLDER / str(os.getpid()), "a", encoding="utf-8") as file:
        file.write(f"{seconds:.3f}\t{item.nodeid}\n")
    return done


def read() -> Counter[str]:
    """The seconds of every test."""
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

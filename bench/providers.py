"""The providers of a case: ebgan_fast on each of its backends, its formula in eager torch and compiled, and the
formulas of public code."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch

from ebgan_fast.ops.backends import BackendName, use_backend

from .cases import Arguments, Case, Loss, on
from .correctness import Judge, Results, leaves, results
from .cuda_timing import wait
from .devices import Device
from .rows import COMPILE, EAGER, PACKAGE, REFERENCE
from .steps import first_line, step
from .timing import Clock, Step, Watch

# A provider that takes this long reads far more than its inputs, in the cache or not.
_SLOW_SECONDS = 0.03


@dataclass(frozen=True)
class Provider:
    name: str
    loss: Loss
    backend: BackendName | None = None
    """The backend of ebgan_fast that it runs on; None: the one that ebgan_fast chooses."""
    first_call: list[float] = field(default_factory=list, compare=False)
    """Seconds of the first call, forward and backward, once it was made: it compiles, or makes what stays."""

    def chosen(self) -> contextlib.AbstractContextManager[None]:
        return use_backend(self.backend) if self.backend else contextlib.nullcontext()

    def complaint(self, arguments: Arguments, judge: Judge) -> str | None:
        """Return why it gets no time, or None."""
        try:
            with self.chosen(), warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch's compiler about torch's own functions
                got = self._timed_first(arguments)
        except Exception as error:  # whatever a provider may raise: the others are still worth their time
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
        """The copies to time it on: one alone where it is slow."""
        alone = step(self.loss, copies[:1], mode)
        with self.chosen():
            alone()
            start = time.perf_counter()
            alone()
        return copies[:1] if time.perf_counter() - start > _SLOW_SECONDS else copies

    def clock(self, step: Step, watch: Watch) -> Clock:
        """Raises what the watch raises where it cannot time the step."""
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
    """ebgan_fast first, then its other kernels under their backends' names."""
    # With another, the eighth shape of a formula meets the limit of recompilations, and runs in eager mode unnoticed.
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
    """As many copies of a case's inputs as the device's cache calls for."""
    drawn = case.inputs(dtype)
    size = sum(value.nbytes for value in drawn.values() if isinstance(value, torch.Tensor))
    return [on(drawn, device.torch) for _ in range(device.copies(size))]

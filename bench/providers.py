"""What a case is timed with: ebgan_fast on each of its backends, its formula in eager torch and compiled, and the
formulas of public code."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch

from ebgan_fast.ops.backends import BackendName, use_backend

from .cases import Arguments, Case, Loss, on
from .correctness import Judge, results
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
    """Of ebgan_fast that it runs on; None: the one that ebgan_fast chooses."""

    def chosen(self) -> contextlib.AbstractContextManager[None]:
        return use_backend(self.backend) if self.backend else contextlib.nullcontext()

    def complaint(self, arguments: Arguments, judge: Judge) -> str | None:
        """Why it gets no time, or None."""
        try:
            with self.chosen(), warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch's compiler about torch's own functions
                got = results(self.loss, arguments)
        except Exception as error:  # whatever a provider may raise: the others are still worth their time
            return f"cannot run: {first_line(error)}"
        return judge.complaint(got)

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


def of(case: Case, device: Device, with_compile: bool = True, with_published: bool = True) -> list[Provider]:
    """ebgan_fast first."""
    # With another, the eighth shape of a formula meets the limit of recompilations, and runs in eager mode unnoticed.
    torch._dynamo.reset()
    compiled = [Provider(COMPILE, torch.compile(case.formula, dynamic=False))] if with_compile else []
    return [
        Provider(PACKAGE, case.package),
        *(Provider(f"{PACKAGE} {name}", case.package, cast(BackendName, name)) for name in device.others),
        Provider(REFERENCE, case.package, "reference"),
        Provider(EAGER, case.formula),
        *compiled,
        *(Provider(name, loss) for name, loss in case.published.items() if with_published),
    ]


def inputs_on(device: Device, case: Case, dtype: torch.dtype) -> list[Arguments]:
    """As many copies of a case's inputs as the device's cache calls for."""
    drawn = case.inputs(dtype)
    size = sum(value.nbytes for value in drawn.values() if isinstance(value, torch.Tensor))
    return [on(drawn, device.torch) for _ in range(device.copies(size))]

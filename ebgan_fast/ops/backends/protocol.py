"""The functions that a backend's module provides. `energy.py` and `pulling_away.py` prepare their memory.

A backend fills in the memory that it is given, writes no input, never waits for a GPU, and gives the same bits in every
run. "acc" is float64 for float64 tensors and float32 for the others. To add a backend, write a module in this folder
with these functions, and add an entry to `backends.KNOWN`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from ..energy import Loss
from ..pulling_away import Term
from ..tensors import Batch, Coefficient, Gradient


class Kernels(Protocol):
    """The interface of a backend's module."""

    def loss(self, it: Loss, /) -> None:
        """Fill in the loss, the energies of both batches, and the gradients that they need.

        Without a value, fill in only the energies.
        """

    def gradient(self, batch: Batch, upstream: Tensor, norm: str, /) -> None:
        """Fill in the gradients of the batch's energies, which it holds. upstream is [n], of any float dtype and
        stride.

        A sample with upstream 0 gets exact zeros and is not read.
        """

    def hinge(
        self, real: Tensor, fake: Tensor, margin: Coefficient, value: Tensor, grad_real: Tensor, grad_fake: Tensor, /
    ) -> None:
        """Fill in mean(real) + mean([margin - fake]+) of energies [n] and [m], all acc, and the gradients to them."""

    def term(self, term: Term, /) -> None:
        """Fill in the pulling-away term of at least two codes, and add weight times it to the loss, if there is one."""

    def term_gradient(self, term: Term, upstream: Coefficient, grad: Gradient, /) -> None:
        """Fill in `grad.filled`, the term's gradient to its code, for the given upstream gradient."""

    def scale(self, gradients: list[Tensor], to: list[Tensor], upstream: Tensor, expected: Coefficient, /) -> None:
        """Write upstream / expected times each gradient into `to`, rounded once. Each fills one run of memory.

        If `to` is `gradients` itself and upstream equals expected, no gradient is read or written.
        """


if TYPE_CHECKING:
    from . import cpu, cuda, triton

    _MODULES: tuple[Kernels, ...] = (cpu, cuda, triton)

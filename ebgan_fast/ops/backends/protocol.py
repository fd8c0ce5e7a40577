"""The launches that a backend provides, as functions of its module. `energy.py` and `pulling_away.py` prepare their
memory.

A backend fills in what it is given, writes no input, never waits for a GPU, and gives the same bits in every run.
"acc" is float64 for float64 tensors and float32 for the others. A new backend is a module in this folder with these
functions, and an entry in `backends.KNOWN`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from ..energy import Loss
from ..pulling_away import Term
from ..tensors import Batch, Coefficient, Gradient


class Kernels(Protocol):
    """A backend's module."""

    def loss(self, it: Loss, /) -> None:
        """Fill in the loss, the energies of both batches, and the gradients that they ask for. Without a value the
        energies alone."""

    def gradient(self, batch: Batch, upstream: Tensor, norm: str, /) -> None:
        """Fill in the gradients of the batch's energies, which it holds; upstream is [n], of any float dtype and
        stride.

        A sample with upstream 0 gets exact zeros and is not read.
        """

    def hinge(
        self, real: Tensor, fake: Tensor, margin: Coefficient, value: Tensor, grad_real: Tensor, grad_fake: Tensor, /
    ) -> None:
        """Fill in mean(real) + mean([margin - fake]+) of energies [n] and [m], all acc, and its gradients to them."""

    def term(self, term: Term, /) -> None:
        """Fill in the pulling-away term of at least two codes, and add weight times it to the loss, if there is one."""

    def term_gradient(self, term: Term, upstream: Coefficient, grad: Gradient, /) -> None:
        """Fill in `grad.filled`, the term's gradient to its code for that upstream gradient."""

    def scale(self, gradients: list[Tensor], to: list[Tensor], upstream: Tensor, expected: Coefficient, /) -> None:
        """Write upstream / expected times each gradient into `to`, rounded once; each fills one run of memory.

        Where `to` is `gradients` itself, an upstream that was expected moves nothing.
        """


if TYPE_CHECKING:
    from . import cpu, cuda, triton

    _MODULES: tuple[Kernels, ...] = (cpu, cuda, triton)

"""The cases that are measured: op and shape, inputs, formula, the package's call, least work and targets.

`CASES` is the list for `ops`, `TINY` for `latency`, and `LARGE` for `memory`. `scaling` makes cases of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

import ebgan_fast

from . import formulas
from .formulas import Norm

Arguments = dict[str, Any]
"""Tensors, numbers and norms by the formula's parameter names. The tensors that require a gradient are the leaves."""


class Work(NamedTuple):
    """The least work that any implementation has to do, forward and backward."""

    elements: int = 0
    """Elements moved between memory and processor: each tensor read once, each gradient written once."""
    operations: int = 0
    """Floating-point additions and multiplications."""
    overlaps: bool = False
    """True if the traffic can hide behind the arithmetic, as in one product. The phases of a sum of losses cannot."""


class Targets(NamedTuple):
    """The speeds that the project aims at, in multiples of another provider's, in float32 on one thread."""

    eager: float
    compile: float


Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """One loss at one shape."""

    op: str
    shape: str
    """The sizes of the inputs, and the norm unless it is mse."""
    inputs: Callable[[torch.dtype], Arguments]
    """Draws the inputs at a dtype, the same ones in every run."""
    formula: Loss
    """The scalar loss in eager torch."""
    package: Loss
    """The loss by ebgan_fast's public functions."""
    work: Work
    targets: Targets | None = None
    published: Mapping[str, Loss] = field(default_factory=dict)
    """The loss as public code has it, by name, as far as it takes a bearable time."""
    quick: tuple[str, ...] = ()
    """The types of devices on which `--quick` keeps the case."""

    @property
    def name(self) -> str:
        """The op and the shape."""
        return f"{self.op} {self.shape}"


class _Normal:
    """A source of normal numbers, the same ones in every run."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(self._dtype)


def _text(*sizes: int) -> str:
    return "x".join(map(str, sizes))


def _losses(shapes: str, norm: Norm) -> str:
    """Return a shape with its norm. mse is left out, as results from before there was another norm have none."""
    return shapes if norm == "mse" else f"{shapes}, {norm}"


def _middle(energies: Tensor) -> float:
    """Return a margin between the two middle energies.

    Half of the hinges are on then, and no energy is so close to the margin that rounding could switch a hinge.
    """
    low, high = energies.sort().values[len(energies) // 2 - 1 :][:2].tolist()
    return (low + high) / 2


def discriminator(*shape: int, norm: Norm = "mse", targets: Targets | None = None, quick: tuple[str, ...] = ()) -> Case:
    """Return a case of the discriminator's loss on batches of a shape, [N, ...]."""

    def inputs(dtype: torch.dtype) -> Arguments:
        normal = _Normal(dtype)
        recon_real, real, recon_fake, fake = (normal(*shape) for _ in range(4))
        margin = _middle(formulas.reconstruction_energy(recon_fake.double(), fake.double(), norm))
        recon_real.requires_grad_()
        recon_fake.requires_grad_()
        batches = {"recon_real": recon_real, "real": real, "recon_fake": recon_fake, "fake": fake}
        return {**batches, "margin": margin, "norm": norm}

    def package(**arguments: Any) -> Tensor:
        return ebgan_fast.discriminator_loss(**arguments)[0]

    work = Work(elements=6 * prod(shape))
    formula = formulas.discriminator_loss
    shapes = _losses(_text(*shape), norm)
    return Case("discriminator_loss", shapes, inputs, formula, package, work, targets, quick=quick)


def generator(*shape: int, d: int, norm: Norm = "mse", quick: tuple[str, ...] = ()) -> Case:
    """Return a case of the generator's loss on a batch of a shape, [N, ...], with codes of `d` numbers."""
    n = shape[0]

    def inputs(dtype: torch.dtype) -> Arguments:
        normal = _Normal(dtype)
        recon, fake, code = normal(*shape), normal(*shape), normal(n, d).relu()
        leaves = {"recon": recon.requires_grad_(), "fake": fake.requires_grad_(), "code": code.requires_grad_()}
        return {**leaves, "pt_weight": 0.1, "norm": norm}

    def package(recon: Tensor, fake: Tensor, code: Tensor, pt_weight: float, norm: Norm) -> Tensor:
        return ebgan_fast.generator_loss(recon, fake, code, pt_weight=pt_weight, norm=norm)[0]

    work = Work(elements=4 * prod(shape) + 2 * n * d, operations=_pulling_away_operations(n, d))
    shapes = _losses(f"{_text(*shape)}, code {_text(n, d)}", norm)
    return Case("generator_loss", shapes, inputs, formulas.generator_loss, package, work, quick=quick)


def energy(*shape: int, quick: tuple[str, ...] = ()) -> Case:
    """Return a case of the mean reconstruction energy, in mse, on batches of a shape, [N, ...]."""

    def inputs(dtype: torch.dtype) -> Arguments:
        normal = _Normal(dtype)
        return {"recon": normal(*shape).requires_grad_(), "target": normal(*shape).requires_grad_()}

    def package(recon: Tensor, target: Tensor) -> Tensor:
        return ebgan_fast.reconstruction_energy(recon, target, norm="mse").mean()

    return Case(
        "reconstruction_energy",
        _text(*shape),
        inputs,
        formulas.mean_energy,
        package,
        Work(elements=4 * prod(shape)),
        published={"F.mse_loss": formulas.mean_squared_error},
        quick=quick,
    )


def hinge(n: int, quick: tuple[str, ...] = ()) -> Case:
    """Return a case of the hinge loss on `n` energies of each batch."""

    def inputs(dtype: torch.dtype) -> Arguments:
        normal = _Normal(dtype)
        real, fake = normal(n).abs(), normal(n).abs()
        margin = _middle(fake.double())
        return {"energy_real": real.requires_grad_(), "energy_fake": fake.requires_grad_(), "margin": margin}

    call = ebgan_fast.hinge_margin_loss
    work = Work(elements=4 * n)
    return Case("hinge_margin_loss", str(n), inputs, formulas.hinge_margin_loss, call, work, quick=quick)


def _pulling_away_operations(n: int, d: int) -> int:
    """Return the operations of one triangle of the smaller Gram matrix, and of one whole product in backward."""
    return 3 * n * d * min(n, d)


# Beyond these sizes, forward and backward take more than about a second, or a gigabyte.
_MOST_BROADCAST = 1 << 26
_MOST_LOOPED = 64


def _published_pulling_away(n: int, d: int) -> dict[str, Loss]:
    chosen: dict[str, Loss] = {"full Gram": formulas.full_gram}
    if n * n * d <= _MOST_BROADCAST:
        chosen["broadcast NxNxd"] = formulas.broadcast
    if n <= _MOST_LOOPED:
        chosen["python loop"] = formulas.python_loop
    return chosen


def pulling_away(n: int, d: int, targets: Targets | None = None, quick: tuple[str, ...] = ()) -> Case:
    """Return a case of the pulling-away term on codes of shape [n, d]."""

    def inputs(dtype: torch.dtype) -> Arguments:
        return {"code": _Normal(dtype)(n, d).relu().requires_grad_()}

    work = Work(2 * n * d, _pulling_away_operations(n, d), overlaps=True)
    return Case(
        "pulling_away_term",
        _text(n, d),
        inputs,
        formulas.pulling_away_term,
        ebgan_fast.pulling_away_term,
        work,
        targets,
        _published_pulling_away(n, d),
        quick,
    )


_CPU, _GPU, _EITHER = ("cpu",), ("cuda",), ("cpu", "cuda")

CASES: tuple[Case, ...] = (
    discriminator(64, 784, targets=Targets(3.8, 2.2), quick=_CPU),
    discriminator(64, 1, 32, 32, targets=Targets(3.8, 2.2)),
    discriminator(64, 3, 64, 64, targets=Targets(4.2, 2.3), quick=_EITHER),
    discriminator(64, 3, 64, 64, norm="l2"),
    discriminator(64, 3, 128, 128, targets=Targets(3.6, 1.6), quick=_GPU),
    discriminator(64, 3, 128, 128, norm="l2"),
    discriminator(16, 3, 256, 256, targets=Targets(3.6, 1.6)),
    generator(64, 1, 32, 32, d=1024, quick=_CPU),
    generator(64, 3, 64, 64, d=16384, quick=_GPU),
    generator(64, 3, 64, 64, d=16384, norm="l2"),
    energy(64, 3, 64, 64, quick=_CPU),
    hinge(64, quick=_CPU),
    pulling_away(64, 256, Targets(3.0, 2.0), quick=_CPU),
    pulling_away(128, 1024, Targets(2.5, 2.0), quick=_CPU),
    pulling_away(64, 16384, Targets(2.5, 2.0)),
    pulling_away(128, 16384, Targets(2.5, 2.0), quick=_GPU),
    pulling_away(64, 32768, Targets(2.5, 2.0), quick=_GPU),
    pulling_away(2048, 512, Targets(8.0, 6.0), quick=_EITHER),
    pulling_away(4096, 256, Targets(38.0, 27.0)),
)

TINY: tuple[Case, ...] = (
    discriminator(8, 16),
    generator(8, 16, d=16),
    energy(8, 16),
    hinge(8),
    # The loops of public code are left out: their time is no time of a call.
    replace(pulling_away(8, 16), published={}),
)
"""The cases of `latency`, so small that the call takes all of the time."""

LARGE: tuple[Case, ...] = (
    discriminator(64, 3, 64, 64),
    discriminator(64, 3, 128, 128),
    generator(64, 3, 64, 64, d=16384),
    energy(64, 3, 128, 128),
    pulling_away(64, 16384),
    pulling_away(2048, 512),
    pulling_away(4096, 256),
)
"""The cases of `memory`."""

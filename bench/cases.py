"""The cases that are measured: op and shape, inputs, formula, the package's call, least work and targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

import ebgan_fast

from . import formulas, published
from .formulas import Norm

Arguments = dict[str, Any]
"""Tensors, numbers and norms by the formula's parameter names; the tensors that require a gradient are the leaves."""


class Work(NamedTuple):
    """The least that any implementation has to do, forward and backward."""

    elements: int = 0
    """Moved between memory and processor: each tensor read once, each gradient written once."""
    operations: int = 0
    """Floating-point additions and multiplications."""
    overlaps: bool = False
    """True if the traffic can hide behind the arithmetic, as in one product; the phases of a sum of losses cannot."""


class Targets(NamedTuple):
    """Multiples of the other provider's speed, float32 on one thread."""

    eager: float
    compile: float


Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    op: str
    shape: str
    inputs: Callable[[torch.dtype], Arguments]
    formula: Loss
    """The scalar loss in eager torch."""
    package: Loss
    """The same loss by ebgan_fast's public functions."""
    work: Work
    targets: Targets | None = None
    published: Mapping[str, Loss] = field(default_factory=dict)
    """The same loss as public code has it, where that can be waited for."""
    quick: tuple[str, ...] = ()
    """The types of devices on which `--quick` keeps it."""

    @property
    def name(self) -> str:
        return f"{self.op} {self.shape}"


class _Normal:
    """Normal numbers, the same ones in every run."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(self._dtype)


def _text(*sizes: int) -> str:
    return "x".join(map(str, sizes))


def _losses(shapes: str, norm: Norm) -> str:
    """A shape that names no norm is of mse: results that were written before there was another have none."""
    return shapes if norm == "mse" else f"{shapes}, {norm}"


def _middle(energies: Tensor) -> float:
    """A margin that has half of the hinges on, and no energy so close that rounding could switch one."""
    low, high = energies.sort().values[len(energies) // 2 - 1 :][:2].tolist()
    return (low + high) / 2


def discriminator(*shape: int, norm: Norm = "mse", targets: Targets | None = None, quick: tuple[str, ...] = ()) -> Case:
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
        published={"F.mse_loss": published.mean_squared_error},
        quick=quick,
    )


def hinge(n: int, quick: tuple[str, ...] = ()) -> Case:
    def inputs(dtype: torch.dtype) -> Arguments:
        normal = _Normal(dtype)
        real, fake = normal(n).abs(), normal(n).abs()
        margin = _middle(fake.double())
        return {"energy_real": real.requires_grad_(), "energy_fake": fake.requires_grad_(), "margin": margin}

    call = ebgan_fast.hinge_margin_loss
    work = Work(elements=4 * n)
    return Case("hinge_margin_loss", str(n), inputs, formulas.hinge_margin_loss, call, work, quick=quick)


def _pulling_away_operations(n: int, d: int) -> int:
    """One triangle of the smaller Gram matrix, then one whole product in backward."""
    return 3 * n * d * min(n, d)


# A second or so, and a gigabyte, for forward and backward.
_MOST_BROADCAST = 1 << 26
_MOST_LOOPED = 64


def _published_pulling_away(n: int, d: int) -> dict[str, Loss]:
    chosen: dict[str, Loss] = {"full Gram": published.full_gram}
    if n * n * d <= _MOST_BROADCAST:
        chosen["broadcast NxNxd"] = published.broadcast
    if n <= _MOST_LOOPED:
        chosen["python loop"] = published.python_loop
    return chosen


def pulling_away(n: int, d: int, targets: Targets | None = None, quick: tuple[str, ...] = ()) -> Case:
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
    # Without the loops of public code, which are no matter of one call.
    replace(pulling_away(8, 16), published={}),
)
"""So small that a call is all there is: what `latency` times."""


def on(arguments: Arguments, device: torch.device) -> Arguments:
    """Copies there."""

    def copy(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.detach().to(device, copy=True).requires_grad_(value.requires_grad)

    return {name: copy(value) for name, value in arguments.items()}

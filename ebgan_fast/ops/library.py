"""The raw ops `torch.ops.ebgan_fast.*`: schemas, kernels by backend, and shapes for tracing.

They know nothing of autograd (`autograd.py` does) and check nothing (`functional.py` does). Every op takes the name of
the backend that runs it, so a traced graph keeps the choice that was made when it was traced. Losses give their
gradients for an upstream gradient of 1 together with their value; a gradient that is not needed is an empty tensor.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
from torch import Tensor

from .reference import accumulation_dtype

_LIBRARY = torch.library.Library("ebgan_fast", "DEF")

_SCHEMAS = (
    "reconstruction_energy(Tensor recon, Tensor target, str norm, str backend) -> Tensor",
    "reconstruction_energy_backward(Tensor grad_energy, Tensor recon, Tensor target, Tensor energy, str norm, "
    "bool need_recon, bool need_target, str backend) -> (Tensor grad_recon, Tensor grad_target)",
    "hinge_margin_loss(Tensor energy_real, Tensor energy_fake, Tensor margin, str backend) "
    "-> (Tensor loss, Tensor grad_real, Tensor grad_fake)",
    "pulling_away_term(Tensor code, str backend) -> (Tensor value, Tensor norms, Tensor gram)",
    "pulling_away_term_backward(Tensor grad, Tensor code, Tensor norms, Tensor gram, str backend) -> Tensor",
    "discriminator_loss(Tensor recon_real, Tensor real, Tensor recon_fake, Tensor fake, Tensor margin, str norm, "
    "bool[] need, str backend) -> (Tensor loss, Tensor energy_real, Tensor energy_fake, "
    "Tensor grad_recon_real, Tensor grad_real, Tensor grad_recon_fake, Tensor grad_fake)",
    "generator_loss(Tensor recon_fake, Tensor fake, Tensor? code, Tensor pt_weight, str norm, bool[] need, "
    "str backend) -> (Tensor loss, Tensor energy, Tensor pulling_away, Tensor grad_recon, Tensor grad_fake, "
    "Tensor grad_code)",
)


def _kernels(backend: str) -> ModuleType:
    """The module of a backend, imported at its first use: it holds one function per op, named like the op."""
    return importlib.import_module(f".{backend}", __package__)


def _register(schema: str) -> None:
    name = schema.partition("(")[0]

    def run(*arguments):  # type: ignore[no-untyped-def]
        return getattr(_kernels(arguments[-1]), name)(*arguments[:-1])

    _LIBRARY.define(schema)
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")


for _schema in _SCHEMAS:
    _register(_schema)


def _scalar_like(tensor: Tensor) -> Tensor:
    return tensor.new_empty((), dtype=accumulation_dtype(tensor.dtype))


def _energy_like(batch: Tensor) -> Tensor:
    return batch.new_empty(batch.shape[:1], dtype=accumulation_dtype(batch.dtype))


def _gradient_like(tensor: Tensor, needed: bool) -> Tensor:
    return torch.empty_like(tensor) if needed else tensor.new_empty(0)


@torch.library.register_fake("ebgan_fast::reconstruction_energy", lib=_LIBRARY)
def _(recon: Tensor, target: Tensor, norm: str, backend: str) -> Tensor:
    return _energy_like(recon)


@torch.library.register_fake("ebgan_fast::reconstruction_energy_backward", lib=_LIBRARY)
def _(
    grad_energy: Tensor,
    recon: Tensor,
    target: Tensor,
    energy: Tensor,
    norm: str,
    need_recon: bool,
    need_target: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    return _gradient_like(recon, need_recon), _gradient_like(target, need_target)


@torch.library.register_fake("ebgan_fast::hinge_margin_loss", lib=_LIBRARY)
def _(energy_real: Tensor, energy_fake: Tensor, margin: Tensor, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    return _scalar_like(energy_real), torch.empty_like(energy_real), torch.empty_like(energy_fake)


@torch.library.register_fake("ebgan_fast::pulling_away_term", lib=_LIBRARY)
def _(code: Tensor, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    wide = accumulation_dtype(code.dtype)
    n = code.shape[0]
    d = 1
    for size in code.shape[1:]:
        d = d * size
    side = torch.sym_min(n, d)
    return _scalar_like(code), code.new_empty((n,), dtype=wide), code.new_empty((side, side), dtype=wide)


@torch.library.register_fake("ebgan_fast::pulling_away_term_backward", lib=_LIBRARY)
def _(grad: Tensor, code: Tensor, norms: Tensor, gram: Tensor, backend: str) -> Tensor:
    return torch.empty_like(code)


@torch.library.register_fake("ebgan_fast::discriminator_loss", lib=_LIBRARY)
def _(
    recon_real: Tensor,
    real: Tensor,
    recon_fake: Tensor,
    fake: Tensor,
    margin: Tensor,
    norm: str,
    need: list[bool],
    backend: str,
) -> tuple[Tensor, ...]:
    gradients = map(_gradient_like, (recon_real, real, recon_fake, fake), need)
    return _scalar_like(recon_real), _energy_like(recon_real), _energy_like(recon_fake), *gradients


@torch.library.register_fake("ebgan_fast::generator_loss", lib=_LIBRARY)
def _(
    recon_fake: Tensor,
    fake: Tensor,
    code: Tensor | None,
    pt_weight: Tensor,
    norm: str,
    need: list[bool],
    backend: str,
) -> tuple[Tensor, ...]:
    grad_code = recon_fake.new_empty(0) if code is None else _gradient_like(code, need[2])
    energy = _energy_like(recon_fake)
    value = _scalar_like(recon_fake)
    return (
        value,
        energy,
        torch.empty_like(value),
        _gradient_like(recon_fake, need[0]),
        _gradient_like(fake, need[1]),
        grad_code,
    )

"""The raw ops `torch.ops.ebgan_fast.*`: schemas, kernels by backend, and shapes for tracing.

They know nothing of autograd (`autograd.py` does) and check nothing (`functional.py` does). Every op takes the name of
the backend that runs it, so a traced graph keeps the choice that was made when it was traced. Losses give their
gradients for an upstream gradient of 1 together with their value; a gradient that is not needed is an empty tensor.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from .reference import accumulation_dtype

# The package's own name, under which a second copy of it may be loaded beside this one.
NAMESPACE = (__package__ or "").rpartition(".")[0].replace(".", "_")
_LIBRARY = torch.library.Library(NAMESPACE, "DEF")

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
    "scale_gradients(Tensor[] gradients, Tensor upstream, str backend) -> Tensor[]",
    "scale_gradients_(Tensor(a!)[] gradients, Tensor upstream, str backend) -> ()",
)


@functools.cache
def kernel(name: str, backend: str) -> Callable[..., Any]:
    """A backend's function for an op: its module is imported at the first use and names its functions like the ops.

    In place of a gradient that is not needed it returns None.
    """
    kernel: Callable[..., Any] = getattr(importlib.import_module(f".{backend}", __package__), name)
    return kernel


def _register(schema: str) -> None:
    name = schema.partition("(")[0]

    def run(*arguments: Any) -> Any:
        results = kernel(name, arguments[-1])(*arguments[:-1])
        if not isinstance(results, tuple):
            return results
        # Every op with gradients that may be unneeded has a batch of their dtype as its second argument.
        return tuple(arguments[1].new_empty(0) if result is None else result for result in results)

    _LIBRARY.define(schema)
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")


for _schema in _SCHEMAS:
    _register(_schema)

_Function = TypeVar("_Function", bound=Callable[..., Any])
_PLAIN = frozenset((Tensor, torch.nn.Parameter))
_USUAL = _PLAIN | {float, int, bool, str, list, type(None)}
_NUMBERS = (int, float, torch.SymInt, torch.SymFloat)


def _is_subclassed(argument: object) -> bool:
    return isinstance(argument, Tensor) and type(argument) not in _PLAIN


def call(name: str, backend: str, *arguments: Any) -> Any:
    """The raw op of that name, or its kernel itself where no tracer, mode or tensor subclass watches the dispatcher.

    The way through `torch.ops` costs 22 of 53 us (discriminator loss of tiny batches, torch 2.13).

    A coefficient (margin, pt_weight) may be a number. A gradient that is not needed may come as None.
    """
    if (
        not torch.compiler.is_compiling()
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._get_tracing_state() is None
        # The first question takes 0.5 us, the second 1.5.
        and (_USUAL.issuperset(map(type, arguments)) or not any(map(_is_subclassed, arguments)))
    ):
        return kernel(name, backend)(*arguments)
    like: Tensor = arguments[0]
    tensors = [
        torch.full((), a, dtype=accumulation_dtype(like.dtype), device=like.device)  # type: ignore[arg-type]
        if isinstance(a, _NUMBERS) and not isinstance(a, bool)
        else a
        for a in arguments
    ]
    return getattr(getattr(torch.ops, NAMESPACE), name)(*tensors, backend)


def _scalar_like(tensor: Tensor) -> Tensor:
    return tensor.new_empty((), dtype=accumulation_dtype(tensor.dtype))


def _energy_like(batch: Tensor) -> Tensor:
    return batch.new_empty(batch.shape[:1], dtype=accumulation_dtype(batch.dtype))


def _gradient_like(tensor: Tensor, needed: bool) -> Tensor:
    return torch.empty_like(tensor) if needed else tensor.new_empty(0)


def _shapes(name: str) -> Callable[[_Function], _Function]:
    """Registers what an op gives for tensors without values, that is, while it's traced."""
    register: Callable[[_Function], _Function] = torch.library.register_fake(f"{NAMESPACE}::{name}", lib=_LIBRARY)
    return register


@_shapes("reconstruction_energy")
def _(recon: Tensor, target: Tensor, norm: str, backend: str) -> Tensor:
    return _energy_like(recon)


@_shapes("reconstruction_energy_backward")
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


@_shapes("hinge_margin_loss")
def _(energy_real: Tensor, energy_fake: Tensor, margin: Tensor, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    return _scalar_like(energy_real), torch.empty_like(energy_real), torch.empty_like(energy_fake)


@_shapes("pulling_away_term")
def _(code: Tensor, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    wide = accumulation_dtype(code.dtype)
    n = code.shape[0]
    d = 1
    for size in code.shape[1:]:
        d = d * size
    side = torch.sym_min(n, d)
    return _scalar_like(code), code.new_empty((n,), dtype=wide), code.new_empty((side, side), dtype=wide)


@_shapes("pulling_away_term_backward")
def _(grad: Tensor, code: Tensor, norms: Tensor, gram: Tensor, backend: str) -> Tensor:
    return torch.empty_like(code)


@_shapes("discriminator_loss")
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


@_shapes("generator_loss")
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


@_shapes("scale_gradients")
def _(gradients: list[Tensor], upstream: Tensor, backend: str) -> list[Tensor]:
    return [torch.empty_like(gradient) for gradient in gradients]


@_shapes("scale_gradients_")
def _(gradients: list[Tensor], upstream: Tensor, backend: str) -> None:
    return None

"""Bugs to plant in an op, which the differential test must find.

A bug is a function of the op and the arguments of a call. It returns what the op would return if it had the bug.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .drawing import OPS
from .layouts import whole

Arguments = dict[str, Any]
Bug = Callable[[Callable[..., Any], Arguments], Any]


def _with_value(result: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return change(result) if isinstance(result, Tensor) else type(result)(change(result[0]), *result[1:])


def _off(units: int) -> Bug:
    """Return a bug that makes a value larger by so many units in its last place."""
    return lambda op, given: _with_value(op(**given), lambda value: value * (1 + units * torch.finfo(value.dtype).eps))


def _as_if(name: str, gradient: Callable[[Tensor], Tensor]) -> Bug:
    """Return a bug that changes the gradient of the tensor of this name."""

    def bug(op: Callable[..., Any], given: Arguments) -> Any:
        if name in given and given[name].requires_grad:
            given[name] = given[name].view_as(given[name])
            given[name].register_hook(gradient)
        return op(**given)

    return bug


def _last_turned(gradient: Tensor) -> Tensor:
    turned = gradient.clone(memory_format=torch.contiguous_format)
    if turned.numel():
        turned.reshape(-1)[-1].neg_()
    return turned


def _without_the_last(name: str) -> Bug:
    """Return a bug that leaves out the last element of each sample."""

    def bug(op: Callable[..., Any], given: Arguments) -> Any:
        tensor = given[name]
        elements = tensor.shape[1:].numel()
        is_last = (torch.arange(elements) == elements - 1).reshape(tensor.shape[1:])
        other = given["target"].to(tensor.dtype) if name == "recon" else torch.zeros_like(tensor)
        given[name] = torch.where(is_last, other, tensor)
        return op(**given)

    return bug


def by_threads(op: Callable[..., Any], given: Arguments) -> Any:
    step = torch.get_num_threads() - 1
    return _with_value(op(**given), lambda value: value * (1 + step * torch.finfo(value.dtype).eps))


def _writes(op: Callable[..., Any], given: Arguments) -> Any:
    recon = given["recon"].detach()
    if recon.is_contiguous():
        recon.mul_(2)
    return op(**given)


def _write_between(tensor: Tensor) -> None:
    """Overwrite the memory before, between and behind a tensor's elements."""
    room = whole(tensor.detach())
    is_between = torch.ones(room.numel(), dtype=torch.bool)
    is_between[torch.arange(room.numel()).as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())] = False
    room[is_between] = 1.0


def _writes_between(op: Callable[..., Any], given: Arguments) -> Any:
    _write_between(given["code"])
    return op(**given)


def _writes_the_upstream(op: Callable[..., Any], given: Arguments) -> Any:
    value = op(**given)
    value.register_hook(_write_between)
    return value


BUGS: dict[str, tuple[str, Bug]] = {
    **{f"a value of {op} is off by 16 units": (op, _off(16)) for op in OPS if op != "pulling_away_term"},
    # A cosine is about 1 / sqrt(d), and may be off by about d units of 1. For 100 elements these are 1000 units of it.
    "a value of pulling_away_term is off by 1000 units": ("pulling_away_term", _off(1000)),
    "the energy lacks the last element": ("reconstruction_energy", _without_the_last("recon")),
    "the term lacks the last element": ("pulling_away_term", _without_the_last("code")),
    "the mean is over one sample more": (
        "discriminator_loss",
        _as_if("recon_real", lambda it: it * (it.shape[0] / (it.shape[0] + 1))),
    ),
    "the mean of open samples": ("discriminator_loss", _as_if("recon_fake", lambda it: it * 2)),
    "an element's sign is turned": ("generator_loss", _as_if("fake", _last_turned)),
    "a code's gradient has the wrong sign": ("generator_loss", _as_if("code", torch.neg)),
    "an upstream of the hinge is forgotten": ("hinge_margin_loss", _as_if("energy_fake", torch.sign)),
    "the pairs are counted with each code's own": (
        "pulling_away_term",
        lambda op, given: op(**given) * (1 - 1 / max(given["code"].shape[0], 1)),
    ),
    "bits depend on the threads": ("reconstruction_energy", by_threads),
    "an input is written": ("reconstruction_energy", _writes),
    "what lies between the elements is written": ("pulling_away_term", _writes_between),
    "what lies between an upstream's is written": ("reconstruction_energy", _writes_the_upstream),
    "a gradient is NaN": ("pulling_away_term", _as_if("code", lambda it: it * float("nan"))),
}
"""The op that has each bug, and the bug, by what the bug does."""

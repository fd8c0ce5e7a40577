"""Eager mode skips the dispatcher, makes no tensor of the margin, and copies no gradient whose upstream is 1."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import ebgan_fast
from ebgan_fast import functional
from ebgan_fast.ops import op, reference

from .budget import assert_within_budget, energy_sums

Losses = tuple[Callable[..., Tensor], list[Tensor]]

pytestmark = pytest.mark.skipif(
    not ebgan_fast.backends()["cpu"].available, reason=f"backend cpu: {ebgan_fast.backends()['cpu'].reason}"
)


def _batches(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(6, 9, generator=generator).requires_grad_() for _ in range(count)]


def _discriminator(formula: Any) -> Losses:
    return lambda *batches: formula(*batches, 1.5, norm="mse")[0], _batches(4)


def _generator(formula: Any) -> Losses:
    return lambda *batches: formula(*batches, pt_weight=0.3, norm="mse")[0], _batches(3)


def _hinge(formula: Any) -> Losses:
    return lambda *batches: formula(*(batch.square().mean(1) for batch in batches), 1.2), _batches(2)


CASES = {
    "discriminator_loss": _discriminator,
    "generator_loss": _generator,
    "hinge_margin_loss": _hinge,
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_a_kept_graph_are_nobody_elses(name: str) -> None:
    """A gradient that a user clips or scales in place must not change the next backward over the same graph."""
    loss, batches = CASES[name](getattr(ebgan_fast, name))
    value = loss(*batches)
    first = torch.autograd.grad(value, batches, retain_graph=True)
    expected = [gradient.clone() for gradient in first]
    for gradient in first:
        gradient.fill_(float("nan"))
    second = torch.autograd.grad(value, batches, retain_graph=True)
    assert all(map(torch.equal, second, expected))
    for gradient in second:
        gradient.fill_(float("nan"))
    assert all(map(torch.equal, torch.autograd.grad(value, batches), expected))


@pytest.mark.parametrize("upstream", [1.0, 3.0, 0.0, -0.5])
@pytest.mark.parametrize("name", CASES)
def test_gradients_take_their_upstream(name: str, upstream: float) -> None:
    loss, batches = CASES[name](getattr(ebgan_fast, name))
    formula, _ = CASES[name](getattr(reference, name))
    wide = [batch.detach().double().requires_grad_() for batch in batches]
    expected = torch.autograd.grad(formula(*wide), wide, torch.tensor(upstream, dtype=torch.float64))
    eager = torch.autograd.grad(formula(*batches), batches, torch.tensor(upstream))
    got = torch.autograd.grad(loss(*batches), batches, torch.tensor(upstream))
    for gradient, truth, yardstick in zip(got, expected, eager, strict=True):
        assert_within_budget(gradient, truth, yardstick, "gradient", sums=energy_sums(batches[0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_margin_is_the_same_as_a_number_and_as_a_tensor(dtype: torch.dtype) -> None:
    """The number 0.7 and the tensor 0.7 give the same loss and gradient, where an energy equals the margin.

    float32 cannot hold 0.7. A margin rounded down to float32 would lie below the energy that must equal it.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    at_margin = torch.tensor([0.7, 0.1], dtype=wide).requires_grad_()
    losses = []
    for margin in (0.7, torch.tensor(0.7, dtype=wide)):
        loss = ebgan_fast.hinge_margin_loss(torch.ones(1, dtype=wide), at_margin, margin)
        (gradient,) = torch.autograd.grad(loss, at_margin)
        assert gradient.tolist() == [0.0, -0.5]
        losses.append(loss.item())
    assert losses[0] == losses[1]


class _Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [*CASES, "pulling_away_term", "reconstruction_energy"])
def test_a_dispatch_mode_sees_the_op(name: str) -> None:
    calls: dict[str, Callable[[], Tensor]] = {
        "pulling_away_term": lambda: ebgan_fast.pulling_away_term(_batches(1)[0]),
        "reconstruction_energy": lambda: ebgan_fast.reconstruction_energy(*_batches(2), norm="mse").sum(),
    }
    for case, make in CASES.items():
        loss, batches = make(getattr(ebgan_fast, case))
        calls[case] = lambda loss=loss, batches=batches: loss(*batches)
    direct = calls[name]()
    with _Seen() as seen:
        watched = calls[name]()
        watched.backward()
    assert f"ebgan_fast.{name}.default" in seen.names
    assert torch.equal(watched, direct)


CALLS: dict[str, Callable[..., Any]] = {
    "ReconstructionEnergy": lambda a, b, *_: ebgan_fast.reconstruction_energy(a, b, norm="mse"),
    "HingeMarginLoss": lambda a, b, *_: ebgan_fast.hinge_margin_loss(a[:, 0], b[:, 0], 0.5),
    "PullingAwayTerm": lambda a, *_: ebgan_fast.pulling_away_term(a),
    "DiscriminatorLoss": lambda *batches: ebgan_fast.discriminator_loss(*batches, 1.5, norm="mse"),
    # The dispatcher makes a float32 of the weight, which holds 0.25 exactly.
    "GeneratorLoss": lambda a, b, c, _: ebgan_fast.generator_loss(a, b, c, pt_weight=0.25, norm="mse"),
}


def test_every_function_is_called() -> None:
    functions = [name for name in functional.__all__ if inspect.isfunction(getattr(functional, name))]
    assert {name.lower() for name in CALLS} == {name.replace("_", "") for name in functions}


def _values(results: Any) -> list[Tensor]:
    return list(results) if isinstance(results, tuple) else [results]


@pytest.mark.parametrize("name", CALLS)
def test_without_a_graph_no_function_is_made_and_the_values_are_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = _batches(4)
    recorded = _values(CALLS[name](*batches))
    assert recorded[0].requires_grad

    def forbidden(*arguments: object) -> None:
        raise AssertionError("a Function without need")

    for each in op.OPS.values():
        monkeypatch.setattr(each, "_record", forbidden)
        monkeypatch.setattr(each._function, "apply", forbidden)
    with torch.no_grad():
        without = _values(CALLS[name](*batches))
    plain = _values(CALLS[name](*(batch.detach() for batch in batches)))
    for found in (without, plain):
        assert all(map(torch.equal, found, recorded))
        assert not any(value.requires_grad for value in found)
    with pytest.raises(AssertionError, match="a Function without need"):
        CALLS[name](*batches)


class _Wrapped(Tensor):
    """A tensor whose values lie in another tensor, as those of quantized and distributed tensors do."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> _Wrapped:
        made: _Wrapped = Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=inner.device)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        unwrap = lambda value: value.inner if isinstance(value, _Wrapped) else value  # noqa: E731
        result = func(*pytree.tree_map(unwrap, args), **pytree.tree_map(unwrap, kwargs or {}))
        return pytree.tree_map(lambda value: cls(value) if isinstance(value, Tensor) else value, result)


def _unwrapped(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor.inner if isinstance(tensor, _Wrapped) else tensor for tensor in tensors]


@pytest.mark.parametrize("name", CALLS)
def test_a_tensor_subclass_gets_its_own_say(name: str) -> None:
    """A tensor subclass handles the op in its own dispatch, as it has no memory of its own that a kernel could read."""
    batches = [batch.detach() for batch in _batches(4)]
    plain = [batch.clone().requires_grad_() for batch in batches]
    wrapped: list[Tensor] = [_Wrapped(batch).requires_grad_() for batch in batches]
    values = [_values(CALLS[name](*inputs)) for inputs in (plain, wrapped)]
    assert isinstance(values[1][0], _Wrapped)
    assert all(map(torch.equal, *map(_unwrapped, values)))
    expected, got = (
        torch.autograd.grad(value[0].sum(), inputs, allow_unused=True, materialize_grads=True)
        for value, inputs in zip(values, (plain, wrapped), strict=True)
    )
    assert all(map(torch.equal, _unwrapped(got), expected))
    with torch.no_grad():
        assert all(map(torch.equal, _unwrapped(_values(CALLS[name](*wrapped))), _unwrapped(values[0])))

"""Tensors of unusual kinds are each refused with one sentence, or work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

import ebgan_fast

from .cases import DEVICE, every_backend, every_kernel

BATCH, OTHER, ENERGY, NUMBER = torch.ones(4, 3), torch.zeros(4, 3), torch.ones(4), torch.tensor(1.5)

# Calls with an odd batch, by the name of the argument and the op.
BATCHES: dict[tuple[str, str], Callable[[Any], object]] = {
    ("recon", "energy"): lambda odd: ebgan_fast.reconstruction_energy(odd, odd),
    ("target", "energy"): lambda odd: ebgan_fast.reconstruction_energy(BATCH, odd),
    ("recon", "mean energy"): lambda odd: ebgan_fast.reconstruction_energy(odd, odd, reduction="mean"),
    ("code", "term"): lambda odd: ebgan_fast.pulling_away_term(odd),
    ("recon_real", "discriminator"): lambda odd: ebgan_fast.discriminator_loss(odd, odd, BATCH, OTHER, 1.0),
    ("fake", "discriminator"): lambda odd: ebgan_fast.discriminator_loss(BATCH, OTHER, BATCH, odd, 1.0),
    ("recon_fake", "generator"): lambda odd: ebgan_fast.generator_loss(odd, odd, BATCH),
    ("code", "generator"): lambda odd: ebgan_fast.generator_loss(BATCH, OTHER, odd),
}
ENERGIES: dict[tuple[str, str], Callable[[Any], object]] = {
    ("energy_real", "hinge"): lambda odd: ebgan_fast.hinge_margin_loss(odd, ENERGY, 1.0),
    ("energy_fake", "hinge"): lambda odd: ebgan_fast.hinge_margin_loss(None, odd, 1.0),
}


def _discriminator(*margin: Any, **options: Any) -> object:
    return ebgan_fast.discriminator_loss(BATCH, OTHER, BATCH, OTHER, *margin, **options)


COEFFICIENTS: dict[tuple[str, str], Callable[[Any], object]] = {
    ("margin", "hinge"): lambda odd: ebgan_fast.hinge_margin_loss(ENERGY, ENERGY, odd),
    ("margin", "discriminator"): lambda odd: _discriminator(odd),
    ("upstream", "discriminator"): lambda odd: _discriminator(1.0, upstream=odd),
    ("pt_weight", "generator"): lambda odd: ebgan_fast.generator_loss(BATCH, OTHER, BATCH, pt_weight=odd),
    ("upstream", "generator"): lambda odd: ebgan_fast.generator_loss(BATCH, OTHER, upstream=odd),
    ("margin", "Module"): lambda odd: ebgan_fast.nn.DiscriminatorLoss(odd)(BATCH, OTHER, BATCH, OTHER),
}
by_place: Callable[[tuple[str, str]], str] = "-".join


def _left_vmap(tensor: Tensor) -> Tensor:
    kept: list[Tensor] = []
    torch.func.vmap(lambda it: kept.append(it) or it)(torch.stack([tensor, tensor]))
    return kept[0]


# For each kind: a function that makes a batch odd, and the message that follows the argument's name.
KINDS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "nested": (
        lambda it: torch.nested.nested_tensor(list(it)),
        r"got a nested tensor, expected a dense one.*\.to_padded_tensor\(0\.0\).*\.unbind\(\)",
    ),
    "nested, ragged": (
        lambda it: torch.nested.nested_tensor([it.flatten(), it.flatten()[:2]]),
        "got a nested tensor",
    ),
    "nested, jagged": (
        lambda it: torch.nested.nested_tensor([it.flatten(), it.flatten()[:2]], layout=torch.jagged),
        "got a nested tensor",
    ),
    "masked": (
        lambda it: torch.masked.masked_tensor(it, it > 0),
        r"got a MaskedTensor, expected a plain tensor.*\.get_data\(\).*\.to_tensor\(value\)",
    ),
    "sparse": (lambda it: it.to_sparse(), r"got layout torch.sparse_coo, expected a dense tensor.*\.to_dense\(\)"),
    "quantized": (
        lambda it: torch.quantize_per_tensor(it, 0.1, 0, torch.quint8),
        r"got torch.quint8, expected float64.*\.dequantize\(\)",
    ),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested", "ignore:The PyTorch API of Masked")
@every_backend
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [*BATCHES, *ENERGIES], ids=by_place)
def test_a_batch_is_refused(backend: str, kind: str, place: tuple[str, str]) -> None:
    make, message = KINDS[kind]
    odd = make(BATCH if place in BATCHES else ENERGY)
    with ebgan_fast.use_backend(backend), pytest.raises(TypeError, match=f"^{place[0]}: {message}"):
        {**BATCHES, **ENERGIES}[place](odd)


@every_kernel
@pytest.mark.parametrize("place", BATCHES, ids=by_place)
def test_a_batch_that_has_left_a_transform_is_refused(backend: str, place: tuple[str, str]) -> None:
    """A tensor that has left a transform is refused: it is a shell without memory.

    Plain torch refuses it too, with another message.
    """
    message = (
        "got a tensor that has left a transform of torch.func .*expected one that was made outside. Call the op inside "
        "the transformed function, or let that return the tensor"
    )
    with ebgan_fast.use_backend(backend), pytest.raises(ValueError, match=message):
        BATCHES[place](_left_vmap(BATCH))


COEFFICIENT_KINDS: dict[str, tuple[Callable[[Tensor], Tensor], type[Exception], str]] = {
    "nested": (
        lambda it: torch.nested.nested_tensor([it]),
        TypeError,
        "got a nested tensor, expected a number or a 0-d tensor",
    ),
    "masked": (lambda it: torch.masked.masked_tensor(it, it > 0), TypeError, "got a MaskedTensor"),
    "quantized": (
        lambda it: torch.quantize_per_tensor(it, 0.1, 0, torch.quint8),
        TypeError,
        "got a tensor of torch.quint8, expected a floating-point",
    ),
    "meta": (
        lambda it: it.to("meta"),
        ValueError,
        "got a tensor on meta, which has no value, beside a batch on [a-z0-9:]+, expected a number or a tensor there",
    ),
}


@every_backend
@pytest.mark.parametrize("kind", COEFFICIENT_KINDS)
@pytest.mark.parametrize("place", COEFFICIENTS, ids=by_place)
def test_a_coefficient_is_refused(backend: str, kind: str, place: tuple[str, str]) -> None:
    make, error, message = COEFFICIENT_KINDS[kind]
    with ebgan_fast.use_backend(backend), pytest.raises(error, match=f"^{place[0]}: {message}"):
        COEFFICIENTS[place](make(NUMBER))


@pytest.mark.parametrize("place", [place for place in COEFFICIENTS if place[0] != "upstream"], ids=by_place)
def test_a_sparse_coefficient_is_no_term_of_a_formula(place: tuple[str, str]) -> None:
    with (
        ebgan_fast.use_backend("reference"),
        pytest.raises(TypeError, match=f"^{place[0]}: got layout torch.sparse_coo"),
    ):
        COEFFICIENTS[place](NUMBER.to_sparse())


def test_a_scale_on_meta_is_refused() -> None:
    discriminator, generated = nn.Linear(3, 3), nn.Linear(2, 3)(torch.ones(4, 2))
    with pytest.raises(ValueError, match=r"^scale: got a tensor on meta, which has no value"):
        ebgan_fast.EBGAN(1.0).backward(discriminator, generated, BATCH, scale=NUMBER.to("meta"))


def _values(results: Any) -> list[Tensor]:
    return list(results) if isinstance(results, tuple) else [results]


CALLS: dict[str, Callable[[Tensor, Any], Any]] = {
    "energy": lambda batch, _: ebgan_fast.reconstruction_energy(batch, batch),
    "mean": lambda batch, _: ebgan_fast.reconstruction_energy(batch, batch, reduction="mean"),
    "hinge": lambda batch, number: ebgan_fast.hinge_margin_loss(batch[:, 0], batch[:, 1], number),
    "term": lambda batch, _: ebgan_fast.pulling_away_term(batch),
    "discriminator": lambda batch, number: ebgan_fast.discriminator_loss(
        batch, batch, batch, batch, number, upstream=number
    ),
    "generator": lambda batch, number: ebgan_fast.generator_loss(batch, batch, batch, pt_weight=number),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("number", [1.5, NUMBER.to("meta"), NUMBER], ids=["number", "on meta", "on the CPU"])
def test_batches_on_meta_have_shapes_alone(name: str, number: Any) -> None:
    with ebgan_fast.use_backend("auto"):
        values = zip(_values(CALLS[name](BATCH.to("meta"), number)), _values(CALLS[name](BATCH, 1.5)), strict=True)
    for got, real in values:
        assert (got.device.type, got.shape, got.dtype) == ("meta", real.shape, real.dtype)


@every_kernel
@pytest.mark.parametrize("name", CALLS)
def test_fake_tensors_go_through_outside_of_their_mode(backend: str, name: str) -> None:
    """Fake tensors work outside of their mode, in a program that asks for shapes or memory before it runs."""
    fake = FakeTensorMode().from_tensor(BATCH)
    with ebgan_fast.use_backend(backend):
        leaf = fake.detach().requires_grad_()
        values = zip(_values(CALLS[name](leaf, 1.5)), _values(CALLS[name](BATCH, 1.5)), strict=True)
        for got, real in values:
            assert (got.shape, got.dtype) == (real.shape, real.dtype)
            if got.requires_grad:
                assert torch.autograd.grad(got.sum(), leaf)[0].shape == BATCH.shape


class _Named(Tensor):
    """A subclass of Tensor that changes nothing."""


@every_backend
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "kind", [nn.Parameter, nn.Buffer, lambda it: it.as_subclass(_Named)], ids=["Parameter", "Buffer", "own"]
)
def test_a_subclass_of_the_same_memory_is_its_numbers(
    backend: str, name: str, kind: Callable[[Tensor], Tensor]
) -> None:
    batch = torch.linspace(-1.0, 2.0, 12).reshape(4, 3)
    with ebgan_fast.use_backend(backend):
        got, plain = (_values(CALLS[name](it, 1.5)) for it in (kind(batch.clone()), batch))
    assert all(map(torch.equal, got, plain))


def test_a_module_made_on_meta_says_how_it_gets_its_margin() -> None:
    with torch.device("meta"):
        loss = ebgan_fast.nn.DiscriminatorLoss(torch.tensor(1.5))
    batches = BATCH, OTHER, BATCH, OTHER
    with pytest.raises(
        ValueError, match=r"margin: got a tensor on meta.*\.to_empty\(device=\.\.\.\), and load its state"
    ):
        loss(*batches)
    loss.to_empty(device=DEVICE).load_state_dict(ebgan_fast.nn.DiscriminatorLoss(NUMBER).state_dict())
    assert torch.equal(loss(*batches).loss, ebgan_fast.discriminator_loss(*batches, 1.5).loss)

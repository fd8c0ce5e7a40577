"""One pass of the discriminator gives the gradients of two; a game holds norm, margin and weight in one place."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._functorch.config
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

import ebgan_fast
from ebgan_fast import EBGAN, one_pass_backward
from ebgan_fast.ops import reference
from tests.two_passes import MARGIN, PIXELS, PT_WEIGHT, M, assert_equal_two_passes, batches, gradients, networks
from tests.waits import Waits


def test_the_hinge_divides_the_batch() -> None:
    """The tests of this file need energies on both sides of the margin, or they would prove little."""
    D, G = networks()
    noise, _ = batches()
    fake = G(noise)
    energies = reference.reconstruction_energy(D(fake)[0], fake, "l2")
    assert 0 < int((energies < MARGIN).sum()) < M


@pytest.mark.parametrize("with_code", [True, False], ids=["with code", "without code"])
@pytest.mark.parametrize("norm", ["l2", "mse", "sse", "l1"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_one_pass_gives_the_gradients_of_two(dtype: torch.dtype, norm: Any, with_code: bool) -> None:
    D, G = networks(dtype, with_code)
    noise, real = batches(dtype)
    game = EBGAN(MARGIN, norm, PT_WEIGHT if with_code else None)
    game.backward(D, G(noise), real)
    assert_equal_two_passes(gradients(D, G), dtype, norm, with_code)


def test_its_results_are_those_of_the_losses() -> None:
    D, G = networks()
    noise, real = batches()
    game = EBGAN(MARGIN, "l2", PT_WEIGHT)
    result = game.backward(D, G(noise), real)
    with torch.no_grad():
        fake = G(noise)
        (recon_fake, code), (recon_real, _) = D(fake), D(real)
        of_d = game.discriminator(recon_real, real, recon_fake, fake)
        of_g = game.generator(recon_fake, fake, code)
    assert torch.equal(result.loss_d, of_d.loss)
    assert torch.equal(result.loss_g, of_g.loss)
    assert torch.equal(result.energy_real, of_d.energy_real)
    assert torch.equal(result.energy_fake, of_d.energy_fake)
    assert torch.equal(result.pulling_away, of_g.pulling_away)
    assert not any(it.requires_grad for it in result)


def test_gradients_are_added_and_scaled() -> None:
    """Three steps with scale 1/3 add up to the whole gradient, and the returned losses are not scaled."""
    D, G = networks()
    noise, real = batches()
    game = EBGAN(MARGIN, "l2", PT_WEIGHT)
    whole = [game.backward(D, G(noise), real, scale=1 / 3) for _ in range(3)]
    assert_equal_two_passes(gradients(D, G), torch.float64)
    D, G = networks()
    assert torch.equal(game.backward(D, G(noise), real).loss_g, whole[0].loss_g)


@pytest.mark.parametrize("scale", [0.3, torch.tensor(0.3, dtype=torch.float64)], ids=["a number", "a tensor"])
def test_scaler_and_scale_multiply_the_gradients(scale: Tensor | float) -> None:
    D, G = networks()
    noise, real = batches()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    EBGAN(MARGIN, "l2", PT_WEIGHT).backward(D, G(noise), real, scaler=scaler, scale=scale)
    assert_equal_two_passes(gradients(D, G), torch.float64, factor=1024 * 0.3)


def test_a_scaler_that_is_switched_off_changes_nothing() -> None:
    found = []
    for scaler in (None, torch.amp.GradScaler("cpu", enabled=False)):
        D, G = networks()
        noise, real = batches()
        EBGAN(MARGIN, "l2", PT_WEIGHT).backward(D, G(noise), real, scaler=scaler)
        found.append(gradients(D, G))
    assert all(map(torch.equal, *found))


def test_small_float16_gradients_survive_under_a_scaler() -> None:
    """The gradient of the real samples, 2 (r - x) / (N K), is below half of float16's smallest number, 6e-8.

    Without a scaler it would be rounded to 0.
    """
    D = nn.Linear(1024, 1024, bias=False).half()
    nn.init.eye_(D.weight)
    real = torch.ones(1024, 1024, dtype=torch.float16)
    D.weight.data *= 1 + 2.0**-7
    G = nn.Linear(2, 1024).half()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    seen: list[Tensor] = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, it: Tensor) -> Tensor:
            return it.view_as(it)

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            seen.append(gradient)
            return gradient

    EBGAN(0.0, "mse").backward(
        lambda images: Watched.apply(D(images)),  # type: ignore[no-untyped-call]
        G(torch.zeros(2, 2, dtype=torch.float16)),
        real,
        scaler=scaler,
    )
    of_real = next(it for it in seen if it.shape == real.shape)
    expected = 2 * 2.0**-7 / real.numel()
    assert expected < 2.0**-25
    assert torch.equal(of_real, torch.full_like(real, 2.0**16 * expected))


@pytest.mark.parametrize("scaled", [False, True], ids=["bfloat16", "float16 with a scaler"])
def test_passes_run_under_the_callers_autocast_and_losses_outside(scaled: bool) -> None:
    dtype = torch.float16 if scaled else torch.bfloat16
    D, G = networks(torch.float32)
    noise, real = batches(torch.float32)
    inside: list[tuple[str, bool]] = []

    def note(place: str) -> Callable[..., None]:
        return lambda *_: inside.append((place, torch.is_autocast_enabled("cpu")))

    D.register_forward_hook(note("pass"))
    D.decode.register_full_backward_hook(note("backward"))  # type: ignore[union-attr, operator]

    def loss_of_g(outputs: Any, fake: Tensor, upstream: Any) -> Any:
        note("loss")()
        return ebgan_fast.generator_loss(outputs[0], fake, outputs[1], upstream=upstream)

    def loss_of_d(of_real: Any, real: Tensor, of_fake: Any, fake: Tensor, upstream: Any) -> Any:
        note("loss")()
        assert of_real[0].dtype == of_fake[0].dtype == dtype
        return ebgan_fast.discriminator_loss(of_real[0], real, of_fake[0], fake, MARGIN, upstream=upstream)

    with torch.autocast("cpu", dtype):
        of_d, _ = one_pass_backward(
            D,
            G(noise),
            real,
            generator_loss=loss_of_g,
            discriminator_loss=loss_of_d,
            scaler=torch.amp.GradScaler("cpu") if scaled else None,
        )
    assert of_d.loss.dtype == torch.float32
    assert set(inside) == {("pass", True), ("loss", False), ("backward", False)}
    assert len(inside) == 7  # two passes, two losses, and three backward passes: to the images, and two at the end


def test_a_step_asks_for_no_value() -> None:
    D, G = networks()
    noise, real = batches()
    game = EBGAN(MARGIN, "l2", PT_WEIGHT)
    scaler = torch.amp.GradScaler("cpu")
    # The C++ kernels for the CPU read the margin's value, which costs no wait; a GPU's kernels get its address.
    with ebgan_fast.use_backend("reference"), Waits() as waits:
        game.backward(D, G(noise), real, scaler=scaler, scale=0.5)
    assert waits.found == []


def test_it_costs_ten_passes_where_the_usual_loop_costs_twelve() -> None:
    """The networks have one size and the batches are equal.

    A unit is the work of a forward pass. A backward pass costs one unit for the inputs and one for the weights.
    """
    D = nn.Sequential(*(nn.Linear(16, 16, bias=False) for _ in range(20)))
    G = copy.deepcopy(D)
    noise, real = torch.randn(8, 16), torch.randn(8, 16)
    game = EBGAN(MARGIN)
    unit = 20 * 2 * 8 * 16 * 16
    layer = 2 * 8 * 16 * 16  # saved for the noise and for the images, which need no gradient
    with FlopCounterMode(display=False) as one:
        game.backward(D, G(noise), real)
    with FlopCounterMode(display=False) as usual:
        fake = G(noise)
        game.discriminator(D(real), real, D(fake.detach()), fake.detach()).loss.backward()
        game.generator(D(fake), fake).loss.backward()
    assert one.get_total_flops() == 10 * unit - 3 * layer
    assert usual.get_total_flops() == 12 * unit - 3 * layer


def test_nothing_else_gets_a_gradient() -> None:
    """Neither the images nor a frozen weight get a gradient; unfrozen weights do."""
    D, G = networks()
    noise, real = batches()
    real.requires_grad_()
    D.decode.bias.requires_grad_(False)  # type: ignore[union-attr]
    EBGAN(MARGIN, "l2", PT_WEIGHT).backward(D, G(noise), real)
    assert real.grad is None
    assert D.decode.bias.grad is None  # type: ignore[union-attr]
    assert D.encode[0].weight.grad is not None  # type: ignore[index, union-attr]


def test_a_function_for_a_discriminator() -> None:
    D, G = networks()
    noise, real = batches()
    EBGAN(MARGIN, "l2", PT_WEIGHT).backward(lambda images: D(images), G(noise), real)
    assert_equal_two_passes(gradients(D, G), torch.float64)


def _assert_share_of_open_hinges(margin: Tensor, energies: Tensor) -> None:
    """Check that a margin's gradient is the share of open hinges, within (M + 1) roundings of half a unit.

    The gradient is a sum of M terms, each 1/M or 0. The sum has at most M roundings, and 1/M has one.
    """
    assert margin.grad is not None
    share = int((energies < MARGIN).sum()) / M
    assert abs(margin.grad.item() - share) <= (M + 1) / 2 * torch.finfo(margin.dtype).eps


def test_a_margin_that_is_a_parameter_is_trained() -> None:
    D, G = networks()
    noise, real = batches()
    game = EBGAN(nn.Parameter(torch.tensor(MARGIN)), "l2", nn.Parameter(torch.tensor(PT_WEIGHT, dtype=torch.float64)))
    result = game.backward(D, G(noise), real)
    _assert_share_of_open_hinges(game.margin, result.energy_fake)
    assert torch.equal(game.pt_weight.grad, result.pulling_away)
    assert_equal_two_passes(gradients(D, G), torch.float64)


def test_two_losses_of_ones_own() -> None:
    """The user's own losses may be those of a plain GAN, with a discriminator that returns a dict."""
    D, G = nn.Linear(PIXELS, 1).double(), networks()[1]
    noise, real = batches()
    loss_d, loss_g = one_pass_backward(
        lambda images: {"logits": D(images), "images": images},
        G(noise),
        real,
        generator_loss=lambda outputs, fake, upstream: softplus(-outputs["logits"]).mean(),
        discriminator_loss=lambda of_real, real, of_fake, fake, upstream: (
            softplus(-of_real["logits"]).mean() + softplus(of_fake["logits"]).mean()
        ),
        parameters=D.parameters(),
    )
    found = gradients(D, G)
    fake = G(noise)
    own_g = softplus(-D(fake)).mean()
    own_d = softplus(-D(real)).mean() + softplus(D(fake.detach())).mean()
    expected = [*torch.autograd.grad(own_d, list(D.parameters())), *torch.autograd.grad(own_g, list(G.parameters()))]
    for got, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(got, exact)
    torch.testing.assert_close(loss_d, own_d.detach())
    torch.testing.assert_close(loss_g, own_g.detach())


@pytest.mark.slow
def test_a_compiled_discriminator() -> None:
    D, G = networks()
    noise, real = batches()
    EBGAN(MARGIN, "l2", PT_WEIGHT).backward(torch.compile(D, backend="aot_eager"), G(noise), real)
    assert_equal_two_passes(gradients(D, G), torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [None, True], ids=["sizes found out", "dynamic sizes"])
@pytest.mark.parametrize("used_before", [False, True], ids=["new", "after an ordinary update"])
def test_a_discriminator_compiled_for_sizes_that_change(dynamic: bool | None, used_before: bool) -> None:
    """torch refuses a second backward pass unless donated_buffer is False, as docs/one-pass.md says."""
    D, G = networks()
    noise, real = batches()
    game = EBGAN(MARGIN, "l2", PT_WEIGHT)
    with torch._functorch.config.patch(donated_buffer=False):
        compiled = torch.compile(D, dynamic=dynamic, backend="aot_eager")
        if used_before:
            recon, code = compiled(real)
            game.generator(recon, real, code).loss.backward()
        for size in (5, 6, M):
            D.zero_grad()
            G.zero_grad()
            game.backward(compiled, G(noise[:size]), real[:size])
        assert_equal_two_passes(gradients(D, G), torch.float64)


# ---- The Module


def test_norm_margin_and_weight_are_said_once() -> None:
    game = EBGAN(MARGIN, "sse", PT_WEIGHT)
    recon_real, real, recon_fake, fake = torch.rand(4, 3, 5).unbind()
    code = torch.rand(3, 4)
    of_d = ebgan_fast.discriminator_loss(recon_real, real, recon_fake, fake, MARGIN, norm="sse")
    of_g = ebgan_fast.generator_loss(recon_fake, fake, code, pt_weight=PT_WEIGHT, norm="sse")
    assert all(map(torch.equal, game.discriminator(recon_real, real, recon_fake, fake), of_d))
    assert all(map(torch.equal, game.generator(recon_fake, fake, code), of_g))
    assert repr(game) == "EBGAN(margin=4.5, norm='sse', pt_weight=0.3)"


def test_its_coefficients_stand_in_the_state_and_change_in_place() -> None:
    game, other = EBGAN(MARGIN, pt_weight=PT_WEIGHT), EBGAN(1.0)
    game.margin.fill_(2.0)
    assert set(game.state_dict()) == {"margin", "pt_weight"}
    other.load_state_dict(game.state_dict())
    assert (other.margin.item(), other.pt_weight.item()) == (2.0, PT_WEIGHT)
    assert list(game.parameters()) == []


def test_a_margin_that_is_no_parameter_is_trained_too() -> None:
    D, G = networks()
    noise, real = batches()
    margin = torch.tensor(MARGIN, dtype=torch.float64, requires_grad=True)
    result = EBGAN(margin, "l2", PT_WEIGHT).backward(D, G(noise), real)
    _assert_share_of_open_hinges(margin, result.energy_fake)
    assert_equal_two_passes(gradients(D, G), torch.float64)


class _Doubled(nn.Module):
    def forward(self, half: Tensor) -> Tensor:
        return 2 * half


@pytest.mark.parametrize("is_parametrized", [False, True], ids=["computed", "parametrized"])
def test_a_coefficient_that_is_computed_from_a_parameter_trains_it(is_parametrized: bool) -> None:
    D, G = networks()
    noise, real = batches()
    halves = [nn.Parameter(torch.tensor(value / 2, dtype=torch.float64)) for value in (MARGIN, PT_WEIGHT)]
    if is_parametrized:
        game = EBGAN(halves[0], "l2", halves[1])
        for name in ("margin", "pt_weight"):
            parametrize.register_parametrization(game, name, _Doubled())
        halves = [game.parametrizations[name].original for name in ("margin", "pt_weight")]
    else:
        game = EBGAN(2 * halves[0], "l2", 2 * halves[1])
    result = game.backward(D, G(noise), real)
    for half in halves:
        assert half.grad is not None, "it has no gradient"
        half.grad /= 2
    _assert_share_of_open_hinges(halves[0], result.energy_fake)
    assert torch.equal(halves[1].grad, result.pulling_away)
    assert_equal_two_passes(gradients(D, G), torch.float64)


class _Remembering(torch.autograd.Function):
    """The identity, whose graph node keeps a tensor as `variable`, the name that torch uses in the nodes of leaves."""

    @staticmethod
    def forward(ctx: Any, half: Tensor) -> Tensor:
        ctx.variable = half.detach().clone()
        return half.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        return upstream


def test_a_margin_behind_a_function_of_ones_own() -> None:
    D, G = networks()
    noise, real = batches()
    margin = torch.tensor(MARGIN, dtype=torch.float64, requires_grad=True)
    result = EBGAN(_Remembering.apply(margin), "l2", PT_WEIGHT).backward(D, G(noise), real)
    _assert_share_of_open_hinges(margin, result.energy_fake)

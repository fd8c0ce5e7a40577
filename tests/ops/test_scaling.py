"""Saved gradients are multiplied by the upstream gradient: on every backend, and in a program's backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import ebgan_fast
from ebgan_fast.ops import op

from .budget import assert_within_budget
from .cases import DEVICE, INTERPRETED, every_dtype, every_kernel, laid_out
from .small_ops import OPS, assert_same_gradients, leaves_of

every_op = pytest.mark.parametrize("name", OPS)
raw = torch.ops.ebgan_fast


def _drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), device="cpu").to(DEVICE)


def _assert_right(got: Tensor, exact: Tensor, wide: torch.dtype) -> None:
    """Fail unless `got` is the exact product, rounded once to the sums' dtype and then to its own.

    `exact` is in float64, which holds every product of two float32 numbers. A 16-bit gradient is rounded from the
    product in float32.
    """
    right = exact.to(wide).to(got.dtype)
    if INTERPRETED and got.dtype == torch.bfloat16 and bool(exact.isfinite().all()):
        assert_within_budget(got, exact, right, "gradient")  # the interpreter cuts bfloat16 off
    else:
        assert torch.equal(got.nan_to_num(7.0), right.nan_to_num(7.0))


def _recorded(backend: str, name: str) -> tuple[list[Tensor], Tensor]:
    """Return an op's leaves, and its value on them."""
    op, inputs = OPS[name]
    leaves = leaves_of(inputs)
    with ebgan_fast.use_backend(backend):
        return leaves, op(*leaves)


@every_kernel
@every_dtype
@pytest.mark.parametrize("count", [1, 4, 6])
@pytest.mark.parametrize("upstream", [1.0, 0.3, 0.0, -2.5, float("inf"), float("nan")])
def test_a_gradient_is_rounded_once(backend: str, dtype: torch.dtype, count: int, upstream: float) -> None:
    layouts = ("contiguous", "channels_last", "offset")
    drawn = [_drawn(2, 3, 5, index + 1, seed=index) for index in range(count)]
    gradients = [laid_out(each.to(dtype), layouts[index % 3]) for index, each in enumerate(drawn)]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    factor, one = torch.tensor(upstream, dtype=wide), torch.ones((), dtype=wide)
    exact = [gradient.double() * factor.double() for gradient in gradients]
    apart = raw.scale_gradients(gradients, factor, one, backend)
    for got, product, gradient in zip(apart, exact, gradients, strict=True):
        _assert_right(got, product, wide)
        assert got.stride() == torch.empty_like(gradient).stride()
        assert got.data_ptr() != gradient.data_ptr()
    raw.scale_gradients_(gradients, factor, one, backend)
    for got, product in zip(gradients, exact, strict=True):
        _assert_right(got, product, wide)


@every_kernel
@every_dtype
def test_a_gradient_of_no_elements(backend: str, dtype: torch.dtype) -> None:
    factor = torch.tensor(0.3, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    one = torch.ones_like(factor)
    for shapes in ([(0, 5)], [(0, 5), (2, 3)], []):
        gradients = [torch.ones(shape, dtype=dtype) for shape in shapes]
        scaled = raw.scale_gradients(gradients, factor, one, backend)
        assert [tuple(each.shape) for each in scaled] == shapes
        raw.scale_gradients_(gradients, factor, one, backend)


@every_kernel
def test_more_elements_than_the_programs_of_a_launch_hold(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each program goes on to the elements that are left."""
    programs = 2048  # above the limit of either backend's launches
    if INTERPRETED:  # a thousand programs take the interpreter a minute
        programs = 2
        monkeypatch.setattr("ebgan_fast.ops.backends.triton.scaling.MOST_PROGRAMS", programs)
    gradient = _drawn(programs * 4096 + 4099)
    exact = gradient.double() * 0.25
    raw.scale_gradients_([gradient], torch.tensor(0.25), torch.tensor(1.0), backend)
    assert torch.equal(gradient.double(), exact)  # exact, as the factor is a power of two


def _discriminator(recon_real: Tensor, real: Tensor, recon_fake: Tensor, fake: Tensor) -> Tensor:
    return ebgan_fast.discriminator_loss(recon_real, real, recon_fake, fake, 3.0, norm="sse")[0]


def _generator(recon: Tensor, fake: Tensor, code: Tensor, _: Tensor) -> Tensor:
    return ebgan_fast.generator_loss(recon, fake, code, norm="sse")[0]


@every_kernel
@pytest.mark.parametrize("loss", [_discriminator, _generator])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_upstream_keeps_its_digits(backend: str, loss: Callable[..., Tensor], dtype: torch.dtype) -> None:
    """The upstream is multiplied in float32: 0.3 in bfloat16 is off by 0.13 %, half of a gradient's whole budget."""
    batches = [_drawn(4, 40, seed=seed).to(dtype).requires_grad_() for seed in range(4)]
    wanted = batches if loss is _discriminator else batches[:3]
    with ebgan_fast.use_backend(backend):
        value = loss(*batches)
        plain = torch.autograd.grad(value, wanted, retain_graph=True)
        kept = torch.autograd.grad(value, wanted, torch.full_like(value, 0.3), retain_graph=True)
        freed = torch.autograd.grad(value, wanted, torch.full_like(value, 0.3))
    for one, apart, in_place in zip(plain, kept, freed, strict=True):
        exact = one.double() * torch.tensor(0.3).double()
        _assert_right(apart, exact, torch.float32)
        assert torch.equal(in_place, apart)


@every_kernel
@every_op
def test_backward_twice_with_different_upstreams(backend: str, name: str) -> None:
    leaves, value = _recorded(backend, name)
    first = torch.autograd.grad(value, leaves, torch.full_like(value, 2.0), retain_graph=True)
    kept = [gradient.clone() for gradient in first]
    second = torch.autograd.grad(value, leaves, torch.full_like(value, -4.0))
    for one, two, unchanged in zip(first, second, kept, strict=True):
        assert torch.equal(one, unchanged), "the second backward changed the first's result"
        assert torch.equal(two, -2 * one)  # powers of two: exact


@every_kernel
@every_op
def test_many_upstreams_at_once(backend: str, name: str) -> None:
    """A batch of upstreams works, as `torch.autograd.functional.jacobian(vectorize=True)` sends."""
    leaves, value = _recorded(backend, name)
    upstreams = torch.stack([torch.full_like(value, factor) for factor in (1.0, -2.0, 0.5)])
    together = torch.autograd.grad(value, leaves, upstreams, is_grads_batched=True, retain_graph=True)
    for index, upstream in enumerate(upstreams):
        alone = torch.autograd.grad(value, leaves, upstream, retain_graph=True)
        assert_same_gradients([each[index] for each in together], alone, leaves, 2.0)


@pytest.mark.parametrize("upstream", [1.0, 0.5])
@pytest.mark.parametrize("spreads", [False, True])
@pytest.mark.parametrize("tells", [True, False], ids=["", "torch tells of no hook"])
@every_kernel
def test_what_a_hook_gives_back_is_the_hooks(
    backend: str, tells: bool, spreads: bool, upstream: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients stay right when a hook on saved tensors replaces them.

    A hook may keep one copy of equal tensors, or return a layout that no kernel can take.
    """
    if not tells:  # torch before 2.8 cannot report hooks
        monkeypatch.setattr(op, "top_hooks", None)
    batches = [_drawn(4, 6, seed=seed).requires_grad_() for seed in range(4)]
    kept: list[Tensor] = []

    def once(tensor: Tensor) -> Tensor:
        spread = tensor.repeat_interleave(2, dim=1)[:, ::2] if spreads and tensor.dim() > 1 else tensor
        for other in kept:
            if other.shape == spread.shape and torch.equal(other, spread):
                return other
        kept.append(spread)
        return spread

    with ebgan_fast.use_backend(backend):
        with torch.autograd.graph.saved_tensors_hooks(once, lambda tensor: tensor):
            hooked = [_discriminator(*batches) for _ in range(2)]
        expected = torch.autograd.grad(_discriminator(*batches), batches, torch.full_like(hooked[0], upstream))
        for loss in hooked:
            got = torch.autograd.grad(loss, batches, torch.full_like(loss, upstream))
            assert all(map(torch.equal, got, expected))
            for gradient in got:
                gradient.fill_(float("nan"))  # the user may overwrite a result


@pytest.mark.parametrize(
    ("forward", "backward", "in_place"), [(False, False, True), (True, True, True), (False, True, False)]
)
@every_kernel
def test_a_captured_backward_alone_leaves_what_it_reads(
    backend: str,
    forward: bool,
    backward: bool,
    in_place: bool,
    op_calls: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If only the backward is captured, it must not change the saved gradients.

    The captured graph may be replayed many times over the gradients of one forward.
    """
    batches = [_drawn(4, 6, seed=seed).requires_grad_() for seed in range(4)]
    capturing = forward
    monkeypatch.setattr(op, "in_capture", lambda device: capturing)
    with ebgan_fast.use_backend(backend):
        loss = _discriminator(*batches)
        capturing = backward
        op_calls.clear()
        torch.autograd.grad(loss, batches, torch.full_like(loss, 3.0))
    if backend != "cpu":
        assert op_calls == ["scale_gradients_" if in_place else "scale_gradients"]


def test_where_torch_cannot_tell_of_hooks_nothing_is_multiplied_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before version 2.8, torch cannot report hooks, so the saved gradients stay unchanged."""
    batches = [_drawn(4, 6, seed=seed).requires_grad_() for seed in range(4)]
    expected = torch.autograd.grad(_discriminator(*batches), batches, torch.tensor(0.5))
    monkeypatch.setattr(op, "top_hooks", None)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        loss = _discriminator(*batches)
    before = [tensor.clone() for tensor in kept]
    got = torch.autograd.grad(loss, batches, torch.tensor(0.5))
    assert all(map(torch.equal, got, expected))
    assert all(map(torch.equal, kept, before))

"""The energies and losses of backend cuda in the simulators.

They run as C++ with threads in any order, beside guard pages, and as PTX, which also shows races.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from . import marks  # isort: skip  (skips the module where no simulator can be built)

from ebgan_fast.ops import reference
from ebgan_fast.ops.backends import cuda
from ebgan_fast.ops.energy import Loss
from ebgan_fast.ops.tensors import Batch
from gpuless.guard_pages import guarded
from gpuless.sparse import sparse

from ..budget import assert_within_budget, energy_sums
from ..cases import every_dtype, every_norm
from .energy_cases import ALL, Simulator, batches, laid_out, leaves_of, margin_of, random, run_and_check
from .stand_ins import in_ptx, in_simt, needs_nvcc, on_cuda

pytestmark = marks.slow

# n_real, k_real, n_fake, k_fake. A block takes samples of up to 16384 elements (float64: 8192). Longer samples are cut
# into chunks of 8192 (4096).
SHORT = [(3, 1, 5, 1), (2, 7, 5, 7), (5, 96, 2, 96), (1, 1025, 3, 1025), (2, 3072, 3, 3072), (3, 16384, 2, 16384)]
LONG = [(2, 16385, 3, 16385), (2, 32768, 3, 32768)]
UNEQUAL = [(3, 40, 2, 1300), (2, 1300, 6, 40), (2, 20000, 5, 12), (4, 12, 3, 20000), (5, 7, 1, 8)]


@every_dtype
@every_norm
def test_losses_and_gradients(dtype: torch.dtype, norm: str) -> None:
    for seed, sizes in enumerate([*SHORT, *LONG, *UNEQUAL]):
        run_and_check(in_simt, batches(sizes, dtype), norm, seed=seed)


@needs_nvcc
@every_dtype
@pytest.mark.parametrize("sizes", [SHORT[1], SHORT[2], SHORT[4], LONG[0], UNEQUAL[0]], ids=str)
def test_losses_and_gradients_in_ptx(dtype: torch.dtype, sizes: tuple[int, ...]) -> None:
    run_and_check(in_ptx, batches(sizes, dtype), "mse", seed=sizes[0])


@marks.everywhere
def test_the_l2_loss_of_long_samples(simulator: Simulator) -> None:
    """The l2 loss of long samples, which takes several launches, is right."""
    run_and_check(simulator, batches((1, 16400, 2, 16400), torch.float32), "l2")


@marks.everywhere
@every_dtype
@pytest.mark.parametrize("layout", ["offset", "wide_rows", "odd_rows"])
def test_layouts(simulator: Simulator, dtype: torch.dtype, layout: str) -> None:
    for elements in (104, 101):
        tensors = batches((2, elements, 3, elements), dtype, layout)
        run_and_check(simulator, tensors, "sse")
        with simulator(tensors, 0):
            energy = on_cuda.reconstruction_energy(*tensors[:2], "sse")
        truth = reference.reconstruction_energy(tensors[0].double(), tensors[1].double(), "sse")
        assert_within_budget(energy, truth, truth, "energy", sums=energy_sums(tensors[0]))


@pytest.mark.parametrize("elements", [104, 16400])
def test_one_tensor_out_of_place(elements: int) -> None:
    """Each single tensor decides whether 16 bytes are moved at once."""
    sizes = (2, elements, 3, elements)
    for index, layout in itertools.product(range(4), ("offset", "wide_rows", "odd_rows")):
        tensors = batches(sizes, torch.float32)
        tensors[index] = laid_out(tensors[index], layout)
        run_and_check(in_simt, tensors, "mse")


@pytest.mark.parametrize("elements", [104, 16400])
def test_gradients_that_nobody_asks_for(elements: int) -> None:
    for need in itertools.product((False, True), repeat=4):
        run_and_check(in_simt, batches((2, elements, 3, elements), torch.bfloat16), "mse", need)


@marks.everywhere
@pytest.mark.parametrize(
    "sizes", [(0, 1, 0, 1), (0, 1, 3, 96), (3, 96, 0, 1), (2, 16400, 0, 1), (0, 1, 2, 16400)], ids=str
)
def test_empty_batches(simulator: Simulator, sizes: tuple[int, ...]) -> None:
    run_and_check(simulator, batches(sizes, torch.float32), "mse")


@marks.everywhere
@pytest.mark.parametrize("elements", [96, 16400])
@pytest.mark.parametrize("upstream", [1.0, 3.0])
def test_the_mean_energy(simulator: Simulator, elements: int, upstream: float) -> None:
    recon, target = batches((5, elements, 0, 1), torch.float32)[:2]
    with simulator((recon, target), 0):
        loss, energy, _, *gradients = on_cuda.generator_loss(
            recon, target, None, 0.0, "mse", upstream, [True, True, False]
        )
    leaves = leaves_of((recon, target))
    truth = reference.reconstruction_energy(*leaves, "mse")
    expected = [truth.mean(), truth, *torch.autograd.grad(upstream * truth.mean(), leaves)]
    assert gradients.pop() is None
    for name, value, exact in zip(
        ("loss", "energy", "recon", "target"), (loss, energy, *gradients), expected, strict=True
    ):
        assert value is not None
        assert_within_budget(value, exact, exact, name, sums=energy_sums(recon))


@every_dtype
@every_norm
@pytest.mark.parametrize("elements", [7, 96, 8200])
def test_gradients_of_energies(dtype: torch.dtype, norm: str, elements: int) -> None:
    """The gradients of the energies are right, and a sample whose upstream is 0 gets zeros.

    Sample 1 has upstream 0 and is NaN after the forward pass, so that a read of it would show.
    """
    recon, target = batches((4, elements, 0, 1), dtype)[:2]
    with in_simt(()):
        energy = on_cuda.reconstruction_energy(recon, target, norm)
        upstream = laid_out(random(4, 1, 9, energy.dtype).repeat(1, 3), "odd_rows")[:, 1]
        upstream[1] = 0
        leaves = leaves_of((recon, target))
        truth = reference.reconstruction_energy(*leaves, norm)
        recon[1] = torch.nan
        got = on_cuda.reconstruction_energy_backward(upstream, recon, target, energy, norm, [True, True])
    assert_within_budget(energy, truth, truth, "energy", sums=energy_sums(recon))
    for value, exact in zip(got, torch.autograd.grad(truth, leaves, upstream.double()), strict=True):
        assert value is not None
        assert bool((value[1] == 0).all())
        assert_within_budget(value, exact, exact, "gradient", sums=energy_sums(recon))


@needs_nvcc
def test_a_sample_with_upstream_0_is_not_read() -> None:
    recon, target = batches((4, 96, 0, 1), torch.float32)[:2]
    energy, upstream = torch.ones(4), torch.tensor([1.0, 0.0, 0.0, 2.0])
    with in_ptx((recon, target, energy, upstream)) as simulation:
        on_cuda.reconstruction_energy_backward(upstream, recon, target, energy, "mse", [True, False])
    assert simulation.moved(0, recon) == simulation.moved(0, target) == (2 * 96 * 4, 0)


@marks.everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [(0, 0), (0, 3), (3, 0), (1, 700), (700, 2)], ids=str)
def test_the_hinge(simulator: Simulator, dtype: torch.dtype, sizes: tuple[int, int]) -> None:
    real, fake = (random(n, 1, n, dtype).flatten().abs() for n in sizes)
    fake[:1] = 0.5  # equal to the margin
    with simulator((real, fake), 0):
        loss, *gradients = on_cuda.hinge_margin_loss(real, fake, 0.5)
    leaves = leaves_of((real, fake))
    truth = reference.hinge_margin_loss(*leaves, 0.5)
    assert_within_budget(loss, truth, truth, "loss", 1.0, energy_sums(real))
    for value, exact in zip(gradients, torch.autograd.grad(truth, leaves), strict=True):
        assert_within_budget(value, exact, exact, "gradient")
    assert bool((gradients[1][:1] == 0).all())


@marks.everywhere
@pytest.mark.parametrize("elements", [96, 16400])
def test_a_margin_in_memory_is_the_number(simulator: Simulator, elements: int) -> None:
    tensors = batches((3, elements, 4, elements), torch.float32)
    number = margin_of(*tensors[2:], "mse")
    margin = torch.tensor(number)
    with simulator((*tensors, margin), 0):
        results = [on_cuda.discriminator_loss(*tensors, it, "mse", 1.0, list(ALL)) for it in (number, margin)]
    assert all(map(torch.equal, *results))


def _check_upstreams(simulator: Simulator, tensors: list[Tensor], norm: str) -> None:
    """Check gradients for an upstream given as a number and in memory.

    Loss and energies must be those of upstream 1.
    """
    plain = run_and_check(simulator, tensors, norm)
    for upstream in torch.tensor([0.3, 3.0, 2.0**16, 0.0], dtype=plain[0].dtype):
        got = run_and_check(simulator, tensors, norm, upstream=upstream.item())
        assert all(map(torch.equal, got[:3], plain[:3])), "the loss or an energy depends on the upstream"
        assert all(map(torch.equal, got, run_and_check(simulator, tensors, norm, upstream=upstream.clone())))
        assert upstream != 0 or not any(map(torch.any, got[3:]))


by_rows_chunks_and_in_two_reads = pytest.mark.parametrize(
    ("elements", "norm"),
    [(96, "mse"), (96, "l2"), (16400, "mse"), (16400, "l2")],
    ids=["rows", "rows of l2", "chunks", "two reads"],
)


@every_dtype
@by_rows_chunks_and_in_two_reads
def test_gradients_are_made_for_an_upstream(elements: int, norm: str, dtype: torch.dtype) -> None:
    _check_upstreams(in_simt, batches((2, elements, 3, elements), dtype), norm)


@needs_nvcc
@by_rows_chunks_and_in_two_reads
def test_gradients_are_made_for_an_upstream_in_ptx(elements: int, norm: str) -> None:
    _check_upstreams(in_ptx, batches((2, elements, 3, elements), torch.float32), norm)


@pytest.mark.parametrize("elements", [96, 16400])
def test_an_upstream_saves_the_gradients_of_small_differences(elements: int) -> None:
    """The upstream multiplies gradients before they are rounded to float16, which could not hold them otherwise."""
    tensors = batches((2, elements, 3, elements), torch.float16)
    for recon, target in (tensors[:2], tensors[2:]):
        recon.copy_(target * (1 + torch.finfo(torch.float16).eps))
    run_and_check(in_simt, tensors, "mse", upstream=2.0**16)


@needs_nvcc
@pytest.mark.parametrize("sizes", [(5, 1300, 9, 40), (2, 16400, 5, 16400)], ids=str)
def test_no_order_and_no_compiler_changes_a_bit(sizes: tuple[int, ...]) -> None:
    tensors = batches(sizes, torch.float32)
    first, *others = (run_and_check(in_simt, tensors, "mse", seed=seed) for seed in range(4))
    others.append(run_and_check(in_ptx, tensors, "mse", seed=4))
    assert all(all(map(torch.equal, first, other)) for other in others)


@marks.everywhere
@pytest.mark.parametrize("elements", [96, 16400])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_samples_that_are_not_finite(simulator: Simulator, elements: int, bad: float) -> None:
    """A NaN sample reaches the loss; a sample of infinite energy is past the margin and gets exact zeros."""
    tensors = batches((2, elements, 3, elements), torch.float32)
    tensors[2][1, elements // 2] = bad
    with simulator(tensors, 0):
        loss, _, energy, *gradients = on_cuda.discriminator_loss(*tensors, 10.0, "mse", 1.0, list(ALL))
    assert all(gradient is not None for gradient in gradients)
    of_bad = torch.cat([gradient[1] for gradient in gradients[2:]])
    assert energy[1].isnan() if bad != bad else energy[1].isinf()
    assert loss.isnan() if bad != bad else loss.isfinite()
    assert of_bad.isnan().any() if bad != bad else bool((of_bad == 0).all())
    rest = [*gradients[:2], *(gradient[[0, 2]] for gradient in gradients[2:])]
    assert all(bool(it.isfinite().all()) for it in rest)


@marks.everywhere
@every_norm
@pytest.mark.parametrize("elements", [96, 16400])
def test_an_infinite_reconstruction_is_as_in_plain_torch(simulator: Simulator, elements: int, norm: str) -> None:
    """An infinite reconstruction has the gradients of plain torch, and exact zeros where its hinge is closed.

    Under l2 its own element's gradient is NaN, and the sample's others are 0. Under mse and sse the gradient is
    infinite, under l1 finite.
    """
    tensors = batches((2, elements, 3, elements), torch.float32)
    margin = margin_of(*tensors[2:], norm)
    for recon in tensors[::2]:
        recon[1, elements // 2] = torch.inf
    with simulator(tensors, 0):
        _, *got = on_cuda.discriminator_loss(*tensors, margin, norm, 1.0, list(ALL))
        for_nothing = on_cuda.discriminator_loss(*tensors, margin, norm, 0.0, list(ALL))[3:]
    assert not any(map(torch.any, for_nothing)), "there is a gradient for an upstream of 0"
    leaves = leaves_of(tensors)
    loss, *energies = reference.discriminator_loss(*leaves, margin, norm)
    truth = [*energies, *torch.autograd.grad(loss, leaves)]
    for shut in truth[4:]:
        shut[1] = 0
    assert not any(gradient[1].any() for gradient in got[4:]), "a sample past the margin has a gradient"
    assert [int(energy.isinf().sum()) for energy in energies] == [1, 1]
    names = ("energy_real", "energy_fake", "grad_recon_real", "grad_real", "grad_recon_fake", "grad_fake")
    for name, value, exact in zip(names, got, truth, strict=True):
        is_finite = exact.isfinite()
        assert torch.equal(value.isfinite(), is_finite)
        assert torch.equal(value[~is_finite].isnan(), exact[~is_finite].isnan())
        assert torch.equal(value[~is_finite].sign(), exact[~is_finite].float().sign())
        rest, exact = value.where(is_finite, 0.0), exact.where(is_finite, 0.0)
        assert_within_budget(rest, exact, exact, name, sums=energy_sums(tensors[0]))


@pytest.mark.parametrize("elements", [96, 16400])
@every_norm
def test_samples_at_the_margin_and_of_no_energy_have_no_gradient(elements: int, norm: str) -> None:
    """A sample at the margin, or of energy 0, has no gradient.

    Only one element differs, so the energy equals the margin to the last bit.
    """
    tensors = [torch.zeros(2, elements) for _ in range(4)]
    tensors[2][0, 5] = 2.0
    margin = reference.reconstruction_energy(tensors[2], tensors[3], norm)[0].item()
    with in_simt(tensors):
        loss, *_, grad_recon_real, grad_real, grad_recon, grad_fake = on_cuda.discriminator_loss(
            *tensors, margin, norm, 1.0, list(ALL)
        )
    assert loss == margin / 2
    for gradient in (grad_recon_real, grad_real, grad_recon, grad_fake):
        assert gradient is not None
        assert bool((gradient == 0).all())


@pytest.mark.parametrize("elements", [16, 16400])
def test_every_tensor_has_a_stride_of_its_own(elements: int) -> None:
    """The kernels take a stride for each gradient, though the ops give both gradients the same stride."""
    tensors = batches((3, elements, 0, 1), torch.float32)[:2]
    rooms = [guarded(torch.full((3, elements + extra), torch.nan)) for extra in (4, 8)]
    grads = [room[:, :elements] for room in rooms]
    loss = Loss("sse", Batch(*tensors), None, 0.0, 1.0, guarded(torch.full((), torch.nan)))
    loss.real.grad_recon, loss.real.grad_target = grads
    loss.real.grad_recon_stride, loss.real.grad_target_stride = (room.stride(0) for room in rooms)
    with in_simt(tensors):
        cuda.loss(loss)
    difference = tensors[0].double() - tensors[1].double()
    for grad, sign in zip(grads, (1, -1), strict=True):
        exact = sign * 2 / 3 * difference
        assert_within_budget(grad, exact, exact, "gradient")
    assert all(bool(room[:, elements:].isnan().all()) for room in rooms)
    for grad in grads:
        grad.fill_(torch.nan)
    with in_simt(tensors):
        cuda.loss(replace(loss, value=None))  # makes the energies only
    assert all(bool(grad.isnan().all()) for grad in grads)


@needs_nvcc
def test_a_sample_of_more_elements_than_32_bits_count() -> None:
    """A sample of more than 2^31 elements gets the right sum.

    Only its last chunk runs. The rest are zeros that take no memory.
    """
    recon, target = (sparse((1, 2**31 + 8192 + 77), torch.float32, fill=0.0) for _ in range(2))
    recon[0, -5:] = torch.arange(1.0, 6.0)
    with in_ptx((recon, target), last_block_only=True) as simulation:
        on_cuda.reconstruction_energy(recon, target, "sse")
    (partials,) = [it.tensor for it in simulation.traffic[0] if it.bytes_written and it.tensor.dtype == torch.float32]
    assert partials[-1].item() == 1 + 4 + 9 + 16 + 25


def _total(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@needs_nvcc
@every_dtype
@pytest.mark.parametrize("elements", [784, 3072, 3 * 8192])
def test_a_loss_moves_three_tensors(dtype: torch.dtype, elements: int) -> None:
    """A loss moves three tensors for each pair, in one launch: it reads recon and target, and writes a gradient.

    Energies and partial sums add less than 5 %. No sample here is past the margin: for such a sample,
    zeros would be written over its finished gradient.
    """
    tensors = batches((4, elements, 4, elements), dtype)
    with in_ptx(tensors) as simulation:
        on_cuda.discriminator_loss(*tensors, 1e3, "mse", 1.0, [True, False, True, False])
    (report,) = simulation.reports
    assert all(simulation.moved(0, tensor) == (_total(tensor), 0) for tensor in tensors)
    assert report.bytes_read + report.bytes_written <= 1.05 * 3 * _total(*tensors[::2])
    wide = [sum(getattr(it, kind)[128] for it in report.buffers.values()) for kind in ("loads", "stores")]
    assert [16 * count for count in wide] == [_total(*tensors), _total(*tensors[::2])]
    assert report.float_atomics == 0


@needs_nvcc
def test_the_l2_loss_of_long_samples_reads_them_twice() -> None:
    tensors = batches((1, 16400, 1, 16400), torch.float32)
    with in_ptx(tensors) as simulation:
        on_cuda.discriminator_loss(*tensors, 1e3, "l2", 1.0, list(ALL))
    moved = sum(report.bytes_read + report.bytes_written for report in simulation.reports)
    assert moved <= 1.05 * 3 * _total(*tensors)

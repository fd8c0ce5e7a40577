"""Every kernel, compiled for sm_80 and run by the PTX simulator through the public functions.

The numbers are right, no access is out of bounds or misaligned, no race occurs, and no byte is moved without need.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.older_versions import OLDEST_TRITON

pytest.importorskip("triton", minversion=OLDEST_TRITON, reason="triton is not installed (Linux only)")

import ebgan_fast
from ebgan_fast.ops import reference
from ebgan_fast.ops.backends.triton import tables

from ..against_reference import (
    check_discriminator_loss,
    check_generator_loss,
    check_pulling_away_term,
    check_reconstruction_energy,
)
from ..budget import assert_within_budget, energy_sums
from ..cases import NORMS
from .stand_ins import Simulation, simulated

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))

# Ragged, vectorized, several samples a program, one sample a program, chunked (above the table's longest row).
LONG = 16384 + 8192 + 37
CHUNK = tables.chunk_tile(1 << 20, "default").block
ELEMENTS = (1, 7, 96, 784, LONG)


def _batches(count: int, shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(count)]


def _between(energies: Tensor) -> float:
    """Return a margin that some samples are past, far from each energy."""
    levels = energies.double().sort().values
    middle = levels.numel() // 2
    return ((levels[middle - 1] + levels[middle]) / 2).item()


@pytest.mark.slow
@every_dtype
@pytest.mark.parametrize("elements", ELEMENTS)
@pytest.mark.parametrize("norm", NORMS)
def test_discriminator_loss(dtype: torch.dtype, elements: int, norm: str) -> None:
    if elements == LONG and norm == "sse" and dtype != torch.float32:
        pytest.skip("differs from mse by one factor, which short samples and float32 test")
    recon_real, real = _batches(2, (2, elements), dtype)
    recon_fake, fake = _batches(2, (4, elements), dtype, seed=1)
    margin = _between(reference.reconstruction_energy(recon_fake.double(), fake.double(), norm))
    with simulated(seed=elements):
        check_discriminator_loss((recon_real, real, recon_fake, fake), margin, norm)


# One tile and many, primal and dual, whole and split depths, one program alone. The last ones take 40 s each.
CODES = [
    *((dtype, n, d) for dtype in DTYPES for n, d in ((2, 1), (5, 3), (3, 7), (20, 100), (75, 70), (64, 1040))),
    (torch.bfloat16, 137, 150),
    (torch.float32, 150, 137),
    (torch.float32, 130, 140),
]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "n", "d"), CODES)
def test_pulling_away_term(dtype: torch.dtype, n: int, d: int) -> None:
    code = _batches(1, (n, d), dtype)[0]
    code[1] = 0
    with simulated(seed=n):
        check_pulling_away_term(code, torch.tensor(1.0))


@every_dtype
@pytest.mark.parametrize(("n", "d"), [(6, 33), (33, 6)])
def test_generator_loss(dtype: torch.dtype, n: int, d: int) -> None:
    recon, fake = _batches(2, (n, 130), dtype)
    code = _batches(1, (n, d), dtype, seed=1)[0]
    with simulated():
        check_generator_loss(recon, fake, code)


@every_dtype
@pytest.mark.parametrize("norm", NORMS)
def test_reconstruction_energy(dtype: torch.dtype, norm: str) -> None:
    recon, target = _batches(2, (3, 321), dtype)
    upstream = torch.tensor([0.7, 0.0, -2.0])
    with simulated():
        check_reconstruction_energy(recon, target, norm, upstream)


def test_a_margin_and_a_weight_on_the_device() -> None:
    recon, fake, code = _batches(3, (5, 40), torch.float32)
    with simulated():
        number = ebgan_fast.discriminator_loss(recon, fake, fake, code, 1.5, norm="mse")[0]
        tensor = ebgan_fast.discriminator_loss(recon, fake, fake, code, torch.tensor(1.5), norm="mse")[0]
        weighted = ebgan_fast.generator_loss(recon, fake, code, pt_weight=0.3, norm="mse")[0]
        by_tensor = ebgan_fast.generator_loss(recon, fake, code, pt_weight=torch.tensor(0.3), norm="mse")[0]
    assert torch.equal(number, tensor)
    assert torch.equal(weighted, by_tensor)


@pytest.mark.parametrize("samples", ["channels_last", "sliced"])
def test_other_layouts_are_read_where_they_lie(samples: str) -> None:
    recon, target = _batches(2, (4, 3, 6, 10), torch.float32)
    if samples == "channels_last":
        recon, target = (batch.contiguous(memory_format=torch.channels_last) for batch in (recon, target))
    else:
        recon, target = (torch.cat([batch, batch])[::2] for batch in (recon, target))
    leaf = recon.clone().requires_grad_() if samples == "channels_last" else recon.requires_grad_()
    wide = leaf.detach().double().requires_grad_()
    truth = reference.reconstruction_energy(wide, target.double(), "mse")
    (gradient_truth,) = torch.autograd.grad(truth.sum(), wide)
    with simulated() as simulation:
        energy = ebgan_fast.reconstruction_energy(leaf, target, norm="mse")
        (gradient,) = torch.autograd.grad(energy.sum(), leaf)
    assert simulation.launches[0].arguments["real"].recon.data_ptr() == leaf.data_ptr()
    assert_within_budget(energy, truth, truth, "energy", sums=energy_sums(recon))
    assert_within_budget(gradient, gradient_truth, gradient_truth, "gradient")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_the_order_of_the_programs_changes_no_bit(seed: int) -> None:
    """The order of the programs changes no bit, as any program may be the last to arrive."""

    def results(of_seed: int) -> list[Tensor]:
        recon, fake = (batch.requires_grad_() for batch in _batches(2, (3, LONG), torch.float32))
        codes = [batch.requires_grad_() for batch in (*_batches(1, (16, 4096), torch.float32), torch.randn(150, 70))]
        codes[1].data.copy_(_batches(1, (150, 70), torch.float32)[0])
        with simulated(seed=of_seed) as simulation:
            losses = [ebgan_fast.discriminator_loss(recon, fake, fake, recon, 2.0, norm="mse")[0]]
            losses += [ebgan_fast.pulling_away_term(code) for code in codes]
            gradients = torch.autograd.grad(losses[0], (recon, fake))
        assert max(launch.grid[0] for launch in simulation.launches) > 9
        return [*losses, *gradients]

    assert all(map(torch.equal, results(seed), results(seed + 10)))


def _bytes(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _run(op: Callable[[], Tensor], leaves: list[Tensor]) -> Simulation:
    with simulated() as simulation:
        torch.autograd.grad(op(), leaves)
    return simulation


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "elements"),
    [(torch.float32, 784), (torch.bfloat16, 784), *((dtype, 3 * CHUNK) for dtype in DTYPES)],
)
def test_a_loss_moves_three_tensors(dtype: torch.dtype, elements: int) -> None:
    """A loss moves three tensors for each pair: it reads recon and target, and writes a gradient.

    Energies and partial sums add less than 5 %. No sample here is past the margin: for such a sample, zeros would be
    written over its finished gradient. float16 runs separate ops, as its gradients are scaled before they are rounded:
    two reads more.
    """
    recon_real, real, recon_fake, fake = _batches(4, (4, elements), dtype)
    leaves = [recon_real.requires_grad_(), recon_fake.requires_grad_()]
    simulation = _run(
        lambda: ebgan_fast.discriminator_loss(recon_real, real, recon_fake, fake, 1e3, norm="mse")[0], leaves
    )
    moved = sum(report.bytes_read + report.bytes_written for report in simulation.reports)
    passes = 5 if dtype == torch.float16 else 3
    assert moved <= 1.05 * passes * _bytes(recon_real, recon_fake)
    # The loss and its upstream. In float16 two energies, the hinge and its upstream, and two gradients.
    assert len(simulation.launches) == (6 if dtype == torch.float16 else 2)
    assert all(report.float_atomics == 0 for report in simulation.reports)


@pytest.mark.slow
@every_dtype
@pytest.mark.parametrize(("n", "d"), [(64, 1024), (128, 1024)])
def test_the_pulling_away_term_reads_a_code_once_each_way(dtype: torch.dtype, n: int, d: int) -> None:
    """Forward and backward read a code once each, and what the splits leave is read once too.

    Each program reads two rows of the splits' matrices, so that no program has all the work.
    """
    code = _batches(1, (n, d), dtype)[0].requires_grad_()
    simulation = _run(lambda: ebgan_fast.pulling_away_term(code), [code])
    names = [launch.kernel.__name__ for launch in simulation.launches]
    assert names == ["gram_matrix", "finish_rows", "primal_gradient"]
    assert simulation.traffic(0)["p_code"] == (_bytes(code), 0)
    assert simulation.traffic(1).get("p_code", (0, 0)) == (0, 0)  # the argument is only for rows out of range
    assert simulation.traffic(2)["p_code"] == (_bytes(code), 0)
    assert simulation.traffic(2)["p_grad"] == (0, _bytes(code))
    assert all(report.tensor_core_instructions > 0 for report in (simulation.reports[0], simulation.reports[2]))
    assert all(report.float_atomics == 0 for report in simulation.reports)

    (splits,), (programs,) = simulation.launches[0].grid, simulation.launches[1].grid
    assert splits > 1
    assert programs == n // 2
    matrix, squares = 4 * n * n, 4 * n
    assert simulation.traffic(0)["p_products"] == (0, splits * matrix)
    assert simulation.traffic(1)["p_products"] == (splits * matrix, 0)
    assert simulation.traffic(1)["p_residual"] == (0, matrix + squares)  # with the diagonal twice
    # Only the last program reads what the others leave to it.
    assert simulation.traffic(1)["p_row_sums"] == (4 * n, 4 * n)


@pytest.mark.parametrize(
    ("n", "d", "names"),
    [
        (20, 100, ["gram_matrix", "primal_gradient"]),
        (50, 20, ["row_lengths", "gram_matrix", "dual_gradient"]),
        (300, 20, ["row_lengths", "gram_matrix", "finish_rows", "dual_gradient"]),
    ],
)
def test_a_code_that_is_one_programs_ends_in_its_launch(n: int, d: int, names: list[str]) -> None:
    code = _batches(1, (n, d), torch.float32)[0].requires_grad_()
    simulation = _run(lambda: ebgan_fast.pulling_away_term(code), [code])
    assert [launch.kernel.__name__ for launch in simulation.launches] == names


@pytest.mark.slow
@pytest.mark.parametrize("elements", [96, LONG])
def test_no_integer_overflows_in_a_debug_build(elements: int) -> None:
    recon_real, real, recon_fake, fake = _batches(4, (3, elements), torch.float32)
    leaves = [recon_real.requires_grad_(), recon_fake.requires_grad_()]
    shapes = ((9, 70), (70, 9)) if elements == LONG else ((130, 140),)
    codes = [_batches(1, shape, torch.float32)[0].requires_grad_() for shape in shapes]
    with simulated(debug=True):
        for norm in NORMS:
            loss, *_ = ebgan_fast.discriminator_loss(recon_real, real, recon_fake, fake, 1.0, norm=norm)
            torch.autograd.grad(loss, leaves)
        for code in codes:
            torch.autograd.grad(ebgan_fast.pulling_away_term(code), code)

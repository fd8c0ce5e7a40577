"""Calls of the ops that launch every kernel with every configuration of the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..launches import Launches

ops = Launches("triton")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# One for each row of the table, and one that is cut into chunks. All are multiples of 16, as images' sizes are.
ELEMENTS = (64, 784, 4096, 12288, 49152)
# One tile with splits, N = 64 and 128; many tiles; the dual form with one tile and with many.
CODES = ((64, 16384), (128, 16384), (512, 1024), (2048, 64), (2048, 512))


def discriminator(elements: int, dtype: torch.dtype, norm: str = "mse") -> Callable[[], object]:
    batches = [torch.empty(64, elements, dtype=dtype) for _ in range(4)]
    return lambda: ops.discriminator_loss(*batches, 1.0, norm, 1.0, [True, False, True, False])


def generator(elements: int, dtype: torch.dtype, norm: str = "mse") -> Callable[[], object]:
    recon, fake = (torch.empty(64, elements, dtype=dtype) for _ in range(2))
    return lambda: ops.generator_loss(recon, fake, None, 0.1, norm, 1.0, [True, True, False])


def energy_gradient(elements: int, dtype: torch.dtype) -> Callable[[], object]:
    recon, target = (torch.empty(64, elements, dtype=dtype) for _ in range(2))
    energy = torch.empty(64)
    return lambda: ops.reconstruction_energy_backward(energy, recon, target, energy, "mse", [True, True])


def scaling(elements: int, dtype: torch.dtype) -> Callable[[], object]:
    gradients = [torch.empty(64, elements, dtype=dtype) for _ in range(2)]
    return lambda: ops.scale_gradients_(gradients, torch.empty(()), 1.0)


def hinge() -> Callable[[], object]:
    energies = torch.empty(64)
    return lambda: ops.hinge_margin_loss(energies, energies, 1.0)


def pulling_away(n: int, d: int, dtype: torch.dtype) -> Callable[[], object]:
    code = torch.empty(n, d, dtype=dtype)

    def both_ways() -> Tensor:
        _, lengths, residual = ops.pulling_away_term(code)
        return ops.pulling_away_term_backward(torch.empty(()), code, lengths, residual)

    return both_ways


def calls() -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield named calls on tensors as large as in training. Nothing reads their numbers."""
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        for elements in ELEMENTS:
            yield f"discriminator mse {elements} {name}", discriminator(elements, dtype)
        yield f"discriminator l2 784 {name}", discriminator(784, dtype, "l2")
        yield f"discriminator l2 49152 {name}", discriminator(49152, dtype, "l2")
        yield f"generator mse 12288 {name}", generator(12288, dtype)
        yield f"energy gradient 12288 {name}", energy_gradient(12288, dtype)
        yield f"scaling 12288 {name}", scaling(12288, dtype)
        for n, d in CODES:
            yield f"pulling-away {n}x{d} {name}", pulling_away(n, d, dtype)
    yield "hinge", hinge()

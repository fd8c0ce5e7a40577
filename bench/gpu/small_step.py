"""A program that computes both losses with their gradients on small shapes, for compute-sanitizer to watch.

    python -m bench.gpu.small_step triton cuda

The shapes reach every kernel. Samples fit one program or are cut into chunks. There are more codes than numbers in one,
and the reverse. Some lengths start no wide load. Triton has fewer shapes, because each takes a third of a second to
compile. The tests check the values, and this program does not.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

import ebgan_fast
from ebgan_fast.functional import Norm

SHAPES: dict[str, tuple[tuple[tuple[int, int, int], ...], tuple[Norm, ...]]] = {
    "cuda": (((4, 37, 19), (3, 784, 256), (2, 20_000, 64), (150, 16, 24)), ("l2", "mse")),
    "triton": (((2, 20_003, 37), (150, 16, 24)), ("l2",)),  # l2 of long samples runs the most kernels
}
"""The sizes (N, K, d) and the norms of each backend."""
DTYPES = (torch.float32, torch.bfloat16)


def losses(n: int, k: int, d: int, dtype: torch.dtype, norm: Norm) -> list[torch.Tensor]:
    """Return the discriminator's and the generator's loss and every gradient, on the GPU.

    Args:
        n: The number of samples.
        k: The number of elements of a sample.
        d: The number of elements of a code.
        dtype: The dtype of the inputs.
        norm: The norm of the energies.
    """
    rng = torch.Generator().manual_seed(0)
    shapes = [(n, k)] * 4 + [(n, d)]
    inputs = [torch.randn(shape, generator=rng).to(dtype).cuda().requires_grad_() for shape in shapes]
    recon_real, real, recon_fake, fake, code = inputs
    loss_d, *_ = ebgan_fast.discriminator_loss(recon_real, real, recon_fake, fake, 5.0, norm=norm)
    loss_g, *_ = ebgan_fast.generator_loss(recon_fake, fake, code, pt_weight=0.1, norm=norm)
    # Two calls, because in one call torch would add gradients, and the sanitizer would watch that kernel too. An
    # upstream gradient of 3 makes the package multiply its gradients in place.
    d_gradients = torch.autograd.grad(3 * loss_d, inputs[:4])
    g_gradients = torch.autograd.grad(loss_g, inputs[2:])
    return [loss_d, loss_g, *d_gradients, *g_gradients]


def main(backends: Sequence[str]) -> int:
    """Compute the losses on each backend, and return the exit status."""
    if not torch.cuda.is_available():
        print(f"small step: torch {torch.__version__} sees no GPU")
        return 1
    for backend in backends:
        with ebgan_fast.use_backend(backend):  # type: ignore[arg-type]
            sizes, norms = SHAPES[backend]
            for size in sizes:
                for dtype in DTYPES:
                    for norm in norms:
                        values = losses(*size, dtype, norm)
                        if not all(value.cpu().isfinite().all() for value in values):
                            print(f"small step: {backend} {size} {dtype} {norm}: got NaN or infinity")
                            return 1
        print(f"small step on {backend}: finite", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

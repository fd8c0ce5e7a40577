"""The yardstick for one pass: small networks and batches, and their gradients by two passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ebgan_fast.ops import reference
from tests.rounding import assert_within_eager, at_wider

PIXELS, NOISE, CODE, N, M = 24, 6, 5, 7, 9
MARGIN, PT_WEIGHT = 4.5, 0.3  # this margin divides the batch; float32 can't hold the weight exactly


class AutoEncoder(nn.Module):
    def __init__(self, with_code: bool = True) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(PIXELS, CODE), nn.Tanh())
        self.decode = nn.Linear(CODE, PIXELS)
        self.with_code = with_code

    def forward(self, images: Tensor) -> Any:
        code = self.encode(images)
        recon = self.decode(code)
        return (recon, code) if self.with_code else recon


def networks(dtype: torch.dtype = torch.float64, with_code: bool = True) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return AutoEncoder(with_code).to(dtype), nn.Linear(NOISE, PIXELS).to(dtype)


def batches(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Return noise for M generated samples, and N real samples."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(M, NOISE, generator=generator, dtype=torch.float64)
    return noise.to(dtype), torch.randn(N, PIXELS, generator=generator, dtype=torch.float64).to(dtype)


def gradients(*nets: nn.Module) -> list[Tensor]:
    return [parameter.grad for net in nets for parameter in net.parameters() if parameter.grad is not None]


def over_two_passes(
    D: nn.Module, G: nn.Module, noise: Tensor, real: Tensor, norm: str = "l2", factor: float = 1.0
) -> list[Tensor]:
    """Return the gradients of D and then G, by the paper's equations in plain torch and two passes.

    Both gradients are taken at the same weights.
    """

    def parts(outputs: Any) -> tuple[Tensor, Tensor | None]:
        return outputs if isinstance(outputs, tuple) else (outputs, None)

    fake = G(noise)
    recon_fake, code = parts(D(fake))
    loss_g, _, _ = reference.generator_loss(recon_fake, fake, code, PT_WEIGHT, norm)
    of_g = torch.autograd.grad(factor * loss_g, list(G.parameters()))
    fake = fake.detach()
    loss_d, _, _ = reference.discriminator_loss(parts(D(real))[0], real, parts(D(fake))[0], fake, MARGIN, norm)
    of_d = torch.autograd.grad(factor * loss_d, list(D.parameters()), allow_unused=True)
    return [*(it for it in of_d if it is not None), *of_g]


def assert_equal_two_passes(
    found: list[Tensor], dtype: torch.dtype, norm: str = "l2", with_code: bool = True, factor: float = 1.0
) -> None:
    truth, eager = (
        over_two_passes(*networks(at, with_code), *batches(at), norm, factor) for at in (torch.float64, torch.float32)
    )
    assert len(found) == len(truth)
    for number, (got, exact, near) in enumerate(zip(found, truth, eager, strict=True)):
        yardstick = near if dtype == torch.float32 else at_wider(exact, near, dtype)
        assert_within_eager(got, exact, yardstick, dtype, f"gradient {number}")

"""Make a generator for sampling: with other weights, such as an average, and with batch norm statistics for them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from .families import AnyGenerator

_MEASURING_BATCHES = 20
_MEASURING_BATCH_SIZE = 250
_MEASURING_PIXELS = 1 << 22  # the largest number of pixels in a batch, to save memory: 64 images of 256 x 256


@torch.no_grad()
def for_sampling(generator: AnyGenerator, parameters: list[Tensor] | None = None) -> AnyGenerator:
    """Return a copy of the generator in eval mode, with other parameters if they are given.

    The running statistics of the generator's batch norm belong to other weights: to earlier ones, or to those before
    averaging. The difference is visible in samples. So the statistics are measured again, over 5,000 draws of fixed
    noise (fewer for images above 128 pixels). Global random numbers aren't used.

    Args:
        generator: the generator to copy.
        parameters: a tensor for each parameter, in order. None: the generator's own.
    """
    sampler = copy.deepcopy(generator).requires_grad_(False)
    if parameters is not None:
        for mine, given in zip(sampler.parameters(), parameters, strict=True):
            mine.copy_(given)
    norms = [module for module in sampler.modules() if isinstance(module, _BatchNorm)]
    if norms:
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # takes the plain mean over batches
        sampler.train()
        first = next(sampler.parameters())
        noise_rng = torch.Generator().manual_seed(0)
        _, height, width = sampler.image_shape
        batch = min(_MEASURING_BATCH_SIZE, max(1, _MEASURING_PIXELS // (height * width)))
        for _ in range(_MEASURING_BATCHES):
            noise = torch.randn(batch, sampler.noise_size, generator=noise_rng)
            sampler(noise.to(first))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return sampler.eval()

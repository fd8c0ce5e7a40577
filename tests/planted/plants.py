"""All planted bugs."""

from __future__ import annotations

from . import cpu_kernels, cuda_kernels, data, scores, training, triton_kernels, ways_in
from .plant import Planted

PLANTS: tuple[Planted, ...] = (
    *triton_kernels.PLANTS,
    *cuda_kernels.PLANTS,
    *cpu_kernels.PLANTS,
    *ways_in.PLANTS,
    *training.PLANTS,
    *data.PLANTS,
    *scores.PLANTS,
)

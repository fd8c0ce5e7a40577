"""The tuple of all planted bugs, and the choice of some by name and kind."""

from __future__ import annotations

from collections.abc import Sequence

from . import cpu_kernels, cuda_kernels, data, packing, scores, strangers, surface, training, triton_kernels, ways_in
from .plant import Planted

PLANTS: tuple[Planted, ...] = (
    *triton_kernels.PLANTS,
    *cuda_kernels.PLANTS,
    *cpu_kernels.PLANTS,
    *ways_in.PLANTS,
    *surface.PLANTS,
    *training.PLANTS,
    *data.PLANTS,
    *packing.PLANTS,
    *scores.PLANTS,
    *strangers.PLANTS,
)


def chosen(plants: Sequence[Planted], names: Sequence[str], kinds: Sequence[str]) -> list[Planted]:
    """Return the bugs of these kinds whose names contain one of these texts.

    Raises:
        ValueError: if a text is in no name.
    """
    for name in names:
        if not any(name.lower() in plant.name.lower() for plant in plants):
            raise ValueError(f"got {name!r}, expected a part of a planted bug's name; --list shows them")
    return [
        plant
        for plant in plants
        if (not kinds or plant.kind in kinds)
        and (not names or any(name.lower() in plant.name.lower() for name in names))
    ]

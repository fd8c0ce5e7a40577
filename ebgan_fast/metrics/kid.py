"""The kernel distance (KID) of two sets of features: the squared maximum mean discrepancy by the kernel (x.y/d + 1)^3.

The estimate is unbiased.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .batches import most_at_once
from .features import check_features, distances_on
from .two_sets import OfTwoSets

SUBSETS = 100

_DEGREE = 3
_MOST_ON_GPU = 20  # subsets at a time; on a CPU one subset fills the caches


def kernel_distance(
    real: Tensor,
    generated: Tensor,
    size: int,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[float, float]:
    """Return mean and standard deviation of the kernel distance over 100 pairs of random subsets.

    The distance is the squared maximum mean discrepancy by the kernel (x.y/d + 1)^3. For Inception's features it is the
    KID of Binkowski et al. 2018 (section 4). The estimate is unbiased, so it may be below 0. Subsets and formula are
    those of torchmetrics, so the results can be compared with its results.

    Args:
        real: the features of the real samples, [n, d] of a floating-point dtype, finite.
        generated: the features of the generated samples, [m, d], on the same device.
        size: the number of rows of each set in a subset, 2 to the smaller of n and m.
        seed: the seed of the subsets, which are the same on any device.
        progress: called with the number of finished subsets and of all subsets, before each part of them and at the
            end. An error that it raises ends the work.

    Returns:
        (mean, standard deviation) over the subsets, computed in float64; plain numbers without a unit. The deviation is
        that of the population. It is 0 if a subset holds all rows of both sets.

    Raises:
        TypeError: `real` or `generated` isn't a floating-point tensor.
        ValueError: they have another shape, different d or devices, or numbers that aren't finite; or `size` is outside
            its range.

    Example:
        >>> import torch
        >>> from ebgan_fast.metrics import kernel_distance
        >>> real, near = torch.randn(2, 100, 4, generator=torch.Generator().manual_seed(0))
        >>> kernel_distance(real, near + 1, size=50)[0] > kernel_distance(real, near, size=50)[0]
        True
    """
    check_features(real, "real")
    check_features(generated, "generated")
    if real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"got real and generated features of {real.shape[1]} and {generated.shape[1]} numbers, expected the "
            "same number; compute both with one net"
        )
    if real.device != generated.device:
        raise ValueError(
            f"got features on {real.device} and {generated.device}, expected one device; move either by .to()"
        )
    device = distances_on(real.device)
    real, generated = real.to(device), generated.to(device)
    least = min(len(real), len(generated))
    if not 2 <= size <= least:
        raise ValueError(
            f"size: got {size} of {len(real)} real and {len(generated)} generated samples, expected 2 to the smaller "
            "number of them"
        )
    if size == len(real) == len(generated):  # all subsets are the whole sets
        return float(discrepancies(real[None], generated[None])), 0.0
    chance = torch.Generator().manual_seed(seed)
    chosen = torch.stack(
        [
            torch.randperm(len(features), generator=chance)[:size]
            for _ in range(SUBSETS)
            for features in (real, generated)
        ]
    )
    chosen = chosen.to(real.device).unflatten(0, (SUBSETS, 2))
    # The rows of both sets, and two of the three kernels at a time.
    bytes_each = 8 * size * (2 * real.shape[1] + 2 * size)
    at_once = most_at_once(real.device, bytes_each, _MOST_ON_GPU if real.device.type == "cuda" else 1)
    found: list[Tensor] = []
    for part in chosen.split(at_once):
        progress(len(found) * at_once, SUBSETS)
        found.append(discrepancies(real[part[:, 0]], generated[part[:, 1]]))
    progress(SUBSETS, SUBSETS)
    distances = torch.cat(found)
    return float(distances.mean()), float(distances.std(correction=0))


def discrepancies(real: Tensor, generated: Tensor) -> Tensor:
    """Return the kernel distance of each pair of sets of features, float64 [s].

    The kernel is summed over all pairs of rows between the two sets, and over the pairs of different rows within each.

    Args:
        real: s sets of real features, [s, n, d].
        generated: s sets of generated features, [s, n, d].
    """
    x, y = real.double(), generated.double()
    n = x.shape[1]
    within = (_kernel(x, x, True) + _kernel(y, y, True)) / (n * (n - 1))
    return within - 2 * _kernel(x, y, False) / n**2


def _kernel(x: Tensor, y: Tensor, different: bool) -> Tensor:
    """Return the kernel's sum over pairs of a row of x and a row of y, both [s, n, d]: float64 [s].

    If `different` is True, the pairs of row i with row i are left out.
    """
    values = (x @ y.transpose(1, 2)).div_(x.shape[2]).add_(1).pow_(_DEGREE)
    if different:
        values.diagonal(dim1=1, dim2=2).zero_()
    return values.sum((1, 2))


class GrowingRows:
    """A set of features that arrives in batches, all of which are kept."""

    def __init__(self) -> None:
        self.count = 0
        self._batches: list[Tensor] = []

    def add(self, features: Tensor) -> None:
        """Add a batch of features [n, d]."""
        self._batches.append(features.clone())  # the caller may write the next batch into the same memory
        self.count += len(features)

    def rows(self) -> Tensor:
        """Return the features of all samples, [count, d]. There must be at least one sample."""
        self._batches = [torch.cat(self._batches)]
        return self._batches[0]


class KernelDistance(OfTwoSets[GrowingRows]):
    """The kernel distance (KID) of real and generated samples that arrive in batches.

    `update` adds samples. `compute` returns the `kernel_distance` of all samples added so far. Subsets are drawn from
    all samples, so all features are kept: 5 KB for a sample of 1280 numbers in float32. They are kept and compared on
    the features' device if that is a CUDA device, else on the CPU.

    The metric is a plain object. As an attribute of a Module it adds no parameters and nothing to the `state_dict`.

    Args:
        net: a Module in eval mode from uint8 images [N, 3, H, W] to features [N, d], such as a `FeatureNet`. Images are
            moved to its device. None: `update` takes features.
        subset_size: the number of samples of each set in one of the 100 subsets, at least 2.
        seed: the seed of the subsets.
        reset_real_features: True if `reset` also forgets the real samples.

    Raises:
        TypeError: `net` isn't a Module, or `subset_size` isn't an int.
        ValueError: `subset_size` is below 2.

    Example:
        >>> import torch
        >>> from ebgan_fast.metrics import KernelDistance
        >>> draw = torch.Generator().manual_seed(0)
        >>> distance = KernelDistance(subset_size=50)
        >>> for _ in range(3):
        ...     distance.update(torch.randn(40, 4, generator=draw), real=True)
        ...     distance.update(torch.randn(40, 4, generator=draw) + 5, real=False)
        >>> mean, std = distance.compute()
        >>> mean > 10 * std > 0
        True
    """

    def __init__(
        self,
        net: nn.Module | None = None,
        *,
        subset_size: int = 1000,
        seed: int = 0,
        reset_real_features: bool = True,
    ) -> None:
        if not isinstance(subset_size, int):
            raise TypeError(f"subset_size: got {type(subset_size).__name__}, expected a whole number of samples")
        if subset_size < 2:
            raise ValueError(f"subset_size: got {subset_size}, expected at least 2, a pair of samples")
        super().__init__(net, reset_real_features)
        self.subset_size = subset_size
        self.seed = seed

    def _empty(self) -> GrowingRows:
        return GrowingRows()

    def compute(self) -> tuple[float, float]:
        """Return mean and standard deviation of the distance over the subsets; see `kernel_distance`.

        Raises:
            ValueError: there are fewer real or fewer generated samples than `subset_size`.
        """
        self._check_counts(self.subset_size, ", and a smaller subset_size needs fewer")
        return kernel_distance(self._real.rows(), self._generated.rows(), self.subset_size, self.seed)

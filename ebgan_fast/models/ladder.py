"""The permutation-invariant ladder network with a denoising cost on the bottom layer only.

It follows Rasmus et al. 2015 (Semi-Supervised Learning with Ladder Networks). The sizes are those of the EBGAN paper's
appendix D.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_EPSILON = 1e-10  # added to a batch's variance under the root, as in the authors' own code

# Initial values of the combinator's ten vectors: the inner slope of both sigmoids is 1, everything else is 0.
_COMBINATOR_STARTS = (0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


class LadderNetwork(nn.Module):
    """A classifier of images [N, sizes[0]] with a decoder that denoises the images.

    Noise N(0, noise_std^2) corrupts the encoder's input, and each layer's values after they are normalized. Then the
    layer adds a shift and applies ReLU; the last layer applies a scale instead of ReLU.

    The decoder goes down the same layers. Each of its layers has a combinator of ten vectors, the one called "gauss".
    The combinator's estimate for a unit is linear in the unit's corrupted value. Mean and slope of this line depend on
    the signal from the layer above. The cost is on the bottom layer only. So nothing compares the layers in between,
    and training needs no clean pass.

    Args:
        sizes: the number of units of each layer, from the pixels to the classes.
        noise_std: the standard deviation of the corruption.
        generator: the random generator for the initial weights, N(0, 1/fan-in), and for the corruption. None: torch's
            own.

    Raises:
        ValueError: there are fewer than two sizes, a size is below 1, or `noise_std` is negative.

    Example:
        >>> import torch
        >>> from ebgan_fast.models import LadderNetwork
        >>> network = LadderNetwork(sizes=(784, 100, 10))
        >>> labeled, unlabeled = torch.rand(5, 784), torch.rand(20, 784)
        >>> logits, recon = network.forward_both(labeled, unlabeled)  # a training step, corrupted
        >>> logits.shape, recon.shape
        (torch.Size([5, 10]), torch.Size([20, 784]))
        >>> network.measure(unlabeled)
        >>> network(labeled).shape  # without corruption
        torch.Size([5, 10])
    """

    def __init__(
        self,
        sizes: Sequence[int] = (784, 1000, 500, 250, 250, 250, 10),
        noise_std: float = 0.3,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes: got {list(sizes)}, expected at least two of at least 1")
        if noise_std < 0:
            raise ValueError(f"noise_std: got {noise_std}, expected 0 or more")
        self.noise_std = noise_std
        self.generator = generator
        pairs = list(itertools.pairwise(sizes))
        self.up = nn.ParameterList(self._weights(fan_out, fan_in) for fan_in, fan_out in pairs)
        self.shift = nn.ParameterList(torch.zeros(size) for size in sizes[1:])
        self.top_scale = nn.Parameter(torch.ones(sizes[-1]))
        self.down = nn.ParameterList(self._weights(fan_in, fan_out) for fan_in, fan_out in pairs)
        self.combinators = nn.ParameterList(
            torch.tensor(_COMBINATOR_STARTS).unsqueeze(1).repeat(1, size) for size in sizes
        )
        for layer, size in enumerate(sizes[1:]):
            self.register_buffer(f"mean{layer}", torch.zeros(size))
            self.register_buffer(f"variance{layer}", torch.ones(size))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [N, classes] without corruption, normalized by the statistics that `measure` took."""
        return self._clean(images, measuring=False)

    @torch.no_grad()
    def measure(self, images: Tensor) -> None:
        """Measure the batch norm statistics for `forward` on images [M, sizes[0]], without corruption."""
        self._clean(images, measuring=True)

    def classify_corrupted(self, images: Tensor) -> Tensor:
        """Return the logits [N, classes] of the corrupted images, from which the supervised cost is computed."""
        logits, _ = self._corrupted(images)
        return logits

    def forward_both(self, labeled: Tensor, unlabeled: Tensor) -> tuple[Tensor, Tensor]:
        """Return (logits of the labeled batch, reconstructions of the unlabeled batch), both corrupted.

        Each batch is normalized by its own statistics. Both run through the encoder together, in one matrix product for
        each layer.

        Args:
            labeled: images [n, sizes[0]].
            unlabeled: images [m, sizes[0]].
        """
        rows = [len(labeled), len(unlabeled)]
        logits, values = self._corrupted(torch.cat([labeled, unlabeled]), rows)
        below = [value[rows[0] :] for value in values]
        return logits[: rows[0]], self._decode(logits[rows[0] :], below)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Return the denoised images [N, sizes[0]], from which the energy is computed."""
        return self._decode(*self._corrupted(images))

    def _corrupted(self, images: Tensor, rows: list[int] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return the logits, and the corrupted values of each layer before its activation, from the pixels up.

        Args:
            images: [N, sizes[0]].
            rows: the lengths of the parts of the batch that are normalized separately. None: all rows together.
        """
        hidden = self.noisy(images)
        values = [hidden]
        last = len(self.up) - 1
        for layer, (weight, shift) in enumerate(zip(self.up, self.shift, strict=True)):
            value = self.noisy(_normalized(functional.linear(hidden, weight), rows))
            values.append(value)
            hidden = (value + shift) * self.top_scale if layer == last else functional.relu(value + shift)
        return hidden, values

    def _decode(self, logits: Tensor, values: list[Tensor]) -> Tensor:
        above = _normalized(logits.softmax(1))
        estimate = combined(values[-1], above, self.combinators[-1])
        for layer in reversed(range(len(self.down))):
            above = _normalized(functional.linear(estimate, self.down[layer]))
            estimate = combined(values[layer], above, self.combinators[layer])
        return estimate

    def _clean(self, images: Tensor, measuring: bool) -> Tensor:
        hidden = images
        last = len(self.up) - 1
        for layer, (weight, shift) in enumerate(zip(self.up, self.shift, strict=True)):
            value = functional.linear(hidden, weight)
            mean, variance = self.get_buffer(f"mean{layer}"), self.get_buffer(f"variance{layer}")
            if measuring:
                mean.copy_(value.mean(0))
                variance.copy_(value.var(0, correction=0))
            value = functional.batch_norm(value, mean, variance, eps=_EPSILON) + shift
            hidden = value * self.top_scale if layer == last else functional.relu(value)
        return hidden

    def noisy(self, values: Tensor) -> Tensor:
        """Return the values plus newly drawn noise, the corruption that every layer adds in training."""
        noise = torch.randn(values.shape, generator=self.generator, dtype=values.dtype, device=values.device)
        return torch.add(values, noise, alpha=self.noise_std)

    def _weights(self, rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=self.generator) / math.sqrt(columns)


def _normalized(values: Tensor, rows: list[int] | None = None) -> Tensor:
    """Return each feature minus its mean, divided by its standard deviation, in the batch or in each of its parts."""
    parts = [values] if rows is None else values.split(rows)
    normalized = [functional.batch_norm(part, None, None, training=True, eps=_EPSILON) for part in parts]
    return normalized[0] if rows is None else torch.cat(normalized)


def combined(value: Tensor, above: Tensor, a: Tensor) -> Tensor:
    """Return a combinator's estimate (value - mean) * slope + mean, [N, width].

    With u for the signal from above, the mean is a1 sigmoid(a2 u + a3) + a4 u + a5. The slope is the same formula with
    a6 to a10.

    Args:
        value: the corrupted values, [N, width].
        above: the signal from the layer above, [N, width].
        a: the coefficients a1 to a10 of each unit, [10, width].
    """
    # unbind's gradient is a single stack. The gradient of each a[i] would be a matrix [10, width] of zeros except for
    # one row, and ten such matrices would be added.
    a1, a2, a3, a4, a5, a6, a7, a8, a9, a10 = a.unbind(0)
    mean = a1 * torch.sigmoid(a2 * above + a3) + torch.addcmul(a5, a4, above)
    slope = a6 * torch.sigmoid(a7 * above + a8) + torch.addcmul(a10, a9, above)
    return torch.addcmul(mean, value - mean, slope)

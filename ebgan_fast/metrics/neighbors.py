"""Find the training images nearest to a sample: they show if a generator makes new images or copies training images."""

from __future__ import annotations

import torch
from torch import Tensor

from .._progress import Progress
from .image_scorer import ImageScorer


def nearest(features: Tensor, real_features: Tensor, count: int, *, at_once: int = 4096) -> tuple[Tensor, Tensor]:
    """Find the real samples nearest to each generated one, by the Euclidean distance of features.

    Args:
        features: the features of the generated samples, [n, d].
        real_features: the features of the real samples, [m, d], on any device.
        count: the number of real samples to find for each generated one, 1 to m.
        at_once: real samples that are compared at a time: the distances of 10,000 samples to 50,000 would take 2 GB.

    Returns:
        (indices int64, distances), each [n, count] on the device of `features`, the nearest first.

    Raises:
        ValueError: `count` is outside 1 to m, or `at_once` is below 1.

    Example:
        >>> import torch
        >>> from ebgan_fast.metrics import nearest
        >>> real = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
        >>> indices, distances = nearest(torch.tensor([[0.0, 0.0]]), real, count=2)
        >>> indices.tolist(), distances.tolist()
        ([[0, 2]], [[0.0, 1.0]])
    """
    if not 1 <= count <= len(real_features):
        raise ValueError(f"count: got {count}, expected 1 to {len(real_features)}, the number of real images")
    if at_once < 1:
        raise ValueError(f"at_once: got {at_once}, expected at least 1")
    indices = torch.empty(len(features), 0, dtype=torch.int64, device=features.device)
    distances = features.new_empty(len(features), 0)
    for first in range(0, len(real_features), at_once):
        part = real_features[first : first + at_once].to(features.device)
        # Without the dot product, which would lose the digits of small distances.
        further = torch.cdist(features, part, compute_mode="donot_use_mm_for_euclid_dist")
        places = torch.arange(first, first + len(part), device=features.device).expand(len(features), -1)
        distances, indices = torch.cat((distances, further), 1), torch.cat((indices, places), 1)
        kept = distances.topk(min(count, distances.shape[1]), dim=1, largest=False, sorted=True)
        distances, indices = kept.values, indices.gather(1, kept.indices)
    return indices, distances


def neighbor_rows(scorer: ImageScorer, samples: Tensor, count: int, progress: Progress | None = None) -> Tensor:
    """Return the rows of a picture, each with a sample and the training images nearest to it.

    Args:
        scorer: a scorer with the training images.
        samples: generated images, uint8 [n, C, H, W].
        count: the number of training images in a row. If there are fewer training images, a row holds them all.
        progress: called with the progress of computing the training images' features.

    Returns:
        The images of all rows, uint8 [n * (1 + count), C, H, W] on the CPU, row by row.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from ebgan_fast.data import TensorImages
        >>> from ebgan_fast.metrics import FeatureNet, ImageScorer, neighbor_rows
        >>> pixels = FeatureNet(torch.nn.Flatten(), label="FD (pixels)", key="pixels", num_features=12)
        >>> real = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 2, 2)  # five shades
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scorer = ImageScorer(pixels, TensorImages(real), cache_folder=Path(folder))
        ...     rows = neighbor_rows(scorer, samples=real[:1], count=2)
        >>> rows[:, 0, 0, 0].tolist()  # the sample, which is the first shade, and the two nearest to it
        [0, 0, 1]
    """
    real = scorer.real_features(progress)
    count = min(count, len(real))
    places, _ = nearest(scorer.features(samples), real, count)
    images = scorer.images.gather(scorer.chosen[places.flatten().cpu()]).cpu().unflatten(0, (len(samples), count))
    return torch.cat((samples.cpu()[:, None], images), dim=1).flatten(0, 1)

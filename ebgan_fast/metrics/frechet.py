"""How far generated images are from real ones: Frechet distance and kernel distance of a net's features."""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import cache
from .features import FeatureNet

if TYPE_CHECKING:
    from ..data.image_set import ImageSet

Progress = Callable[[float, str], None]

_BATCH = 64
_MOST_REAL = 50_000  # what is usual for published figures
_KID_SUBSETS = 100
_KID_SUBSET_SIZE = 1000
_CACHE_VERSION = 1  # of what is done to an image before its features are kept: count up when they change


@dataclass(frozen=True)
class ImageScore:
    """Distances of generated images from training images; 0 is best."""

    features: str
    """What the distance is called, with the net that it is taken by."""
    samples: int
    """Generated images."""
    real_images: int
    """Training images that they were compared with."""
    fd: float
    """Frechet distance of the two sets' features, as Gaussians. Fewer samples than a few times the features' number
    make it larger: compare only figures of as many samples."""
    kid: float
    """Kernel distance (maximum mean discrepancy, squared, by (x.y/d + 1)^3): the mean over 100 subsets. Unbiased."""
    kid_std: float
    """Standard deviation of that over the subsets; 0 where a subset holds all images of both sets."""
    kid_subset_size: int
    """Images of each set in a subset: 1,000, or the smaller set's size if that is less."""


class ImageScorer:
    """Compares generated images with one set of real ones, whose features are computed once and cached on disk.

    Args:
        net: what the images are compared by; on the device where it is to run.
        images: the real images. Of more than `most_real`, as many are chosen by a fixed seed.
        progress: told how far their features are, as (share done, text).
        most_real: real images to compare with.
        cache_folder: where features are kept; see `cache.cache_folder`.

    Raises:
        ValueError: torchmetrics isn't installed.
    """

    def __init__(
        self,
        net: FeatureNet,
        images: ImageSet,
        *,
        progress: Progress | None = None,
        most_real: int = _MOST_REAL,
        cache_folder: Path | None = None,
    ) -> None:
        self._frechet, self._kernel = _torchmetrics()
        self.net = net
        self.images = images
        self.chosen = _chosen(len(images), most_real)
        report = progress or (lambda share, text: None)
        self.real_features = self._cached_features(report, cache_folder)

    def score(self, generated: Tensor | Iterable[Tensor], seed: int = 0) -> ImageScore:
        """Score generated images.

        Args:
            generated: uint8 [N, C, H, W], or batches of them; their order doesn't matter but for which images share a
                subset of KID.
            seed: of those subsets.

        Raises:
            TypeError: images that aren't uint8.
            ValueError: another shape, fewer than two images, or features that aren't finite.
        """
        batches = generated.split(_BATCH) if isinstance(generated, Tensor) else generated
        found = [self.features(batch) for batch in batches if len(batch) > 0]
        samples = sum(map(len, found))
        if samples < 2:
            raise ValueError(f"samples: got {samples}, expected at least 2")
        features = torch.cat(found)
        if not features.isfinite().all():
            raise ValueError("got generated images whose features aren't finite, expected finite ones")
        subset = min(_KID_SUBSET_SIZE, samples, len(self.real_features))
        kid, kid_std = self._kid(features, subset, seed)
        return ImageScore(
            features=self.net.label,
            samples=samples,
            real_images=len(self.real_features),
            fd=self._fd(features),
            kid=kid,
            kid_std=kid_std,
            kid_subset_size=subset,
        )

    def features(self, images: Tensor) -> Tensor:
        """Features float32 [B, d] on the CPU of uint8 images [B, C, H, W]; a grey one stands for three equal colours.

        Raises:
            TypeError: images that aren't uint8.
            ValueError: another number of dimensions, or C that isn't 1 or 3.
        """
        if images.dtype != torch.uint8:
            raise TypeError(f"got {images.dtype} images, expected uint8; ebgan_fast.data.to_pixels makes them")
        if images.dim() != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"got images of shape {list(images.shape)}, expected [N, C, H, W] with C of 1 or 3")
        colours = images if images.shape[1] == 3 else images.expand(-1, 3, -1, -1)
        found: Tensor = self.net(colours.to(_device_of(self.net))).cpu()
        return found

    def _fd(self, features: Tensor) -> float:
        distance = self._frechet(feature=_Given(features.shape[1])).set_dtype(torch.float64)
        distance.update(self.real_features.double(), real=True)
        distance.update(features.double(), real=False)
        return float(distance.compute())

    def _kid(self, features: Tensor, subset: int, seed: int) -> tuple[float, float]:
        with warnings.catch_warnings():
            # Features in memory: 512 MB for 50,000 of 1280.
            warnings.filterwarnings("ignore", message=".*will save all extracted features in buffer")
            distance = self._kernel(feature=_Given(features.shape[1]), subsets=_KID_SUBSETS, subset_size=subset)
        distance.update(self.real_features.double(), real=True)
        distance.update(features.double(), real=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # torchmetrics draws the subsets from the global random numbers
            mean, std = distance.compute()
        return float(mean), float(std)

    def _cached_features(self, report: Progress, folder: Path | None) -> Tensor:
        names = (_CACHE_VERSION, self.images.fingerprint, self.net.key, len(self.chosen))
        key = hashlib.sha256(repr(names).encode()).hexdigest()[:16]
        path = cache.cache_folder(folder) / f"features-{key}.pt"
        with cache.locked(path, lambda: report(0.0, "waiting for another process")):
            kept = cache.read(path)
            if kept is None:
                kept = {"features": self._real_features(report)}
                cache.write(path, kept)
        features: Tensor = kept["features"]
        return features

    def _real_features(self, report: Progress) -> Tensor:
        found = []
        for indices in self.chosen.split(_BATCH):
            found.append(self.features(self.images.gather(indices)))
            done = (len(found) - 1) * _BATCH + len(indices)
            report(done / len(self.chosen), f"{done} of {len(self.chosen)} images")
        return torch.cat(found)


class _Given(torch.nn.Module):
    """Stands where torchmetrics wants a net: the features are computed already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _device_of(net: torch.nn.Module) -> torch.device:
    """Where it runs; a scripted net may hold its weights as buffers."""
    tensors = itertools.chain(net.parameters(), net.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def _chosen(count: int, most: int) -> Tensor:
    """Indices of the real images to compare with, ascending."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].sort().values


def _torchmetrics() -> tuple[Any, Any]:
    """The classes of the two distances."""
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.kid import KernelInceptionDistance
    except ImportError as error:
        raise ValueError("scores of images need torchmetrics: pip install 'ebgan_fast[scores]'") from error
    return FrechetInceptionDistance, KernelInceptionDistance

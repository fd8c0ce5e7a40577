"""Compute distances of generated images from real ones: the Frechet and the kernel distance of a net's features."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._fitting import check_fits
from .._progress import Progress
from . import cache
from .batches import most_at_once
from .features import FeatureNet, colors, device_of, distances_on
from .frechet import Gaussian, frechet_distance, gaussian
from .kid import kernel_distance

if TYPE_CHECKING:
    from ..data.image_set import ImageSet

# Images at a time in the feature net. On a CPU few are as fast as many, and a signal is noticed after some two seconds.
_MOST_ON_GPU, _MOST = 500, 50
_NET_BYTES = 16 << 20  # bytes an image takes: 10 MB in EfficientNet-Lite0 (two maps of 96 x 112 x 112), 12 in Inception
_MOST_REAL = 50_000  # the usual number for published figures
_SECONDS_KEPT = 60.0  # seconds between two writes of unfinished features
CACHE_VERSION = 1  # count up when the computation from an image to its features changes


@dataclass(frozen=True)
class ImageScore:
    """The distances of generated images from training images. 0 is best.

    Example:
        >>> from ebgan_fast.metrics import ImageScore
        >>> found = ImageScore(
        ...     "FD (pixels)", samples=50, real_images=80, fd=3.25, kid=0.5, kid_std=0.1, kid_subset_size=50
        ... )
        >>> f"{found.features} {found.fd} of {found.samples} samples"
        'FD (pixels) 3.25 of 50 samples'
    """

    features: str
    """The name of the Frechet distance, which includes the net's name, such as "FD (EfficientNet-Lite0)"."""
    samples: int
    """The number of generated images."""
    real_images: int
    """The number of training images in the comparison."""
    fd: float
    """The Frechet distance of the Gaussians of both sets' features. It is larger if there are fewer samples than a few
    times the number of features: compare only distances of equally many samples."""
    kid: float
    """The kernel distance, the squared maximum mean discrepancy by (x.y/d + 1)^3, as the mean over 100 subsets. It is
    unbiased."""
    kid_std: float
    """The standard deviation of the kernel distance over the subsets; 0 if a subset holds all images of both sets."""
    kid_subset_size: int
    """The number of images of each set in a subset: the scorer's setting, or the smaller set's size if that is less."""


class ImageScorer:
    """A scorer that compares generated images with one set of real images.

    The features of the real images are computed once and cached on disk. The net runs on its device. The distances are
    computed in float64, on the same device if it is a CUDA device, else on the CPU.

    Args:
        net: the net whose features are compared, on the device where it is to run.
        images: the real images. If there are more than `most_real`, so many are chosen by a fixed seed.
        most_real: the largest number of real images in the comparison.
        kid_subset_size: the number of images of each set in one of KID's subsets, if both sets have so many.
        cache_folder: the folder that keeps the features; None: see `cache.cache_folder`.

    Raises:
        ValueError: `kid_subset_size` is below 2.

    Example:
        Images of noise and brighter images, compared by their pixels:

        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from ebgan_fast.data import TensorImages
        >>> from ebgan_fast.metrics import FeatureNet, ImageScorer
        >>> pixels = FeatureNet(torch.nn.Flatten(), label="FD (pixels)", key="pixels", num_features=12)
        >>> draw = torch.Generator().manual_seed(0)
        >>> real, same = torch.randint(100, 120, (2, 60, 3, 2, 2), dtype=torch.uint8, generator=draw)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scorer = ImageScorer(pixels, TensorImages(real), cache_folder=Path(folder))
        ...     near, far = scorer.score(same), scorer.score(same + 10)
        >>> near.samples, near.fd < far.fd, near.kid < far.kid
        (60, True, True)
    """

    def __init__(
        self,
        net: FeatureNet,
        images: ImageSet,
        *,
        most_real: int = _MOST_REAL,
        kid_subset_size: int = 1000,
        cache_folder: Path | None = None,
    ) -> None:
        if kid_subset_size < 2:
            raise ValueError(f"kid_subset_size: got {kid_subset_size}, expected at least 2, a pair of images")
        self.net = net
        self.images = images
        self.chosen = _chosen(len(images), most_real)
        self.kid_subset_size = kid_subset_size
        self._cache_folder = cache_folder
        self._real: Tensor | None = None
        self._real_gaussian: Gaussian | None = None

    def check(self) -> None:
        """Raise any error now that would otherwise end the first score: try the cache folder and the net on two images.

        Raises:
            ValueError: the folder can't be written, or the net doesn't return finite features [2, d] for two images.
        """
        cache.check_folder(self._cache_folder)
        indices = self.chosen[:2]
        _, height, width = self.images.shape
        given = f"of images of {height} x {width}"
        expected = f"expected finite features [{len(indices)}, d]"
        try:
            found = self.features(self.images.gather(indices))
        except RuntimeError as error:  # also raised by scripted nets
            reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise ValueError(f"{self.net.label}: got an error {given} ({reason[0]}), {expected}") from error
        if found.dim() != 2 or len(found) != len(indices):
            raise ValueError(f"{self.net.label}: got features {list(found.shape)} {given}, {expected}")
        if not found.isfinite().all():
            raise ValueError(f"{self.net.label}: got features {given} that aren't finite, {expected}")

    def score(
        self, generated: Tensor | Iterable[Tensor], seed: int = 0, progress: Progress | None = None
    ) -> ImageScore:
        """Score generated images.

        Args:
            generated: the generated images, uint8 [N, C, H, W], or batches of them. Their order only decides which
                images share a subset of KID.
            seed: the seed of these subsets.
            progress: called with the progress of the real images' features, and then of the distances.

        Raises:
            TypeError: the images aren't uint8.
            ValueError: the images have another shape, there are fewer than two real or generated ones, or features
                aren't finite.
        """
        real = self.real_features(progress)
        if len(real) < 2:
            raise ValueError(f"training images: got {len(real)}, expected at least 2")
        batches = [generated] if isinstance(generated, Tensor) else generated
        found = [self.features(part) for batch in batches if len(batch) > 0 for part in batch.split(self._at_once())]
        samples = sum(map(len, found))
        if samples < 2:
            raise ValueError(f"samples: got {samples}, expected at least 2")
        features = torch.cat(found)
        _check_finite(features, "generated images")
        real = real.to(features.device)
        if self._real_gaussian is None:
            self._real_gaussian = gaussian(real, _counted(progress, "Frechet distance: {} of {} training images"))
        found_gaussian = gaussian(features, _counted(progress, "Frechet distance: {} of {} generated images"))
        subset = min(self.kid_subset_size, samples, len(real))
        kid, kid_std = kernel_distance(
            real, features, subset, seed, _counted(progress, "kernel distance: {} of {} subsets")
        )
        return ImageScore(
            features=self.net.label,
            samples=samples,
            real_images=len(real),
            fd=frechet_distance(self._real_gaussian, found_gaussian),
            kid=kid,
            kid_std=kid_std,
            kid_subset_size=subset,
        )

    def features(self, images: Tensor) -> Tensor:
        """Return the features, float32 [B, d], of uint8 images [B, C, H, W]. The channel of a gray image is repeated.

        The features lie where distances are computed: on the net's device if that is a CUDA device, else on the CPU.

        Raises:
            TypeError: the images aren't uint8.
            ValueError: the images have another number of dimensions, or C isn't 1 or 3.
        """
        found: Tensor = self.net(colors(images).to(device_of(self.net)))
        return found.to(distances_on(found.device))

    def real_features(self, progress: Progress | None = None) -> Tensor:
        """Return the features of the chosen real images, float32 [M, d] on the CPU: from the cache, or computed once.

        Args:
            progress: called with the progress of the features.

        Raises:
            ValueError: features aren't finite, or the cache folder can't be made.
            OSError: the cache folder can't be written.
        """
        if self._real is None:
            self._real = self._cached(progress or (lambda share, text: None))
        return self._real

    def _cached(self, report: Progress) -> Tensor:
        names = (CACHE_VERSION, self.images.fingerprint, self.net.key, len(self.chosen))
        key = hashlib.sha256(repr(names).encode()).hexdigest()[:16]
        path = cache.cache_folder(self._cache_folder) / f"features-{key}.pt"
        with cache.locked(path, lambda: report(0.0, "training images: waiting for another process")):
            kept = cache.read(path, lambda content: self._check_kept(content, whole=True))
            if kept is None:
                begun = path.with_suffix(".part")
                computed = self._computed(report, begun)
                _check_finite(computed, "training images")
                kept = {"features": computed}
                cache.write(path, kept)
                begun.unlink(missing_ok=True)
        features: Tensor = kept["features"]
        return features

    def _check_kept(self, content: dict[str, Tensor], *, whole: bool) -> None:
        """Raise a ValueError if a cache file doesn't hold features of all images (`whole`), or of the first images."""
        total = len(self.chosen)
        rows = total if whole else min(len(content["features"]), total)
        check_fits(content, {"features": torch.empty(rows, self.net.num_features, device="meta")}, "features")

    def _computed(self, report: Progress, begun: Path) -> Tensor:
        """Return the features of the real images, continuing from those that an interrupted call has left in `begun`.

        If this call is interrupted, it writes its features there too. If the process is killed, at most a minute's work
        is lost.
        """
        total = len(self.chosen)
        before = cache.read(begun, lambda content: self._check_kept(content, whole=False))
        found = [before["features"]] if before else []
        done = sum(map(len, found))
        kept_at = time.monotonic()
        try:
            while done < total:
                report(done / total, f"training images: {done} of {total}")
                indices = self.chosen[done : done + self._at_once()]
                found.append(self.features(self.images.gather(indices)).cpu())
                done += len(indices)
                if time.monotonic() - kept_at >= _SECONDS_KEPT:
                    _keep(begun, found)
                    kept_at = time.monotonic()
            report(1.0, f"training images: {total} of {total}")
        except BaseException:
            if done:
                _keep(begun, found)
            raise
        return torch.cat(found)

    def _at_once(self) -> int:
        device = device_of(self.net)
        return most_at_once(device, _NET_BYTES, _MOST_ON_GPU if device.type == "cuda" else _MOST)


def _counted(progress: Progress | None, text: str) -> Callable[[int, int], None]:
    """Return a function of (done, total) that reports them to `progress`. The text has a place {} for each."""
    report = progress or (lambda share, text: None)
    return lambda done, total: report(done / total, text.format(done, total))


def _keep(begun: Path, found: list[Tensor]) -> None:
    """Write the unfinished features to a file, and only warn if this fails.

    Then the next call takes longer, and an error that is being raised isn't hidden.
    """
    try:
        cache.write(begun, {"features": torch.cat(found)})
    except (OSError, RuntimeError) as error:
        warnings.warn(f"{begun}: unfinished features can't be kept ({error})", stacklevel=2)


def _check_finite(features: Tensor, what: str) -> None:
    if not features.isfinite().all():
        raise ValueError(f"got {what} whose features aren't finite, expected finite ones")


def _chosen(count: int, most: int) -> Tensor:
    """Return the indices of the real images in the comparison, at most `most`, ascending."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:most].sort().values

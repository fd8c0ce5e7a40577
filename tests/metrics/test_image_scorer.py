from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ebgan_fast.data import TensorImages
from ebgan_fast.metrics import cache
from ebgan_fast.metrics.features import FeatureNet, distances_on
from ebgan_fast.metrics.frechet import frechet_distance, gaussian
from ebgan_fast.metrics.image_scorer import ImageScorer
from ebgan_fast.metrics.kid import kernel_distance
from ebgan_fast.metrics.neighbors import nearest, neighbor_rows
from ebgan_fast.training.parallel import StoppedError
from tests.ops.budget import ULPS

from .test_frechet import rounding
from .test_kernel_distance import kid_rounding, plain_kid

D = 12


def pixels_as_features(images: Tensor) -> Tensor:
    """Return the 12 values of each 3 x 2 x 2 image, divided by 64, as features [N, 12]."""
    return images.flatten(1).double() / 64


def net() -> FeatureNet:
    return FeatureNet(pixels_as_features, "FD (pixels)", "pixels", D)


def noise(count: int, seed: int, center: float = 128.0, spread: float = 20.0) -> Tensor:
    """Return images of noise, uint8 [count, 3, 2, 2], correlated along the rows."""
    rng = torch.Generator().manual_seed(seed)
    values = torch.randn(count, 3, 2, 2, generator=rng)
    values[..., 1] += 0.5 * values[..., 0]
    return (values * spread + center).round().clamp(0, 255).to(torch.uint8)


def scorer(tmp_path: Path, images: Tensor, **options: int) -> ImageScorer:
    return ImageScorer(net(), TensorImages(images), cache_folder=tmp_path, **options)


def test_a_score_is_of_both_distances(tmp_path: Path) -> None:
    real, fake = noise(200, 0), noise(200, 1, 140.0, 30.0)
    found = scorer(tmp_path, real).score(fake.split(64))
    assert (found.features, found.samples, found.real_images) == ("FD (pixels)", 200, 200)
    a, b = pixels_as_features(real).float(), pixels_as_features(fake).float()
    assert found.fd == frechet_distance(gaussian(a), gaussian(b))
    assert found.kid_subset_size == 200
    assert (found.kid, found.kid_std) == kernel_distance(a, b, 200, 0)


def test_the_distance_of_known_gaussians(tmp_path: Path) -> None:
    """A set shifted by m and s times as wide has the distance |m|^2 + (s - 1)^2 tr(C) for any covariance C.

    The only error is that of rounding to bytes.
    """
    values = torch.randn(500, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    values[..., 1] += 0.5 * values[..., 0]  # so that the covariance has other entries than its diagonal
    values -= values.mean(0)
    real, fake = ((values * spread + 128).round().to(torch.uint8) for spread in (12.0, 24.0))
    shift = torch.tensor([9.0, 0.0, -5.0])[:, None, None]
    moved = (values * 24.0 + 128 + shift).round().clamp(0, 255).to(torch.uint8)
    trace = float(values.flatten(1).double().T.cov().trace()) * (12 / 64) ** 2
    real_scorer = scorer(tmp_path, real)
    # A rounded byte has an error of up to a half: a standard deviation of 0.29 beside 12.
    assert real_scorer.score(fake).fd == pytest.approx(trace, rel=2e-3)
    length = 4 * float(shift.square().sum()) / 64**2
    assert real_scorer.score(moved).fd == pytest.approx(trace + length, rel=2e-3)


def test_a_set_is_at_no_distance_from_itself(tmp_path: Path) -> None:
    real = noise(300, 0)
    features = pixels_as_features(real)
    found = scorer(tmp_path, real).score([real])
    assert abs(found.fd) < rounding(features, features)
    assert found.kid == pytest.approx(plain_kid(features, features), abs=kid_rounding(features, features))
    assert -0.1 < found.kid < 0  # the unbiased estimate is below 0, because pairs of a sample with itself are left out
    near, far = (scorer(tmp_path, real).score([noise(300, 1, center)]).fd for center in (128.0, 150.0))
    assert near < 0.1 < far


def test_order_and_batches_do_not_matter(tmp_path: Path) -> None:
    images, fake = noise(90, 0), noise(70, 1, 150.0)
    real = scorer(tmp_path, images)
    one, other = real.score(fake.split(7)), real.score([fake])
    assert one == other == real.score(fake)
    bound = 2 * rounding(pixels_as_features(images), pixels_as_features(fake))
    assert real.score([fake.flip(0)]).fd == pytest.approx(one.fd, abs=bound)


def test_subsets_are_drawn_by_the_seed(tmp_path: Path) -> None:
    real, fake = scorer(tmp_path, noise(90, 0), kid_subset_size=20), noise(70, 1, 150.0)
    first = real.score([fake], seed=1)
    assert first.kid_subset_size == 20
    assert real.score([fake], seed=1) == first
    assert real.score([fake], seed=2).kid != first.kid
    # Unbiased: about the whole sets' value, within five standard errors of the mean of 100.
    whole = plain_kid(pixels_as_features(noise(90, 0)[:70]), pixels_as_features(fake))
    assert abs(first.kid - whole) < 5 * first.kid_std / math.sqrt(100) + 0.3 * first.kid


def test_gray_images_stand_for_equal_colors(tmp_path: Path) -> None:
    gray = noise(50, 0)[:, :1]
    found = ImageScorer(net(), TensorImages(gray), cache_folder=tmp_path).real_features()
    assert torch.equal(found, pixels_as_features(gray.repeat(1, 3, 1, 1)).float().double().float())


class Counted:
    """A net that records the number of images in each call."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.calls.append(len(images))
        return pixels_as_features(images)

    def scorer(self, tmp_path: Path, images: Tensor, key: str = "pixels") -> ImageScorer:
        return ImageScorer(FeatureNet(self, "FD", key, D), TensorImages(images), cache_folder=tmp_path)


def test_real_features_are_computed_once_and_not_before_they_are_needed(tmp_path: Path) -> None:
    net = Counted()
    told: list[tuple[float, str]] = []
    first = net.scorer(tmp_path, noise(125, 0))
    assert net.calls == []
    features = first.real_features(lambda share, text: told.append((share, text)))
    assert net.calls == [50, 50, 25]
    assert told == [
        (0.0, "training images: 0 of 125"),
        (0.4, "training images: 50 of 125"),
        (0.8, "training images: 100 of 125"),
        (1.0, "training images: 125 of 125"),
    ]
    assert torch.equal(first.real_features(), features)
    assert torch.equal(net.scorer(tmp_path, noise(125, 0)).real_features(), features)
    assert len(net.calls) == 3
    net.scorer(tmp_path, noise(125, 1)).real_features()
    net.scorer(tmp_path, noise(125, 0), key="other weights").real_features()
    assert len(net.calls) == 9
    first.score(noise(80, 2))
    assert net.calls[9:] == [50, 30]


@pytest.mark.parametrize("stop_at", [0.0, 0.4, 0.8, 1.0])
def test_what_an_interrupted_computation_has_done_is_kept(tmp_path: Path, stop_at: float) -> None:
    class Interrupted(BaseException):
        pass

    def stop(share: float, text: str) -> None:
        if share >= stop_at:
            raise Interrupted

    images, net = noise(125, 0), Counted()
    with pytest.raises(Interrupted):
        net.scorer(tmp_path, images).real_features(stop)
    assert sum(net.calls) == round(stop_at * 125)
    assert not list(tmp_path.glob("*.pt"))
    found = net.scorer(tmp_path, images).real_features()
    assert sum(net.calls) == 125
    assert torch.equal(found, pixels_as_features(images).float())
    assert [path.suffix for path in tmp_path.iterdir() if path.suffix != ".lock"] == [".pt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StoppedError(15)])
def test_a_full_disk_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def stop(share: float, text: str) -> None:
        if share == 0.4:
            raise error

    def full(path: Path, content: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("ebgan_fast.metrics.cache.write", full)
    with pytest.warns(UserWarning, match="unfinished features can't be kept .no space"), pytest.raises(type(error)):
        scorer(tmp_path, noise(125, 0)).real_features(stop)


def test_a_killed_computation_loses_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a batch takes half a minute, the features are written after every second batch."""
    seconds = 0.0
    monkeypatch.setattr("ebgan_fast.metrics.image_scorer.time.monotonic", lambda: seconds)
    kept: list[int] = []

    def look(share: float, text: str) -> None:
        nonlocal seconds
        seconds += 30
        kept.append(sum(len(cache.read(path)["features"]) for path in tmp_path.glob("*.part")))  # type: ignore[index]

    images = noise(270, 0)
    found = scorer(tmp_path, images).real_features(look)
    assert kept == [0, 0, 100, 100, 200, 200, 270]
    assert torch.equal(found, pixels_as_features(images).float())


def test_a_batch_shrinks_where_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image takes 16 MB, and only a quarter of the memory may be used."""
    pages = {"SC_PHYS_PAGES": 64 * 30, "SC_PAGE_SIZE": 1 << 20}
    monkeypatch.setattr("os.sysconf", pages.__getitem__)
    net = Counted()
    net.scorer(tmp_path, noise(70, 0)).score([noise(40, 1), noise(5, 2)])
    assert net.calls == [30, 30, 10, 30, 10, 5]


def test_features_kept_by_another_version_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer(tmp_path, noise(10, 0)).real_features()
    monkeypatch.setattr("ebgan_fast.metrics.image_scorer.CACHE_VERSION", -1)
    scorer(tmp_path, noise(10, 0)).real_features()
    assert len(list(tmp_path.glob("*.pt"))) == 2


def test_scores_warn_of_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer(tmp_path, noise(20, 0)).score(noise(20, 1))


class Sited(nn.Module):
    """A net that records the device of the images in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.device] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.device)
        return torch.zeros(len(images), D)


def test_where_a_net_runs(tmp_path: Path) -> None:
    """A net runs on the device of its weights, which may be buffers in a scripted net."""
    meta, cpu = torch.device("meta"), torch.device("cpu")
    parameters, buffers, neither = Sited(), Sited(), Sited()
    parameters.weight = nn.Parameter(torch.empty(3, device=meta))
    buffers.register_buffer("weight", torch.empty(3, device=meta))
    for sited, expected in ((parameters, meta), (buffers, meta), (neither, cpu)):
        ImageScorer(FeatureNet(sited, "FD", "key", D), TensorImages(noise(2, 0)), cache_folder=tmp_path).check()
        assert sited.seen == [expected]


def test_many_real_images_are_thinned_out(tmp_path: Path) -> None:
    images = noise(100, 0)
    few = scorer(tmp_path, images, most_real=30)
    assert few.real_features().shape == (30, D)
    assert few.chosen.tolist() == sorted(set(few.chosen.tolist()))
    assert few.chosen.tolist() != list(range(30))
    assert torch.equal(few.real_features(), pixels_as_features(images[few.chosen]).float())
    assert torch.equal(scorer(tmp_path, images, most_real=30).chosen, few.chosen)


def test_what_cannot_be_scored(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kid_subset_size: got 1, expected at least 2"):
        scorer(tmp_path, noise(20, 0), kid_subset_size=1)
    real = scorer(tmp_path, noise(20, 0))
    with pytest.raises(ValueError, match="samples: got 1, expected at least 2"):
        real.score([noise(1, 1)])
    for none in ([], [noise(5, 1)[:0]], noise(5, 1)[:0]):
        with pytest.raises(ValueError, match="samples: got 0, expected at least 2"):
            real.score(none)
    with pytest.raises(TypeError, match=r"got torch\.float32 images, expected uint8"):
        real.score(noise(5, 1) / 127.5 - 1)
    for images in (noise(5, 1)[:, :2], noise(5, 1)[0], noise(5, 1).repeat(1, 2, 1, 1)):
        with pytest.raises(ValueError, match=r"got images of shape .*expected \[N, C, H, W\] with C of 1 or 3"):
            real.score([images])
    real.net.net = lambda images: pixels_as_features(images) * float("nan")
    with pytest.raises(ValueError, match="features aren't finite"):
        real.score([noise(5, 1)])


def test_training_images_that_cannot_be_compared_with(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="training images: got 1, expected at least 2"):
        scorer(tmp_path, noise(1, 0)).score(noise(5, 1))
    blind = FeatureNet(lambda images: pixels_as_features(images) * float("nan"), "FD", "blind", D)
    for _ in range(2):
        with pytest.raises(ValueError, match="got training images whose features aren't finite"):
            ImageScorer(blind, TensorImages(noise(5, 0)), cache_folder=tmp_path).score(noise(5, 1))


def test_where_distances_are_taken() -> None:
    """Only a CUDA device computes distances itself: for example, Apple's GPUs have no float64."""
    assert [distances_on(torch.device(name)).type for name in ("cuda", "cpu", "mps", "xpu")] == [
        "cuda",
        "cpu",
        "cpu",
        "cpu",
    ]


def test_neighbors_are_the_nearest_first() -> None:
    real = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0], [10.0, 0.0]])
    places, distances = nearest(torch.tensor([[0.0, 0.25], [9.0, 0.0]]), real, 3)
    assert places.tolist() == [[0, 2, 1], [3, 1, 0]]
    assert distances[1].tolist() == pytest.approx([1.0, 52.0**0.5, 9.0], rel=ULPS * torch.finfo(torch.float32).eps)
    # Far from the origin the shortcut by dot products would lose a distance of 0.01 to rounding.
    far = torch.tensor([[1e4, 0.0], [1e4 + 0.01, 0.0]])
    assert nearest(far[:1] + torch.tensor([[0.0078125, 0.0]]), far, 1)[0].item() == 1
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"count: got {count}, expected 1 to 4"):
            nearest(real, real, count)
    with pytest.raises(ValueError, match="at_once: got 0, expected at least 1"):
        nearest(real, real, 1, at_once=0)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_neighbors_are_the_same_in_chunks(chunk: int) -> None:
    rng = torch.Generator().manual_seed(0)
    samples, real = torch.randn(5, 4, generator=rng), torch.randn(7, 4, generator=rng)
    exact = (samples[:, None].double() - real.double()).norm(dim=2).sort(dim=1)
    places, distances = nearest(samples, real, 3, at_once=chunk)
    assert torch.equal(places, exact.indices[:, :3])
    units = ULPS + math.log2(4) / 2  # a sum of 4 squares
    assert ((distances / exact.values[:, :3] - 1).abs() <= units * torch.finfo(torch.float32).eps).all()


def test_a_row_is_a_sample_and_its_neighbors(tmp_path: Path) -> None:
    images = noise(40, 0)
    real = scorer(tmp_path, images, most_real=25)
    samples = images[real.chosen[[7, 3]]]  # the nearest training image of each sample is the sample itself
    rows = neighbor_rows(real, samples, 2).unflatten(0, (2, 3))
    assert torch.equal(rows[:, 0], samples)
    assert torch.equal(rows[:, 1], samples)
    others = {tuple(image.flatten().tolist()) for image in images[real.chosen]}
    assert all(tuple(image.flatten().tolist()) in others for image in rows[:, 2])

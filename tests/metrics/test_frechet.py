from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ebgan_fast.data import TensorImages
from ebgan_fast.metrics.features import FeatureNet
from ebgan_fast.metrics.frechet import ImageScorer, _device_of
from ebgan_fast.metrics.neighbours import nearest, neighbour_rows
from tests.ops.budget import ULPS

D = 12
EPS = torch.finfo(torch.float64).eps


def pixels_as_features(images: Tensor) -> Tensor:
    """The 12 values of 3 x 2 x 2 images."""
    return images.flatten(1).double() / 64


def net() -> FeatureNet:
    return FeatureNet(pixels_as_features, "FD (pixels)", "pixels", D)


def noise(count: int, seed: int, centre: float = 128.0, spread: float = 20.0) -> Tensor:
    """uint8 [count, 3, 2, 2], correlated along the rows."""
    rng = torch.Generator().manual_seed(seed)
    values = torch.randn(count, 3, 2, 2, generator=rng)
    values[..., 1] += 0.5 * values[..., 0]
    return (values * spread + centre).round().clamp(0, 255).to(torch.uint8)


def scorer(tmp_path: Path, images: Tensor, most_real: int = 50_000) -> ImageScorer:
    return ImageScorer(net(), TensorImages(images), cache_folder=tmp_path, most_real=most_real)


def root_eigenvalues(a: Tensor, b: Tensor) -> Tensor:
    """The eigenvalues of sqrt(C1 C2), as the roots of those of sqrt(C1) C2 sqrt(C1)."""
    values, vectors = torch.linalg.eigh(a.T.cov())
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    return torch.linalg.eigvalsh(root @ b.T.cov() @ root).clamp_min(0).sqrt()


def plain_frechet(one: Tensor, other: Tensor) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 sqrt(C1 C2))."""
    a, b = pixels_as_features(one), pixels_as_features(other)
    traces = a.T.cov().trace() + b.T.cov().trace() - 2 * root_eigenvalues(a, b).sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + traces)


def frechet_rounding(one: Tensor, other: Tensor) -> float:
    """A first-order bound for the difference of two ways to the Frechet distance.

    A covariance may be taken as the difference of second moments. Their sums over N images are off by log2(N)/2 units
    and a few, which both traces and both sides of the root inherit. An eigenvalue is off by D units of the largest one,
    its root by that over twice the root.
    """
    a, b = pixels_as_features(one), pixels_as_features(other)
    moments = float(sum(features.square().sum(1).mean() for features in (a, b)))
    roots = root_eigenvalues(a, b)
    of_roots = float((D * roots.max() ** 2 / (2 * roots)).sum())
    return EPS * (4 * (math.log2(len(a)) / 2 + ULPS) * moments + 2 * of_roots)


def plain_kid(one: Tensor, other: Tensor) -> float:
    """Unbiased: pairs of different samples within a set, all pairs between the sets."""
    a, b = pixels_as_features(one), pixels_as_features(other)
    n = len(a)
    within = [((x @ x.T / D + 1) ** 3).fill_diagonal_(0).sum() / (n * (n - 1)) for x in (a, b)]
    return float(within[0] + within[1] - 2 * ((a @ b.T / D + 1) ** 3).mean())


def kid_rounding(one: Tensor, other: Tensor) -> float:
    """A first-order bound for the difference of two ways to the kernel distance.

    Both are differences of mean kernels. A kernel is the cube of a sum over D, and its mean a sum over N^2.
    """
    a, b = pixels_as_features(one), pixels_as_features(other)
    means = sum(float(((x @ y.T / D + 1) ** 3).mean()) for x, y in ((a, a), (b, b), (a, b), (a, b)))
    return 2 * EPS * (3 * math.log2(D) / 2 + math.log2(len(a)) + ULPS) * means


def test_distances_are_their_formulas(tmp_path: Path) -> None:
    real, fake = noise(200, 0), noise(200, 1, 140.0, 30.0)
    found = scorer(tmp_path, real).score(fake.split(64))
    assert (found.features, found.samples, found.real_images) == ("FD (pixels)", 200, 200)
    assert found.fd == pytest.approx(plain_frechet(real, fake), abs=frechet_rounding(real, fake))
    # Subsets of all samples are all the same one.
    assert found.kid_subset_size == 200
    assert found.kid == pytest.approx(plain_kid(real, fake), abs=kid_rounding(real, fake))
    assert found.kid_std < kid_rounding(real, fake)


def test_the_distance_of_known_gaussians(tmp_path: Path) -> None:
    """Shifted by m and s times as wide: |m|^2 + (s - 1)^2 tr(C), whatever the covariance C, up to rounding to bytes."""
    values = torch.randn(500, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    values[..., 1] += 0.5 * values[..., 0]  # so that the covariance has other entries than its diagonal
    values -= values.mean(0)
    real, fake = ((values * spread + 128).round().to(torch.uint8) for spread in (12.0, 24.0))
    shift = torch.tensor([9.0, 0.0, -5.0])[:, None, None]
    moved = (values * 24.0 + 128 + shift).round().clamp(0, 255).to(torch.uint8)
    trace = float(values.flatten(1).double().T.cov().trace()) * (12 / 64) ** 2
    real_scorer = scorer(tmp_path, real)
    # A rounded byte is off by up to half: a standard deviation of 0.29 beside 12.
    assert real_scorer.score(fake).fd == pytest.approx(trace, rel=2e-3)
    length = 4 * float(shift.square().sum()) / 64**2
    assert real_scorer.score(moved).fd == pytest.approx(trace + length, rel=2e-3)


def test_a_set_is_at_no_distance_from_itself(tmp_path: Path) -> None:
    real = noise(300, 0)
    found = scorer(tmp_path, real).score([real])
    assert abs(found.fd) < frechet_rounding(real, real)
    assert found.kid == pytest.approx(plain_kid(real, real), abs=kid_rounding(real, real))
    assert -0.1 < found.kid < 0  # unbiased, so below zero by what a sample and itself have in common
    near, far = (scorer(tmp_path, real).score([noise(300, 1, centre)]).fd for centre in (128.0, 150.0))
    assert near < 0.1 < far


def test_order_and_batches_do_not_matter(tmp_path: Path) -> None:
    images, fake = noise(90, 0), noise(70, 1, 150.0)
    real = scorer(tmp_path, images)
    one, other = real.score(fake.split(7)), real.score([fake])
    assert one == other == real.score(fake)
    assert real.score([fake.flip(0)]).fd == pytest.approx(one.fd, abs=frechet_rounding(images, fake))


def test_subsets_are_drawn_by_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ebgan_fast.metrics.frechet._KID_SUBSET_SIZE", 20)
    real, fake = scorer(tmp_path, noise(90, 0)), noise(70, 1, 150.0)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = real.score([fake], seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.kid_subset_size == 20
    assert real.score([fake], seed=1) == first
    assert real.score([fake], seed=2).kid != first.kid
    # Unbiased: about the whole sets' value, within five standard errors of the mean of 100.
    assert abs(first.kid - plain_kid(noise(90, 0)[:70], fake)) < 5 * first.kid_std / math.sqrt(100) + 0.3 * first.kid


def test_grey_images_stand_for_equal_colours(tmp_path: Path) -> None:
    grey = noise(50, 0)[:, :1]
    found = ImageScorer(net(), TensorImages(grey), cache_folder=tmp_path).real_features
    assert torch.equal(found, pixels_as_features(grey.repeat(1, 3, 1, 1)).float().double().float())


def test_real_features_are_computed_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def counted(images: Tensor) -> Tensor:
        calls.append(len(images))
        return pixels_as_features(images)

    told: list[tuple[float, str]] = []

    def make(images: Tensor, key: str = "pixels") -> ImageScorer:
        return ImageScorer(
            FeatureNet(counted, "FD", key, D),
            TensorImages(images),
            cache_folder=tmp_path,
            progress=lambda share, text: told.append((share, text)),
        )

    first = make(noise(100, 0))
    assert calls == [64, 36]
    assert told == [(0.64, "64 of 100 images"), (1.0, "100 of 100 images")]
    assert torch.equal(make(noise(100, 0)).real_features, first.real_features)
    assert calls == [64, 36]
    make(noise(100, 1))
    make(noise(100, 0), key="other weights")
    assert len(calls) == 6


def test_features_kept_by_another_version_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer(tmp_path, noise(10, 0))
    monkeypatch.setattr("ebgan_fast.metrics.frechet._CACHE_VERSION", -1)
    scorer(tmp_path, noise(10, 0))
    assert len(list(tmp_path.glob("*.pt"))) == 2


def test_scores_warn_of_nothing(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer(tmp_path, noise(20, 0)).score(noise(20, 1))


def test_where_a_net_runs() -> None:
    """As its weights lie, which a scripted net may call buffers."""
    buffers = nn.Module()
    buffers.register_buffer("weight", torch.empty(3, device="meta"))
    assert _device_of(buffers) == torch.device("meta")
    assert _device_of(nn.Linear(2, 2, device="meta")) == torch.device("meta")
    assert _device_of(net()) == torch.device("cpu")


def test_many_real_images_are_thinned_out(tmp_path: Path) -> None:
    images = noise(100, 0)
    few = scorer(tmp_path, images, most_real=30)
    assert few.real_features.shape == (30, D)
    assert few.chosen.tolist() == sorted(set(few.chosen.tolist()))
    assert few.chosen.tolist() != list(range(30))
    assert torch.equal(few.real_features, pixels_as_features(images[few.chosen]).float())
    assert torch.equal(scorer(tmp_path, images, most_real=30).chosen, few.chosen)


def test_what_cannot_be_scored(tmp_path: Path) -> None:
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


def test_without_torchmetrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchmetrics.image.fid", None)
    with pytest.raises(ValueError, match=r"need torchmetrics: pip install 'ebgan_fast\[scores\]'"):
        scorer(tmp_path, noise(5, 0))


def test_neighbours_are_the_nearest_first() -> None:
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


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_neighbours_are_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    rng = torch.Generator().manual_seed(0)
    samples, real = torch.randn(5, 4, generator=rng), torch.randn(7, 4, generator=rng)
    exact = (samples[:, None].double() - real.double()).norm(dim=2).sort(dim=1)
    monkeypatch.setattr("ebgan_fast.metrics.neighbours._CHUNK", chunk)
    places, distances = nearest(samples, real, 3)
    assert torch.equal(places, exact.indices[:, :3])
    units = ULPS + math.log2(4) / 2  # a sum of 4 squares
    assert ((distances / exact.values[:, :3] - 1).abs() <= units * torch.finfo(torch.float32).eps).all()


def test_a_row_is_a_sample_and_its_neighbours(tmp_path: Path) -> None:
    images = noise(40, 0)
    real = scorer(tmp_path, images, most_real=25)
    samples = images[real.chosen[[7, 3]]]  # so each one's nearest is itself
    rows = neighbour_rows(real, samples, 2).unflatten(0, (2, 3))
    assert torch.equal(rows[:, 0], samples)
    assert torch.equal(rows[:, 1], samples)
    others = {tuple(image.flatten().tolist()) for image in images[real.chosen]}
    assert all(tuple(image.flatten().tolist()) in others for image in rows[:, 2])

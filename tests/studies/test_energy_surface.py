"""Films are kept and drawn, tables have means, and the command runs."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageSequence

from ebgan_fast.studies import _films, energy_surface
from ebgan_fast.studies.framework.results import Done, Results

from . import whole_run


def test_a_film_is_dense_at_first_and_ends_with_the_training() -> None:
    steps = _films.moments(6000)
    assert steps[-1] == 6000
    assert steps == sorted(set(steps))
    gaps = [after - before for before, after in itertools.pairwise(steps)]
    assert gaps[0] < gaps[-1] / 10
    assert _films.moments(2) == [1, 2]


def test_frames_are_read_as_they_were_written(tmp_path: Path) -> None:
    points = _films.lattice()
    frames = [_films.frame_of(points[:, 0, 0, axis].abs() * 0.3, margin=0.3) for axis in (0, 1)] * 4
    _films.save_frames(frames, tmp_path / "films" / "ring.png")
    with Image.open(tmp_path / "films" / "ring.png") as picture:
        found = _films.frames_in(picture, 8)
        with pytest.raises(ValueError, match="expected 20 frames"):
            _films.frames_in(picture, 20)
    assert found.shape == (8, 64, 64)
    for frame, kept in zip(frames, found, strict=True):
        assert torch.equal(frame, torch.from_numpy(kept.copy()))
    # Along the first axis from -1.2 to 1.2, an energy of |x| margins is |x| / 1.25 of 255.
    assert found[0][0, 0] == found[0][5, 63] == round(1.2 / 1.25 * 255)
    assert found[1][0, 5] == found[1][63, 9] == round(1.2 / 1.25 * 255)
    assert _films.frame_of(torch.full((64 * 64,), 9.0), margin=0.3).unique().tolist() == [255]


def test_an_animation_shows_points_where_they_are(tmp_path: Path) -> None:
    tiles = torch.zeros(3, 64, 64, dtype=torch.uint8).numpy()
    tiles[:, :4] = 255  # a high energy along the lower edge
    film = _films.Film(tiles, [1, 5, 30], [[], [[-0.8, 0.8]], [[0.8, -0.8]]])
    path = tmp_path / "film.webp"
    _films.animate([[film, None]], [torch.zeros(1, 2)], ["left", "right"], path)
    with Image.open(path) as animation:
        assert animation.n_frames == 3  # type: ignore[attr-defined]
        side = animation.width // 2
        head = (animation.height - side) // 2
        pages = [page.convert("RGB") for page in ImageSequence.all_frames(animation)]

    def color(page: Image.Image, across: float, down: float) -> list[int]:
        """Return the color at a place of the left panel, whose sides are 1 long."""
        place = round(across * (side - 1)), head + round(down * (side - 1))
        return list(page.getpixel(place))  # type: ignore[arg-type]

    seen = []
    for number, page in enumerate(pages):
        for name, place in {"upper left": 1 / 6, "lower right": 5 / 6}.items():
            if color(page, place, place)[0] > 150:  # the background has 67 of 255 red
                seen.append((number, name))
        assert min(color(page, 1 / 2, 1 / 2)) > 150  # the real point
        assert color(page, 1 / 2, 0.98)[0] > 150 > color(page, 1 / 2, 0.02)[0]
    assert seen == [(1, "upper left"), (2, "lower right")]


def on_mnist(seed: int, energy: float) -> Done:
    """Return a run on MNIST, whose models have the same energies."""
    of_model = {
        "area": {"generated": 0.5, "upside down": 0.75, "noise": 1.0},
        "energy": {"test": energy, "generated": 4.0, "upside down": 5.0, "noise": 9.0},
        "histograms": dict.fromkeys(("test", "generated", "upside down", "noise"), [1] * 80),
    }
    params = {"set": "mnist", "model": "all", "seed": seed}
    return Done(params, dict.fromkeys(energy_surface.MODELS, of_model), None, 1.0)


def test_the_tables_have_means_over_seeds() -> None:
    trials = [
        Done({"set": "ring", "model": "wide", "seed": seed}, {"share": share, "data": 0.7, "area": 0.5}, None, 1.0)
        for seed, share in enumerate((0.8, 0.9, 1.0))
    ]
    trials += [on_mnist(0, 3.0), on_mnist(1, 3.5)]
    lines = energy_surface.table(Results("energy-surface", {}, {}, {}, "", trials)).splitlines()
    # Three numbers 0.1 apart: a deviation of 0.1, times 4.303 / sqrt(3). Two numbers 0.5 apart: 12.706 / 4.
    assert "| alone, wide | 0.90 ± 0.25 | 0.70 | 0.50 |" in lines
    assert "| EBGAN | 3.25 ± 3.18 | 4.00 | 0.50 | 0.75 | 1.00 |" in lines
    assert any(line.startswith("3 seeds, means with 95 % intervals. Square") for line in lines)


def test_failed_runs_are_told_and_left_out(tmp_path: Path) -> None:
    failed = [
        Done({"set": name, "model": model, "seed": 0}, None, "got loss nan", 1.0)
        for name, model in (("ring", "wide"), ("mnist", "all"))
    ]
    results = Results("energy-surface", {}, {}, {}, "", failed)
    assert "One seed. 2 of 2 runs failed" in energy_surface.table(results)
    assert energy_surface.draw(results, tmp_path) == []


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    data = tmp_path / "digits"
    data.mkdir()
    lengths = "--seeds 2 --point-steps 3 --steps 2 --size-g 8 --size-d 16 --bottleneck 2 --point-width 8 --device cpu"
    place = ["--models", "wide", "EBGAN-PT", "--sets", "spiral", "mnist", "--data", str(whole_run.few_digits(data))]
    pictures = {"surfaces.png", "training.webp", "energies.png"}
    results = whole_run.check("energy-surface", tmp_path / "out", [*lengths.split(), *place], 6, pictures)
    assert list(results.pictures) == ["films/spiral-wide.png", "films/spiral-EBGAN-PT.png"]
    digits = results.runs(set="mnist", seed=1)[0].result
    assert digits is not None
    assert list(digits) == list(energy_surface.MODELS)
    for found in digits.values():
        assert all(sum(counts) == 200 for counts in found["histograms"].values())
        assert found["energy"]["noise"] > 0

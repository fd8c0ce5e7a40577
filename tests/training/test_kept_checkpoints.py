"""Checkpoints beside the last one: the latest few, and the best by score."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ebgan_fast._files import linking
from ebgan_fast.training import load_generator, train
from ebgan_fast.training.run import checkpoint
from ebgan_fast.training.run.folder import RunFolder

from .conftest import Configure
from .helpers import CutOff, assert_same_state, cut_off_after
from .scoring import PixelNet, lines_of, scored

pytestmark = pytest.mark.usefixtures("no_curves")


def steps_kept(out: Path) -> list[int]:
    """The steps of the checkpoints, which their names tell."""
    found = {path.name: checkpoint.read(path)["trainer"]["step"] for path in sorted((out / "checkpoints").iterdir())}
    assert list(found) == [f"step_{step:06d}.pt" for step in found.values()]
    return list(found.values())


@pytest.mark.parametrize(("keep", "kept"), [(1, [20]), (2, [18, 20]), (100, [6, 12, 18, 20])])
def test_the_latest_are_kept(configure: Configure, keep: int, kept: list[int]) -> None:
    run = configure(keep=keep)
    train(run)
    assert steps_kept(run.out) == kept
    assert load_generator(run.out / "checkpoints" / f"step_{kept[0]:06d}.pt").step == kept[0]
    assert (run.out / "checkpoint.pt").stat().st_ino == (run.out / "checkpoints" / "step_000020.pt").stat().st_ino


def test_none_are_kept_unasked(configure: Configure) -> None:
    train(configure())
    assert not (configure().out / "checkpoints").exists()


def test_a_run_that_goes_on_keeps_the_same(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, run = configure(keep=2, out=configure().out / "whole"), configure(keep=2, out=configure().out / "cut")
    train(whole)
    for cut in (7, 13):
        with monkeypatch.context() as patch:
            cut_off_after(patch, cut)
            with pytest.raises(CutOff):
                train(run, resume=True)
    assert steps_kept(run.out) == [6, 12]
    (run.out / "checkpoints" / "step_000012.pt").unlink()  # killed between the checkpoint and its second name
    train(run, resume=True)
    assert steps_kept(run.out) == steps_kept(whole.out) == [18, 20]
    states = [checkpoint.read(one.out / "checkpoints" / "step_000018.pt") for one in (run, whole)]
    for state in states:
        del state["elapsed_s"], state["config"]["out"]
    assert_same_state(*states)


def test_a_run_that_is_set_back_keeps_what_came_after(configure: Configure) -> None:
    run = configure(keep=2)
    train(run)
    folder = RunFolder(run.out)
    folder.checkpoint.unlink()
    folder.kept(18).rename(folder.checkpoint)
    folder.keep(18, 2)
    assert steps_kept(run.out) == [18, 20]
    folder.keep(18, 1)
    assert steps_kept(run.out) == [18, 20]


def test_the_best_by_score_is_kept(
    packed_blobs: Path, tmp_path: Path, pixel_net: PixelNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = scored(tmp_path / "run", packed_blobs, steps=9)
    folder = RunFolder(run.out)
    train(run)
    lines = lines_of(run.out / "scores.jsonl")
    assert [line["step"] for line in lines] == [3, 6, 9]
    best = min(lines, key=lambda line: line["fd"])["step"]
    assert checkpoint.read(folder.best)["trainer"]["step"] == best


@pytest.mark.parametrize(
    ("distances", "best"), [((5.0, 4.0, 3.0), 9), ((3.0, 4.0, 5.0), 3), ((4.0, 3.0, 5.0), 6), ((3.0, 3.0, 3.0), 9)]
)
def test_the_best_has_the_lowest_distance(
    packed_blobs: Path,
    tmp_path: Path,
    pixel_net: PixelNet,
    monkeypatch: pytest.MonkeyPatch,
    distances: tuple[float, ...],
    best: int,
) -> None:
    """Of equal ones the later, which has seen more."""
    given = iter(distances)
    monkeypatch.setattr("ebgan_fast.metrics.image_scorer.frechet_distance", lambda *_: next(given))
    run = scored(tmp_path / "run", packed_blobs, steps=9)
    train(run)
    assert checkpoint.read(run.out / "best.pt")["trainer"]["step"] == best


def test_scores_by_another_net_do_not_compare(
    packed_blobs: Path, tmp_path: Path, pixel_net: PixelNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = iter([1.0, 100.0])
    monkeypatch.setattr("ebgan_fast.metrics.image_scorer.frechet_distance", lambda *_: next(given))
    train(scored(tmp_path / "run", packed_blobs, steps=3))
    train(scored(tmp_path / "run", packed_blobs, steps=6, features="others"), resume=True)
    assert checkpoint.read(tmp_path / "run" / "best.pt")["trainer"]["step"] == 6


def test_a_file_system_without_links_holds_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "checkpoint.pt", tmp_path / "kept" / "one.pt"
    source.write_bytes(b"first")
    linking(source, target)
    assert source.stat().st_ino == target.stat().st_ino

    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "link", refused)
    other = tmp_path / "other.pt"
    other.write_bytes(b"second")
    linking(other, target)
    assert (source.read_bytes(), target.read_bytes()) == (b"first", b"second")
    assert other.stat().st_ino != target.stat().st_ino
    assert [path.name for path in target.parent.iterdir()] == ["one.pt"]


def test_a_link_to_itself_leaves_one_name(tmp_path: Path) -> None:
    source, target = tmp_path / "checkpoint.pt", tmp_path / "one.pt"
    source.write_bytes(b"first")
    for _ in range(2):
        linking(source, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "one.pt"]

"""Tests of the checkpoints that are kept beside the last one: the latest few, and the best by score."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from ebgan_fast._files import rename_or_copy
from ebgan_fast.training import load_generator, train
from ebgan_fast.training.run import checkpoint
from ebgan_fast.training.run.folder import RunFolder

from .conftest import Configure
from .helpers import CutOff, assert_same_state, cut_off_after
from .scoring import PixelNet, lines_of, scored

pytestmark = pytest.mark.usefixtures("no_curves")


def steps_kept(out: Path) -> list[int]:
    """Return the steps of the kept checkpoints, which their names must match."""
    found = {path.name: checkpoint.read(path)["trainer"]["step"] for path in sorted((out / "checkpoints").iterdir())}
    assert list(found) == [f"step_{step:06d}.pt" for step in found.values()]
    return list(found.values())


@pytest.mark.parametrize(("keep", "kept"), [(1, [18]), (2, [12, 18]), (100, [6, 12, 18])])
def test_the_latest_before_the_last_are_kept(configure: Configure, keep: int, kept: list[int]) -> None:
    run = configure(keep=keep)
    train(run)
    assert steps_kept(run.out) == kept
    assert load_generator(run.out / "checkpoints" / f"step_{kept[0]:06d}.pt").step == kept[0]


@pytest.mark.usefixtures("pixel_net")
def test_a_checkpoint_that_is_copied_over_the_last_changes_no_other(packed_blobs: Path, tmp_path: Path) -> None:
    """Users copy an older checkpoint over the last one to go back. The copy writes into the existing file, and must
    change no other.
    """
    run = scored(tmp_path / "run", packed_blobs, steps=9, keep=2)
    train(run)
    folder = RunFolder(run.out)
    others = {path: path.read_bytes() for path in (folder.best, *(run.out / "checkpoints").iterdir())}
    shutil.copyfile(folder.kept(6), folder.checkpoint)
    assert checkpoint.read(folder.checkpoint)["trainer"]["step"] == 6
    assert {path: path.read_bytes() for path in others} == others
    train(run, resume=True)
    assert [line["step"] for line in lines_of(run.out / "scores.jsonl")] == [3, 6, 9]
    assert checkpoint.read(folder.checkpoint)["trainer"]["step"] == 9


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
    assert steps_kept(run.out) == [6]
    # This is the state after a kill between the second name and the new checkpoint.
    os.link(run.out / "checkpoint.pt", run.out / "checkpoints" / "step_000012.pt")
    train(run, resume=True)
    assert steps_kept(run.out) == steps_kept(whole.out) == [12, 18]
    states = [checkpoint.read(one.out / "checkpoints" / "step_000018.pt") for one in (run, whole)]
    for state in states:
        del state["elapsed_s"], state["config"]["out"]
    assert_same_state(*states)


def test_a_second_name_that_a_kill_left_goes(configure: Configure, whole: Path) -> None:
    folder = RunFolder(whole)
    folder.kept(20).parent.mkdir()
    os.link(folder.checkpoint, folder.kept(20))
    train(configure(out=whole, keep=2), resume=True)
    assert folder.checkpoint.exists()
    assert not folder.kept(20).exists()


def test_a_run_that_is_set_back_keeps_what_came_after(configure: Configure) -> None:
    run = configure(keep=2)
    train(run)
    folder = RunFolder(run.out)
    shutil.copyfile(folder.kept(12), folder.checkpoint)
    folder.keep(12, 1)
    assert steps_kept(run.out) == [12, 18]


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
    """The best checkpoint has the lowest distance. Of equal ones the later is kept, as it has seen more images."""
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
    rename_or_copy(source, target)
    assert source.stat().st_ino == target.stat().st_ino

    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "link", refused)
    other = tmp_path / "other.pt"
    other.write_bytes(b"second")
    rename_or_copy(other, target)
    assert (source.read_bytes(), target.read_bytes()) == (b"first", b"second")
    assert other.stat().st_ino != target.stat().st_ino
    assert [path.name for path in target.parent.iterdir()] == ["one.pt"]


def test_a_second_name_again_leaves_one(tmp_path: Path) -> None:
    source, target = tmp_path / "checkpoint.pt", tmp_path / "one.pt"
    source.write_bytes(b"first")
    for _ in range(2):
        rename_or_copy(source, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "one.pt"]


def test_the_folder_of_a_checkpoint(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a checkpoint is its own folder, or for a kept checkpoint the run's. Another folder named
    "checkpoints" is no run's.
    """
    kept = RunFolder(whole).kept(20)
    kept.parent.mkdir()
    for path in (whole, whole / "checkpoint.pt", whole / "best.pt", kept):
        assert RunFolder.of(path).path == whole
    monkeypatch.chdir(kept.parent)
    assert RunFolder.of(Path("step_000020.pt")).path.resolve() == whole.resolve()
    models = tmp_path / "checkpoints"
    assert RunFolder.of(models / "step_000001.pt").path == models
    assert RunFolder.of(kept.with_name("mine.pt")).path == kept.parent

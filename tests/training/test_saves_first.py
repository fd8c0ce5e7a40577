"""Tests that a step saves first: its later tasks may fail without the loss of a step."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ebgan_fast.training import session, train
from ebgan_fast.training.display import PlainDisplay
from ebgan_fast.training.run import checkpoint
from ebgan_fast.training.run.lines import LinesFile
from ebgan_fast.training.run.tensorboard import TensorBoard
from ebgan_fast.training.scoring import Evaluator

from .conftest import Configure
from .helpers import assert_same_run
from .scoring import lines_of, scored

pytestmark = pytest.mark.usefixtures("no_curves")


def noting(patch: pytest.MonkeyPatch, order: list[str], owner: Any, name: str, what: str) -> None:
    original = getattr(owner, name)

    def noted(*args: Any, **named: Any) -> Any:
        order.append(what)
        return original(*args, **named)

    patch.setattr(owner, name, noted)


@pytest.mark.usefixtures("pixel_net")
def test_the_order_of_a_steps_duties(packed_blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tasks are due in the only step."""
    order: list[str] = []
    noting(monkeypatch, order, LinesFile, "append", "line")
    noting(monkeypatch, order, checkpoint, "write", "save")
    noting(monkeypatch, order, PlainDisplay, "metrics", "tell")
    noting(monkeypatch, order, TensorBoard, "scalars", "tell")
    noting(monkeypatch, order, session, "save_grid", "draw")
    noting(monkeypatch, order, Evaluator, "score", "score")
    train(scored(tmp_path / "run", packed_blobs, steps=1, keep=1))
    assert order == ["save", "line", "save", "tell", "tell", "draw", "score", "line", "tell"]


def broken(*_: Any, **__: Any) -> Any:
    raise OSError(28, "No space left on device")


@pytest.mark.usefixtures("pixel_net")
@pytest.mark.parametrize(
    ("owner", "name"), [(session, "save_grid"), (session, "save_curves"), (session, "sample_images")]
)
def test_a_picture_that_fails_costs_no_step(
    packed_blobs: Path,
    tmp_path: Path,
    whole_scored: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
) -> None:
    """A picture that fails costs no step: step 4 is saved before it is drawn. The resumed run draws the missing
    pictures.
    """
    run = scored(tmp_path / "run", packed_blobs, steps=8)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, broken)
        with pytest.raises(OSError, match="No space left"):
            train(run)
    assert checkpoint.read(tmp_path / "run" / "checkpoint.pt")["trainer"]["step"] == 4
    train(run, resume=True)
    assert_same_run(tmp_path / "run", whole_scored)
    assert {line["step"] for line in lines_of(tmp_path / "run" / "scores.jsonl")} == {3, 6, 8}


class Broken(io.StringIO):
    """A pipe whose reader is gone after a number of writes."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


@pytest.mark.parametrize("make", [lambda: Broken(0), lambda: Broken(1), lambda: None], ids=["at once", "later", "none"])
def test_output_that_is_gone_ends_no_run(
    configure: Configure,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[], Any],
) -> None:
    run = configure()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", make())
        assert train(run).step == 20
    assert_same_run(run.out, whole)
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(" (")[0] for line in told] == ["standard output is gone"]


@pytest.mark.usefixtures("pixel_net")
def test_a_console_without_a_character_shows_another(
    packed_blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        assert train(scored(tmp_path / "run", packed_blobs)).step == 6
    screen.seek(0)
    told = [line for line in screen.read().splitlines() if "KID" in line and "step" in line]
    assert len(told) == 2
    assert all(" ? " in line for line in told)


@pytest.mark.usefixtures("pixel_net")
def test_a_terminal_that_is_closed_ends_no_run(
    configure: Configure, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed terminal ends no run, although the progress bar's thread writes to it too."""
    screen = Broken(3)
    screen.isatty = lambda: True  # type: ignore[method-assign]
    run = configure()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        patch.setenv("TERM", "xterm")
        assert train(run).step == 20
    assert_same_run(run.out, whole)

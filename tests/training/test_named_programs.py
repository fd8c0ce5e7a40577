"""Tests that a feature net in a file, which is a program, is loaded only if the user names it, and never because a run
does.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ebgan_fast import cli
from ebgan_fast.metrics.features import is_program
from ebgan_fast.training import scoring, train
from ebgan_fast.training.run.folder import RunFolder

from .conftest import Configure
from .scoring import PixelNet, scored

pytestmark = pytest.mark.usefixtures("no_curves")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, pixel_net: PixelNet) -> list[str]:
    """Return the list of nets that are loaded."""
    names: list[str] = []
    load: Callable[[str], object] = scoring.load_feature_net

    def noted(spec: str) -> object:
        names.append(spec)
        return load(spec)

    monkeypatch.setattr(scoring, "load_feature_net", noted)
    return names


@pytest.fixture
def run(whole_scored: Path, tmp_path: Path) -> Path:
    """Return a run that was scored by a net outside of the package."""
    return Path(shutil.copytree(whole_scored, tmp_path / "passed-on"))


def test_only_the_packaged_net_is_no_program() -> None:
    assert [is_program(name) for name in ("efficientnet-lite0", "net.pt", "/tmp/efficientnet-lite0")] == [
        False,
        True,
        True,
    ]


def test_evaluate_loads_no_file_that_the_run_names(
    run: Path, loaded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(run.rglob("*"))
    assert cli.main(["evaluate", str(run), "--samples", "20", "--device", "cpu"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "ebgan-fast: features: got a run scored by the file pixels, which would run here as a program"
    )
    assert "--features" in line
    assert loaded == []
    assert sorted(run.rglob("*")) == before
    assert cli.main(["evaluate", str(run), "--samples", "20", "--device", "cpu", "--features", "pixels"]) == 0
    assert loaded == ["pixels"]


def test_a_report_leaves_its_pictures_out(run: Path, loaded: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(run)
    assert cli.main(["report", str(run), "--device", "cpu"]) == 0
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert line.startswith("ebgan-fast: nearest training images are left out (features: got a run scored by the file")
    assert loaded == []
    assert not folder.neighbors.exists()
    assert cli.main(["report", str(run), "--device", "cpu", "--features", "pixels"]) == 0
    assert capsys.readouterr().err == ""
    assert loaded == ["pixels"]
    assert folder.neighbors.exists()


def test_a_run_that_goes_on_takes_the_net_of_its_command(run: Path, packed_blobs: Path, loaded: list[str]) -> None:
    train(scored(run, packed_blobs, steps=12, features="other"), resume=True)
    assert loaded == ["other"]


def test_digits_are_judged_without_it(
    configure: Configure, loaded: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The classifier judges digits, whatever net the run was scored by."""
    config = configure(steps=2, features="net.pt")
    train(config)
    monkeypatch.setenv("EBGAN_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cli, "load_classifier", lambda *_, **__: None)
    monkeypatch.setattr(cli, "score_digits", lambda *_: {})
    monkeypatch.setattr(cli, "digits_text", lambda *_: "scored")
    assert cli.main(["evaluate", str(config.out), "--samples", "10", "--device", "cpu"]) == 0
    assert cli.main(["report", str(config.out), "--device", "cpu"]) == 0
    assert loaded == []

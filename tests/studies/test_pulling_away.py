"""The command that compares the pulling-away term with others runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import whole_run


@pytest.mark.slow
@pytest.mark.usefixtures("digit_classifier")
def test_the_command(tmp_path: Path) -> None:
    lengths = "--steps 3 --point-steps 3 --samples 100"
    flags = f"--terms none paper --sets ring mnist {lengths} --size-g 16 --size-d 16 --device cpu"
    results = whole_run.check("pt-study", tmp_path / "out", flags.split(), 4, {"terms.png"})
    assert {(trial.params["set"], trial.params["term"]) for trial in results.trials} == {
        (name, term) for name in ("ring", "mnist") for term in ("none", "paper")
    }


@pytest.mark.slow
def test_points_alone_need_no_digits(tmp_path: Path) -> None:
    flags = "--terms paper --sets grid --seeds 1 --point-steps 2 --samples 100 --data nowhere --device cpu"
    results = whole_run.check("pt-study", tmp_path / "out", flags.split(), 1, {"terms.png"})
    assert "classifier_test_accuracy" not in results.settings

"""The table of the margin sweep, and its run by the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebgan_fast.studies import margin_sweep
from ebgan_fast.studies.framework.results import Done, Results

from . import whole_run


def test_the_sweeps_table_has_a_row_for_each_margin() -> None:
    def run(margin: float, seed: int, classes: int | None) -> Done:
        result = None
        if classes is not None:
            result = {"classes": classes, "exp_score": float(classes), "kl_conditional_marginal": 1.0, "diversity": 0.5}
        return Done({"margin": margin, "seed": seed}, result, None if result else "got loss nan", 1.0)

    results = Results("margin-sweep", {}, {}, {}, "", [run(16, 1, 4), run(1, 0, 2), run(16, 0, 10), run(32, 0, None)])
    assert margin_sweep.table(results).splitlines()[2:] == [
        "| 1 | 2 | 2.00 | 1.00 | 0.50 |",
        "| 16 | 10, 4 | 7.00 | 1.00 | 0.50 |",
        "| 32 | 0 | - | - | - |",
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("digit_classifier")
def test_the_command(tmp_path: Path) -> None:
    flags = "--margins 1 32 --seeds 1 --steps 3 --samples 100 --size-g 16 --size-d 16 --device cpu"
    results = whole_run.check("margin-sweep", tmp_path / "out", flags.split(), 2, {"margins.png"})
    assert [trial.params["margin"] for trial in results.trials] == [1, 32]


def test_margins_that_no_run_of_the_study_may_have_are_refused(tmp_path: Path) -> None:
    from ebgan_fast import cli

    assert cli.main(["margin-sweep", "--out", str(tmp_path / "out"), "--margins", "2e6"]) == 1

"""The command that compares the pulling-away term with others runs, and its table compares runs of equal seeds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ebgan_fast.data.image_set import ImageSet
from ebgan_fast.studies import pulling_away
from ebgan_fast.studies.framework.results import Done, Results, read
from ebgan_fast.studies.framework.study import DigitOptions, Job, NoData, no_tick
from ebgan_fast.studies.networks.repelling_terms import Term
from ebgan_fast.studies.pulling_away import BUDGETS, trials
from ebgan_fast.training.config import TrainConfig
from ebgan_fast.training.step import Trainer

from . import whole_run


def test_the_weights_are_those_of_the_papers_term() -> None:
    settings = dataclasses.replace(BUDGETS["minutes"], sets=("ring",), seeds=2)
    tried = [(one["term"], one["weight"]) for one in trials(settings) if one["seed"] == 1]
    paper = [("paper", 0.1), ("paper", 0.5), ("paper", 2.0)]
    assert tried == [("none", 0.0), *paper, ("no square", 0.5), ("batch axis", 0.5)]
    assert len(trials(settings)) == 12


@pytest.mark.parametrize(
    "fields", [{"weights": ()}, {"weights": (0.1, 0.0)}, {"weights": (0.1, 0.1000000001)}, {"other_weight": -1.0}]
)
def test_weights_that_say_nothing_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="weight"):
        trials(dataclasses.replace(BUDGETS["minutes"], **fields))


def test_differences_are_between_runs_of_one_seed() -> None:
    def run(term: str, weight: float, seed: int, modes: int | None) -> Done:
        params = {"set": "ring", "term": term, "weight": weight, "seed": seed}
        result = None if modes is None else {"modes": modes, "good": 0.5, "pulling_away": 0.25, "points": []}
        return Done(params, result, None if result else "got loss nan", 1.0)

    found = [("paper", 0.5, 0, 7), ("none", 0.0, 1, 5), ("none", 0.0, 0, 4), ("paper", 0.5, 1, 9), ("paper", 0.5, 2, 1)]
    runs = [run(*one) for one in found]
    table = pulling_away.table(Results("pt-study", {}, {}, {}, "", [*runs, run("none", 0.0, 2, None)])).splitlines()
    # The seeds 0 and 1 have both: 3 and 4 more. The mean of 7, 9 and 1 is 5.7, their deviation 4.163.
    assert table[2:4] == ["| no term | 4.5 ± 6.4 | - |", "| equation 14, 0.5 | 5.7 ± 10.3 | +3.5 ± 6.4 |"]
    assert "| no term | 0.50 | 0.25 |" in table
    assert table[5].startswith("3 seeds, means with 95 % intervals. 1 of 6 runs failed and are left out. ")


def test_only_a_clear_difference_is_bold() -> None:
    runs = [
        Done(
            {"set": "mnist", "term": term, "weight": weight, "seed": seed},
            {"kl_conditional_marginal": score + 0.01 * seed, "modes": 10, "diversity": 1.0, "pulling_away": 0.1},
            None,
            1.0,
        )
        for term, weight, scores in (
            ("none", 0.0, (1.9, 1.91, 1.9, 1.89)),
            ("paper", 0.5, (2.0, 2.01, 2.01, 2.0)),
            ("paper", 2.0, (1.9, 1.93, 1.88, 1.91)),
        )
        for seed, score in enumerate(scores)
    ]
    table = pulling_away.table(Results("pt-study", {}, {}, {}, "", runs)).splitlines()
    assert [line.split(" | ")[2].startswith("**") for line in table[3:5]] == [True, False]


def test_results_of_earlier_versions_are_shown() -> None:
    """Earlier results had one weight, among the settings."""
    found = read(Path(__file__).parents[2] / "docs" / "studies" / "results" / "pt-study.json")
    earlier = [
        dataclasses.replace(run, params={name: value for name, value in run.params.items() if name != "weight"})
        for run in found.trials
        if run.params["term"] in ("none", "paper") and run.params["weight"] in (0.0, 0.1)
    ]
    results = dataclasses.replace(found, settings={"weight": 0.1}, trials=earlier)
    rows = pulling_away.table(results).splitlines()
    assert rows[2].startswith("| no term |")
    assert rows[3].startswith("| equation 14, 0.1 |")


def test_a_run_has_the_weight_of_its_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, float]] = []
    made = pulling_away.trainer_with

    def noting(term: Term, config: TrainConfig, images: ImageSet) -> Trainer:
        seen.append((term, config.pt_weight))
        return made(term, config, images)

    monkeypatch.setattr(pulling_away, "trainer_with", noting)
    settings = dataclasses.replace(BUDGETS["minutes"], point_steps=1, samples=10, seeds=1, sets=("ring",))
    job = Job(pulling_away.STUDY, settings, DigitOptions(out=tmp_path, device="cpu"), NoData())
    for params in trials(settings):
        pulling_away.trial(params, job, no_tick)
    assert seen == [(params["term"], params["weight"]) for params in trials(settings)]


@pytest.mark.slow
@pytest.mark.usefixtures("digit_classifier")
def test_the_command(tmp_path: Path) -> None:
    lengths = "--steps 3 --point-steps 3 --samples 100"
    terms = "--terms none paper --weights 0.1 2 --sets ring mnist"
    flags = f"{terms} {lengths} --size-g 16 --size-d 16 --device cpu"
    results = whole_run.check("pt-study", tmp_path / "out", flags.split(), 6, {"terms.png", "outcomes.png"})
    assert {(trial.params["set"], trial.params["weight"]) for trial in results.trials} == {
        (name, weight) for name in ("ring", "mnist") for weight in (0.0, 0.1, 2.0)
    }


@pytest.mark.slow
def test_points_alone_need_no_digits(tmp_path: Path) -> None:
    flags = "--terms batch~axis --sets grid --seeds 1 --point-steps 2 --samples 100 --data nowhere --device cpu"
    words = [flag.replace("~", " ") for flag in flags.split()]
    results = whole_run.check("pt-study", tmp_path / "out", words, 1, {"terms.png", "outcomes.png"})
    assert "classifier_test_accuracy" not in results.settings

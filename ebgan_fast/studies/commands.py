"""The studies as commands of the program."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro

from .._command_line import chosen
from .._console import say
from .._files import replacing
from . import grid as grid_search
from . import grid_report, margin_sweep, pulling_away, results, semi_supervised, theory
from .options import Budget, Options
from .running import Study, run

_FlatOptions = Annotated[Options, tyro.conf.OmitArgPrefixes]

TABLE = "table.md"


def study_command(name: str, arguments: Sequence[str]) -> Callable[..., int]:
    """A study's command by its name, its flags' defaults those of the budget that the arguments name."""
    budget = chosen(arguments, "--budget", get_args(Budget), "minutes")
    options = Options(out=tyro.MISSING, budget=budget)
    makers: dict[str, Callable[[], Callable[..., int]]] = {
        "grid": lambda: _grid_command(grid_search.BUDGETS[budget], options),
        "margin-sweep": lambda: _margin_command(margin_sweep.BUDGETS[budget], options),
        "pt-study": lambda: _pulling_away_command(pulling_away.BUDGETS[budget], options),
        "semi-supervised": lambda: _semi_supervised_command(semi_supervised.BUDGETS[budget], options),
        "theory": lambda: _theory_command(theory.BUDGETS[budget], budget),
    }
    return makers[name]()


def _grid_command(defaults: grid_search.Grid, common: Options) -> Callable[..., int]:
    def grid(
        options: _FlatOptions = common,
        search: Annotated[grid_search.Grid, tyro.conf.OmitArgPrefixes] = defaults,
    ) -> int:
        """The paper's grid search on MNIST: EBGAN against the plain GAN by score (table 1, figures 2 to 4).

        Args:
            options: Where and how.
            search: What is tried. --file grid.yaml takes any of these settings from a file.
        """
        return _conduct(grid_search.grid_study(search, options), search, options, grid_report.table, grid_report.draw)

    return grid


def _margin_command(defaults: margin_sweep.MarginSweep, common: Options) -> Callable[..., int]:
    def margins(
        options: _FlatOptions = common,
        sweep: Annotated[margin_sweep.MarginSweep, tyro.conf.OmitArgPrefixes] = defaults,
    ) -> int:
        """The effect of the margin on MNIST (figure 9).

        Args:
            options: Where and how.
            sweep: What is tried. --file takes any of these settings from a file.
        """
        study = margin_sweep.margin_study(sweep, options)
        return _conduct(study, sweep, options, margin_sweep.table, margin_sweep.draw)

    return margins


def _pulling_away_command(defaults: pulling_away.PullingAway, common: Options) -> Callable[..., int]:
    def repelling(
        options: _FlatOptions = common,
        comparison: Annotated[pulling_away.PullingAway, tyro.conf.OmitArgPrefixes] = defaults,
    ) -> int:
        """EBGAN without and with the pulling-away term, and with what other code computes for it.

        Args:
            options: Where and how.
            comparison: What is compared. --file takes any of these settings from a file.
        """
        study = pulling_away.pulling_away_study(comparison, options)
        return _conduct(study, comparison, options, pulling_away.table, pulling_away.draw)

    return repelling


def _semi_supervised_command(defaults: semi_supervised.SemiSupervised, common: Options) -> Callable[..., int]:
    def ladder(
        options: _FlatOptions = common,
        comparison: Annotated[semi_supervised.SemiSupervised, tyro.conf.OmitArgPrefixes] = defaults,
    ) -> int:
        """Digits from few labels: a ladder network alone, and inside an EBGAN (table 2).

        Args:
            options: Where and how.
            comparison: What is compared. --file takes any of these settings from a file.
        """
        study = semi_supervised.semi_supervised_study(comparison, options)
        return _conduct(study, comparison, options, semi_supervised.table, semi_supervised.draw)

    return ladder


def _theory_command(defaults: theory.Game, named: Budget) -> Callable[..., int]:
    def equilibrium(
        out: Path,
        budget: Budget = named,
        game: Annotated[theory.Game, tyro.conf.OmitArgPrefixes] = defaults,
    ) -> int:
        """The paper's theorems at work: players on a discrete space reach V = m, U = gamma and q = p.

        Args:
            out: The study's folder.
            budget: Number of rounds.
            game: What is played.
        """
        found = theory.results_of_plays(theory.play(game), game, budget)
        out.mkdir(parents=True, exist_ok=True)
        _tell(found, out, theory.table, theory.draw)
        return 0

    return equilibrium


def _conduct(
    study: Study,
    settings: object,
    options: Options,
    table: Callable[[results.Results], str],
    draw: Callable[[results.Results, Path], list[Path]],
) -> int:
    """Run what is left of a study, and write what came out of all of it."""
    is_new = not options.out.exists()
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        trials = run(study, options.trials, options.processes)
    except (ValueError, OSError):
        if is_new:
            with contextlib.suppress(OSError):  # what is in it stays
                options.out.rmdir()
        raise
    if not trials:
        return 0
    if all(done.result is None for done in trials):
        raise ValueError(
            f"{options.trials}: got trials that all failed ({trials[0].reason}), expected one that can be measured; "
            "another --out starts anew"
        )
    described: Mapping[str, Any] = {"budget": options.budget, **study.settings, **study.conditions, **asdict(settings)}  # type: ignore[call-overload]
    found = results.results_of(study.name, described, options.torch_device, trials)
    _tell(found, options.out, table, draw)
    return 0


def _tell(
    found: results.Results,
    out: Path,
    table: Callable[[results.Results], str],
    draw: Callable[[results.Results, Path], list[Path]],
) -> None:
    """Write a study's results, table and pictures, and say where they are."""
    results.write(found, out)
    text = table(found)
    with replacing(out / TABLE) as file:
        file.write(text.encode())
    pictures = draw(found, out)
    say(text)
    for path in (out / results.FILE, out / TABLE, *pictures):
        say(str(path))

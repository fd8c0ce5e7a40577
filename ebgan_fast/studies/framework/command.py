"""A study as a command of the program: its flags, its run, and its results in files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro
from filelock import FileLock

from ..._command_line import chosen
from ..._console import say
from ..._files import replacing
from . import results
from .study import Budget, Job, Options, Study

TABLE = "table.md"
_LOCK = ".results.flock"


def command_of(study: Study[Any], arguments: Sequence[str] = ()) -> Callable[..., int]:
    """A study's command.

    Args:
        study: whose it is.
        arguments: those of the command line, whose --budget says what the other flags' defaults are.
    """
    budget = chosen(arguments, "--budget", get_args(Budget), "minutes")
    conducted = study
    options, settings = study.options(out=tyro.MISSING, budget=budget), study.budgets[budget]

    def command(run: Any = options, study: Any = settings) -> int:
        return conduct(conducted, study, run)

    command.__doc__ = f"""{study.summary}

    Args:
        run: Where and how.
        study: What is tried. --file settings.yaml takes flags, of either kind, from a file.
    """
    # tyro makes the flags of these.
    command.__annotations__.update(
        run=Annotated[study.options, tyro.conf.OmitArgPrefixes],
        study=Annotated[type(settings), tyro.conf.OmitArgPrefixes],
    )
    return command


def conduct(study: Study[Any], settings: Any, options: Options) -> int:
    """Run what is left of a study, and write what came out of all of it; returns the exit status.

    Raises:
        ValueError: settings that can't be run, data or a storage that can't be used, or trials that all failed.
        OSError: a file can't be read or written.
    """
    try:
        from .run import queue_of, run
    except ImportError as error:
        raise ValueError(f"{error}; the studies need more: pip install 'ebgan_fast[train,studies]'") from error

    study.configurations(settings)  # refused, if at all, before anything is made
    options.check()
    job = Job(study, settings, options, study.load(settings, options))
    is_new = not options.out.exists()
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        queue = queue_of(job)  # before a classifier is trained for trials that have no place
        told = {"budget": options.budget, **job.shared_settings, **job.data.conditions(), **asdict(settings)}
        trials = run(job, queue)
    except (ValueError, OSError):
        if is_new:
            with contextlib.suppress(OSError):  # what is in it stays
                options.out.rmdir()
        raise
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("the same command goes on") from stop
    if not trials:
        return 0
    if all(done.result is None for done in trials):
        raise ValueError(
            f"{queue.place}: got trials that all failed ({trials[0].reason}), expected one that can be measured; "
            "another --out starts anew"
        )
    found = results.results_of(study.name, told, options.torch_device, trials)
    found = results.with_pictures(found, options.out, study.sample_files(found))
    with FileLock(options.out / _LOCK):  # another process may end at the same moment
        results.write(found, options.out)
        say_all(draw(study, found, options.out), options.out / results.FILE)
    return 0


def draw(study: Study[Any], found: results.Results, out: Path) -> list[Path]:
    """Write a study's table and figures into a folder; returns their paths, that of the table first."""
    with replacing(out / TABLE) as file:
        file.write(study.table(found).encode())
    return [out / TABLE, *study.draw(found, out)]


def say_all(drawn: Sequence[Path], *others: Path) -> None:
    """Show the table that was drawn first, and say where everything is."""
    say(drawn[0].read_text(encoding="utf-8"))
    for path in (*others, *drawn):
        say(str(path))

"""A study as a command of the program: its flags, its run, and the files of its results."""

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
NEEDS_MORE = "the studies need more: pip install 'ebgan_fast[train,studies]'"
_LOCK = ".results.flock"


def command_of(study: Study[Any], arguments: Sequence[str] = ()) -> Callable[..., int]:
    """Return a study's command.

    Args:
        study: the study.
        arguments: the arguments of the command line. Their --budget decides the defaults of the other flags.
    """
    budget = chosen(arguments, "--budget", get_args(Budget), "minutes")
    conducted = study
    options, settings = study.options(out=tyro.MISSING, budget=budget), study.budgets[budget]

    def command(run: Any = options, study: Any = settings) -> int:
        return conduct(conducted, study, run)

    command.__doc__ = f"""{study.summary}

    Args:
        run: Where the study is kept, and what runs it.
        study: What is tried. --file settings.yaml takes flags of both groups from a YAML file.
    """
    # tyro makes the flags from these annotations.
    command.__annotations__.update(
        run=Annotated[study.options, tyro.conf.OmitArgPrefixes],
        study=Annotated[type(settings), tyro.conf.OmitArgPrefixes],
    )
    return command


def conduct(study: Study[Any], settings: Any, options: Options) -> int:
    """Run the trials of a study that aren't done yet, write the results of all its trials, and return the exit status.

    Args:
        study: the study.
        settings: the study's own settings.
        options: where the study is kept and what runs it.

    Raises:
        ValueError: the settings can't be run, the data or the storage can't be used, or all trials failed.
        OSError: a file can't be read or written.
    """
    try:
        from scipy import special  # noqa: F401  for the intervals of tables, which come hours later

        from .run import queue_of, run
    except ImportError as error:
        raise ValueError(f"{error}; {NEEDS_MORE}") from error

    study.configurations(settings)  # raises an error for bad settings before anything is created
    options.check()
    job = Job(study, settings, options, study.load(settings, options))
    is_new = not options.out.exists()
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        queue = queue_of(job)  # before `conditions` trains a classifier, as the storage may be unusable
        told = {"budget": options.budget, **job.shared_settings, **job.data.conditions(), **asdict(settings)}
        trials = run(job, queue)
    except (ValueError, OSError):
        if is_new:
            with contextlib.suppress(OSError):  # a folder that isn't empty stays
                options.out.rmdir()
        raise
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("the same command goes on") from stop
    if not trials:
        return 0
    if all(done.result is None for done in trials):
        raise ValueError(
            f"{queue.place}: got trials that all failed ({trials[0].reason}), expected one that can be measured; "
            "another --out starts a new study"
        )
    found = results.results_of(study.name, told, options.torch_device, trials)
    found = results.with_pictures(found, options.out, study.sample_files(found))
    with FileLock(options.out / _LOCK):  # another process may write its results at the same time
        results.write(found, options.out)
        say_all(draw(study, found, options.out), options.out / results.FILE)
    return 0


def draw(study: Study[Any], found: results.Results, out: Path) -> list[Path]:
    """Write a study's table and figures into a folder. Return their paths, the table's first."""
    with replacing(out / TABLE) as file:
        file.write(study.table(found).encode())
    return [out / TABLE, *study.draw(found, out)]


def say_all(drawn: Sequence[Path], *others: Path) -> None:
    """Print the table, which is the first path, and then the paths of all files."""
    say(drawn[0].read_text(encoding="utf-8"))
    for path in (*others, *drawn):
        say(str(path))

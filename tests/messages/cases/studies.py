"""Mistakes in the studies' settings, files of flags and storages, and failures within a trial."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.full_disk import room_for

from .. import places
from ..case import Arguments, Case

_DEVICE = (r"(?<=use here \().*(?=\))",)  # torch's words
_OUT = ("--out", "out", "--workers", "1", "--device", "cpu")
_SIZES = {
    "grid": (
        *("--n-layer-g", "2", "--n-layer-d", "2", "--size-g", "400", "--size-d", "128", "--dropout-d", "False"),
        *("--optim-g", "adam", "--optim-d", "adam", "--lr", "0.001", "--steps", "2", "--samples", "10"),
    ),
    "margin-sweep": (
        *("--margins", "1", "--seeds", "1", "--steps", "2", "--samples", "10", "--size-g", "8", "--size-d", "8"),
    ),
    "pt-study": (
        *("--terms", "none", "--sets", "mnist", "--seeds", "1", "--steps", "2", "--samples", "10"),
        *("--size-g", "8", "--size-d", "8"),
    ),
    "semi-supervised": (
        *("--labels", "10", "--models", "LN", "--seeds", "1", "--steps", "2", "--ebgan-steps", "2"),
        *("--margin-steps", "1", "--batch-size", "10"),
    ),
}
_BEGUN = "the trials are queued, and another call can run them"


def _of(study: str, *flags: str) -> Callable[[Path], Arguments]:
    return lambda folder: [*_OUT, "--data", places.digits(folder), *_SIZES[study], *flags]


def _refused(*flags: str) -> Callable[[Path], Arguments]:
    """Return arguments that a study refuses before it looks for the digits."""
    return lambda folder: [*_OUT, "--data", "nowhere", *flags]


def _file(content: str, *flags: str) -> Callable[[Path], Arguments]:
    """Return a function that writes grid.yaml and returns the arguments that read flags from it."""

    def make(folder: Path) -> Arguments:
        places.text(folder, "grid.yaml", content)
        return [*_OUT, "--data", "nowhere", "--file", "grid.yaml", *flags]

    return make


def _without_optuna(patch: pytest.MonkeyPatch) -> None:
    for name in ("run", "queue", "addresses", "databases", "journal", "storage"):  # the modules that import optuna
        patch.delitem(sys.modules, f"ebgan_fast.studies.framework.{name}", raising=False)
    patch.setitem(sys.modules, "optuna", None)


def _theory(*flags: str) -> Callable[[Path], Arguments]:
    return lambda folder: ["--out", "out", "--rounds", "10", "--workers", "1", *flags]


_PLAYS = "best responses to averages", "gradient play"


def _other_settings(folder: Path) -> Arguments:
    from ebgan_fast.studies.framework.addresses import open_storage
    from ebgan_fast.studies.framework.queue import TrialQueue

    TrialQueue(open_storage("trials.log"), "semi-supervised", {"batch_size": 20}, [], {})
    return [*_of("semi-supervised")(folder), "--storage", "trials.log"]


def _odd_row(change: str) -> Callable[[Path], Arguments]:
    """Return a function that makes a database, changes a value in it by SQL, and returns the arguments."""

    def make(folder: Path) -> Arguments:
        from ebgan_fast.studies.framework.addresses import open_storage
        from ebgan_fast.studies.framework.queue import TrialQueue
        from ebgan_fast.studies.framework.study import Measured

        play = {"play": "gradient play"}
        settings = {"points": 20, "margin": 10.0, "seed": 0, "rounds": 10, "step": 0.1}
        queue = TrialQueue(open_storage("sqlite:///trials.db"), "theory", settings, [play], {"play": _PLAYS})
        claim = queue.claim()
        assert claim is not None
        claim.done(Measured({}, 0.0))
        with contextlib.closing(sqlite3.connect("trials.db")) as database:
            assert database.execute(change).rowcount == 1
            database.commit()
        return [*_theory()(folder), "--storage", "sqlite:///trials.db"]

    return make


def _others_database(folder: Path) -> Arguments:
    with contextlib.closing(sqlite3.connect("other.db")) as database:
        database.execute("CREATE TABLE bookmarks (address TEXT)")
        database.commit()
    return [*_theory()(folder), "--storage", "sqlite:///other.db"]


def _database_as_a_journal(folder: Path) -> Arguments:
    return [*_others_database(folder), "--storage", "other.db"]


def _without_a_driver(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "psycopg", None)


def _without_scipy(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "scipy", None)


def _without_yaml(patch: pytest.MonkeyPatch) -> None:
    patch.delitem(sys.modules, "ebgan_fast.studies.framework.flags_file", raising=False)
    patch.setitem(sys.modules, "yaml", None)


def _killed(patch: pytest.MonkeyPatch) -> None:
    """Kill each worker process as it begins."""
    from ebgan_fast.studies.framework import run

    patch.setattr(run, "_work_apart", places.killed)


def _few_of_a_digit(folder: Path) -> Arguments:
    return _of("semi-supervised", "--labels", "100")(folder)


_COUNTS = {
    "grid": ("steps", "batch_size", "samples"),
    "margin-sweep": ("seeds", "steps", "batch_size", "size_g", "size_d", "samples"),
    "pt-study": ("seeds", "steps", "point_steps", "batch_size", "size_g", "size_d", "samples"),
    "energy-surface": ("seeds", "point_steps", "steps", "point_width", "size_g", "size_d", "bottleneck"),
    "semi-supervised": ("seeds", "steps", "ebgan_steps", "batch_size"),
}
_POSITIVE = {
    "margin-sweep": ("lr",),
    "pt-study": ("other_weight", "margin", "lr", "point_margin", "point_lr"),
    "energy-surface": ("point_margin", "point_lr", "margin", "lr"),
    "semi-supervised": ("lr", "ebgan_lr", "lr_g"),
}

CASES = [
    # Settings that are counts, and settings that must be above 0.
    *(
        Case(study, f"--{name.replace('_', '-')} 0", _refused(f"--{name.replace('_', '-')}", "0"), name)
        for names in (_COUNTS, _POSITIVE)
        for study, fields in names.items()
        for name in fields
    ),
    *(
        Case(study, "--ema 1", _refused("--ema", "1"), "ema")
        for study in ("margin-sweep", "pt-study", "energy-surface")
    ),
    # Flags that every study has.
    *(
        Case(study, "a device that this machine lacks", _refused("--device", "cuda:99"), "device", machine=_DEVICE)
        for study in _COUNTS
    ),
    *(
        Case(study, "a folder of digits that does not exist", _refused("--data", "digits"), "digits")
        for study in _COUNTS
    ),
    Case("semi-supervised", "--workers 0", _of("semi-supervised", "--workers", "0"), "workers"),
    Case(
        "semi-supervised",
        "an output folder inside a file",
        lambda folder: [*_of("semi-supervised")(folder), "--out", places.text(folder, "notes.txt") / "out"],
        "notes.txt",
    ),
    Case(
        "semi-supervised",
        "a full disk",
        _of("semi-supervised"),
        "out/journal.log",
        around=lambda patch: room_for(10),
        leaves="the command makes the study's folder before its journal",
    ),
    *(
        Case("theory", mistake, _theory("--storage", address), about)
        for mistake, address, about in (
            ("a storage address of an unknown kind", "tables://trials", "tables://trials"),
            (
                "a database in a folder that does not exist",
                "sqlite:///nowhere/trials.db",
                "sqlite:///nowhere/trials.db",
            ),
            ("a database address with too few slashes", "sqlite:trials.db", "storage"),
            ("a server address that begins with postgres://", "postgres://me:secret@host/trials", "storage"),
            ("a server address whose port is not a number", "postgresql://host:port/trials", "storage"),
            ("a database in memory", "sqlite://", "storage"),
            ("a server address without the kind of database", "me:secret@host/trials", "storage"),
            ("a server address whose password holds an @", "postgresql://me:sec@ret@host/trials", "storage"),
        )
    ),
    Case(
        "theory",
        "a database whose driver is not installed",
        _theory("--storage", "postgresql+psycopg://me:secret@host/trials"),
        "postgresql+psycopg://me:***@host/trials",
        around=_without_a_driver,
    ),
    Case("theory", "a database of another program", _others_database, "other.db"),
    Case(
        "theory", "the path of an SQLite database in place of its address", _database_as_a_journal, "sqlite:///other.db"
    ),
    Case(
        "theory",
        "a folder in place of a database",
        lambda folder: [*_theory()(folder), "--storage", f"sqlite:///{places.photos(folder)}"],
        "images",
    ),
    Case(
        "theory",
        "a text file in place of a database",
        lambda folder: [*_theory()(folder), "--storage", f"sqlite:///{places.text(folder, 'notes.txt')}"],
        "notes.txt",
    ),
    Case(
        "theory",
        "a database with a list in place of a study's settings",
        _odd_row("UPDATE study_user_attributes SET value_json = '[1]' WHERE key = 'settings'"),
        "sqlite:///trials.db",
    ),
    Case(
        "theory",
        "a database with a number in place of a trial's result",
        _odd_row("UPDATE trial_user_attributes SET value_json = '1' WHERE key = 'result'"),
        "sqlite:///trials.db",
        leaves="the command queues more trials in the database",
    ),
    Case("margin-sweep", "a margin above 1,000,000", _of("margin-sweep", "--margins", "2e6"), "margin"),
    Case(
        "theory",
        "worker processes that are killed",
        lambda folder: [*_theory()(folder), "--workers", "2"],
        "theory",
        around=_killed,
        leaves=_BEGUN,
    ),
    Case(
        "semi-supervised",
        "a folder in place of a journal",
        lambda folder: [*_of("semi-supervised")(folder), "--storage", places.photos(folder)],
        "images",
    ),
    Case(
        "semi-supervised",
        "a text file in place of a journal",
        lambda folder: [*_of("semi-supervised")(folder), "--storage", places.text(folder, "trials.log")],
        "trials.log",
    ),
    Case(
        "semi-supervised",
        "a journal of trials with other settings",
        _other_settings,
        "trials.log",
        leaves="Optuna writes into the journal which process opens it",
    ),
    Case("grid", "a study, but no package optuna", _refused(), "optuna", around=_without_optuna),
    Case("pt-study", "a study, but no package scipy", _refused(), "scipy", around=_without_scipy),
    Case("grid", "a file of flags, but no package yaml", _file("steps: 1"), "yaml", around=_without_yaml),
    # A file of flags.
    Case(
        "grid",
        "a file of flags that does not exist",
        lambda folder: [*_OUT, "--data", "nowhere", "--file", "grid.yaml"],
        "grid.yaml",
    ),
    Case(
        "grid",
        "a file of flags that is not YAML",
        _file("steps: ["),
        "grid.yaml",
        machine=(r"(?<=got ).*(?=, expected)",),
    ),
    Case("grid", "--file without a path", _refused("--file"), "--file"),
    Case("grid", "a file of flags that is a list", _file("- 1\n"), "grid.yaml"),
    Case("grid", "a file of flags with a list in a list", _file("steps: [[1]]"), "grid.yaml"),
    Case("grid", "a file of flags with an unknown flag", _file("stepz: 1"), "--stepz", status=2),
    # Flags of a single study.
    Case("grid", "a size that the paper's table 1 does not list", _refused("--size-g", "401"), "size_g"),
    Case("grid", "--size-g without a value", _refused("--size-g"), "size_g"),
    Case("grid", "--families without a value", _refused("--families"), "families"),
    Case("grid", "--draw 0", _refused("--draw", "0"), "draw"),
    Case("grid", "--draw -1", _refused("--draw", "-1"), "draw"),
    Case("grid", "--batch-size 1", _refused("--batch-size", "1"), "batch_size"),
    Case("grid", "a seed of more than 64 bits", _refused("--seed", "99999999999999999999"), "seed"),
    Case("margin-sweep", "--margins 0", _refused("--margins", "0"), "margins"),
    Case("margin-sweep", "--margins inf", _refused("--margins", "inf"), "margins"),
    Case("margin-sweep", "--margins without a value", _refused("--margins"), "margins"),
    Case("margin-sweep", "--batch-size 1", _refused("--batch-size", "1"), "batch_size"),
    Case("energy-surface", "--batch-size 1", _refused("--batch-size", "1"), "batch_size"),
    Case("energy-surface", "--point-batch-size 1", _refused("--point-batch-size", "1"), "point_batch_size"),
    Case("energy-surface", "--models without a value", _refused("--models"), "models"),
    Case("energy-surface", "--pt-weight -1", _refused("--pt-weight", "-1"), "pt_weight"),
    Case("pt-study", "--batch-size 1", _refused("--batch-size", "1"), "batch_size"),
    Case("pt-study", "--terms without a value", _refused("--terms"), "terms"),
    Case("pt-study", "--weights 0", _refused("--weights", "0"), "weights"),
    Case("pt-study", "--sets without a value", _refused("--sets"), "sets"),
    Case("semi-supervised", "a number of labels that is not a multiple of 10", _refused("--labels", "105"), "labels"),
    Case("semi-supervised", "--labels without a value", _refused("--labels"), "labels"),
    Case("semi-supervised", "--models without a value", _refused("--models"), "models"),
    Case("semi-supervised", "--batch-size 1", _refused("--batch-size", "1"), "batch_size"),
    Case("semi-supervised", "--margin-steps above --ebgan-steps", _refused("--margin-steps", "5000"), "margin_steps"),
    Case("semi-supervised", "--beta1 1", _refused("--beta1", "1"), "beta1"),
    Case("semi-supervised", "--recon-weight -1", _refused("--recon-weight", "-1"), "recon_weight"),
    Case("semi-supervised", "--margin -1", _refused("--margin", "-1"), "margin"),
    Case("semi-supervised", "more labels than a digit has images", _few_of_a_digit, "labels", leaves=_BEGUN),
    Case(
        "semi-supervised",
        "a batch larger than the data set",
        _of("semi-supervised", "--batch-size", "64"),
        "batch_size",
    ),
    Case(
        "semi-supervised",
        "a learning rate that makes every trial fail",
        _of("semi-supervised", "--lr", "1e30", "--steps", "20"),
        "out/journal.log",
        machine=(r"(?<=all failed \().*(?=\), expected)",),
        leaves="the journal keeps the trials and the reasons why they failed",
    ),
    Case("theory", "--points 3", _theory("--points", "3"), "points"),
    Case("theory", "--rounds 0", _theory("--rounds", "0"), "rounds"),
    Case("theory", "--margin 0", _theory("--margin", "0"), "margin"),
    Case("theory", "--step inf", _theory("--step", "inf"), "step"),
    Case("theory", "--seed -1", _theory("--seed", "-1"), "seed"),
    Case(
        "theory",
        "an output folder inside a file",
        lambda folder: [*_theory()(folder), "--out", places.text(folder, "notes.txt") / "out"],
        "notes.txt",
    ),
    Case(
        "theory",
        "a full disk",
        _theory(),
        "out/journal.log",
        around=lambda patch: room_for(10),
        leaves="the command makes the study's folder before its journal",
    ),
]

"""Mistakes of the studies: their settings, files of flags, storages, and what fails within a trial."""

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
_BEGUN = "the trials are queued, for another run to do them"


def _of(study: str, *flags: str) -> Callable[[Path], Arguments]:
    return lambda folder: [*_OUT, "--data", places.digits(folder), *_SIZES[study], *flags]


def _refused(*flags: str) -> Callable[[Path], Arguments]:
    """Flags that are refused before any digits are looked for."""
    return lambda folder: [*_OUT, "--data", "nowhere", *flags]


def _file(content: str, *flags: str) -> Callable[[Path], Arguments]:
    """Flags out of grid.yaml."""

    def make(folder: Path) -> Arguments:
        places.text(folder, "grid.yaml", content)
        return [*_OUT, "--data", "nowhere", "--file", "grid.yaml", *flags]

    return make


def _without_optuna(patch: pytest.MonkeyPatch) -> None:
    for name in ("run", "queue", "addresses", "databases", "journal", "storage"):  # what needs it
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
    """A database in which a value of one study was changed by other hands."""

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


def _without_yaml(patch: pytest.MonkeyPatch) -> None:
    patch.delitem(sys.modules, "ebgan_fast.studies.framework.flags_file", raising=False)
    patch.setitem(sys.modules, "yaml", None)


def _killed(patch: pytest.MonkeyPatch) -> None:
    """Let each process that does trials be killed as it begins."""
    from ebgan_fast.studies.framework import run

    patch.setattr(run, "_work_apart", places.killed)


def _few_of_a_digit(folder: Path) -> Arguments:
    return _of("semi-supervised", "--labels", "100")(folder)


_COUNTS = {
    "grid": ("steps", "batch_size", "samples"),
    "margin-sweep": ("seeds", "steps", "batch_size", "size_g", "size_d", "samples"),
    "pt-study": ("seeds", "steps", "point_steps", "batch_size", "size_g", "size_d", "samples"),
    "semi-supervised": ("seeds", "steps", "ebgan_steps", "batch_size"),
}
_POSITIVE = {
    "margin-sweep": ("lr",),
    "pt-study": ("weight", "margin", "lr", "point_margin", "point_lr"),
    "semi-supervised": ("lr", "ebgan_lr", "lr_g"),
}

CASES = [
    # The settings that are counts, and those that are above 0.
    *(
        Case(study, f"--{name.replace('_', '-')} 0", _refused(f"--{name.replace('_', '-')}", "0"), name)
        for names in (_COUNTS, _POSITIVE)
        for study, fields in names.items()
        for name in fields
    ),
    *(Case(study, "--ema 1", _refused("--ema", "1"), "ema") for study in ("margin-sweep", "pt-study")),
    # What all have.
    *(
        Case(study, "a device that isn't here", _refused("--device", "cuda:99"), "device", machine=_DEVICE)
        for study in _COUNTS
    ),
    *(Case(study, "no such digits", _refused("--data", "digits"), "digits") for study in _COUNTS),
    Case("semi-supervised", "--workers 0", _of("semi-supervised", "--workers", "0"), "workers"),
    Case(
        "semi-supervised",
        "a folder inside a file",
        lambda folder: [*_of("semi-supervised")(folder), "--out", places.text(folder, "notes.txt") / "out"],
        "notes.txt",
    ),
    Case(
        "semi-supervised",
        "a full disk",
        _of("semi-supervised"),
        "out/journal.log",
        around=lambda patch: room_for(10),
        leaves="the study's folder is made before its journal",
    ),
    *(
        Case("theory", mistake, _theory("--storage", address), about)
        for mistake, address, about in (
            ("a storage of an unknown kind", "tables://trials", "tables://trials"),
            ("a database in a folder that isn't there", "sqlite:///nowhere/trials.db", "sqlite:///nowhere/trials.db"),
            ("a database with a slash too few", "sqlite:trials.db", "storage"),
            ("a server by the name that others use", "postgres://me:secret@host/trials", "storage"),
            ("a server whose port is no number", "postgresql://host:port/trials", "storage"),
            ("a database in memory", "sqlite://", "storage"),
            ("a server with no kind", "me:secret@host/trials", "storage"),
            ("a password with an @", "postgresql://me:sec@ret@host/trials", "storage"),
        )
    ),
    Case(
        "theory",
        "a database without a driver",
        _theory("--storage", "postgresql+psycopg://me:secret@host/trials"),
        "postgresql+psycopg://me:***@host/trials",
        around=_without_a_driver,
    ),
    Case("theory", "a database of something else", _others_database, "other.db"),
    Case("theory", "a database as a journal", _database_as_a_journal, "sqlite:///other.db"),
    Case(
        "theory",
        "a folder as a database",
        lambda folder: [*_theory()(folder), "--storage", f"sqlite:///{places.photos(folder)}"],
        "images",
    ),
    Case(
        "theory",
        "a text as a database",
        lambda folder: [*_theory()(folder), "--storage", f"sqlite:///{places.text(folder, 'notes.txt')}"],
        "notes.txt",
    ),
    Case(
        "theory",
        "a database whose settings are a list",
        _odd_row("UPDATE study_user_attributes SET value_json = '[1]' WHERE key = 'settings'"),
        "sqlite:///trials.db",
    ),
    Case(
        "theory",
        "a database with a result that is a number",
        _odd_row("UPDATE trial_user_attributes SET value_json = '1' WHERE key = 'result'"),
        "sqlite:///trials.db",
        leaves="trials are queued beside it",
    ),
    Case("margin-sweep", "a margin above any", _of("margin-sweep", "--margins", "2e6"), "margin"),
    Case(
        "theory",
        "processes that are killed",
        lambda folder: [*_theory()(folder), "--workers", "2"],
        "theory",
        around=_killed,
        leaves=_BEGUN,
    ),
    Case(
        "semi-supervised",
        "a journal that is a folder",
        lambda folder: [*_of("semi-supervised")(folder), "--storage", places.photos(folder)],
        "images",
    ),
    Case(
        "semi-supervised",
        "a journal of something else",
        lambda folder: [*_of("semi-supervised")(folder), "--storage", places.text(folder, "trials.log")],
        "trials.log",
    ),
    Case(
        "semi-supervised",
        "trials of other settings",
        _other_settings,
        "trials.log",
        leaves="Optuna notes in the journal who opens it",
    ),
    Case("grid", "packages that aren't installed", _refused(), "optuna", around=_without_optuna),
    Case("grid", "a file of flags without a package", _file("steps: 1"), "yaml", around=_without_yaml),
    # A file of flags.
    Case(
        "grid", "no such file of flags", lambda folder: [*_OUT, "--data", "nowhere", "--file", "grid.yaml"], "grid.yaml"
    ),
    Case(
        "grid",
        "a file of flags that is no YAML",
        _file("steps: ["),
        "grid.yaml",
        machine=(r"(?<=got ).*(?=, expected)",),
    ),
    Case("grid", "--file without a path", _refused("--file"), "--file"),
    Case("grid", "a file of flags that is a list", _file("- 1\n"), "grid.yaml"),
    Case("grid", "a flag in a file with a list of lists", _file("steps: [[1]]"), "grid.yaml"),
    Case("grid", "an unknown flag in a file", _file("stepz: 1"), "--stepz", status=2),
    # Each one's own.
    Case("grid", "a size that table 1 lacks", _refused("--size-g", "401"), "size_g"),
    Case("grid", "no sizes", _refused("--size-g"), "size_g"),
    Case("grid", "no families", _refused("--families"), "families"),
    Case("grid", "--draw 0", _refused("--draw", "0"), "draw"),
    Case("grid", "--draw -1", _refused("--draw", "-1"), "draw"),
    Case("grid", "--batch-size 1", _refused("--batch-size", "1"), "batch_size"),
    Case("grid", "a seed of more than 64 bits", _refused("--seed", "99999999999999999999"), "seed"),
    Case("margin-sweep", "--margins 0", _refused("--margins", "0"), "margins"),
    Case("margin-sweep", "--margins inf", _refused("--margins", "inf"), "margins"),
    Case("margin-sweep", "no margins", _refused("--margins"), "margins"),
    Case("margin-sweep", "--batch-size 1", _refused("--batch-size", "1"), "batch_size"),
    Case("pt-study", "--batch-size 1", _refused("--batch-size", "1"), "batch_size"),
    Case("pt-study", "no terms", _refused("--terms"), "terms"),
    Case("pt-study", "no sets", _refused("--sets"), "sets"),
    Case("semi-supervised", "labels that can't be shared among the digits", _refused("--labels", "105"), "labels"),
    Case("semi-supervised", "no labels", _refused("--labels"), "labels"),
    Case("semi-supervised", "no models", _refused("--models"), "models"),
    Case("semi-supervised", "--batch-size 1", _refused("--batch-size", "1"), "batch_size"),
    Case("semi-supervised", "more steps of the margin than steps", _refused("--margin-steps", "5000"), "margin_steps"),
    Case("semi-supervised", "--beta1 1", _refused("--beta1", "1"), "beta1"),
    Case("semi-supervised", "--recon-weight -1", _refused("--recon-weight", "-1"), "recon_weight"),
    Case("semi-supervised", "--margin -1", _refused("--margin", "-1"), "margin"),
    Case("semi-supervised", "more labels than a digit has images", _few_of_a_digit, "labels", leaves=_BEGUN),
    Case(
        "semi-supervised",
        "a batch of more images than there are",
        _of("semi-supervised", "--batch-size", "64"),
        "batch_size",
    ),
    Case(
        "semi-supervised",
        "a learning rate that makes every trial fail",
        _of("semi-supervised", "--lr", "1e30", "--steps", "20"),
        "out/journal.log",
        machine=(r"(?<=all failed \().*(?=\), expected)",),
        leaves="the trials are kept with the reason why they failed",
    ),
    Case("theory", "--points 3", _theory("--points", "3"), "points"),
    Case("theory", "--rounds 0", _theory("--rounds", "0"), "rounds"),
    Case("theory", "--margin 0", _theory("--margin", "0"), "margin"),
    Case("theory", "--step inf", _theory("--step", "inf"), "step"),
    Case("theory", "--seed -1", _theory("--seed", "-1"), "seed"),
    Case(
        "theory",
        "a folder inside a file",
        lambda folder: [*_theory()(folder), "--out", places.text(folder, "notes.txt") / "out"],
        "notes.txt",
    ),
    Case(
        "theory",
        "a full disk",
        _theory(),
        "out/journal.log",
        around=lambda patch: room_for(10),
        leaves="the study's folder is made before its journal",
    ),
]

"""Command lines that can't be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..case import Arguments, Case


def _line(*arguments: str) -> Callable[[Path], Arguments]:
    return lambda folder: arguments


_STUDIES = (r"(?<=doctor, ).*(?= \(see)",)  # of which there may be more tomorrow

CASES = [
    Case("", "no command", _line(), "command", 2, machine=_STUDIES),
    Case("", "an unknown command", _line("trian"), "trian", 2, machine=_STUDIES),
    Case("", "an unknown command with flags", _line("tran", "--out", "x"), "tran", 2, machine=_STUDIES),
    Case("prepare", "no size", _line("images", "out"), "--size", 2),
    Case("prepare", "no folder", _line("images", "--size", "8"), "prepare", 2),
    Case("prepare", "a path too many", _line("images", "out", "more", "--size", "8"), "more", 2),
    Case("prepare", "a kind that there is not", _line("images", "out", "--size", "8", "--kind", "films"), "--kind", 2),
    Case("prepare", "a size that is no number", _line("images", "out", "--size", "small"), "--size", 2),
    Case("prepare", "a flag that there is not", _line("images", "out", "--size", "8", "--sizes", "8"), "--sizes", 2),
    Case(
        "train", "a count of words, by a flag with another dash", _line("--batch_size", "x", "--out", "run"), "'x'", 2
    ),
    Case("train", "a flag that is a property", _line("--depth-g", "3", "--out", "run"), "--depth-g", 2),
    Case("train", "no folder", _line(), "--out", 2),
    Case("train", "a flag that there is not", _line("--out", "run", "--stepz", "3"), "--stepz", 2),
    Case("train", "steps that are no number", _line("--out", "run", "--steps", "many"), "--steps", 2),
    Case("train", "steps that are no whole number", _line("--out", "run", "--steps", "1.5"), "--steps", 2),
    Case("train", "a margin that is no number", _line("--out", "run", "--margin", "many"), "--margin", 2),
    Case("train", "a flag without its value", _line("--out", "run", "--steps"), "--steps", 2),
    Case("train", "a value of a switch", _line("--out", "run", "--compile", "yes"), "yes", 2),
    Case("train", "a preset that there is not", _line("--out", "run", "--preset", "celeba"), "--preset", 2),
    Case(
        "train",
        "layers without a preset that has them",
        _line("--out", "run", "--encoder-layers", "(8)4c2s"),
        "--encoder-layers",
        2,
    ),
    Case("sample", "no paths", _line(), "sample", 2),
    Case("sample", "a count that is no whole number", _line("run", "out", "--count", "1.5"), "--count", 2),
    Case("evaluate", "no run", _line(), "evaluate", 2),
    Case("report", "a flag of another spelling", _line("run", "--neighbours"), "--neighbors", 2),
    Case("doctor", "a value that it does not take", _line("cpu"), "cpu", 2),
    Case("grid", "no folder", _line(), "--out", 2),
    Case("grid", "a size that is no number", _line("--out", "out", "--size-g", "many"), "--size-g", 2),
    Case("grid", "a family that there is not", _line("--out", "out", "--families", "VAE"), "--families", 2),
    Case("theory", "a budget that there is not", _line("--out", "out", "--budget", "weeks"), "--budget", 2),
    Case("theory", "no folder", _line(), "--out", 2),
    Case("margin-sweep", "a margin that is no number", _line("--out", "out", "--margins", "many"), "--margins", 2),
    Case("pt-study", "a term that there is not", _line("--out", "out", "--terms", "cosine"), "--terms", 2),
    Case("semi-supervised", "a model that there is not", _line("--out", "out", "--models", "VAT"), "--models", 2),
]

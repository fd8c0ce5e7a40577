"""Command lines that can't be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..case import Arguments, Case


def _line(*arguments: str) -> Callable[[Path], Arguments]:
    return lambda folder: arguments


_STUDIES = (r"(?<=doctor, ).*(?= \(see)",)  # later versions may have more studies

CASES = [
    Case("", "no command", _line(), "command", 2, machine=_STUDIES),
    Case("", "an unknown command", _line("trian"), "trian", 2, machine=_STUDIES),
    Case("", "an unknown command with flags", _line("tran", "--out", "x"), "tran", 2, machine=_STUDIES),
    Case("prepare", "no --size", _line("images", "out"), "--size", 2),
    Case("prepare", "no folder", _line("images", "--size", "8"), "prepare", 2),
    Case("prepare", "one path too many", _line("images", "out", "more", "--size", "8"), "more", 2),
    Case("prepare", "an unknown kind", _line("images", "out", "--size", "8", "--kind", "films"), "--kind", 2),
    Case("prepare", "a size that is not a number", _line("images", "out", "--size", "small"), "--size", 2),
    Case("prepare", "an unknown flag", _line("images", "out", "--size", "8", "--sizes", "8"), "--sizes", 2),
    Case(
        "train",
        "a flag with an underscore, and a value that is not a number",
        _line("--batch_size", "x", "--out", "run"),
        "'x'",
        2,
    ),
    Case(
        "train",
        "--depth-g, which is computed and is not a flag",
        _line("--depth-g", "3", "--out", "run"),
        "--depth-g",
        2,
    ),
    Case("train", "no folder", _line(), "--out", 2),
    Case("train", "an unknown flag", _line("--out", "run", "--stepz", "3"), "--stepz", 2),
    Case("train", "steps that are not a number", _line("--out", "run", "--steps", "many"), "--steps", 2),
    Case("train", "steps that are not a whole number", _line("--out", "run", "--steps", "1.5"), "--steps", 2),
    Case("train", "a margin that is not a number", _line("--out", "run", "--margin", "many"), "--margin", 2),
    Case("train", "a flag without its value", _line("--out", "run", "--steps"), "--steps", 2),
    Case("train", "a value after a switch", _line("--out", "run", "--compile", "yes"), "yes", 2),
    Case("train", "an unknown preset", _line("--out", "run", "--preset", "celeba"), "--preset", 2),
    Case(
        "train",
        "convolutional layers for a preset that has none",
        _line("--out", "run", "--encoder-layers", "(8)4c2s"),
        "--encoder-layers",
        2,
    ),
    Case("sample", "no paths", _line(), "sample", 2),
    Case("sample", "a count that is not a whole number", _line("run", "out", "--count", "1.5"), "--count", 2),
    Case("evaluate", "no run", _line(), "evaluate", 2),
    Case("report", "a flag in British spelling", _line("run", "--neighbours"), "--neighbors", 2),
    Case("doctor", "a value for a command that takes none", _line("cpu"), "cpu", 2),
    Case("grid", "no folder", _line(), "--out", 2),
    Case("grid", "a size that is not a number", _line("--out", "out", "--size-g", "many"), "--size-g", 2),
    Case("grid", "an unknown family", _line("--out", "out", "--families", "VAE"), "--families", 2),
    Case("theory", "an unknown budget", _line("--out", "out", "--budget", "weeks"), "--budget", 2),
    Case("theory", "no folder", _line(), "--out", 2),
    Case("margin-sweep", "a margin that is not a number", _line("--out", "out", "--margins", "many"), "--margins", 2),
    Case("pt-study", "an unknown term", _line("--out", "out", "--terms", "cosine"), "--terms", 2),
    Case("semi-supervised", "an unknown model", _line("--out", "out", "--models", "VAT"), "--models", 2),
]

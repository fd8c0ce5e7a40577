"""A study's flags out of a YAML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml


def with_file(arguments: Sequence[str]) -> list[str]:
    """Arguments with those of a YAML file, which --file names, put before the ones that are given beside it.

    Raises:
        ValueError: a file of something else than one value or list for each flag.
        OSError: it can't be read.
    """
    given = list(arguments)
    if "--file" not in given[:-1]:
        return given

    place = given.index("--file")
    path = Path(given[place + 1])
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: got {' '.join(str(error).split())}, expected YAML") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: got {type(content).__name__}, expected lines such as size_g: [400, 800]")
    flags: list[str] = []
    for name, value in content.items():
        values = value if isinstance(value, list) else [value]
        if any(isinstance(one, (dict, list)) for one in values):
            raise ValueError(f"{path}: {name}: got {value}, expected one value or a list of them")
        flags += [f"--{str(name).replace('_', '-')}", *map(str, values)]
    return [*given[:1], *flags, *given[1:place], *given[place + 2 :]]

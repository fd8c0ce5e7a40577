"""Each planted bug fits the present sources and names an existing test. `make planted` plants them."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from .plant import KINDS, Planted
from .plants import PLANTS, chosen

ROOT = Path(__file__).parents[2]
every_plant = pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)


@functools.cache
def _tests_of(path: Path) -> frozenset[str]:
    """Return the names of the functions in a test module."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef))


@every_plant
def test_its_text_is_there_once(plant: Planted) -> None:
    path = ROOT / plant.file
    source = path.read_text(encoding="utf-8") if path.is_file() else None
    assert plant.stale(source) is None
    assert source is not None
    assert plant.planted(source) != source
    if path.suffix == ".py":
        compile(plant.planted(source), plant.file, "exec")  # the bug must be valid Python


@every_plant
def test_its_test_is_there(plant: Planted) -> None:
    file, _, function = plant.test.partition("::")
    assert (ROOT / file).is_file()
    assert not function or re.sub(r"\[.*\]$", "", function) in _tests_of(ROOT / file)


def test_they_are_of_every_kind_and_no_two_alike() -> None:
    assert {plant.kind for plant in PLANTS} == set(KINDS)
    assert len(PLANTS) >= 20
    assert len({plant.name for plant in PLANTS}) == len(PLANTS)
    assert len({(plant.file, plant.text, plant.instead) for plant in PLANTS}) == len(PLANTS)


def test_some_can_be_asked_for() -> None:
    assert chosen(PLANTS, [], []) == list(PLANTS)
    assert {plant.kind for plant in chosen(PLANTS, [], ["cuda"])} == {"cuda"}
    assert [plant.name for plant in chosen(PLANTS, ["CROP IS A PIXEL"], [])] == ["the crop is a pixel off the middle"]
    with pytest.raises(ValueError, match="got 'no such bug', expected a part of a planted bug's name"):
        chosen(PLANTS, ["no such bug"], [])

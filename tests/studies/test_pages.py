"""The tables on the studies' pages are those of the committed results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ebgan_fast.studies import grid_report, margin_sweep, pulling_away, semi_supervised, theory
from ebgan_fast.studies.results import Results, read

PAGES = Path(__file__).parents[2] / "docs" / "studies"
TABLES: dict[str, Callable[[Results], str]] = {
    "grid": grid_report.table,
    "margin-sweep": margin_sweep.table,
    "pt-study": pulling_away.table,
    "semi-supervised": semi_supervised.table,
    "theory": theory.table,
}


@pytest.mark.parametrize("name", TABLES)
def test_a_page_has_the_table_of_its_results(name: str) -> None:
    results = read(PAGES / "results" / f"{name}.json")
    assert results.study == name
    assert TABLES[name](results) in (PAGES / f"{name}.md").read_text()

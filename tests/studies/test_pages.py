"""The tables on the studies' pages are those of the committed results, and every study has a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebgan_fast.studies import all_studies
from ebgan_fast.studies.framework.results import read

PAGES = Path(__file__).parents[2] / "docs" / "studies"


@pytest.mark.parametrize("path", sorted((PAGES / "results").glob("*.json")), ids=lambda path: path.stem)
def test_a_page_has_the_table_of_its_results(path: Path) -> None:
    results = read(path)
    assert results.study == path.stem
    assert all_studies()[path.stem].table(results) in (PAGES / f"{path.stem}.md").read_text()


def test_the_papers_studies_have_results() -> None:
    """Only these studies must have results: the page of a new study may come before its results."""
    found = {path.stem for path in (PAGES / "results").glob("*.json")}
    assert found >= {"grid", "margin-sweep", "pt-study", "semi-supervised", "theory"}


@pytest.mark.parametrize("name", all_studies())
def test_a_page_is_found(name: str) -> None:
    """The list of studies links to each page and gives its command."""
    line = next(line for line in (PAGES / "README.md").read_text().splitlines() if f"({name}.md)" in line)
    assert f"`ebgan-fast {name}`" in line
    assert f"ebgan-fast {name} --out" in (PAGES / f"{name}.md").read_text()

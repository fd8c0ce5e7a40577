"""Links lead to files and headings, pictures are shown, and make targets exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .commands import TARGETS
from .pages import PAGES, ROOT, name_of

PICTURES = (".png", ".svg", ".webp")


def broken_links(page: Path) -> list[str]:
    """Return the links of a page to files or headings of the repository that do not exist."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        name, _, heading = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists():
            found.append(target)
        elif heading:
            titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            if heading not in {re.sub(r"[^\w\s-]", "", title).lower().replace(" ", "-") for title in titles}:
                found.append(target)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert broken_links(page) == []


def test_a_link_to_nothing_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A title\n[a](page.md) [b](page.md#a-title) [c](#no-title) [d](other.md) [e](https://x) ![f](x.png)"
    )
    assert broken_links(page) == ["#no-title", "other.md", "x.png"]


def test_every_picture_is_shown_by_a_page() -> None:
    shown = {
        (page.parent / name).resolve()
        for page in PAGES
        for name in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    }
    there = {path for path in (ROOT / "docs").rglob("*") if path.suffix in PICTURES}
    assert there - shown == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_make_targets_that_a_page_names_exist(page: Path) -> None:
    # `make` at the start of a command or in backticks, not the English verb.
    for target in re.findall(r"(?:^|`)make ([a-z0-9-]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
        assert target in TARGETS, f"make {target}"

"""The site builds strictly, and a stale link or page fails the build."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("mkdocs", reason="the site is built by mkdocs: pip install -e '.[docs]'")

from click.testing import CliRunner
from mkdocs.__main__ import cli

from .pages import ROOT

# Without --quiet, since mkdocs counts no warnings under it.
STRICT = ("build", "--strict", "--site-dir")


@pytest.fixture(autouse=True)
def _only_this_mkdocs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")


def _build_here(root: Path, to: Path) -> tuple[int, str]:
    """Build a site in this process, since another takes 0.6 s to start; return the exit status and the output."""
    done = CliRunner().invoke(cli, [*STRICT, str(to), "--config-file", str(root / "mkdocs.yml")])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("href", "src") and value]


def _text_of(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


@pytest.mark.slow
def test_the_site_builds_and_its_links_are_files_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", *STRICT, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for page in tmp_path.rglob("*.html"):
        if page.name == "404.html":  # its links begin at the site's root
            continue
        links = _Links()
        links.feed(page.read_text(encoding="utf-8"))
        for link in links.found:
            name = link.partition("#")[0]
            if name and not link.startswith(("http", "mailto:", "data:")):
                assert (page.parent / name).exists(), f"{page.relative_to(tmp_path)}: {link}"
    reference = (tmp_path / "reference" / "losses.html").read_text(encoding="utf-8")
    for words in ("discriminator_loss", "hinge_margin_loss", "equation 14", "Raises"):
        assert words in reference
    # The description of a return value is one paragraph, however many lines it has.
    assert "1 for parallel or opposite codes, 0 for orthogonal codes, about 1/d" in _text_of(reference)
    # Examples are shown as code, not as the quotation that Markdown makes of >>>.
    networks = (tmp_path / "reference" / "models.html").read_text(encoding="utf-8")
    assert '<code><span class="gp">&gt;&gt;&gt; </span>' in networks
    for page in (tmp_path / "reference").glob("*.html"):
        assert "<blockquote>" not in page.read_text(encoding="utf-8"), page.name
    assert list(tmp_path.rglob("fonts.googleapis*")) == []
    assert "googleapis" not in (tmp_path / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Write a site of a few pages that has the hooks and settings of the real site; return its folder."""
    settings: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    settings |= {"theme": {"name": "mkdocs"}, "plugins": [], "nav": [{"Home": "index.md"}, {"Page": "page.md"}]}
    settings["nav"] += [{"Changes": "changelog.md"}, {"Contributing": "contributing.md"}]
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(settings))
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "site_hooks.py", tmp_path / "docs")
    (tmp_path / "README.md").write_text("# Home\n\n[page](docs/page.md#part) [changes](CHANGELOG.md) [code](tool.py)\n")
    (tmp_path / "docs" / "page.md").write_text("# Page\n\n[home](../README.md#home) [code](../tool.py)\n\n## Part\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changes\n")
    (tmp_path / "CONTRIBUTING.md").write_text("# Contributing\n")
    (tmp_path / "tool.py").write_text("print(1)\n")
    return tmp_path


def test_links_out_of_docs_lead_into_the_site(small: Path, tmp_path: Path) -> None:
    status, said = _build_here(small, tmp_path / "site")
    assert status == 0, said
    assert 'href="page.html#part"' in (tmp_path / "site" / "index.html").read_text()
    page = (tmp_path / "site" / "page.html").read_text()
    assert 'href="index.html#home"' in page
    assert 'href="source/tool.py"' in page
    assert (tmp_path / "site" / "source" / "tool.py").read_text() == "print(1)\n"


@pytest.mark.parametrize("measured", [False, True])
def test_the_page_of_a_gpu_s_results_is_in_the_site_where_it_is_in_docs(
    small: Path, tmp_path: Path, measured: bool
) -> None:
    settings: dict[str, Any] = yaml.safe_load((small / "mkdocs.yml").read_text())
    settings["nav"] += [{"Background": [{"Performance": "performance.md"}, {"Other": "other.md"}]}]
    (small / "mkdocs.yml").write_text(yaml.safe_dump(settings))
    for name in ("performance.md", "other.md", *(["performance-gpu.md"] if measured else [])):
        (small / "docs" / name).write_text("# Words\n")
    status, said = _build_here(small, tmp_path / "site")
    assert status == 0, said
    assert (tmp_path / "site" / "performance-gpu.html").exists() == measured
    assert ('href="performance-gpu.html"' in (tmp_path / "site" / "other.html").read_text()) == measured


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("docs/page.md", "../tool.py", "../tools.py"),
        ("docs/page.md", "README.md#home", "README.md#hom"),
        ("README.md", "docs/page.md#part", "docs/page.md#prat"),
        ("README.md", "docs/page.md", "docs/pages.md"),
        ("mkdocs.yml", "page.md", "pages.md"),
        ("mkdocs.yml", "- Page: page.md", ""),
    ],
)
def test_what_is_stale_is_refused(small: Path, tmp_path: Path, file: str, old: str, new: str) -> None:
    text = (small / file).read_text()
    assert old in text
    (small / file).write_text(text.replace(old, new))
    status, said = _build_here(small, tmp_path / "site")
    assert status != 0
    assert "WARNING" in said

"""Hooks of mkdocs that make a site of pages which are written for the repository; `mkdocs.yml` names them.

In the repository, pages link to files above docs/. In the site, README.md, CONTRIBUTING.md and CHANGELOG.md are pages,
and every other file that a page links to is copied beside them. A link to a missing file is left as it is, and the
strict build refuses it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from griffe import Extension, Object
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_OF_GPUS = "performance-gpu.md"
_STUDIES = "studies/README.md"
_ELSEWHERE = ("http:", "https:", "mailto:", "#")
_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=[)\s])")


class Examples(Extension):
    """Rename the section `Example:` of every docstring to `Examples:`.

    The site's reader of docstrings shows code under `Examples:` alone. Elsewhere it takes `>>>` for three quotations.
    """

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rename the section before the docstring is read."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub("Examples:", obj.docstring.value)


def _docs(config: MkDocsConfig) -> Path:
    return Path(config.docs_dir).resolve()


def _origin(uri: str, docs: Path) -> Path:
    """Return the file of the repository that a page of the site is made of."""
    by_uri = {page: name for name, page in _PAGES.items()}
    return docs.parent / by_uri[uri] if uri in by_uri else docs / uri


def _above(target: str, origin: Path, docs: Path) -> Path | None:
    """Return the file outside docs/ that a link leads to, or None if it leads elsewhere."""
    if target.startswith(_ELSEWHERE):
        return None
    path = Path(os.path.normpath(origin.parent / target.partition("#")[0]))
    return path if path.is_file() and not path.is_relative_to(docs) and path.is_relative_to(docs.parent) else None


def _uri(path: Path, docs: Path) -> str:
    """Return the place of a repository's file in the site."""
    if path.is_relative_to(docs):
        return path.relative_to(docs).as_posix()
    name = path.relative_to(docs.parent).as_posix()
    return _PAGES.get(name, f"source/{name}")


def _linked(docs: Path) -> Iterator[Path]:
    """Give the files above docs/ that pages link to, without those that are pages themselves."""
    for page in (*docs.rglob("*.md"), *(docs.parent / name for name in _PAGES)):
        for target in _LINK.findall(page.read_text(encoding="utf-8")):
            path = _above(target, page, docs)
            if path and path.relative_to(docs.parent).as_posix() not in _PAGES:
                yield path


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the studies' pages to the navigation, and the page of GPU results if it exists."""
    docs = _docs(config)
    sections = [entries for section in config.nav or () for entries in section.values() if isinstance(entries, list)]
    for studies in (entries for entries in sections if _STUDIES in entries):
        pages = (docs / _STUDIES).parent.glob("*.md")
        studies += sorted(page.relative_to(docs).as_posix() for page in pages if page != docs / _STUDIES)
    if (docs / _OF_GPUS).exists():
        (section,) = (entries for entries in sections if {"Performance": "performance.md"} in entries)
        section.insert(section.index({"Performance": "performance.md"}) + 1, {"Performance on a GPU": _OF_GPUS})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and linked files from above docs/."""
    docs = _docs(config)
    for name, uri in _PAGES.items():
        files.append(File.generated(config, uri, content=(docs.parent / name).read_text(encoding="utf-8")))
    for path in sorted(set(_linked(docs))):
        files.append(File.generated(config, _uri(path, docs), content=path.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between files of the site."""
    docs = _docs(config)
    origin = _origin(page.file.src_uri, docs)
    here = PurePosixPath(page.file.src_uri).parent

    def turned(found: re.Match[str]) -> str:
        name, mark, heading = found[1].partition("#")
        path = Path(os.path.normpath(origin.parent / name))
        if not name or found[1].startswith(_ELSEWHERE) or not path.is_file():
            return found[1]
        return os.path.relpath(_uri(path, docs), here) + mark + heading

    return _LINK.sub(turned, markdown)

"""The site beside the repository: `mkdocs.yml` runs these, and `Examples` on every docstring.

Pages are written to be read in the repository, where they link to files above docs/. In the site, README.md,
CONTRIBUTING.md and CHANGELOG.md are pages of their own, and any other file that a page links to is copied beside them.
A link to a file that isn't there is left as it is, and the strict build refuses it.
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
    """Has the section `Example:` of a docstring read as the code that it is.

    The site's reader of docstrings knows `Examples:` alone, and takes `>>>` elsewhere for three quotations.
    """

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rename the section before the docstring is read."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub("Examples:", obj.docstring.value)


def _docs(config: MkDocsConfig) -> Path:
    return Path(config.docs_dir).resolve()


def _origin(uri: str, docs: Path) -> Path:
    """The file in the repository that a page of the site is made of."""
    by_uri = {page: name for name, page in _PAGES.items()}
    return docs.parent / by_uri[uri] if uri in by_uri else docs / uri


def _above(target: str, origin: Path, docs: Path) -> Path | None:
    """The file outside docs/ that a link leads to, if it's one."""
    if target.startswith(_ELSEWHERE):
        return None
    path = Path(os.path.normpath(origin.parent / target.partition("#")[0]))
    return path if path.is_file() and not path.is_relative_to(docs) and path.is_relative_to(docs.parent) else None


def _uri(path: Path, docs: Path) -> str:
    """Where the site has a file of the repository."""
    if path.is_relative_to(docs):
        return path.relative_to(docs).as_posix()
    name = path.relative_to(docs.parent).as_posix()
    return _PAGES.get(name, f"source/{name}")


def _linked(docs: Path) -> Iterator[Path]:
    """The files above docs/ that some page links to, and that are no pages."""
    for page in (*docs.rglob("*.md"), *(docs.parent / name for name in _PAGES)):
        for target in _LINK.findall(page.read_text(encoding="utf-8")):
            path = _above(target, page, docs)
            if path and path.relative_to(docs.parent).as_posix() not in _PAGES:
                yield path


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds to the navigation the studies' pages, and that of a GPU's results, which is there where there are some."""
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
    """Adds the pages and files from above docs/."""
    docs = _docs(config)
    for name, uri in _PAGES.items():
        files.append(File.generated(config, uri, content=(docs.parent / name).read_text(encoding="utf-8")))
    for path in sorted(set(_linked(docs))):
        files.append(File.generated(config, _uri(path, docs), content=path.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links between files of the repository into links between files of the site."""
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

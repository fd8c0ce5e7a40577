"""The command `page`: docs/performance.md, its pictures and the README's figures, made of the committed results."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from string import Template

from . import figures, files, page_parts
from .provenance import ROOT
from .terminal import note

_TEMPLATE = "bench/performance.template.md"
_PAGE = "docs/performance.md"
_README = "README.md"
_MARKED = re.compile(r"(<!-- figures by python -m bench page -->).*?(<!-- end of figures -->)", re.DOTALL)

_DRAWN_BY = ("bench/plot.py", "bench/cells.py")


def page(check: bool = False) -> int:
    """Write docs/performance.md, its pictures and the figures of the README, from the last runs in bench/results.

    Args:
        check: Write nothing; say what is not what the results give, and end with status 1 if anything is.
    """
    sentences = page_parts.sentences()
    texts = {_PAGE: _performance(sentences), _README: _readme(sentences)}
    if check:
        stale = [name for name, text in texts.items() if not _is(ROOT / name, text)]
        complaints = [f"{name}: not what bench/results give: python -m bench page" for name in stale]
        complaints += figures.complaints()
        for line in complaints:
            note(line)
        return 1 if complaints else 0
    for name, text in texts.items():
        files.replace(ROOT / name, text)
        print(name)
    _draw()
    return 0


def _is(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


def _draw() -> None:
    """The pictures, and the record of what they were drawn from."""
    from . import plot

    pictures = {
        "ops": ("ops", plot.ratios(page_parts.timed("ops"))),
        "published": ("ops", plot.ratios(page_parts.one_thread(), page_parts.PUBLISHED)),
        **{name: (name, plot.draw(page_parts.results(name))) for name in ("latency", "scaling", "memory")},
    }
    drawn = {}
    for name, (source, figure) in pictures.items():
        path = f"docs/images/bench-{name}.png"
        plot.save(figure, ROOT / path)
        drawn[path] = [page_parts.RESULTS[source], *_DRAWN_BY]
        print(path)
    figures.record(drawn)


def _performance(sentences: Mapping[str, str]) -> str:
    """The text of the page. KeyError for a name in the template that nothing gives."""
    template = (ROOT / _TEMPLATE).read_text(encoding="utf-8")
    return Template(template).substitute(page_parts.tables(), **sentences)


def _readme(values: Mapping[str, str]) -> str:
    readme = (ROOT / _README).read_text(encoding="utf-8")
    words = (
        f"losses of 64x3x128x128 run {values['large_eager']} times as fast as eager torch and "
        f"{values['large_compile']} times as fast as torch.compile, "
        f"the pulling-away term {values['pt_eager']} and {values['pt_compile']} times"
    )
    return _MARKED.sub(lambda found: found[1] + words + found[2], readme)

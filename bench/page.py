"""The command `page`: the performance pages, pictures, the figures that other pages quote and the GPUs' first choices,
made of the committed results."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import TypeVar

from . import figures, files, first_choice, gpu_results, page_gpu, page_prose, page_tables
from .page_results import RESULTS, Results
from .processors import Processor
from .provenance import ROOT
from .rows import Result
from .terminal import note

_TEMPLATE = "bench/performance.template.md"
_PAGE = "docs/performance.md"
_QUOTING: dict[str, Callable[[Results], str]] = {
    "README.md": page_prose.readme,
    "docs/one-pass.md": page_prose.one_pass,
}
"""Pages that are written by hand, but for the words between two marks."""
_MARKED = re.compile(r"(<!-- figures by python -m bench page -->).*?(<!-- end of figures -->)", re.DOTALL)

_R = TypeVar("_R", bound=Result)

_DRAWN_BY = ("bench/plot.py", "bench/cells.py", "bench/processors.py")


def page(check: bool = False) -> int:
    """Write docs/performance.md, its pictures and the figures of README.md and docs/one-pass.md, from each processor's
    last runs.

    Where there are results of a GPU, also docs/performance-gpu.md and which of Triton and CUDA runs first there.

    Args:
        check: Write nothing; say what is not what the results give, and end with status 1 if anything is.
    """
    gpus = gpu_results.gpus(ROOT)
    choices = first_choice.choices(gpus)
    texts: dict[str, str | None] = {first_choice.FILE: first_choice.dump(choices)}
    texts[page_gpu.PAGE] = page_gpu.text(gpus, choices, ROOT) if gpus else None
    if not check:
        _write(texts)  # before the hash of the ops' source, of which the choice is a part
    results = Results.read(ROOT)
    pages = {_PAGE: performance(values_of(results))}
    pages |= {name: _quoting(name, words(results)) for name, words in _QUOTING.items()}
    if check:
        stale = [name for name, text in (texts | pages).items() if not _is(ROOT / name, text)]
        complaints = [f"{name}: not what bench/results give: python -m bench page" for name in stale]
        complaints += figures.complaints()
        for line in complaints:
            note(line)
        return 1 if complaints else 0
    _write(pages)
    draw_all(results)
    return 0


def _write(texts: Mapping[str, str | None]) -> None:
    """Write each file; remove the one that has no text."""
    for name, text in texts.items():
        if text is None:
            (ROOT / name).unlink(missing_ok=True)
        else:
            files.replace(ROOT / name, text)
            print(name)


def _is(path: Path, text: str | None) -> bool:
    """Return True if the file has the text, or is missing where there is none."""
    return not path.exists() if text is None else path.exists() and path.read_text(encoding="utf-8") == text


def draw_all(results: Results) -> None:
    """The pictures, and the record of what they were drawn from."""
    from . import plot

    memory = results.runs["memory"][results.newest("memory")]
    pictures = {
        "ops": ("ops", plot.ratios(_joined(results.timed("ops")))),
        "published": ("ops", plot.ratios(_joined(results.one_thread()), page_tables.PUBLISHED)),
        **{name: (name, plot.draw(_joined(results.runs[name]))) for name in ("latency", "scaling")},
        "memory": ("memory", plot.draw(memory)),
    }
    drawn = {}
    for name, (source, figure) in pictures.items():
        path = f"docs/images/bench-{name}.png"
        plot.save(figure, ROOT / path)
        drawn[path] = [RESULTS[source], *_DRAWN_BY]
        print(path)
    figures.record(drawn)


def _joined(runs: Mapping[Processor, Sequence[_R]]) -> list[_R]:
    """The rows of all processors, one after another."""
    return [row for rows in runs.values() for row in rows]


def values_of(results: Results) -> dict[str, str]:
    """The figures and tables by the names that the template has for them."""
    return {**page_tables.tables(results), **page_prose.sentences(results)}


def performance(values: Mapping[str, str]) -> str:
    """The text of the page. KeyError for a name in the template that nothing gives."""
    template = (ROOT / _TEMPLATE).read_text(encoding="utf-8")
    return Template(template).substitute(values)


def _quoting(name: str, words: str) -> str:
    """The text of a page with these words between its marks. ValueError where it has none."""
    filled, count = _MARKED.subn(lambda found: found[1] + words + found[2], (ROOT / name).read_text(encoding="utf-8"))
    if not count:
        raise ValueError(f"{name}: got no figures between marks, expected <!-- figures by python -m bench page -->...")
    return filled

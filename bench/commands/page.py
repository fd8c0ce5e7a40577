"""The commands `page` and `record`: make the pages, their pictures and the GPUs' first choices of the results.

Some pages are written by hand, but for a table between two marks. `page` writes that table too.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import TypeVar

import tyro

from ebgan_fast._files import replacing

from ..pages import committed, figures, gpu, performance_prose, performance_tables
from ..pages.committed import RESULTS, Results
from ..results.provenance import ROOT, Processor
from ..results.rows import Result
from ..terminal import note

TEMPLATE = "bench/pages/performance.template.md"
_PAGE = "docs/performance.md"
_QUOTING: dict[str, Callable[[Results], str]] = {
    "README.md": performance_tables.headline,
    "docs/one-pass.md": performance_tables.one_pass,
}
"""The tables of pages that are written by hand, by page."""
_MARKED = re.compile(
    r"^(<!-- figures by python -m bench page -->\n).*?^(<!-- end of figures -->\n)", re.DOTALL | re.MULTILINE
)

_R = TypeVar("_R", bound=Result)

_DRAWN_BY = ("bench/pages/plot.py", "bench/pages/tables.py", "bench/results/provenance.py")


def page(check: bool = False) -> int:
    """Write docs/performance.md, its pictures and the tables of README.md and docs/one-pass.md, from each processor's
    last runs.

    Where there are results of a GPU, also docs/performance-gpu.md and which of Triton and CUDA runs first there.

    Args:
        check: Write nothing. Say what is not what the results give, and end with status 1 if anything is.
    """
    gpus = committed.gpus(ROOT)
    choices = gpu.choices(gpus)
    texts: dict[str, str | None] = {gpu.FIRST_CHOICE: gpu.dump(choices)}
    texts[gpu.PAGE] = gpu.text(gpus, choices, ROOT) if gpus else None
    if not check:
        _write(texts)  # before the hash of the ops' source, which includes the first choice
    results = Results.read(ROOT)
    pages = {_PAGE: performance(values_of(results))}
    pages |= {name: _quoting(name, table(results)) for name, table in _QUOTING.items()}
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


def record(picture: tyro.conf.Positional[str], source: tyro.conf.Positional[tuple[str, ...]] = ()) -> int:
    """Note in docs/figures.json that a picture of the documentation is as it should be.

    Args:
        picture: Its path from the root, such as docs/studies/images/grid-best.webp.
        source: Files that it was drawn from. When one of them changes, the picture counts as stale.
    """
    for name in (picture, *source):
        if not (ROOT / name).is_file():
            raise ValueError(f"record: got {name}, expected the path of a file from the root of the repository")
    figures.record({picture: source})
    return 0


def _write(texts: Mapping[str, str | None]) -> None:
    """Write each file, and remove a file that has no text."""
    for name, text in texts.items():
        if text is None:
            (ROOT / name).unlink(missing_ok=True)
        else:
            with replacing(ROOT / name) as file:
                file.write(text.encode())
            print(name)


def _is(path: Path, text: str | None) -> bool:
    """Return True if the file has the text, or is missing if there is no text."""
    return not path.exists() if text is None else path.exists() and path.read_text(encoding="utf-8") == text


def draw_all(results: Results) -> None:
    """Draw the pictures, and record the files that they were drawn from."""
    from ..pages import plot

    memory = results.runs["memory"][results.newest("memory")]
    pictures = {
        "ops": ("ops", plot.ratios(_joined(results.timed("ops")))),
        "published": ("ops", plot.ratios(_joined(results.one_thread()), performance_tables.PUBLISHED)),
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
    """Return the rows of all processors, one processor after another."""
    return [row for rows in runs.values() for row in rows]


def values_of(results: Results) -> dict[str, str]:
    """Return the figures and tables by the names that the template has for them."""
    return {**performance_tables.tables(results), **performance_prose.sentences(results)}


def performance(values: Mapping[str, str]) -> str:
    """Return the text of the page. Raises KeyError for a name in the template that has no value."""
    template = (ROOT / TEMPLATE).read_text(encoding="utf-8")
    return wrapped(Template(template).substitute(values))


def wrapped(text: str) -> str:
    """Return Markdown with its prose in lines of at most 128 characters. Tables, headings and pictures stay."""
    return (
        "\n\n".join(
            block if block.startswith(("|", "#", "!")) else _filled(block) for block in text.strip().split("\n\n")
        )
        + "\n"
    )


def _filled(block: str) -> str:
    """Return a paragraph or a list with its lines filled."""
    items = re.split(r"\n(?=\* )", block)
    return "\n".join(
        textwrap.fill(
            " ".join(item.split()),
            128,
            subsequent_indent="  " if item.startswith("* ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for item in items
    )


def _quoting(name: str, table: str) -> str:
    """Return the text of a page with the table between its marks. Raises ValueError for a page without marks."""
    text = (ROOT / name).read_text(encoding="utf-8")
    filled, count = _MARKED.subn(lambda found: f"{found[1]}\n{table}\n\n{found[2]}", text)
    if not count:
        raise ValueError(
            f"{name}: got no figures between marks, expected the lines <!-- figures by python -m bench page --> and "
            "<!-- end of figures -->"
        )
    return filled

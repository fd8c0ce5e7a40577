"""The pages' files about GPUs: docs/performance-gpu.md, and the first choice between Triton and CUDA."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template

from ..results.rows import COMPILE, CUDA, EAGER, KERNELS, LEAST_GAIN, PACKAGE, TRITON, GraphRow, Row, TrainRow
from .committed import Gpu, architecture, backends_of, wrong_backends
from .tables import NONE, Cells, cells_of, digits, markdown, percent, times

PAGE = "docs/performance-gpu.md"
TEMPLATE = "bench/pages/performance-gpu.template.md"
FIRST_CHOICE = "ebgan_fast/ops/backends/first_choice.json"
_OWN = f"{PACKAGE} "
_OTHER = {TRITON: CUDA, CUDA: TRITON}

Choices = dict[str, dict[str, str]]
"""The "backend" and "why", by architecture."""


# ---- The first choice


def choices(gpus: Sequence[Gpu]) -> Choices:
    """Return the first choice on every architecture on which both backends were timed."""
    rows = [row for gpu in gpus for row in gpu.ops]
    found = {}
    for name in sorted({architecture(row) for row in rows}):
        here = [row for row in rows if architecture(row) == name]
        entry = _choice(here)
        if entry is not None:
            found[name] = entry
    return found


def _choice(rows: Sequence[Row]) -> dict[str, str] | None:
    """Return CUDA if it saves 2 % or more, otherwise Triton. A backend with wrong results is never the first choice."""
    machines = "; ".join(dict.fromkeys(row.processor for row in rows))
    source = f"({machines}, {rows[-1].versions['compiler']}, {max(row.date for row in rows)[:10]})"
    wrong = wrong_backends(rows)
    if len(wrong) == 1:
        ((backend, why),) = wrong.items()
        return {"backend": _OTHER[backend], "why": f"measured: {backend} is wrong at {why} {source}"}
    ratios = [found[CUDA] / found[TRITON] for found in map(backends_of, rows) if found.keys() == _OTHER.keys()]
    if not ratios:
        return None
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    text = f"measured: cuda takes {mean:.2f} of the time of triton over {len(ratios)} cases {source}"
    return {"backend": CUDA if mean <= LEAST_GAIN else TRITON, "why": text}


def dump(found: Choices) -> str:
    """Return the text of the file of first choices, one architecture a line."""
    if not found:
        return "{}\n"
    lines = [f"  {json.dumps(name)}: {json.dumps(entry, ensure_ascii=False)}" for name, entry in found.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


# ---- The page


def text(gpus: Sequence[Gpu], found: Choices, root: Path) -> str:
    """Return the text of the page.

    Args:
        gpus: The results, of which each GPU has a section.
        found: The first choices.
        root: The root of the repository, where the template lies.
    """
    template = (root / TEMPLATE).read_text(encoding="utf-8")
    return Template(template).substitute(gpus="\n\n".join(_section(gpu, found) for gpu in gpus))


def _section(gpu: Gpu, found: Choices) -> str:
    blocks = [f"## {gpu.name}", _conditions(gpu), *_first(gpu, found), *_wrong(gpu)]
    if gpu.ops:
        blocks += ["### Every op", *_every_op(gpu.ops), "### First calls", *_first_calls(gpu.ops)]
    if gpu.latency:
        blocks += ["### Calls", "Microseconds on 8 samples of 16 numbers.", markdown(cells_of(gpu.latency))]
    if gpu.train or gpu.graph:
        blocks += ["### The training step", *_train(gpu.train), *_graph(gpu.graph)]
    return "\n\n".join(blocks)


def _conditions(gpu: Gpu) -> str:
    """Return the versions and dates, one line for each different set."""
    lines: dict[str, None] = {}
    for row in (*gpu.ops, *gpu.latency, *gpu.train, *gpu.graph):
        versions = row.versions
        lines[
            f"* {row.isa.partition(',')[0]}, driver {versions.get('driver', 'unknown')}, "
            f"torch {versions['torch']}, {versions['compiler']}, Python {versions['python']}, "
            f"ebgan_fast {versions['ebgan_fast']} (source `{row.source_hash}`), {row.date[:10]}. "
            f"{_tf32(row.tf32)}"
        ] = None
    return "\n".join(lines)


def _tf32(switches: Mapping[str, bool] | None) -> str:
    if switches is None:
        return "The results do not say if float32 products could be rounded to tf32."
    words = {True: "may be rounded to tf32", False: "run in float32"}
    return f"Float32 products of torch {words[switches['matmul']]}, its convolutions {words[switches['cudnn']]}."


def _first(gpu: Gpu, found: Choices) -> list[str]:
    known = dict.fromkeys(architecture(row) for row in gpu.ops)
    return [
        f"On {name}, the {found[name]['backend']} kernels run first; {found[name]['why']}."
        for name in known
        if name in found
    ]


def _wrong(gpu: Gpu) -> list[str]:
    lines = [
        f"* {provider}, {row.op} {row.shape} {row.dtype}, {row.watch}: {why}"
        for row in (*gpu.ops, *gpu.latency)
        for provider, why in row.wrong.items()
    ]
    lines += [f"* {row.networks}: {row.wrong}" for row in gpu.train if row.wrong]
    return ["Without a figure, or with one that proves nothing:\n\n" + "\n".join(lines)] if lines else []


def _every_op(rows: Sequence[Row]) -> Iterable[str]:
    """Yield a table for each dtype and watch, under its title."""
    for dtype, watch in dict.fromkeys((row.dtype, row.watch) for row in rows):
        here = [row for row in rows if (row.dtype, row.watch) == (dtype, watch)]
        titles = ["op", "shape", "bound", "of the bound", f"{PACKAGE} µs", "on", *KERNELS, EAGER, COMPILE]
        yield f"{dtype}, {watch}, forward and backward:"
        yield markdown(Cells(titles, list(map(_line, here)), (0, 1, 2, 5)))


def _line(row: Row) -> list[str]:
    own = digits(1e6 * row.seconds[PACKAGE].median) if PACKAGE in row.seconds else NONE
    others = [_times(row, name) for name in (*KERNELS, EAGER, COMPILE)]
    return [row.op, row.shape, str(row.ceiling["name"]), percent(row.share), own, str(row.backend), *others]


def _times(row: Row, provider: str) -> str:
    if provider in row.wrong:
        return "wrong"
    return times(row.ratio[provider].median) if provider in row.ratio else NONE


def _first_calls(rows: Sequence[Row]) -> Iterable[str]:
    """Yield the table of first calls. The replayed cases share those of the called ones."""
    here = [row for row in rows if row.watch == "called" and row.first_call]
    named = {row.backend for row in here}
    own = f"{PACKAGE} ({', '.join(sorted(map(str, named)))})"
    titles = ["op", "shape", "dtype", own, *KERNELS, COMPILE]
    yield (
        "Seconds of the first call, forward and backward. Triton and torch.compile compile in it, unless the disk "
        "holds what they compiled before."
    )
    lines = []
    for row in here:
        seconds = row.first_call or {}
        found = [f"{seconds[name]:.2f}" if name in seconds else NONE for name in (PACKAGE, *KERNELS, COMPILE)]
        lines.append([row.op, row.shape, row.dtype, *found])
    yield markdown(Cells(titles, lines, (0, 1, 2)))


def _train(rows: Sequence[TrainRow]) -> Iterable[str]:
    if not rows:
        return
    yield (
        "Each step stands beside a plain loop of the same networks, as public EBGAN code has it, in float32 (rounded "
        "to tf32 or not, as said above). cudnn.benchmark: cuDNN chose among its algorithms by trial, for the plain "
        "loop that is compared with too. cuda_graph: the step was recorded once, and is replayed. The peak is that of "
        "torch's memory in a step, weights and optimizers included; for a recorded step, during the recording."
    )
    titles = ["networks", "step", "ms", "images/s", "over the plain loop", "first step, s", "peak, GiB"]
    found = [_step(row, name) for row in rows if not row.wrong for name in row.seconds]
    yield markdown(Cells(titles, found, (0, 1)))


def _step(row: TrainRow, name: str) -> list[str]:
    peak = (row.peak or {}).get(name)
    first = (row.first_call or {}).get(name)
    speedup = row.speedup.get(name.removeprefix(_OWN)) if name.startswith(_OWN) else None
    return [
        row.networks,
        name,
        digits(1e3 * row.seconds[name]),
        f"{row.images_per_s[name]:.0f}",
        NONE if speedup is None else times(speedup),
        NONE if first is None else f"{first:.1f}",
        NONE if peak is None else f"{peak / 2**30:.2f}",
    ]


def _graph(rows: Sequence[GraphRow]) -> Iterable[str]:
    """Yield the list of comparisons of training with a graph and without."""
    if rows:
        lines = (f"* {row.case}, batches of {row.batch_size}: {row.words}" for row in rows)
        yield (
            "Training with a CUDA graph and without was compared under schedules of the learning rates and of the "
            "margin. cuDNN used algorithms that repeat:"
        )
        yield "\n".join(lines)

"""docs/performance-gpu.md: what was measured on GPUs, a section for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template

from . import cells, gpu_results, graph
from .cells import NONE, Cells, digits, times
from .first_choice import Choices
from .gpu_results import Gpu, Line
from .page_tables import markdown
from .rows import COMPILE, EAGER, KERNELS, PACKAGE, Row

PAGE = "docs/performance-gpu.md"
TEMPLATE = "bench/performance-gpu.template.md"
_OWN = f"{PACKAGE} "


def text(gpus: Sequence[Gpu], choices: Choices, root: Path) -> str:
    """The page."""
    template = (root / TEMPLATE).read_text(encoding="utf-8")
    return Template(template).substitute(gpus="\n\n".join(_section(gpu, choices) for gpu in gpus))


def _section(gpu: Gpu, choices: Choices) -> str:
    blocks = [f"## {gpu.name}", _conditions(gpu), *_first(gpu, choices), *_wrong(gpu)]
    if gpu.ops:
        blocks += ["### Every op", *_every_op(gpu.ops), "### First calls", *_first_calls(gpu.ops)]
    if gpu.latency:
        blocks += ["### Calls", "Microseconds on 8 samples of 16 numbers.", markdown(cells.of(gpu.latency))]
    if gpu.train or gpu.graph:
        blocks += ["### The training step", *_train(gpu.train), *_graph(gpu.graph)]
    return "\n\n".join(blocks)


def _conditions(gpu: Gpu) -> str:
    """Versions and dates, a line for each set of them."""
    told: dict[str, None] = {}
    for line in [*map(vars, (*gpu.ops, *gpu.latency)), *gpu.train, *gpu.graph]:
        versions = line["versions"]
        told[
            f"* {line['isa'].partition(',')[0]}, driver {versions.get('driver', 'unknown')}, "
            f"torch {versions['torch']}, {versions['compiler']}, Python {versions['python']}, "
            f"ebgan_fast {versions['ebgan_fast']} (source `{line['source_hash']}`), {line['date'][:10]}. "
            f"{_tf32(line['tf32'])}"
        ] = None
    return "\n".join(told)


def _tf32(switches: Mapping[str, bool] | None) -> str:
    if switches is None:
        return "It was not told whether float32 products could be rounded to tf32."
    words = {True: "may be rounded to tf32", False: "run in float32"}
    return f"Float32 products of torch {words[switches['matmul']]}, its convolutions {words[switches['cudnn']]}."


def _first(gpu: Gpu, choices: Choices) -> list[str]:
    known = dict.fromkeys(gpu_results.architecture(row) for row in gpu.ops)
    return [
        f"On {name}, the {choices[name]['backend']} kernels run first; {choices[name]['why']}."
        for name in known
        if name in choices
    ]


def _wrong(gpu: Gpu) -> list[str]:
    lines = [
        f"* {provider}, {row.op} {row.shape} {row.dtype}, {row.watch}: {why}"
        for row in (*gpu.ops, *gpu.latency)
        for provider, why in row.wrong.items()
    ]
    lines += [f"* {_networks(line)}: {line['wrong']}" for line in gpu.train if line["wrong"]]
    return ["Without a figure, or with one that proves nothing:\n\n" + "\n".join(lines)] if lines else []


def _every_op(rows: Sequence[Row]) -> Iterable[str]:
    """A table for each dtype and watch."""
    for dtype, watch in dict.fromkeys((row.dtype, row.watch) for row in rows):
        here = [row for row in rows if (row.dtype, row.watch) == (dtype, watch)]
        titles = ["op", "shape", "bound", "of the bound", f"{PACKAGE} µs", "on", *KERNELS, EAGER, COMPILE]
        yield f"{dtype}, {watch}, forward and backward:"
        yield markdown(Cells(titles, list(map(_line, here)), (0, 1, 2, 5)))


def _line(row: Row) -> list[str]:
    own = digits(1e6 * row.seconds[PACKAGE].median) if PACKAGE in row.seconds else NONE
    share = NONE if row.share is None else f"{100 * row.share:.0f} %"
    others = [_times(row, name) for name in (*KERNELS, EAGER, COMPILE)]
    return [row.op, row.shape, str(row.ceiling["name"]), share, own, str(row.backend), *others]


def _times(row: Row, provider: str) -> str:
    if provider in row.wrong:
        return "wrong"
    return times(row.ratio[provider].median) if provider in row.ratio else NONE


def _first_calls(rows: Sequence[Row]) -> Iterable[str]:
    """The called cases' first calls, which the replayed ones share."""
    here = [row for row in rows if row.watch == "called" and row.first_call]
    named = {row.backend for row in here}
    own = f"{PACKAGE} ({', '.join(sorted(map(str, named)))})"
    titles = ["op", "shape", "dtype", own, *KERNELS, COMPILE]
    yield (
        "Seconds of the first call, forward and backward: Triton and torch.compile compile in it, unless they find on "
        "the disk what they compiled before."
    )
    lines = []
    for row in here:
        seconds = row.first_call or {}
        found = [f"{seconds[name]:.2f}" if name in seconds else NONE for name in (PACKAGE, *KERNELS, COMPILE)]
        lines.append([row.op, row.shape, row.dtype, *found])
    yield markdown(Cells(titles, lines, (0, 1, 2)))


def _networks(line: Line) -> str:
    return f"{line['preset']}, width {line['width']:g}, batches of {line['batch_size']}"


def _train(lines: Sequence[Line]) -> Iterable[str]:
    if not lines:
        return
    yield (
        "Beside a plain loop of the same networks, as public EBGAN code has it, in float32 (rounded to tf32 or not, as "
        "said above). cudnn.benchmark: cuDNN chose among its algorithms by trial, for the plain loop of the comparison "
        "too. cuda_graph: the step was recorded once, and is replayed. The peak is that of torch's memory in a step, "
        "weights and optimizers included; of a recorded step, while it was recorded."
    )
    titles = ["networks", "step", "ms", "images/s", "over the plain loop", "first step, s", "peak, GiB"]
    found = [_step(line, name) for line in lines if not line["wrong"] for name in line["seconds"]]
    yield markdown(Cells(titles, found, (0, 1)))


def _graph(lines: Sequence[Line]) -> Iterable[str]:
    """A table of the comparisons of training with a graph and without."""
    if lines:
        said = (f"* {line['case']}, batches of {line['batch_size']}: {graph.words(line)}" for line in lines)
        yield "With schedules of the learning rates and of the margin, and cuDNN's algorithms that repeat:"
        yield "\n".join(said)


def _step(line: Line, name: str) -> list[str]:
    peak = (line["peak"] or {}).get(name)
    speedup = line["speedup"].get(name.removeprefix(_OWN)) if name.startswith(_OWN) else None
    return [
        _networks(line),
        name,
        digits(1e3 * line["seconds"][name]),
        f"{line['images_per_s'][name]:.0f}",
        NONE if speedup is None else times(speedup),
        f"{line['first_call'][name]:.1f}",
        NONE if peak is None else f"{peak / 2**30:.2f}",
    ]

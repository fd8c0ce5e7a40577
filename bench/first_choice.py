"""The first choice between Triton and CUDA on a GPU: the faster one, as the committed results have it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from .gpu_results import Gpu, architecture, backends_of, wrong_backends
from .rows import CUDA, TRITON, Row
from .search import GAIN

FILE = "ebgan_fast/ops/backends/first_choice.json"
_OTHER = {TRITON: CUDA, CUDA: TRITON}

Choices = dict[str, dict[str, str]]
"""By architecture, the "backend" and "why"."""


def choices(gpus: Sequence[Gpu]) -> Choices:
    """For every architecture on which both were timed."""
    rows = [row for gpu in gpus for row in gpu.ops]
    found = {}
    for name in sorted({architecture(row) for row in rows}):
        here = [row for row in rows if architecture(row) == name]
        entry = _choice(here)
        if entry is not None:
            found[name] = entry
    return found


def _choice(rows: Sequence[Row]) -> dict[str, str] | None:
    """CUDA where it saves 2 % or more; Triton else. One whose results were wrong is never first."""
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
    return {"backend": CUDA if mean <= GAIN else TRITON, "why": text}


def dump(found: Choices) -> str:
    """The text of the file, with an architecture a line."""
    if not found:
        return "{}\n"
    lines = [f"  {json.dumps(name)}: {json.dumps(entry, ensure_ascii=False)}" for name, entry in found.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"

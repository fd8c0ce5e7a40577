"""The report of a run: one HTML file with its pictures inside, which opens anywhere and offline."""

from __future__ import annotations

import base64
import html
import importlib.resources
import json
import os
import platform
import statistics
import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from .charts import score_curves, training_curves

_EARLIER_GRIDS = 4
_FEW_SAMPLES = 10_000

Line = dict[str, Any]


def write_report(folder: Path) -> Path:
    """Write report.html into a run's folder, from what lies there: metrics, scores, grids and pictures.

    Args:
        folder: a run folder; interpolation.png, neighbours.png and scores.jsonl are shown if they are there.

    Returns:
        The file.

    Raises:
        ValueError: not a run folder, or one whose run has logged nothing yet; the message names it.
    """
    config_path = folder / "config.json"
    if not config_path.is_file():
        raise ValueError(f"{folder}: got a folder without config.json, expected the folder of a run")
    config = json.loads(config_path.read_text())
    metrics, scores = _lines(folder / "metrics.jsonl"), _lines(folder / "scores.jsonl")
    if not metrics:
        raise ValueError(f"{folder}: got a run without metrics, expected one that has logged at least once")
    title = f"EBGAN run {folder.resolve().name}"
    sections = [
        _summary(config, metrics, scores),
        _samples(folder),
        *([_scores(scores)] if scores else [_section("Scores", "<p>This run was not scored while it trained.</p>")]),
        _section("Training", _figure(training_curves(metrics), "Each point is the mean over a log interval.")),
        _extra(folder, "interpolation.png", "Interpolations", "Each row goes from one point of the noise to another."),
        _extra(
            folder,
            "neighbours.png",
            "Nearest training images",
            "Samples in the first column; beside each, the training images whose features are nearest to it.",
        ),
        _settings(config),
    ]
    template = importlib.resources.files(__package__).joinpath("page.html").read_text()
    page = string.Template(template).substitute(title=html.escape(title), body="\n".join(filter(None, sections)))
    path = folder / "report.html"
    partial = path.with_name(".report.html.partial")
    partial.write_text(page)
    os.replace(partial, path)
    return path


def _lines(path: Path) -> list[Line]:
    """The whole lines of a file of one JSON object per line; none if there is no file."""
    if not path.is_file():
        return []
    text = path.read_text()
    try:
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    except ValueError as error:
        raise ValueError(f"{path}: got a bad line ({error}), expected one JSON object per line") from error


def _summary(config: Line, metrics: Sequence[Line], scores: Sequence[Line]) -> str:
    last = metrics[-1]
    parts = [
        f"{last['step']:,} of {config['steps']:,} steps in {_duration(last['elapsed_s'])}",
        f"batches of {config['batch_size']}",
    ]
    if speeds := [line["images_per_s"] for line in metrics if "images_per_s" in line]:
        parts.append(f"{statistics.median(speeds):.0f} images per second")
    text = f"<p>{html.escape(', '.join(parts))}."
    if scores:
        first, latest = scores[0], scores[-1]
        ratio = latest["fd"] / first["fd"] if first["fd"] else float("nan")
        text += html.escape(
            f" {latest['features']} went from {first['fd']:.4g} at step {first['step']:,} to {latest['fd']:.4g} at "
            f"step {latest['step']:,}, a factor of {ratio:.2f}; KID from {first['kid']:.3g} to {latest['kid']:.3g}."
        )
    return f"{text}</p>"


def _samples(folder: Path) -> str:
    grids = sorted((folder / "samples").glob("step_*.png"))
    if not grids:
        return _section("Samples", "<p>No grid of samples was drawn yet.</p>")
    earlier = grids[:-1]
    shown = [earlier[index * len(earlier) // _EARLIER_GRIDS] for index in range(_EARLIER_GRIDS)] if earlier else []
    strip = "".join(_figure(path.read_bytes(), _step_of(path)) for path in dict.fromkeys(shown))
    body = _figure(grids[-1].read_bytes(), f"{_step_of(grids[-1])}, not chosen: the first of one seed's noise.")
    return _section("Samples", body + (f'<div class="strip">{strip}</div>' if strip else ""))


def _step_of(path: Path) -> str:
    return f"Step {int(path.stem.removeprefix('step_')):,}"


def _scores(scores: Sequence[Line]) -> str:
    columns = ("step", "time", scores[-1]["features"], "KID", "± over subsets", "samples", "training images")
    rows = [
        (
            f"{line['step']:,}",
            _duration(line["elapsed_s"]),
            f"{line['fd']:.4g}",
            f"{line['kid']:.4g}",
            f"{line['kid_std']:.2g}",
            f"{line['samples']:,}",
            f"{line['real_images']:,}",
        )
        for line in scores
    ]
    note = (
        "Distances of generated images from the training images, by the net named; compare them only with figures by "
        "the same net, on the same images, of as many samples."
    )
    if scores[-1]["samples"] < _FEW_SAMPLES:
        note += f" With {scores[-1]['samples']:,} samples the Frechet distance comes out larger than with many."
    same_net = [line for line in scores if line["features"] == scores[-1]["features"]]
    return _section("Scores", f"<p>{html.escape(note)}</p>{_figure(score_curves(same_net), '')}{_table(columns, rows)}")


def _extra(folder: Path, name: str, heading: str, caption: str) -> str:
    path = folder / name
    return _section(heading, _figure(path.read_bytes(), caption)) if path.is_file() else ""


def _settings(config: Line) -> str:
    flat = {**{key: value for key, value in config.items() if key != "networks"}, **config.get("networks", {})}
    versions = f"ebgan_fast {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    table = _table(("setting", "value"), [(name, str(value)) for name, value in flat.items()])
    return _section("Settings", f"{table}<p>Report made with {html.escape(versions)}.</p>")


def _section(heading: str, body: str) -> str:
    return f"<h2>{html.escape(heading)}</h2>\n{body}"


def _figure(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode()
    words = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    alt = html.escape(caption or "curves", quote=True)
    return f'<figure><img alt="{alt}" src="data:image/png;base64,{data}">{words}</figure>'


def _table(columns: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: str) -> str:
    is_number = value.replace(",", "").replace(".", "").replace("-", "").isdigit()
    return f"<td{' class=number' if is_number else ''}>{html.escape(value)}</td>"


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"

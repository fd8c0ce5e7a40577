"""The report of a run: one HTML file that holds its pictures, so that it opens on any machine and offline."""

from __future__ import annotations

import base64
import html
import importlib.resources
import platform
import statistics
import string
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from .. import __version__
from .._console import shortened
from .._files import opened, replacing
from .._settings import COUNT, FINITE, number
from ..training.pictures import score_curves, training_curves
from ..training.run.folder import RunContents, RunFolder, compares
from ..training.run.lines import Line
from ..training.scoring import worth_of_digits

_EARLIER_GRIDS = 4
_MOST_NETS = 8  # nets whose scores are drawn: the chart of each takes a second
# A grid of a hundred images of 1024 pixels is 300 MB before it is packed. A browser unpacks what the page holds.
_LARGEST_PICTURE, _MOST_PIXELS = 1 << 28, 1 << 28
_LONGEST_TEXT = 1000  # characters that one value of a file may fill
_FEW_SAMPLES = 10_000
# Attribute of the run's folder, heading, caption.
_EXTRAS = (
    ("interpolation", "Interpolations", "Each row goes from one point of the noise to another."),
    (
        "neighbors",
        "Nearest training images",
        "Samples in the first column; beside each, the training images whose features are nearest to it.",
    ),
)


def write_report(folder: Path) -> Path:
    """Write report.html into a run's folder, from the metrics, scores, grids and pictures that lie there.

    Args:
        folder: a run folder. The page shows scores.jsonl, score.json, interpolation.png and neighbors.png if they are
            there.

    Returns:
        The path of report.html.

    Raises:
        ValueError: the folder is not a run's, its run has logged nothing yet, or it holds a file or picture that a run
            would not write. The message names the file.
        OSError: a file can't be read or written.

    Example:
        >>> from pathlib import Path
        >>> from ebgan_fast.models import Mlp
        >>> from ebgan_fast.report import write_report
        >>> from ebgan_fast.training import TrainConfig, train
        >>> config = TrainConfig(out=Path("runs/first"), steps=2, networks=Mlp(size_g=32, size_d=32), device="cpu")
        >>> result = train(config)  # doctest: +ELLIPSIS
        step 2 of 2  loss D ...
        done: 2 steps in ...
        >>> write_report(result.folder).name
        'report.html'
    """
    place = RunFolder(folder)
    run = place.contents()
    title = f"EBGAN run {folder.resolve().name}"
    sections = [
        f"<p>{_text(' '.join(filter(None, (_game(run), _summary(run)))))}</p>",
        _samples(run.grids),
        _scores(run),
        _section("Training", _curves(training_curves(run.metrics), _caption(run))),
        *(_extra(getattr(place, name), heading, caption) for name, heading, caption in _EXTRAS),
        _settings(run, place),
    ]
    template = importlib.resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    page = string.Template(template).substitute(title=html.escape(title), body="\n".join(filter(None, sections)))
    with replacing(place.report) as file:
        # The folder's name may hold bytes that are not UTF-8.
        file.write(page.encode("utf-8", "replace"))
    return place.report


def _caption(run: RunContents) -> str:
    text = "Each point is the mean over a log interval"
    single = ["margin"]
    if any("grad_norm_g" in line for line in run.metrics):
        single.append("lengths of gradients")
    if run.settings.get("pt_weight") == 0:
        single.append("the pulling-away term, whose weight is 0")
    return f"{text}; {', '.join(single)}: of its last step."


def _game(run: RunContents) -> str:
    """Return a sentence on the game that the run plays: its energy, margin and pulling-away weight, as far as known."""
    settings, parts = run.settings, []
    if isinstance(norm := settings.get("norm"), str):
        parts.append(f"norm {norm}")
    # The first line's margin is the number that stands for "auto".
    if FINITE.holds(first := run.metrics[0].get("margin")):
        auto = " (auto)" if settings.get("margin") == "auto" else ""
        last = run.metrics[-1].get("margin")
        moved = f" at first, {last:.4g} now" if FINITE.holds(last) and last != first else ""
        parts.append(f"margin {first:.4g}{auto}{moved}")
    if FINITE.holds(weight := settings.get("pt_weight")):
        parts.append(f"pulling-away weight {weight:.4g}" if weight else "no pulling-away term")
    return f"EBGAN with {', '.join(parts)}." if parts else ""


def _summary(run: RunContents) -> str:
    last = run.metrics[-1]
    steps = run.settings.get("steps")
    wanted = f" of {steps:,}" if COUNT.holds(steps) else ""
    parts = [f"{last['step']:,}{wanted} steps in {_duration(last['elapsed_s'])}"]
    if "batch_size" in run.settings:
        parts.append(f"batches of {_value(run.settings['batch_size'])}")
    if speeds := [line["images_per_s"] for line in run.metrics if FINITE.holds(line.get("images_per_s"))]:
        parts.append(f"{statistics.median(speeds):.0f} images per second")
    text = f"{', '.join(parts)}."
    if not run.scores:
        return text
    latest = run.scores[-1]
    # A resumed run may be scored by another net.
    comparable = [line for line in run.scores if compares(line, latest)]
    first = comparable[0]
    if len(comparable) == 1:
        return f"{text} {latest['features']} is {latest['fd']:.4g} at step {latest['step']:,}, KID {latest['kid']:.3g}."
    ratio = f", a factor of {latest['fd'] / first['fd']:.2f}" if first["fd"] else ""
    return (
        f"{text} {latest['features']} went from {first['fd']:.4g} at step {first['step']:,} to {latest['fd']:.4g} at "
        f"step {latest['step']:,}{ratio}; KID from {first['kid']:.3g} to {latest['kid']:.3g}."
    )


def _samples(grids: Sequence[tuple[int, Path]]) -> str:
    if not grids:
        return _section("Samples", "<p>No grid of samples was drawn yet.</p>")
    *earlier, (step, latest) = grids
    shown = [earlier[index * len(earlier) // _EARLIER_GRIDS] for index in range(_EARLIER_GRIDS)] if earlier else []
    strip = "".join(_figure(_picture(path), f"Step {step:,}") for step, path in dict.fromkeys(shown))
    body = _figure(_picture(latest), f"Step {step:,}, not chosen: the first of one seed's noise.")
    return _section("Samples", body + (f'<div class="strip">{strip}</div>' if strip else ""))


def _scores(run: RunContents) -> str:
    nets = list(dict.fromkeys(line["features"] for line in reversed(run.scores)))[:_MOST_NETS][::-1]
    parts = [_net_scores([line for line in run.scores if line["features"] == net]) for net in nets]
    if parts:
        note = (
            "Distances of generated images from the training images, by the net named; 0 is best. Compare them only "
            "with figures by the same net, on the same images, of as many samples."
        )
        fewest = min(line["samples"] for line in run.scores)
        if fewest < _FEW_SAMPLES:
            note += f" With {fewest:,} samples the Fréchet distance comes out larger than with many; KID doesn't."
        parts.insert(0, f"<p>{html.escape(note)}</p>")
    else:
        parts.append("<p>This run was not scored while it trained.</p>")
    if run.evaluation:
        parts.append(f"<h3>Evaluation of the checkpoint</h3>{_evaluation(run.evaluation)}")
        samples = run.evaluation.get("samples")
        if "exp_score" in run.evaluation and isinstance(samples, int) and (worth := worth_of_digits(samples)):
            parts.append(f"<p>{html.escape(worth)}</p>")
    return _section("Scores", "\n".join(parts))


def _net_scores(scores: Sequence[Line]) -> str:
    """Return the curves and the table of one net's scores."""
    net = scores[0]["features"]
    columns = ("step", "time", net, "KID", "± over subsets", "subset size", "samples", "training images")
    rows = [
        (
            f"{line['step']:,}",
            _duration(line["elapsed_s"]),
            f"{line['fd']:.4g}",
            f"{line['kid']:.4g}",
            f"{line['kid_std']:.2g}",
            f"{line['kid_subset_size']:,}",
            f"{line['samples']:,}",
            f"{line['real_images']:,}",
        )
        for line in scores
    ]
    return _curves(score_curves(scores), f"{net} and KID over steps and time.") + _table(columns, rows)


# Name in score.json, name of the row, what a reader needs beside the value. The field of the same name with _std is the
# value's standard deviation.
_EVALUATED = (
    ("checkpoint", "Checkpoint", ""),
    ("steps", "Steps of training", ""),
    ("samples", "Generated samples", ""),
    ("seed", "Seed of their noise", ""),
    ("real_images", "Training images", ""),
    ("features", "Feature net", ""),
    ("fd", "Fréchet distance", "0 is best"),
    ("kid", "Kernel distance (KID)", "0 is best"),
    ("kid_subset_size", "Samples in a subset of KID", ""),
    ("classifier_test_accuracy", "Classifier's accuracy on the test digits", ""),
    ("exp_score", "Score: exp E KL(p(y|x) ‖ p(y))", "1 is worst, the number of classes best"),
    ("kl_conditional_marginal", "E KL(p(y|x) ‖ p(y))", "nats"),
    ("kl_marginal_conditional", "The paper's I′: E KL(p(y) ‖ p(y|x))", "nats"),
)
_MOST_BARS = 100
_SHARE = number(lambda value: 0 <= value <= 1, "a number in [0, 1]")


def _evaluation(scored: Line) -> str:
    """Return score.json as a table with a name and an explanation in each row, and its class shares as bars."""
    rows, others = [], dict(scored)  # another version of the program may have written more
    for name, words, meaning in _EVALUATED:
        if name in others:
            del others[name]
            error = ""
            if isinstance(spread := scored.get(f"{name}_std"), float):
                error = f" ± {spread:.2g}"
                del others[f"{name}_std"]
            value = _percent(scored[name]) if name == "classifier_test_accuracy" else _value(scored[name])
            rows.append((words, f"{value}{error}", meaning))
    shares = scored.get("class_share")
    bars = ""
    if isinstance(shares, list) and 0 < len(shares) <= _MOST_BARS and all(_SHARE.holds(value) for value in shares):
        bars = _bars(shares)
        del others["class_share"]
    rows += [(name, _value(value), "") for name, value in others.items()]
    return f'<div class="named">{_table(("quantity", "value", "meaning"), rows)}</div>{bars}'


def _bars(shares: Sequence[float]) -> str:
    """Return a bar chart of the classes' shares of the samples, as a table that reads well without its bars."""
    longest = max(shares) or 1.0
    rows = "".join(
        f'<tr><th scope="row">{index}</th>'
        f'<td><span class="bar" style="width: {100 * share / longest:.1f}%"></span></td>'
        f"<td>{share:.1%}</td></tr>"
        for index, share in enumerate(shares)
    )
    caption = f"Share of each class among the samples, by the classifier. Equal shares are {1 / len(shares):.1%} each."
    return f'<table class="bars"><caption>{caption}</caption><tbody>{rows}</tbody></table>'


def _extra(path: Path, heading: str, caption: str) -> str:
    return _section(heading, _figure(_picture(path), caption)) if path.exists() else ""


def _settings(run: RunContents, place: RunFolder) -> str:
    versions = f"ebgan_fast {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    missing = [path.name for path in (getattr(place, name) for name, _, _ in _EXTRAS) if not path.exists()]
    left_out = f" Left out, as the run folder lacks them: {', '.join(missing)}." if missing else ""
    closing = html.escape(f"Report made with {versions}.{left_out}")
    rows = [(_flag(name), _value(value)) for name, value in run.settings.items()]
    return _section("Settings", f'<div class="named">{_table(("flag", "value"), rows)}</div><p>{closing}</p>')


def _flag(name: str) -> str:
    """Return the flag of `ebgan-fast train` that sets a field; the family of networks comes with the preset."""
    return "networks" if name == "family" else f"--{name.replace('_', '-')}"


def _section(heading: str, body: str) -> str:
    return f"<h2>{html.escape(heading)}</h2>\n{body}"


def _picture(path: Path) -> bytes:
    """Return the bytes of a PNG file, after a look at its head.

    Raises:
        ValueError: the file is no PNG, or has more pixels than a run draws. The message names the file.
        OSError: the file can't be read. The error names it.
    """
    with opened(path, _LARGEST_PICTURE) as file:
        head = file.read(24)
        if len(head) < 24 or not head.startswith(b"\x89PNG\r\n\x1a\n") or head[12:16] != b"IHDR":
            raise ValueError(f"{path}: got a file that isn't a PNG picture, expected one that a run drew")
        width, height = (int.from_bytes(head[place : place + 4], "big") for place in (16, 20))
        if width * height > _MOST_PIXELS:
            raise ValueError(f"{path}: got {width:,} x {height:,} pixels, expected at most {_MOST_PIXELS:,} in all")
        return head + file.read()


def _figure(png: bytes, caption: str) -> str:
    data, words = base64.b64encode(png).decode(), _text(caption)
    return f'<figure><img alt="{words}" src="data:image/png;base64,{data}"><figcaption>{words}</figcaption></figure>'


def _curves(png: bytes, caption: str) -> str:
    """Return a figure of curves, which scrolls on a narrow screen so that its labels stay large enough to read."""
    return f'<div class="scroll curves">{_figure(png, caption)}</div>'


def _value(value: object) -> str:
    if isinstance(value, list):
        more = ", ..." if len(value) > _LONGEST_TEXT else ""
        return ", ".join(map(_value, value[:_LONGEST_TEXT])) + more
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _percent(value: object) -> str:
    return f"{value:.2%}" if isinstance(value, float) else _value(value)


def _table(columns: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{_text(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _text(words: str) -> str:
    """Return text that a file may have chosen, cut short and escaped for HTML."""
    return html.escape(shortened(words, _LONGEST_TEXT))

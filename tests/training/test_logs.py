from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from ebgan_fast.training import train
from ebgan_fast.training.display import Hints, TerminalDisplay, paced
from ebgan_fast.training.pictures import save_curves
from ebgan_fast.training.run.lines import LinesFile

from .conftest import Configure


@pytest.mark.usefixtures("no_curves")
def test_plain_lines_where_there_is_no_terminal(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    run = configure(steps=8)
    train(run)
    first, hint, second, last = capsys.readouterr().out.splitlines()
    line = json.loads((run.out / "metrics.jsonl").read_text().splitlines()[1])
    assert first.startswith("step 4 of 8  ")
    assert hint.startswith("hint: every hinge was active")
    assert f"loss D {line['loss_d']:.3f} G {line['loss_g']:.3f}  " in second
    assert f"energy real {line['energy_real']:.3f} generated {line['energy_fake']:.3f}" in second
    assert f"active hinges {line['hinge_active']:.0%}  PT {line['pulling_away']:.3f}" in second
    assert last.startswith("done: 8 steps in ")


@pytest.mark.usefixtures("no_curves")
def test_a_bar_on_a_terminal(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    run = configure(steps=8)
    train(run)
    line = json.loads((run.out / "metrics.jsonl").read_text().splitlines()[1])
    shown = screen.getvalue()
    assert "8/8" in shown
    assert f"{line['steps_per_s']:.1f} steps/s" in shown
    assert f"energy real {line['energy_real']:.3f}" in shown
    assert "done: 8 steps" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor is hidden, and shown again


def test_the_terminal_is_left_as_it_was_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(KeyError), TerminalDisplay(0, 5):
        raise KeyError
    assert screen.getvalue().count("\x1b[?25h") == 1


def test_lines_of_long_work_are_paced() -> None:
    """Lines of long work are paced: none in the first ten seconds, then one for each tenth, 10 to 60 seconds apart."""
    seconds = 0.0
    said: list[tuple[float, str]] = []
    progress = paced(lambda text: said.append((seconds, text)), lambda: seconds)

    def work(share: float, until: float) -> None:
        nonlocal seconds
        seconds = until
        progress(share, f"{share:.0%}")

    work(0.5, 9.9)
    work(0.55, 10.1)
    work(0.7, 20.0)
    work(0.85, 20.2)
    work(0.86, 30.1)
    work(0.0, 31.0)  # the next part of the work
    work(0.05, 40.0)
    work(0.1, 41.0)
    work(0.11, 52.0)
    work(0.12, 100.9)
    work(0.13, 101.0)
    work(1.0, 102.0)
    assert said == [(10.1, "55%"), (20.2, "85%"), (41.0, "10%"), (101.0, "13%")]


def test_a_wait_is_told_at_once() -> None:
    """A wait is reported at once, and again each minute. The waiting work reports the same text twice a second."""
    seconds = 0.0
    said: list[tuple[float, str]] = []
    progress = paced(lambda text: said.append((seconds, text)), lambda: seconds)
    for part in ("waiting for another", "waiting for a third"):
        for _ in range(140):
            progress(0.0, part)
            seconds += 0.5
        progress(0.1, "work")
    assert said == [
        (0.5, "waiting for another"),
        (60.5, "waiting for another"),
        (70.5, "waiting for a third"),
        (130.5, "waiting for a third"),
    ]


def test_long_work_shows_under_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    with TerminalDisplay(0, 5) as display:
        display.progress()(0.4, "training images: 40 of 100")
    assert "training images: 40 of 100" in screen.getvalue()


def line_of(hinge_active: float, margin: float = 10.0) -> dict[str, float]:
    return {"step": 1, "hinge_active": hinge_active, "margin": margin}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (line_of(0.0), "hint: no hinge was active"),
        (line_of(1.0), "hint: every hinge was active"),
        (line_of(1.0000001192092896), "hint: every hinge was active"),  # the mean of ten parts
        (line_of(0.0, 0.0), "hint: the margin is 0"),
        (line_of(0.01), None),
        (line_of(0.99), None),
    ],
)
def test_a_hint_is_given_once(line: dict[str, float], words: str | None) -> None:
    hints = Hints()
    assert hints.of(line_of(0.5)) == []
    first = hints.of(line)
    assert [hint.startswith(words) for hint in first] == [True] if words else not first
    assert hints.of(line) == []
    assert Hints([line_of(0.5), line]).of(line) == []  # for a run that goes on


def test_a_margin_of_zero_is_told_before_the_first_step(
    configure: Configure, no_curves: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run = configure(margin=0.0, margin_schedule="constant", margin_end=None, steps=8)
    train(run)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("hint: the margin is 0")
    assert sum(line.startswith("hint") for line in said) == 1
    train(configure(margin=0.0, margin_schedule="constant", margin_end=None, steps=8), resume=True)
    assert "hint" not in capsys.readouterr().out


def test_the_metrics_file_rewinds(tmp_path: Path) -> None:
    metrics = LinesFile(tmp_path / "metrics.jsonl")
    assert metrics.lines() == []
    steps = [10, 20, 25, 30, 40]
    for step in steps:
        metrics.append({"step": step, "loss": 1 / step})
    assert [line["step"] for line in metrics.lines()] == steps
    metrics.rewind(35, every=10)
    assert metrics.lines() == [{"step": step, "loss": 1 / step} for step in (10, 20, 30)]
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("stump", [b'{"step": 30, "lo', b"x" * 200_000])
def test_a_line_that_was_cut_short_is_dropped_by_the_next(tmp_path: Path, stump: bytes) -> None:
    lines = LinesFile(tmp_path / "scores.jsonl")
    lines.path.write_bytes(stump)
    assert lines.lines() == []
    lines.append({"step": 10})
    with lines.path.open("ab") as file:
        file.write(stump)
    lines.append({"step": 20}, lasting=True)
    assert lines.lines() == [{"step": 10}, {"step": 20}]


@pytest.mark.parametrize("bad", ["nonsense\n", "[1]\n", '{"loss": 1}\n', '{"step": "3"}\n'])
def test_a_metrics_file_that_is_none(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(bad + '{"step": 1}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl: got .* line 1.*, expected (one JSON object|a whole number)"):
        LinesFile(path).lines()


def test_a_title_may_hold_any_sign(tmp_path: Path) -> None:
    """A title may hold any character, as the name of a run's folder may. matplotlib reads text between dollar signs as
    a formula.
    """
    line = {"step": 1, "loss_d": 1.0, "loss_g": 1.0}
    save_curves([line], tmp_path / "curves.png", r"a$\b_$ \frac{")
    with Image.open(tmp_path / "curves.png") as picture:
        assert min(picture.size) > 200


@pytest.mark.parametrize("steps", [4, 12])
def test_curves_are_drawn(configure: Configure, steps: int) -> None:
    """Curves are drawn for one line in metrics.jsonl, and for several."""
    run = configure(steps=steps)
    train(run)
    with Image.open(run.out / "curves.png") as picture:
        width, height = picture.size
        colors = {color for _, color in picture.convert("RGB").getcolors(2**24)}
    assert min(width, height) > 500
    # The colors of the four curves and of the margin's dashes.
    assert {(0, 114, 178), (213, 94, 0), (0, 158, 115), (85, 85, 85)} <= colors

"""The output of a run while it trains: a progress bar on a terminal, lines of text elsewhere, and hints."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

from .._console import Tolerant, printable, say
from .._progress import Progress

if TYPE_CHECKING:
    from typing_extensions import Self

Line = Mapping[str, Any]

# Seconds and share of the work between two lines, and seconds after which a line is printed in any case.
_SECONDS, _SHARE, _MOST_SECONDS = 10.0, 0.1, 60.0


class Display(Protocol):
    """An object that shows a run's progress. It is a context manager, so that it leaves the terminal as it found it."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def advance(self, step: int) -> None:
        """Show that this step is done. It is called after every step, so it must be quick."""

    def metrics(self, line: Line) -> None:
        """Show a line of metrics.jsonl."""

    def say(self, text: str) -> None:
        """Print one line about an event."""

    def progress(self) -> Progress:
        """Return a progress function for one piece of work that takes longer than a step."""


def paced(say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> Progress:
    """Return a progress function that prints lines, for output that can't show a bar.

    It prints nothing in the first ten seconds, and then a line for each tenth of the work. Two lines are at least ten
    seconds apart. After a minute without a line, the next call prints one. A call with the same arguments as the call
    before comes from work that waits for another process. It prints at once, unless that line was the last one printed.

    Args:
        say: prints one line.
        clock: returns the time in seconds.
    """
    said_at, said_share = clock(), 0.0
    told = said = (-1.0, "")

    def progress(share: float, text: str) -> None:
        nonlocal said_at, said_share, told, said
        stands, told = (share, text) == told, (share, text)
        said_share = min(said_share, share)  # a new part of the work begins at 0 again
        silent = clock() - said_at
        waits = stands and said != told
        if waits or silent >= _MOST_SECONDS or (silent >= _SECONDS and share >= said_share + _SHARE):
            say(text)
            said_at, said_share, said = clock(), share, told

    return progress


def make_display(start: int, steps: int, quiet: bool = False) -> Display:
    """Return a progress bar on a terminal, and a display of plain lines elsewhere.

    Args:
        start: the number of steps that earlier sessions did.
        steps: the number of steps of the whole run.
        quiet: show nothing. All processes of a run but the first are quiet.
    """
    if quiet:
        return SilentDisplay(steps)
    return TerminalDisplay(start, steps) if Tolerant().isatty() else PlainDisplay(steps)


def _describe(line: Line) -> str:
    return (
        f"loss D {line['loss_d']:.3f} G {line['loss_g']:.3f}  "
        f"energy real {line['energy_real']:.3f} generated {line['energy_fake']:.3f}  "
        f"margin {line['margin']:.3g}  "
        f"active hinges {line['hinge_active']:.0%}  PT {line['pulling_away']:.3f}"
    )


class Hints:
    """Hints for a run that may not learn. Each hint is given once in a run, even if the run is interrupted and resumed.

    Args:
        before: the lines of metrics that earlier sessions of the run wrote.
    """

    def __init__(self, before: Iterable[Line] = ()) -> None:
        self._told: set[str] = set()
        for line in before:
            self.of(line)

    def of(self, line: Line) -> list[str]:
        """Return the hints that a line of metrics gives rise to, without those that were given before."""
        found = {}
        if line.get("margin") == 0:
            found["margin"] = "the margin is 0: no hinge is active, and the discriminator learns from real images alone"
        elif line.get("hinge_active") == 0:
            found["none"] = (
                "no hinge was active in this interval: every generated image cost more than the margin, and the "
                "discriminator learned from real images alone. If it stays so, try a larger --margin"
            )
        elif line.get("hinge_active", 0) >= 1 - 1e-6:  # a sum of parts may be off by rounding
            found["all"] = (
                "every hinge was active in this interval: no generated image cost as much as the margin. That is usual "
                "at the start; if it stays so, try a smaller --margin"
            )
        new = [f"hint: {text}" for name, text in found.items() if name not in self._told]
        self._told.update(found)
        return new


class PlainDisplay:
    """A display that prints one line of text per log interval."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._stream = Tolerant()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def advance(self, step: int) -> None:
        pass

    def metrics(self, line: Line) -> None:
        rate = f"{line['steps_per_s']:.1f} steps/s"
        self.say(f"step {line['step']} of {self._steps}  {_describe(line)}  {rate}")

    def say(self, text: str) -> None:
        say(text, self._stream)

    def progress(self) -> Progress:
        return paced(self.say)


class SilentDisplay(PlainDisplay):
    """A display that shows nothing."""

    def say(self, text: str) -> None:
        pass


class TerminalDisplay:
    """A progress bar with the rate and the remaining time, and with the latest metrics below it."""

    def __init__(self, start: int, steps: int) -> None:
        from rich.console import Console, RenderableType
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.text import Text

        latest = Text("", "dim")

        class BarAndMetrics(Progress):
            def get_renderables(self) -> Iterable[RenderableType]:
                yield self.make_tasks_table(self.tasks)
                yield latest

        self._latest = latest
        self._progress = BarAndMetrics(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            # Keep the present stream: rich replaces sys.stdout by a stream of its own, which writes to this one.
            console=Console(file=cast(TextIO, Tolerant(sys.stdout))),
        )
        self._task = self._progress.add_task("", total=steps, completed=start, rate="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, step: int) -> None:
        self._progress.update(self._task, completed=step)

    def metrics(self, line: Line) -> None:
        self._latest.plain = _describe(line)
        self._progress.update(self._task, rate=f"{line['steps_per_s']:.1f} steps/s")

    def say(self, text: str) -> None:
        self._progress.console.print(printable(text), markup=False, highlight=False)

    def progress(self) -> Progress:
        def show(share: float, text: str) -> None:
            self._latest.plain = "" if share == 1 else text

        return show

"""The driver of `bench/gpu.sh`: it runs the stages one after another, each within its limit.

A stage or a part that already has its result is left out.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import folder, machine, verdicts
from .folder import Section
from .processes import Ended, Job, Log, Machine, Running, Tick
from .stages import BUILD, DEFAULT_MINUTES, Part, Situation, Stage
from .verdicts import Record, Verdict

LOOK_SECONDS = 30.0
"""Most seconds that all questions about the machine take together."""
_PROBE_SECONDS = 23.0
_LEAST_SECONDS = 3.0  # with less time no part of a stage is started
_TOLD_EVERY = 15.0  # seconds between two lines about a running stage
_KEPT_BYTES = 2**19  # first bytes of a background job's output, and as many last ones


@dataclass(frozen=True)
class Settings:
    """The arguments and variables of the command."""

    out: Path
    """The folder of results."""
    work: Path
    """The folder of everything else."""
    images: Path | None
    minutes: float = DEFAULT_MINUTES
    named: tuple[str, ...] = ()
    """Stages to run even if they have a result. Empty: all stages without a result."""


class Kept:
    """The first and last bytes that a background job printed, kept until the job has a section of the log."""

    def __init__(self) -> None:
        self._head, self._tail = b"", b""
        self._left_out = 0

    def write(self, data: bytes) -> None:
        room = _KEPT_BYTES - len(self._head)
        self._head, data = self._head + data[:room], data[max(0, room) :]
        self._tail += data
        if len(self._tail) > 2 * _KEPT_BYTES:
            self._left_out += len(self._tail) - _KEPT_BYTES
            self._tail = self._tail[-_KEPT_BYTES:]

    def into(self, log: Log) -> None:
        """Write what there is, and forget it."""
        log.write(self._head + (folder.marker(self._left_out) if self._left_out else b"") + self._tail)
        self._head = self._tail = b""


@dataclass
class _Background:
    running: Running
    log: Kept
    deadline: float


class Driver:
    """One call of the command.

    Args:
        machine: The place where programs run.
        settings: The arguments and variables of the command.
        stages: All stages, in order.
        say: Prints a line.
    """

    def __init__(
        self, machine: Machine, settings: Settings, stages: Sequence[Stage], say: Callable[[str], None]
    ) -> None:
        self._machine, self._settings, self._stages, self._say = machine, settings, stages, say
        self._began = machine.now()
        self._scale = settings.minutes / DEFAULT_MINUTES
        self._log = settings.out / folder.LOG
        self._background: dict[str, _Background] = {}
        self._running: Running | None = None
        self._current: Stage | None = None
        self._todo: list[Stage] = []
        self.verdicts: list[Verdict] = []

    def run(self) -> int:
        """Run the chosen stages, and return the exit status."""
        self._settings.out.mkdir(parents=True, exist_ok=True)
        self._settings.work.mkdir(parents=True, exist_ok=True)
        self._record = Record(self._settings.out / folder.VERDICTS, machine.sources())
        try:
            self._situation = self._look()
            self._todo = self._chosen()
            for stage in self._todo:
                self._start_background(stage)
            for stage in self._todo:
                self._run_stage(stage)
        except BaseException as error:
            self._interrupted(error)
            raise
        finally:
            self._end_background()
            self._bound()
        for fault in folder.check(self._settings.out):
            self._say(f"{self._settings.out}: {fault}")
        self._say(f"results: {self._settings.out}, after {self._machine.now() - self._began:.0f} s")
        return verdicts.exit_status(self.verdicts)

    def _left(self) -> float:
        return 60 * self._settings.minutes - (self._machine.now() - self._began)

    def _chosen(self) -> list[Stage]:
        """Return the stages to run. The build comes before the first stage that needs it.

        A stage that has its result is reported and left out.
        """
        named = self._settings.named
        todo: list[Stage] = []
        for stage in self._stages:
            if stage.name == BUILD or (named and stage.name not in named):
                continue
            if not named and self._record.has_passed(stage.name):
                self._tell(Verdict(stage.name, verdicts.SKIPPED, "its result is there; name it to run it again"))
            else:
                todo.append(stage)
        # The build always runs again. CMake does not compile files that have not changed.
        if BUILD in named or any(stage.needs_build for stage in todo):
            at = next((index for index, stage in enumerate(todo) if stage.needs_build), len(todo))
            todo[at:at] = [stage for stage in self._stages if stage.name == BUILD]
        return todo

    def _look(self) -> Situation:
        """Write the machine's properties into the folder of results, and return the situation of the first stage."""
        began = self._machine.now()
        probe = Job([sys.executable, "-c", machine.PROBE])
        found = machine.Found.read(self._asked(probe, _PROBE_SECONDS).output)
        lines = [
            f"== {_now()}, sources {machine.sources()}",
            f"GPU: {found.name or ('none' if found.gpu is False else 'unknown')}",
            *(f"{name}: {version}" for name, version in found.versions.items()),
        ]
        for name, command in machine.questions().items():
            left = LOOK_SECONDS - (self._machine.now() - began)
            answer = self._asked(
                Job(command, grace=0.5), left / 2
            ).output.strip()  # a command that hangs leaves time for others
            lines += [f"-- {name}", answer]
        with (self._settings.out / folder.ENVIRONMENT).open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        self._say(lines[1])
        return Situation(found, self._settings.out, self._settings.work, self._settings.images)

    def _asked(self, job: Job, limit: float) -> Ended:
        self._running = self._machine.start(self._with_environment(job), Kept())
        return self._running.wait(min(limit, max(1.0, self._left())))

    def _with_environment(self, job: Job) -> Job:
        return replace(job, environment={**machine.environment(self._settings.work), **job.environment})

    def _start_background(self, stage: Stage) -> None:
        for name, make in stage.background.items():
            if job := make(self._situation):
                log = Kept()
                deadline = self._machine.now() + (stage.limit * self._scale or self._left())
                self._background[name] = _Background(
                    self._machine.start(self._with_environment(job), log), log, deadline
                )

    def _limit(self, stage: Stage, left: float) -> float:
        if stage.share is None:
            return min(stage.limit * self._scale, left)
        return left * (1.0 if stage is self._todo[-1] else stage.share)

    def _run_stage(self, stage: Stage) -> None:
        left = self._left()
        limit = self._limit(stage, left)
        if limit < stage.least:
            why = f"{max(0.0, limit):.0f} s are left for it, it needs {stage.least:.0f}"
            self._finish(Verdict(stage.name, verdicts.NOT_STARTED, why))
            return
        self._say(f"== {stage.name}, at most {limit:.0f} s")
        self._current = stage
        began = self._machine.now()
        section = Section(self._log, f"{stage.name}, {_now()}")
        try:
            done = self._run_parts(stage, began + limit, section)
        finally:
            section.close()
        self._current = None  # not reached after an error, which interrupts the current stage
        self._finish(_together(stage, done, self._machine.now() - began, limit))
        self._bound()

    def _bound(self) -> None:
        for name in folder.bound(self._settings.out):
            self._say(f"{name}: cut in its middle, it had more than {folder.MOST_BYTES} bytes")

    def _run_parts(self, stage: Stage, deadline: float, section: Section) -> list[Verdict]:
        done: list[Verdict] = []
        parts = list(stage.parts(self._situation))
        for index, part in enumerate(parts):
            began = self._machine.now()
            to_come = sum(it.known is None for it in parts[index:])
            share = 1 / max(1, to_come) if part.takes is None else part.takes
            seconds = (deadline - began) * share
            verdict = self._run_part(stage, part, seconds, section)
            verdict = replace(verdict, part=part.name, date=_now(), seconds=self._machine.now() - began, limit=seconds)
            done.append(verdict)
            if part.name:
                self._record.add(verdict)
                if len(parts) > 1:
                    self._say(f"   {verdict.line()}")
        return done

    def _run_part(self, stage: Stage, part: Part, seconds: float, section: Section) -> Verdict:
        if part.known is not None:
            section.write(f"{part.known[1]}\n".encode())
            return Verdict(stage.name, *part.known)
        resumed = part.name is not None and stage.name not in self._settings.named
        if resumed and part.awaits is None and self._record.has_passed(stage.name, part.name):
            return Verdict(stage.name, verdicts.PASSED, "its result is there")
        if part.awaits is None and seconds < _LEAST_SECONDS:
            why = f"{max(0.0, seconds):.1f} s are left for it, it needs {_LEAST_SECONDS:.0f}"
            return Verdict(stage.name, verdicts.NOT_STARTED, why)
        tick = self._ticks(stage, part)
        if part.awaits is not None:
            background = self._background[part.awaits]
            self._running = background.running
            seconds = min(seconds, max(1.0, background.deadline - self._machine.now()))
            ended = background.running.wait(seconds, tick)
            background.log.into(section)
            del self._background[part.awaits]
        else:
            assert part.job is not None
            job = self._with_environment(part.job(seconds))
            section.write(f"$ {' '.join(job.command)}\n".encode())
            self._running = self._machine.start(job, section)
            ended = self._running.wait(seconds, tick)
        self._running = None
        if part.keep is not None:
            part.keep()
        assert part.judge is not None
        return Verdict(stage.name, *part.judge(ended))

    def _ticks(self, stage: Stage, part: Part) -> Tick:
        told = self._machine.now()

        def tick(seconds: float, line: str) -> None:
            nonlocal told
            if self._machine.now() - told < _TOLD_EVERY:
                return
            told = self._machine.now()
            if part.keep is not None:
                part.keep()
            self._say(f"   {stage.name} {part.name or ''} {seconds:.0f} s: {line[:100]}")

        return tick

    def _finish(self, verdict: Verdict) -> None:
        self._situation.outcomes[verdict.stage] = verdict.outcome
        self._tell(verdict)

    def _tell(self, verdict: Verdict) -> None:
        verdict = replace(verdict, date=_now())
        self.verdicts.append(verdict)
        self._record.add(verdict)
        self._say(verdict.line())

    def _interrupted(self, error: BaseException) -> None:
        """Kill the running program, and report the current stage as interrupted."""
        if self._running is not None:
            self._running.kill()
        if self._current is not None:
            self._tell(Verdict(self._current.name, verdicts.INTERRUPTED, type(error).__name__))

    def _end_background(self) -> None:
        for background in self._background.values():
            background.running.kill()


def _together(stage: Stage, parts: Sequence[Verdict], seconds: float, limit: float) -> Verdict:
    """Return the verdict on a stage: the worst outcome of its parts, with the reasons of all parts that are as bad."""
    outcome = verdicts.worst(part.outcome for part in parts)
    telling = [part for part in parts if part.outcome == outcome or part.outcome not in (verdicts.PASSED, outcome)]
    words = []
    for part in telling:
        kind = f"{part.outcome}, " if part.outcome != outcome else ""
        words.append(f"{part.part}: {kind}{part.why}" if part.part else part.why)
    return Verdict(stage.name, outcome, "; ".join(filter(None, words)), seconds, limit)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")

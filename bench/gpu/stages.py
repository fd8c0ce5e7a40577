"""The stages in order of value, each with its programs, its limit, and the judge of its end."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import folder, judging, real_run, verdicts
from .machine import Found, tool
from .processes import Ended, Job

DEFAULT_MINUTES = 10.5
"""The length that the limits below are made for. The clock starts after the wheels are unpacked: all ends within 11."""

BUILD = "build"
"""Runs beside the others, until one needs it."""
# What a GPU alone can show comes first, and what waits for torch's compilers last.
TESTS = ("test_gpu", "test_scaling", "test_values", "test_repeatability", "test_contract", "test_transforms")
_WORKERS = 12  # of an H100's 16 cores: the build runs beside them
_COMPILED = "small step of triton"
_RECORDED = "steps of a graph"
_TEST_GRACE = 13.0  # xdist gives its workers 10 s, and prints its summary after
_COMPILERS = 8  # whose contexts share the GPU with what is timed
# The paper's runs whose networks fit one GPU, with the batch of each and the steps in a reading: 50 to 250 ms.
PRESETS = (("celeba64", 128, 20), ("imagenet128", 128, 6), ("imagenet256", 64, 3))
# The entries on which most of the time hangs, first what is likeliest to be off.
_ENTRIES = ("programs", "rows 3", "chunk", "gram float32", "gram 16-bit")

Judge = Callable[[Ended], tuple[str, str]]
"""Outcome and reason."""


@dataclass(frozen=True)
class Part:
    """One program of a stage, or what is known without running it."""

    name: str | None
    job: Callable[[float], Job] | None = None
    """Made when it is started, given its seconds."""
    judge: Judge | None = None
    awaits: str | None = None
    """A job that was started in the background, in place of one of its own."""
    known: tuple[str, str] | None = None
    """Outcome and reason, in place of a program."""
    takes: float | None = None
    """Share of the stage's time. None: an equal one with the parts that follow."""
    keep: Callable[[], None] | None = None
    """Called now and then while it runs, and at its end: brings results into their folder."""


@dataclass
class Situation:
    """The machine, the folders and the outcomes so far, for the next stage."""

    found: Found
    out: Path
    work: Path
    images: Path | None
    outcomes: dict[str, str] = field(default_factory=dict)
    """The outcomes of the stages before it."""

    @functools.cached_property
    def fingerprint(self) -> str:
        """The part of folders' names that tells these images from others."""
        assert self.images is not None
        return real_run.fingerprint(self.images)

    def judge(self, ended: Ended) -> tuple[str, str]:
        return judging.judge(ended, self.found.gpu)


@dataclass(frozen=True)
class Stage:
    """Seconds are of a run of the default length; others scale them."""

    name: str
    limit: float
    least: float
    """With less time it is not started; never scaled."""
    parts: Callable[[Situation], Sequence[Part]]
    needs_build: bool = False
    share: float | None = None
    """The share of the time that is left, in place of the limit."""
    background: Mapping[str, Callable[[Situation], Job | None]] = field(default_factory=dict)
    """Jobs that are started before the first stage: None for nothing to do."""


def python(*arguments: str | Path, **settings: object) -> Job:
    return Job([sys.executable, *map(str, arguments)], **settings)  # type: ignore[arg-type]


def _build(situation: Situation) -> Job:
    return python("-m", "bench.gpu.building", situation.work / "cmake", situation.found.architecture)


def _built(situation: Situation) -> Sequence[Part]:
    def judge(ended: Ended) -> tuple[str, str]:
        outcome, why = judging.judge(ended, True)  # it needs no GPU
        if outcome == verdicts.FAILED and "NOT BUILT" in ended.output:
            return outcome, judging.last_line(ended.output)
        said = re.findall(r"^built: (.*)$", ended.output, re.MULTILINE)
        return outcome, said[-1] if said and outcome == verdicts.PASSED else why

    return [Part(None, awaits=BUILD, judge=judge)]


def _tests(backend: str) -> Callable[[Situation], Sequence[Part]]:
    def parts(situation: Situation) -> Sequence[Part]:
        if backend == "cuda" and (known := _not_built(situation)):
            return [Part(None, known=known)]
        workers = min(_WORKERS, os.cpu_count() or 1)
        variables = {
            "EBGAN_FAST_TEST_DEVICE": "cuda",
            "EBGAN_FAST_TEST_REQUIRED": backend,  # a backend that cannot run fails its tests
            "OMP_NUM_THREADS": "1",
        }
        options = ("-v", "--tb=short", "-p", "no:cacheprovider", "-n", str(workers), "--maxfail=25", "-k", backend)
        files = [f"tests/ops/{name}.py" for name in TESTS]

        def job(seconds: float) -> Job:
            return python("-m", "pytest", *options, *files, environment=variables, grace=_TEST_GRACE)

        return [Part(None, job, lambda ended: judging.judge_tests(ended, situation.found.gpu))]

    return parts


def _not_built(situation: Situation) -> tuple[str, str] | None:
    """The verdict on what needs the CUDA kernels, where they were not built."""
    outcome = situation.outcomes.get(BUILD, verdicts.PASSED)
    if outcome == verdicts.PASSED:
        return None
    return verdicts.NOT_BUILT, f"stage build: {outcome}"


def _bench(*arguments: str | Path) -> Callable[[float], Job]:
    return lambda seconds: python("-m", "bench", *arguments)


def _recorded(situation: Situation) -> Job:
    """A job that compares training with and without a CUDA graph, beside the tests: nothing of it is timed."""
    return python("-m", "bench", "graph", "--out", situation.out / folder.STEPS)


def _steps(situation: Situation) -> Sequence[Part]:
    """The verdict on recorded steps, which are timed where that is a pass, and the times of all steps."""
    out = situation.out / folder.STEPS
    is_right = False

    def judge_recorded(ended: Ended) -> tuple[str, str]:
        nonlocal is_right
        outcome, why = situation.judge(ended)
        is_right = outcome == verdicts.PASSED
        said = re.findall(r"^(\w.*: losses of .*)$", ended.output, re.MULTILINE)
        return outcome, "; ".join(said) if is_right else why

    def judge(ended: Ended) -> tuple[str, str]:
        outcome, why = situation.judge(ended)
        ratios = re.findall(r"^ *(\w+(?:, cuda_graph)?: [\d.]+ times the public loop)", ended.output, re.MULTILINE)
        return outcome, "; ".join(ratios) if outcome == verdicts.PASSED else why

    def job(name: str, size: int, steps: int) -> Callable[[float], Job]:
        networks = ("--name", name, "--batch-size", str(size), "--steps", str(steps))
        kinds = ("--precision", "float32", "bfloat16", "--cudnn-benchmark", "--rounds", "5", "--out", out)

        def made(seconds: float) -> Job:
            recorded = ("--cuda-graph", "bfloat16") if is_right else ()
            return python("-m", "bench", "train", "--device", "cuda", *networks, *recorded, *kinds)

        return made

    # Where no tests came before, it has only begun.
    compared = Part("graph", awaits=_RECORDED, judge=judge_recorded, takes=0.4)
    return [compared, *(Part(name, job(name, size, steps), judge) for name, size, steps in PRESETS)]


def _ops(situation: Situation) -> Sequence[Part]:
    out = situation.out / folder.OPS
    before = _lines(out)

    def judge(ended: Ended) -> tuple[str, str]:
        outcome, why = situation.judge(ended)
        rows = f"{_lines(out) - before} rows"
        if _not_built(situation):
            rows += ", without the CUDA kernels, which were not built"
        return outcome, rows if outcome == verdicts.PASSED else f"{rows}; {why}"

    command = ("ops", "--device", "cuda", "--quick", "--dtype", "float32", "bfloat16", "--out", out)
    return [Part(None, _bench(*command), judge)]


def _lines(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def _small_step(*backends: str) -> tuple[str, ...]:
    return ("-m", "bench.gpu.small_step", *backends)


def _compiled(situation: Situation) -> Job:
    """A job that compiles Triton's kernels beside the tests, and leaves them where the sanitizer's run finds them."""
    return python(*_small_step("triton"))


def _sanitizer(situation: Situation) -> Sequence[Part]:
    """The checks of the CUDA kernels, which are compiled already, then of Triton's with what time is left."""
    not_built = _not_built(situation)
    # Each tensor is an allocation of its own, so that an access beyond one is beyond its memory too.
    apart = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    program = tool("compute-sanitizer")
    checks: list[Part] = []
    if not_built:
        checks.append(Part("cuda", known=not_built))
    if program is None:
        missing = "compute-sanitizer is not found (PATH, CUDA_HOME): it comes with the CUDA toolkit"
        checks.append(Part("compute-sanitizer", known=(verdicts.NOT_FOUND, missing)))
    for name, backend in (("memcheck", "cuda"), ("racecheck", "cuda"), ("memcheck", "triton")):
        if program is None or (not_built and backend == "cuda"):
            continue
        command = [program, "--tool", name, "--error-exitcode", "9", "--target-processes", "application-only"]
        command += [sys.executable, *_small_step(backend)]
        checks.append(Part(f"{name} of {backend}", _under(command, apart), situation.judge))
    alone = Part("triton alone", awaits=_COMPILED, judge=situation.judge)
    return [*checks[:-1], alone, *checks[-1:]] if program else [alone, *checks]


def _under(command: Sequence[str], variables: Mapping[str, str]) -> Callable[[float], Job]:
    return lambda seconds: Job(command, variables)


def _prepare(situation: Situation) -> Job | None:
    if situation.images is None:
        return None
    return python("-m", "ebgan_fast", "prepare", situation.images, _packed(situation), "--size", "64")


def _packed(situation: Situation) -> Path:
    return situation.work / f"images-{situation.fingerprint}"


def _run(situation: Situation) -> Sequence[Part]:
    if situation.images is None:
        return [Part(None, known=(verdicts.FAILED, "GPU_IMAGES is not set, expected a folder or a zip of images"))]
    prepare = Part(
        "prepare", awaits="prepare", judge=lambda ended: judging.judge(ended, True), takes=1.0
    )  # it needs no GPU
    scored = real_run.missing_for_scores(situation.found) is None
    place = situation.work / f"run-{situation.fingerprint}"
    run = real_run.RealRun(place, _packed(situation), situation.out / folder.RUN, scored)

    def judge(ended: Ended) -> tuple[str, str]:
        outcome, why = judging.judge(ended, situation.found.gpu, run.accepted)
        return (outcome, why) if outcome != verdicts.PASSED else run.verdict(situation.found)

    def job(seconds: float) -> Job:
        return python(*run.arguments, stop=run.stop, grace=run.grace(seconds))

    return [prepare, Part("train", job, judge, takes=1.0, keep=run.pack)]


def _tune(situation: Situation) -> Sequence[Part]:
    out, trials = situation.out / folder.TABLES, situation.out / folder.TRIALS

    def job(seconds: float) -> Job:
        # It begins no entry after two thirds of its time, and has written every entry before.
        limits = ("--seconds", f"{seconds * 2 / 3:.0f}", "--rounds", "5", "--sweeps", "1", "--cases", "2")
        jobs = ("--jobs", str(max(1, min(_COMPILERS, (os.cpu_count() or 1) // 2))))
        return python("-m", "bench", "tune", "--only", *_ENTRIES, *limits, *jobs, "--out", out, "--trials", trials)

    def judge(ended: Ended) -> tuple[str, str]:
        outcome, why = situation.judge(ended)
        said = re.findall(r"^tuned (\d+ of \d+ entries.*)$", ended.output, re.MULTILINE)
        return outcome, said[-1] if said and outcome == verdicts.PASSED else why

    return [Part(None, job, judge)]


# With 30 s for the look at the machine, the first five end within 465 s, 15 before the eighth minute: a program that is
# killed may take some seconds to be gone.
STAGES: tuple[Stage, ...] = (
    Stage(BUILD, 135, 1, _built, background={BUILD: _build}),
    Stage("triton", 125, 30, _tests("triton")),
    Stage("cuda", 60, 20, _tests("cuda"), needs_build=True),
    Stage("step", 100, 30, _steps, background={_RECORDED: _recorded}),
    Stage("ops", 140, 40, _ops, needs_build=True),
    Stage("sanitizer", 90, 30, _sanitizer, needs_build=True, background={_COMPILED: _compiled}),
    Stage("run", 0, 40, _run, share=0.6, background={"prepare": _prepare}),
    Stage("tune", 0, 25, _tune, share=1.0),
)

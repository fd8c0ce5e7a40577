"""The stages in order of value: each has its programs, its time limit, and the judgment of its end."""

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
"""Minutes for which the limits below are made. The clock starts once the wheels are unpacked, so all ends within 11."""

BUILD = "build"
"""The stage that runs beside others until one of them needs it."""
# First come tests of what only a GPU can show. Last come tests that wait for torch's compilers.
TESTS = ("test_gpu", "test_scaling", "test_values", "test_repeatability", "test_contract", "test_transforms")
_WORKERS = 12  # on an H100's machine of 16 cores, as the build runs beside them
_COMPILED = "small step of triton"
_RECORDED = "steps of a graph"
_TEST_GRACE = 13.0  # xdist gives its workers 10 s, and prints its summary after
_COMPILERS = 8  # processes, whose contexts share the GPU with the kernels that are timed
PRESETS = (("celeba64", 128, 20), ("imagenet128", 128, 6), ("imagenet256", 64, 3))
"""The paper's runs whose networks fit one GPU, with the batch of each and the steps in a reading of 50 to 250 ms."""
# The entries that cost most of the time. Those whose tiles are likeliest to be bad come first.
_ENTRIES = ("programs", "rows 3", "chunk", "gram float32", "gram 16-bit")

Judge = Callable[[Ended], tuple[str, str]]
"""Returns the outcome and the reason of a program's end."""


@dataclass(frozen=True)
class Part:
    """A part of a stage: one program, or an outcome that is known without running one."""

    name: str | None
    job: Callable[[float], Job] | None = None
    """Makes the job when the part is started, given the part's seconds."""
    judge: Judge | None = None
    awaits: str | None = None
    """The name of a background job to wait for, in place of a job of the part's own."""
    known: tuple[str, str] | None = None
    """The outcome and the reason, in place of a program."""
    takes: float | None = None
    """The share of the stage's time that is left. None: an equal share with the parts that follow."""
    keep: Callable[[], None] | None = None
    """Called now and then while the part runs, and at its end, to bring results into their folder."""


@dataclass
class Situation:
    """The machine, the folders and the outcomes so far, from which the next stage makes its parts."""

    found: Found
    out: Path
    work: Path
    images: Path | None
    outcomes: dict[str, str] = field(default_factory=dict)
    """The outcomes of the stages that have ended."""

    @functools.cached_property
    def fingerprint(self) -> str:
        """The part of folders' names that is different for other images."""
        assert self.images is not None
        return real_run.fingerprint(self.images)

    def judge(self, ended: Ended) -> tuple[str, str]:
        """Return the outcome of a program on this machine, and the reason."""
        return judging.judge(ended, self.found.gpu)


@dataclass(frozen=True)
class Stage:
    """A stage of the run. Its limit is for a run of the default length, and is scaled for others."""

    name: str
    limit: float
    least: float
    """Seconds that the stage needs to be started. They are never scaled."""
    parts: Callable[[Situation], Sequence[Part]]
    needs_build: bool = False
    share: float | None = None
    """The share of the run's time that is left, in place of the limit."""
    background: Mapping[str, Callable[[Situation], Job | None]] = field(default_factory=dict)
    """Functions that make jobs to start before the first stage. A function returns None if there is no job."""


def python(*arguments: str | Path, **settings: object) -> Job:
    """Return a job of this Python, with arguments and with settings of the job."""
    return Job([sys.executable, *map(str, arguments)], **settings)  # type: ignore[arg-type]


def _build(situation: Situation) -> Job:
    return python("-m", "bench.gpu.building", situation.work / "cmake", situation.found.architecture)


def _built(situation: Situation) -> Sequence[Part]:
    def judge(ended: Ended) -> tuple[str, str]:
        outcome, why = judging.judge(ended, True)  # the build needs no GPU
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
    """Return the outcome and reason of a part that needs the CUDA kernels, or None if they were built."""
    outcome = situation.outcomes.get(BUILD, verdicts.PASSED)
    if outcome == verdicts.PASSED:
        return None
    return verdicts.NOT_BUILT, f"stage build: {outcome}"


def _bench(*arguments: str | Path) -> Callable[[float], Job]:
    return lambda seconds: python("-m", "bench", *arguments)


def _recorded(situation: Situation) -> Job:
    """Return the job that compares training with and without a CUDA graph. It times nothing, so tests run beside."""
    return python("-m", "bench", "graph", "--out", situation.out / folder.STEPS)


def _steps(situation: Situation) -> Sequence[Part]:
    """Return the comparison of recorded steps, and the timing of all steps. Wrong recorded steps are not timed."""
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

    # If no tests came before, the comparison has only begun.
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
    """Return the job that compiles Triton's kernels beside the tests, for the sanitizer's run to find."""
    return python(*_small_step("triton"))


def _sanitizer(situation: Situation) -> Sequence[Part]:
    """Return the checks of the CUDA kernels, which are compiled already, and of Triton's in the time that is left."""
    not_built = _not_built(situation)
    # Each tensor is an allocation of its own, so that an access beyond the tensor is also beyond its memory.
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
    )  # packing needs no GPU
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
        # The tuner begins no entry after two thirds of its time. By then it has written every earlier entry.
        limits = ("--seconds", f"{seconds * 2 / 3:.0f}", "--rounds", "5", "--sweeps", "1", "--cases", "2")
        jobs = ("--jobs", str(max(1, min(_COMPILERS, (os.cpu_count() or 1) // 2))))
        return python("-m", "bench", "tune", "--only", *_ENTRIES, *limits, *jobs, "--out", out, "--trials", trials)

    def judge(ended: Ended) -> tuple[str, str]:
        outcome, why = situation.judge(ended)
        said = re.findall(r"^tuned (\d+ of \d+ entries.*)$", ended.output, re.MULTILINE)
        return outcome, said[-1] if said and outcome == verdicts.PASSED else why

    return [Part(None, job, judge)]


# With 30 s for the look at the machine, the first five stages end within 465 s. That is 15 s before the eighth minute,
# because a killed program may take some seconds to end.
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

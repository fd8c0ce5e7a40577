"""The driver of bench/gpu.sh runs its real stages on a made-up machine, and handles each way that a stage can end."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from bench.gpu import folder, machine, stages, verdicts
from bench.gpu.stages import STAGES

from .gpu_stand_in import FOREVER, Program, Workplace, ran

NAMES = [stage.name for stage in STAGES]
_FIRST_FIVE = 7.75 * 60  # 15 s below eight minutes, for programs that end slowly


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    monkeypatch.setattr(stages, "tool", lambda name: f"/cuda/bin/{name}")
    monkeypatch.setattr(machine, "sources", lambda root=None: "0123456789abcdef")
    return Workplace(tmp_path)


def test_every_stage_passes_on_a_healthy_machine(workplace: Workplace) -> None:
    assert workplace.run() == 0
    assert workplace.outcomes() == dict.fromkeys(NAMES, verdicts.PASSED)
    assert ran(workplace) == ["triton", "build", "cuda", "step", "ops", "sanitizer", "run", "tune"]
    assert workplace.verdicts["triton"].why == "42 passed, 3 deselected in 61.20s (0:01:01)"
    assert workplace.verdicts["build"].why == "CPU kernels for baseline; CUDA kernels for sm_90 (nvcc 13.0)"
    assert workplace.verdicts["ops"].why == "2 rows"
    assert workplace.verdicts["run"].why.endswith("train: 5000 steps, 432 a second; FD 61.25 at step 2500")
    assert workplace.verdicts["tune"].why == "4 of 8 entries, 1 of them anew"
    assert folder.check(workplace.out) == []
    files = {"env.txt", "verdicts.jsonl", "log.txt", "train.jsonl", "ops.jsonl", "run.tar", "tables.json"}
    assert {path.name for path in workplace.out.iterdir()} == files
    assert "GPU: A GPU" in (workplace.out / folder.ENVIRONMENT).read_text()


def test_each_verdict_is_a_line_of_json(workplace: Workplace) -> None:
    workplace.run()
    lines = [json.loads(line) for line in (workplace.out / folder.VERDICTS).read_text().splitlines()]
    of_stages = [line for line in lines if "part" not in line]
    assert [line["stage"] for line in of_stages] == ["triton", "build", "cuda", "step", *NAMES[4:]]
    assert of_stages[0] | {"date": ""} == {
        "stage": "triton",
        "outcome": "passed",
        "why": "42 passed, 3 deselected in 61.20s (0:01:01)",
        "seconds": 60.0,
        "limit": 125.0,
        "date": "",
        "tree": "0123456789abcdef",
    }
    assert [line["part"] for line in lines if line["stage"] == "step" and "part" in line] == [
        "graph",
        *(name for name, *_ in stages.PRESETS),
    ]


def test_a_stage_that_fails_keeps_no_other_from_running(workplace: Workplace) -> None:
    workplace.programs["bench ops"] = Program(10, "bench: loss is off\nadded to ops.jsonl\n", status=1)
    assert workplace.run() == 1
    assert workplace.outcomes() == dict.fromkeys(NAMES, verdicts.PASSED) | {"ops": verdicts.FAILED}
    assert workplace.verdicts["ops"].why == "0 rows; status 1: bench: loss is off"


def test_one_part_that_fails_is_named_and_the_others_run(workplace: Workplace) -> None:
    workplace.programs["--name imagenet128"] = Program(5, "RuntimeError: out of memory\n", status=1)
    assert workplace.run("step") == 1
    assert workplace.verdicts["step"].why == "imagenet128: status 1: RuntimeError: out of memory"
    assert len(workplace.machine.commands("bench train")) == 3


def test_a_recorded_step_is_timed_where_it_gives_the_losses_of_others(workplace: Workplace) -> None:
    assert workplace.run() == 0
    said = "graph: celeba64, bfloat16: losses of 200 steps and the weights after them are the same; celeba64: "
    assert workplace.verdicts["step"].why.startswith(f"{said}float32: 1.60 times")
    commands = workplace.machine.commands("bench train")
    assert len(commands) == 3
    assert all("--cuda-graph bfloat16" in command for command in commands)
    started = [" ".join(job.command) for job in workplace.machine.started]
    graph, tests = (next(i for i, words in enumerate(started) if it in words) for it in ("bench graph", "-k triton"))
    assert graph < tests  # the comparison times nothing, so it runs beside the tests


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (Program(9, "bench: celeba64, bfloat16: losses of 200 steps differ\n", status=1), "differ"),
        (Program(FOREVER, "at work\n", stopped=-9), "at work"),
    ],
)
def test_a_recorded_step_that_is_not_known_to_be_right_is_not_timed(
    workplace: Workplace, program: Program, why: str
) -> None:
    workplace.programs["bench graph"] = program
    assert workplace.run() == 1
    assert workplace.verdicts["step"].why.endswith(why)
    commands = workplace.machine.commands("bench train")
    assert len(commands) == 3
    assert not any("--cuda-graph" in command for command in commands)


def test_where_every_program_hangs_all_ends_in_time(workplace: Workplace) -> None:
    """Correctness, the step and the ops end within eight minutes, and every program ends at its limit."""
    for program in workplace.programs.values():
        program.seconds, program.stopped = FOREVER, -9
    workplace.programs["nvidia-smi"] = Program(FOREVER)
    assert workplace.run() == 1
    outcomes = workplace.outcomes()
    assert outcomes.pop("cuda") == outcomes.pop("sanitizer") == verdicts.NOT_BUILT
    assert set(outcomes.values()) == {verdicts.TIMED_OUT}
    assert workplace.at("ops") <= _FIRST_FIVE
    assert workplace.seconds <= 10.5 * 60
    assert "42 passed" in workplace.log()


def test_correctness_step_and_ops_hang_within_eight_minutes(workplace: Workplace) -> None:
    """The build is done here, so that the tests of the CUDA kernels also take all of their time."""
    for name, program in workplace.programs.items():
        if name != "bench.gpu.building":
            program.seconds = FOREVER
    workplace.probe = lambda: Program(FOREVER)  # type: ignore[method-assign]
    workplace.run()
    assert workplace.verdicts["cuda"].outcome == verdicts.TIMED_OUT
    assert 7 * 60 < workplace.at("ops") <= _FIRST_FIVE
    assert workplace.seconds <= 10.5 * 60


def test_a_look_at_a_machine_that_does_not_answer_is_short(workplace: Workplace) -> None:
    """Questions to a machine that hangs take 31 s at most, so correctness, the step and the ops still end in time."""
    workplace.probe = lambda: Program(FOREVER)  # type: ignore[method-assign]
    for name in ("git", "nvidia-smi", "--version", "lscpu", "bench.gpu.building", "-m pytest", "bench train"):
        workplace.programs[name] = Program(FOREVER)
    workplace.programs["bench ops"].seconds = FOREVER
    workplace.run()
    look = next(time for time, line in workplace.said if line.startswith("GPU: "))
    assert 25 < look < 31
    assert workplace.at("ops") <= _FIRST_FIVE + 1


def test_a_part_without_time_is_not_started(workplace: Workplace) -> None:
    """Images that are not packed by the end of the stage leave no time for the training, which is not started."""
    workplace.programs["ebgan_fast prepare"] = Program(FOREVER, stopped=-9)
    assert workplace.run("run") == 1
    assert not workplace.machine.commands("ebgan_fast train")
    assert workplace.verdicts["run"].why.endswith("train: not started, 0.0 s are left for it, it needs 3")
    assert workplace.verdicts["run"].outcome == verdicts.TIMED_OUT


def test_other_images_are_another_run(workplace: Workplace) -> None:
    folders = []
    for name in ("one.jpg", "another.jpg", "another.jpg"):
        (workplace.images / name).write_text(name)
        workplace.run("run")
        (prepared,), (trained,) = (workplace.machine.commands(f"ebgan_fast {it}") for it in ("prepare", "train"))
        words = trained.split()
        packed = words[words.index("--data") + 1]
        assert packed in prepared.split()
        folders.append((words[words.index("--out") + 1], packed))
    assert folders[0] != folders[1] == folders[2]


def test_what_is_left_counts_where_the_start_took_long(workplace: Workplace) -> None:
    for name in ("-m pytest", "bench train", "bench ops"):
        workplace.programs[name].seconds = FOREVER
    workplace.probe = lambda: Program(FOREVER)  # type: ignore[method-assign]
    for name in ("git", "nvidia-smi", "nvcc", "lscpu"):
        workplace.programs[name] = Program(FOREVER)
    workplace.run(minutes=3.5)
    assert workplace.verdicts["ops"].outcome == verdicts.TIMED_OUT
    assert workplace.verdicts["ops"].limit < 150 * 3.5 / 10.5
    assert workplace.seconds <= 3.5 * 60


@pytest.mark.parametrize("minutes", [5.0, 10.5, 30.0])
def test_no_length_is_exceeded(workplace: Workplace, minutes: float) -> None:
    for name in ("-m pytest", "bench train", "bench ops", "small_step", "bench tune"):
        workplace.programs[name].seconds = FOREVER
    workplace.run(minutes=minutes)
    assert workplace.seconds <= 60 * minutes
    assert workplace.verdicts["triton"].limit == pytest.approx(125 * minutes / 10.5)


def test_a_stage_with_too_little_time_is_not_started_and_says_so(workplace: Workplace) -> None:
    assert workplace.run(minutes=2) == 1
    assert workplace.verdicts["triton"].outcome == verdicts.NOT_STARTED
    assert workplace.verdicts["triton"].why == "24 s are left for it, it needs 30"
    assert not workplace.machine.commands("-k triton")
    assert not any(job.command for job in workplace.machine.killed if "-k" in job.command)


def test_what_is_printed_too_much_is_cut_in_its_middle(workplace: Workplace) -> None:
    flood = "the first line\n" + "x" * 99 + "\n"
    flood += "".join(f"line {number}\n" for number in range(2_000_000)) + "the last line\n"
    workplace.programs["bench ops"] = Program(10, flood)
    workplace.programs["bench.gpu.building"].prints = flood + workplace.programs["bench.gpu.building"].prints
    assert workplace.run() == 0
    assert folder.check(workplace.out) == []
    log = workplace.log()
    assert log.count("the first line") == log.count("the last line") == 2
    assert "bytes left out" in log
    assert len(log) < 2 * folder.SECTION_BYTES


def test_a_file_of_results_that_grows_too_large_is_cut(workplace: Workplace) -> None:
    def write() -> None:
        (workplace.out / folder.OPS).write_text("".join(f'{{"row": {10**89 + number}}}\n' for number in range(200_000)))

    workplace.programs["bench ops"] = Program(10, does=write)
    workplace.run("ops")
    assert folder.check(workplace.out) == []
    lines = (workplace.out / folder.OPS).read_text().splitlines()
    assert json.loads(lines[0]) == {"row": 10**89}
    assert lines[-1].endswith("199999}")
    assert all(line.startswith('{"row": ') and line.endswith("}") for line in lines)
    assert any(line.startswith("ops.jsonl: cut in its middle") for _, line in workplace.said)


@pytest.mark.parametrize("status", [1, -9])
def test_a_backend_that_was_not_built_is_no_skip(workplace: Workplace, status: int) -> None:
    said = "cuda: NOT BUILT: nvcc is not found (PATH, CUDA_HOME, CUDACXX)"
    workplace.programs["bench.gpu.building"] = Program(3, f"{said}\n", status=status)
    assert workplace.run() == 1
    assert workplace.verdicts["build"].outcome == verdicts.FAILED
    assert workplace.verdicts["build"].why == said
    assert workplace.verdicts["cuda"].line() == "cuda: NOT BUILT: stage build: FAILED"
    assert not workplace.machine.commands("-k cuda")
    assert workplace.verdicts["triton"].outcome == verdicts.PASSED
    assert workplace.verdicts["sanitizer"].outcome == verdicts.NOT_BUILT
    assert "without the CUDA kernels" in workplace.verdicts["ops"].why
    assert not [command for command in workplace.machine.commands("small_step") if "cuda" in command.split()]


def test_a_backend_of_which_no_test_ran_has_not_passed(workplace: Workplace) -> None:
    workplace.programs["-k cuda"] = Program(
        5, "SKIPPED [7] tests/x.py: backend cuda: not built\n== 7 skipped in 1.00s ==\n"
    )
    assert workplace.run("cuda") == 1
    assert workplace.verdicts["cuda"].outcome == verdicts.FAILED
    assert workplace.verdicts["cuda"].why == "no test passed: 7 skipped in 1.00s; 7 skipped: backend cuda: not built"


def test_what_has_a_result_is_left_out(workplace: Workplace) -> None:
    assert workplace.run() == 0
    before = (workplace.out / folder.OPS).read_bytes()
    assert workplace.run() == 0
    assert set(workplace.outcomes().values()) == {verdicts.SKIPPED}
    assert not ran(workplace)
    assert not workplace.machine.commands("-m bench")
    assert (workplace.out / folder.OPS).read_bytes() == before
    assert workplace.run() == 0
    assert set(workplace.outcomes().values()) == {
        verdicts.SKIPPED
    }  # a verdict "skipped" does not replace the first result


def test_a_result_of_other_sources_is_none(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    workplace.run()
    monkeypatch.setattr(machine, "sources", lambda root=None: "fedcba9876543210")
    workplace.run()
    assert workplace.outcomes() == dict.fromkeys(NAMES, verdicts.PASSED)


def test_named_stages_run_alone_whatever_was_found_before(workplace: Workplace) -> None:
    workplace.run()
    assert workplace.run("tune", "step") == 0
    assert ran(workplace) == ["step", "tune"]
    assert len(workplace.machine.commands("bench train")) == 3
    assert workplace.run("build") == 0
    assert ran(workplace) == ["build"]


@pytest.mark.parametrize("name", ["cuda", "ops", "sanitizer"])
def test_what_needs_the_build_brings_it(workplace: Workplace, name: str) -> None:
    assert workplace.run(name) == 0
    assert ran(workplace) == ["build", name]


@pytest.mark.parametrize("error", [SystemExit(143), KeyboardInterrupt()], ids=["SIGTERM", "SIGINT"])
def test_after_a_kill_the_next_call_goes_on(workplace: Workplace, error: BaseException) -> None:
    healthy = workplace.programs["--name imagenet128"] = dataclasses.replace(workplace.programs["bench train"])
    workplace.programs["--name imagenet128"] = dataclasses.replace(healthy, raises=error)
    with pytest.raises(type(error)):
        workplace.run()
    assert workplace.verdicts["step"].outcome == verdicts.INTERRUPTED
    killed = [" ".join(job.command) for job in workplace.machine.killed]
    assert any("imagenet128" in command for command in killed)
    assert any("prepare" in command for command in killed)
    workplace.programs["--name imagenet128"] = healthy
    assert workplace.run() == 0
    assert ran(workplace) == ["step", "build", "ops", "sanitizer", "run", "tune"]
    assert len(workplace.machine.commands("bench train")) == 2  # one of the three had ended before


def test_after_half_a_line_the_next_call_goes_on(workplace: Workplace) -> None:
    workplace.run("triton")
    with (workplace.out / folder.VERDICTS).open("a") as file:
        file.write('{"stage": "cuda", "outco')
    workplace.run()
    assert workplace.outcomes() == dict.fromkeys(NAMES, verdicts.PASSED) | {"triton": verdicts.SKIPPED}
    assert workplace.run() == 0
    assert set(workplace.outcomes().values()) == {verdicts.SKIPPED}


def test_without_a_gpu_each_stage_says_so_and_none_passes(workplace: Workplace) -> None:
    workplace.gpu = False
    said = "bench: torch 2.11 sees no GPU, and this needs one\n"
    needing = ("-m pytest", "bench graph", "bench train", "bench ops", "small_step", "ebgan_fast train", "bench tune")
    for name in needing:
        workplace.programs[name] = Program(5, said, status=1)
    assert workplace.run() == 3
    outcomes = workplace.outcomes()
    assert outcomes.pop("build") == verdicts.PASSED
    assert set(outcomes.values()) == {verdicts.NO_GPU}
    workplace.programs["bench ops"] = Program(5, "bench: the benchmark needs more than the library\n", status=1)
    assert workplace.run() == 1
    assert workplace.outcomes()["ops"] == verdicts.FAILED


def test_with_a_gpu_nothing_is_blamed_on_its_absence(workplace: Workplace) -> None:
    workplace.programs["bench ops"] = Program(5, "bench: torch 2.11 sees no GPU\n", status=1)
    assert workplace.run("ops") == 1
    assert workplace.verdicts["ops"].outcome == verdicts.FAILED


def test_a_probe_that_fails_keeps_nothing_from_running(workplace: Workplace) -> None:
    workplace.programs["importlib.metadata"] = Program(1, "ImportError: libcudart\n", status=1)
    workplace.probe = lambda: Program(1, "ImportError: libcudart\n", status=1)  # type: ignore[method-assign]
    workplace.run()
    assert "GPU: unknown" in (workplace.out / folder.ENVIRONMENT).read_text()
    assert workplace.outcomes()["triton"] == verdicts.PASSED


def test_a_sanitizer_that_is_missing_is_no_failure_of_the_kernels_and_no_pass(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "tool", lambda name: None)
    assert workplace.run("sanitizer") == 1
    assert workplace.verdicts["sanitizer"].outcome == verdicts.NOT_FOUND
    assert workplace.verdicts["sanitizer"].why.startswith("compute-sanitizer: compute-sanitizer is not found")
    assert len(workplace.machine.commands("small_step")) == 1
    workplace.programs["small_step"] = Program(5, "small step: triton (2, 3): got NaN or infinity\n", status=1)
    assert workplace.run("sanitizer") == 1
    assert workplace.verdicts["sanitizer"].outcome == verdicts.FAILED


def test_what_the_sanitizer_finds_is_a_failure(workplace: Workplace) -> None:
    workplace.programs["racecheck"] = Program(9, "========= RACECHECK SUMMARY: 2 hazards displayed\n", status=9)
    assert workplace.run("sanitizer") == 1
    why = "racecheck of cuda: status 9: ========= RACECHECK SUMMARY: 2 hazards displayed"
    assert workplace.verdicts["sanitizer"].why == why


def test_the_sanitizer_watches_cuda_first_and_triton_s_kernels_once_they_are_compiled(workplace: Workplace) -> None:
    """Triton's kernels are compiled beside the tests, because compiling would take most of the stage's time."""
    workplace.programs["small_step triton"] = Program(60, "small step on triton: finite\n")
    workplace.programs["--tool"] = Program(5)
    assert workplace.run() == 0
    commands = [" ".join(job.command) for job in workplace.machine.started]
    steps = [command.partition("--tool ")[2] or "alone" for command in commands if "small_step" in command]
    assert [(it.split()[0], it.split()[-1]) for it in steps] == [
        ("alone", "alone"),
        ("memcheck", "cuda"),
        ("racecheck", "cuda"),
        ("memcheck", "triton"),
    ]
    first = next(index for index, command in enumerate(commands) if "small_step" in command)
    assert first < next(index for index, command in enumerate(commands) if "-m pytest" in command)
    assert workplace.verdicts["sanitizer"].seconds == 15.0
    caches = {job.environment["TRITON_CACHE_DIR"] for job in workplace.machine.started}
    assert caches == {str(workplace.path / "work" / "triton")}


def test_a_bad_folder_is_told(workplace: Workplace) -> None:
    workplace.out.mkdir()
    for number in range(9):
        (workplace.out / f"{number}.txt").touch()
    workplace.run("triton")
    assert any("files, expected at most 8" in line for _, line in workplace.said)

"""Real programs end at the driver's limits with all their processes, and their output is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.gpu import folder, processes
from bench.gpu.folder import Section
from bench.gpu.processes import Job, ThisMachine


@pytest.fixture
def machine(tmp_path: Path) -> ThisMachine:
    return ThisMachine(tmp_path)


@pytest.fixture
def section(tmp_path: Path) -> Section:
    return Section(tmp_path / folder.LOG, "a stage")


def _python(program: str, **settings: object) -> Job:
    return Job([sys.executable, "-c", program], **settings)  # type: ignore[arg-type]


def _wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_running(process: int) -> bool:
    """Return True if a process exists and is no zombie. A container without an init keeps zombies."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


DEAF = """
import os, signal, subprocess, sys, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("working", os.getpid(), child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads the state of processes from /proc (Linux)")
def test_a_program_that_hangs_is_killed_with_all_that_it_started(
    machine: ThisMachine, section: Section, tmp_path: Path
) -> None:
    log = tmp_path / folder.LOG
    running = machine.start(_python(DEAF, grace=0.2), section)
    _wait_for(lambda: "working" in log.read_text())
    began = time.monotonic()
    ended = running.wait(0.5)
    assert 0.4 < time.monotonic() - began < 10
    assert ended.status == -signal.SIGKILL
    first, *processes = ended.output.split()
    assert first == "working"
    assert ended.asked == ended.output.strip()
    _wait_for(lambda: not any(_is_running(int(process)) for process in processes))
    assert log.read_text().endswith(ended.output)


def test_a_program_that_outlives_its_kill_is_left_behind(
    machine: ThisMachine, section: Section, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that waits for a GPU's driver cannot be killed, so the driver of the stages goes on without it."""
    monkeypatch.setattr(processes, "KILLED_SECONDS", 0.1)
    monkeypatch.setattr(os, "killpg", lambda process, number: None)
    program = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(15)"
    running = machine.start(_python(program, grace=0.2), section)
    began = time.monotonic()
    ended = running.wait(3.0)
    assert time.monotonic() - began < 8
    monkeypatch.undo()
    running.kill()
    assert (ended.status, ended.asked) == (None, "")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="needs process_group (Python 3.11)")
def test_no_python_runs_between_fork_and_exec(
    machine: ThisMachine, section: Section, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python between fork and exec may hang, because threads of the driver read what programs print."""
    asked: list[dict[str, object]] = []
    start = subprocess.Popen.__init__

    def noted(self: object, *arguments: object, **settings: object) -> None:
        asked.append(settings)
        start(self, *arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(subprocess.Popen, "__init__", noted)
    program = "import os; print(os.getpgrp() == os.getpid())"
    assert machine.start(_python(program), section).wait(60).output == "True\n"
    assert asked[0].get("preexec_fn") is None


POLITE = """
import signal, sys, time
def end(number, frame):
    print("saved", flush=True)
    sys.exit(7)
signal.signal(signal.{name}, end)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_program_is_asked_before_it_is_killed(
    machine: ThisMachine, section: Section, tmp_path: Path, name: str
) -> None:
    running = machine.start(_python(POLITE.format(name=name), stop=getattr(signal, name), grace=30.0), section)
    _wait_for(lambda: "ready" in (tmp_path / folder.LOG).read_text())
    ended = running.wait(30.5)
    assert (ended.status, ended.output, ended.asked) == (7, "ready\nsaved\n", "ready")


def test_what_a_program_leaves_behind_ends_with_it(machine: ThisMachine, section: Section) -> None:
    """A worker is killed when its program ends, because it would keep the GPU, and the pipe open."""
    child = 'subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid'
    ended = machine.start(_python(f"import subprocess, sys; print({child})"), section).wait(60)
    assert (ended.status, ended.asked) == (0, None)
    _wait_for(lambda: not _is_running(int(ended.output)))


def test_a_program_that_is_not_there_has_not_passed(machine: ThisMachine, section: Section) -> None:
    running = machine.start(Job(["no-such-program"]), section)
    ended = running.wait(5)
    assert (ended.status, ended.output) == (None, "no-such-program: No such file or directory\n")
    running.kill()


def test_programs_see_the_variables_of_their_job_and_no_terminal(
    machine: ThisMachine, section: Section, tmp_path: Path
) -> None:
    program = "import os, sys; print(os.environ['MINE'], os.getcwd(), sys.stdin.read() == '')"
    ended = machine.start(_python(program, environment={"MINE": "yes"}), section).wait(60)
    assert ended.output.split() == ["yes", str(tmp_path), "True"]


def test_the_driver_is_told_now_and_then(machine: ThisMachine, section: Section) -> None:
    told: list[tuple[float, str]] = []
    program = "import time; print('one', flush=True); time.sleep(0.6)"
    machine.start(_python(program), section).wait(60, lambda seconds, line: told.append((seconds, line)))
    assert told[-1][1] == "one"
    assert [seconds for seconds, _ in told] == sorted(seconds for seconds, _ in told)


def test_a_long_output_is_on_the_disk_while_it_comes_and_never_too_long(tmp_path: Path) -> None:
    path, most = tmp_path / folder.LOG, 10_000
    path.write_text("an earlier stage\n")
    section = Section(path, "a stage", most)
    for number in range(5000):
        section.write(f"line {number}\n".encode())
        assert path.stat().st_size <= len("an earlier stage\n") + most
        if number in (3, 2500, 4999):
            assert path.read_text().endswith(f"line {number}\n")
    written = path.read_text()
    assert written.startswith("an earlier stage\n\n== a stage\nline 0\nline 1\n")
    assert written.count("bytes left out") == 1
    left_out = int(written.partition("\n... ")[2].split()[0])
    whole = len("\n== a stage\n") + sum(len(f"line {number}\n") for number in range(5000))
    kept = len(written) - len("an earlier stage\n") - len(folder.marker(left_out))
    assert kept + left_out == whole
    section.write(b"x" * 100_000)
    assert path.stat().st_size <= len("an earlier stage\n") + most
    section.close()
    section.write(b"after the end")
    assert "after the end" not in path.read_text()


def test_a_full_log_makes_room_for_another_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MOST_BYTES", 30_000)
    path = tmp_path / folder.LOG
    for number in range(9):
        section = Section(path, f"stage {number}", 10_000)
        section.write(b"a line of output\n" * 400)
        section.close()
        assert path.stat().st_size <= 30_000
    assert path.read_text().startswith("\n== stage 0\n")
    assert "== stage 8\n" in path.read_text()


def test_faults_of_a_folder_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MOST_BYTES", 10)
    (tmp_path / "large.txt").write_text("x" * 11)
    (tmp_path / "a name").touch()
    assert folder.check(tmp_path) == [
        "a name: expected a name of letters, digits, '.', '_' and '-'",
        "large.txt: 11 bytes, expected at most 10",
    ]


COMMAND = """
import signal, sys
from pathlib import Path
from bench.gpu import __main__ as command, stages
from bench.gpu.stages import Part, Stage, python

hangs = Part(None, lambda seconds: python("-c", "import time; print('at work', flush=True); time.sleep(600)"),
             judge=lambda ended: ("passed", ""))
command.STAGES = (Stage("hang", 600, 1, lambda situation: [hangs]),)
sys.exit(command.main(["hang"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda it: it.name)
def test_a_command_that_is_told_to_end_ends_what_it_runs(tmp_path: Path, number: signal.Signals) -> None:
    """The signals work in a background job of a shell too, which ignores interrupts by default."""
    variables = {**os.environ, "GPU_OUT": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND],
        env=variables,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    log = tmp_path / folder.LOG
    _wait_for(lambda: log.exists() and "at work" in log.read_text())
    command.send_signal(number)
    out, _ = command.communicate(timeout=30)
    assert command.returncode == 128 + number
    assert out.splitlines()[-1].startswith("hang: interrupted")

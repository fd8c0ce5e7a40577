"""With any console, variables and limits a command works, or says in one sentence what helps."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pytest
import torch

from ebgan_fast import _command_line, _console, cli
from ebgan_fast._command_line import Program
from ebgan_fast._plotting import in_house_style, new_figure
from ebgan_fast.metrics import cache
from ebgan_fast.training.pictures import score_curves, training_curves

from .programs import printed

NOTEBOOK = "module://matplotlib_inline.backend_inline"
METRICS = [{"step": 1, "loss_d": 1.0, "loss_g": 2.0}]
SCORES = [{"step": 1, "elapsed_s": 1.0, "features": "FD", "fd": 1.0, "kid": 0.1}]


def _run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with this process's environment, in which these variables are added or replaced."""
    return subprocess.run(
        [sys.executable, *command], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize("backend", [NOTEBOOK, ""])
def test_a_backend_of_matplotlib_that_is_not_here(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook sets a backend for each cell. If that backend isn't installed, matplotlib itself can't be imported."""
    monkeypatch.setenv("MPLBACKEND", backend)
    program = (
        "import os, ebgan_fast._plotting, matplotlib; matplotlib.figure.Figure(); "
        "print(matplotlib.get_backend() in ('agg', os.environ['MPLBACKEND']), os.environ['MPLBACKEND'] == {!r})"
    )
    assert printed(program.format(backend)) == "True True\n"


@pytest.mark.slow
def test_the_users_own_backend_of_matplotlib_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "svg")
    assert printed("import ebgan_fast._plotting, matplotlib; print(matplotlib.rcParams['backend'])") == "svg\n"
    program = "import matplotlib; matplotlib.use('pdf'); import ebgan_fast._plotting; print(matplotlib.get_backend())"
    assert printed(program) == "pdf\n"


@pytest.mark.slow
def test_the_program_starts_in_a_notebooks_cell() -> None:
    done = _run("-m", "ebgan_fast", "--help", MPLBACKEND=NOTEBOOK)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("draw", [lambda: training_curves(METRICS, "run"), lambda: score_curves(SCORES)])
def test_figures_need_no_latex_and_look_alike(draw: Callable[[], bytes]) -> None:
    """Many researchers have a matplotlibrc with usetex, and clusters often have no LaTeX."""
    expected = draw()
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30, "figure.facecolor": "black"}):
        assert draw() == expected
        assert matplotlib.rcParams["text.usetex"]  # the settings for the user's own figures stay


def test_every_function_that_makes_a_figure_has_the_house_style() -> None:
    root = Path(cli.__file__).parent
    for path in root.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name != "_plotting.py" and "new_figure(" in text:
            assert "@in_house_style" in text, path
    figure = in_house_style(lambda: new_figure(1, 1))()
    assert figure.get_facecolor() == (1, 1, 1, 1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc of Linux, a folder in which no user can make files")
def test_no_folder_for_matplotlib(tmp_path: Path) -> None:
    nowhere = "/proc/nowhere"
    program = (
        "import os, sys, tempfile\n"
        "def fail(*_, **__): raise OSError('no usable temporary folder')\n"
        "tempfile.mkdtemp = fail\n"
        "from ebgan_fast import cli"
    )
    done = _run("-c", program, MPLCONFIGDIR=nowhere)
    assert done.returncode == 1
    assert "MPLCONFIGDIR names its folder" in done.stderr
    assert "pip install" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("package", ["tyro", "PIL"])
def test_a_package_of_the_program_that_is_missing(package: str) -> None:
    done = _run("-c", f"import sys; sys.modules[{package!r}] = None; from ebgan_fast import cli")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("ebgan-fast: ")
    assert package in line
    assert line.endswith("pip install 'ebgan_fast[train]'")


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_console_without_a_sign(errors: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Characters that the console's encoding lacks become "?".

    Python uses surrogateescape in the locales C and POSIX, where `--help` once ended in a traceback.
    """
    told = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(told, encoding="ascii", errors=errors))
    program = Program("test", "Signs: • ± é.", {"go": lambda: print("•") or 0})
    with pytest.raises(SystemExit) as stop:
        program.run(["--help"])
    assert stop.value.code == 0
    assert program.run(["go"]) == 0
    sys.stdout.flush()
    assert b"Signs: ? ? ?." in told.getvalue()
    assert told.getvalue().endswith(b"?\n")


@pytest.mark.parametrize("columns", ["0", "1", "5", "nonsense"])
def test_a_narrow_terminal(columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", columns)

    def go(size: int = 3) -> int:
        """Go a way.

        Args:
            size: Of the way in a word that is longer than the terminal.
        """
        return 0

    with pytest.raises(SystemExit):
        Program("test", "A program.", {"go": go, "stay": lambda: 0}).run(["--help"])
    assert "usage: test" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(("command", "named"), [("doctor", "standard output: "), ("--help", "")])
def test_an_answer_that_nobody_gets(command: str, named: str) -> None:
    """A lost progress line is no error, but a lost answer is."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ebgan_fast", command], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == f"ebgan-fast: {named}No space left on device\n"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["doctor"]])
@pytest.mark.skipif(not hasattr(os, "pipe2"), reason="this system has no pipes of Linux's kind")
def test_a_reader_that_is_gone(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """A reader such as `head -1` may close the pipe early; the command ends without a traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    before = os.dup(1)
    os.dup2(writer, 1)
    os.close(writer)
    try:
        with pytest.MonkeyPatch.context() as patch, open(1, "w", closefd=False, buffering=1) as gone:
            patch.setattr(sys, "stdout", gone)
            try:
                status: object = cli.main(arguments)
            except SystemExit as stop:
                status = stop.code
    finally:
        os.dup2(before, 1)
        os.close(before)
    assert status in (0, 141)
    assert "Traceback" not in capfd.readouterr().err


def test_no_standard_output_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    sys.stdout.close()
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["doctor"]) == 0
    sys.stdout.close()


def _out_of_memory() -> int:
    raise MemoryError


def _out_of_a_gpus_memory() -> int:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has ...")


def _too_large() -> int:
    return int(torch.empty(10**15).numel())


def _no_threads() -> int:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (_out_of_memory, "memory"),
        (_out_of_a_gpus_memory, "20.00 GiB"),
        (_too_large, "ulimit -v"),
        (_no_threads, "ulimit -u"),
    ],
)
def test_a_limit_is_named(command: Callable[[], int], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert Program("test", "A program.", {"go": command, "stay": lambda: 0}).run(["go"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("test: ")
    assert word in line
    assert "got " in line


def test_an_error_of_the_program_itself_stays_one() -> None:
    def broken() -> int:
        raise RuntimeError("Expected all tensors to be on the same device")

    with pytest.raises(RuntimeError, match="same device"):
        Program("test", "A program.", {"go": broken, "stay": lambda: 0}).run(["go"])


@pytest.mark.parametrize("home", ["", "relative", None])
def test_no_home_folder(home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EBGAN_FAST_CACHE", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path if home is None else home)
    with pytest.raises(ValueError, match="got no home folder for the cache, expected one; EBGAN_FAST_CACHE names"):
        cache.cache_folder(None)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("EBGAN_FAST_CACHE", str(tmp_path / "cache"))
    assert cache.cache_folder(None) == tmp_path / "cache"


def test_a_file_where_the_cache_should_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "file/below"):
        monkeypatch.setenv("EBGAN_FAST_CACHE", str(tmp_path / name))
        with pytest.raises(ValueError, match=rf"{name}: got a cache folder that can't be written .*EBGAN_FAST_CACHE"):
            cache.cache_folder(None)


SIGNS = "a\x1b[2J\x07\u202e\udc80"


def test_no_sign_moves_a_cursor(capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    _console.say(f"{SIGNS}\nnext")
    _command_line.note("test", SIGNS)
    _command_line._show_warnings_as_lines("test")
    shown = warnings.formatwarning(UserWarning(SIGNS), UserWarning, "", 0)  # type: ignore[arg-type]
    told = capsys.readouterr()
    escaped = r"a\x1b[2J\x07\u202e\udc80"
    assert told.out == f"{escaped}\nnext\n"
    assert told.err == shown == f"test: {escaped}\n"

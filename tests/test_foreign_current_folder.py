"""No file of the current folder is run or read as settings: the folder may hold a stranger's unpacked archive."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .data import layouts

ROOT = Path(__file__).parents[1]
MARK = "ran.txt"

pytestmark = pytest.mark.slow

_PREPARE = """
from pathlib import Path
from ebgan_fast.data.prepare import prepare_images
print(prepare_images(Path("."), Path(sys.argv[2]), 8, workers=2).images)
"""
_STUDY = """
from pathlib import Path
from tests.studies import counting
print(len(counting.done(counting.job(Path(sys.argv[2]), str(Path(sys.argv[2]) / "journal.log"), 4, workers=2))))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Make a folder of seven images, and of a trap in place of each module of Python's standard library."""
    place = layouts.folder(tmp_path / "place")
    trap = f"open({str(tmp_path / MARK)!r}, 'a').write(__name__ + ' ')\nraise ImportError(__name__)\n"
    for name in sys.stdlib_module_names:
        (place / f"{name}.py").write_text(trap)
    return place


def _run(program: str, place: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Run a program as an installed command: from a file elsewhere, whose folder is first on Python's path."""
    script = out.with_name("program.py")
    script.write_text(f"import sys\nsys.path.append(sys.argv[1])\nif __name__ == '__main__':\n    {_indented(program)}")
    out.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    return subprocess.run(
        [sys.executable, str(script), str(ROOT), str(out)],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _indented(program: str) -> str:
    return program.strip().replace("\n", "\n    ") + "\n"


def test_the_processes_that_read_images_import_nothing_there(place: Path, tmp_path: Path) -> None:
    done = _run(_PREPARE, place, tmp_path / "out")
    assert not (tmp_path / MARK).exists(), (tmp_path / MARK).read_text()
    assert done.stdout == "7\n", done.stderr


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 can't start processes without it")
def test_the_processes_of_a_study_import_nothing_there(place: Path, tmp_path: Path) -> None:
    done = _run(_STUDY, place, tmp_path / "out")
    assert not (tmp_path / MARK).exists(), (tmp_path / MARK).read_text()
    assert done.stdout.splitlines()[-1] == "4", done.stderr


def _pipe(path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no pipes with a name")
    os.mkfifo(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b"font.family: \xff\xfe\n"),
        lambda path: path.write_bytes(b"lines.linewidth: \x1b[31mabc\x1b]0;title\x07\n"),
        lambda path: path.symlink_to(path),
        lambda path: path.mkdir(),
        _pipe,
    ],
    ids=["no text", "signs that move a cursor", "a link to itself", "a folder", "a pipe"],
)
def test_settings_of_matplotlib_are_not_read_there(make: Callable[[Path], None], tmp_path: Path) -> None:
    """Matplotlib would prefer a matplotlibrc of the current folder to the user's own."""
    make(tmp_path / "matplotlibrc")
    program = (
        "import sys, os; sys.path[0] = sys.argv[1]; before = list(sys.path); import ebgan_fast._plotting; "
        "print(sys.path == before, os.path.lexists('matplotlibrc'))"
    )
    relative = os.path.relpath(ROOT, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", program, relative],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True True\n", "")


def test_the_users_own_settings_of_matplotlib_are_still_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment variables may name the user's settings by a path relative to the current folder."""
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 5\n")
    (tmp_path / "mine").write_text("lines.linewidth: 7\n")
    monkeypatch.setenv("MATPLOTLIBRC", "mine")
    monkeypatch.setenv("MPLCONFIGDIR", "folder")
    program = (
        "import sys, os; sys.path[0] = sys.argv[1]; import ebgan_fast._plotting, matplotlib; "
        "print(matplotlib.rcParams['lines.linewidth'], matplotlib.get_configdir(), os.environ['MPLCONFIGDIR'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["7.0", str(tmp_path / "folder"), "folder"], done.stderr


def test_settings_of_matplotlib_that_cannot_be_read_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").write_bytes(b"font.family: \xff\xfe\n")
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path / "mine"))
    done = subprocess.run(
        [sys.executable, "-m", "ebgan_fast", "doctor"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    named, line = done.stderr.splitlines()  # the first line is matplotlib's, which names the file
    assert str(tmp_path / "mine") in named
    assert line.startswith("ebgan-fast: matplotlib can't be imported (")
    assert "MATPLOTLIBRC" in line

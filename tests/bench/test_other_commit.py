"""Another commit's package is built once, checked, and timed beside this commit's."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ebgan_fast
from bench.__main__ import main
from bench.commands import latency
from bench.processes import other_commit
from bench.processes.other_commit import PackageProcess
from bench.results import rows
from bench.results.provenance import ROOT
from bench.subjects import cases
from bench.subjects.calls import BOTH, FORWARD
from bench.timing.devices import cpu
from bench.timing.measure import Setting

pytestmark = pytest.mark.usefixtures("cpu_backend", "same_threads")
SETTING: dict[str, Any] = {"run": "now", "memory": "returned", "environment": {}, "rounds": 1}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder with a copy of the package, in place of another commit's."""
    site = tmp_path / "site"
    source = Path(ebgan_fast.__file__).parent
    shutil.copytree(source, site / "ebgan_fast", ignore=shutil.ignore_patterns("__pycache__"))
    return site


@pytest.fixture
def other(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageProcess]:
    monkeypatch.setattr(other_commit, "install", lambda ref: ("0123456789ab", site))
    with contextlib.ExitStack() as stack:
        _, found = other_commit.pair("v0", stack)
        yield found


@pytest.mark.slow
def test_the_other_package_is_checked_and_timed_until_its_process_ends(other: PackageProcess) -> None:
    setting = Setting(device=cpu(), **SETTING)
    case = next(case for case in cases.CASES if case.name == "hinge_margin_loss 64")
    assert other.name == "ebgan_fast at v0 (0123456789ab)"
    assert other.prepare(case, setting, 3) is None
    assert 0 < other.clock(1) < other.clock(400)
    other.process.kill()
    other.process.wait()
    with pytest.raises(ValueError, match=r"the process of ebgan_fast at v0 .* has ended"):
        other.clock(1)


@pytest.mark.slow
def test_a_wrong_package_gets_no_time(site: Path) -> None:
    functional = site / "ebgan_fast" / "functional.py"
    text = functional.read_text()
    functional.write_text(
        text + "\n\n_right = hinge_margin_loss\n\n\ndef hinge_margin_loss(**named):\n    return 2 * _right(**named)\n"
    )
    other = PackageProcess("ebgan_fast at v0", [site, ROOT])
    case = next(case for case in cases.CASES if case.name == "hinge_margin_loss 64")
    assert "loss is off" in str(other.prepare(case, Setting(device=cpu(), **SETTING), 1))
    other.close()


@pytest.mark.slow
def test_a_package_that_is_not_the_other_s_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="compare: the other process imported"):
        PackageProcess("ebgan_fast at v0", [tmp_path / "empty", ROOT])


def test_a_row_names_the_commit_as_it_was_asked_for() -> None:
    assert other_commit.named("v0", "0123456789ab") == "ebgan_fast at v0 (0123456789ab)"
    assert other_commit.named("0123", "0123456789ab") == "ebgan_fast at 0123"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "repository"
    root.mkdir()
    (root / "README.md").write_text("no package")
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -q -m first", "tag v0"):
        subprocess.run(["git", "-C", root, *command.split()], check=True)
    monkeypatch.setattr(other_commit, "ROOT", root)
    monkeypatch.setattr(other_commit, "BUILDS", tmp_path / "builds")
    return root


def test_a_commit_is_built_once(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    monkeypatch.setattr(
        other_commit, "build", lambda source, site, ref: built.append((source / "README.md").read_text())
    )
    first = other_commit.install("v0")
    assert other_commit.install("HEAD") == first
    assert built == ["no package"]


def test_what_cannot_be_built_is_said_in_one_line(repository: Path) -> None:
    with pytest.raises(ValueError, match="compare: ebgan_fast of v0 cannot be built: ") as caught:
        other_commit.install("v0")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="compare: got '-x', expected a commit"):
        other_commit.install("-x")


@pytest.mark.slow
def test_latency_is_compared_with_another_commit(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other commit's hinge takes a millisecond more. The ratio says so in both modes, and the table shows it."""
    functional = site / "ebgan_fast" / "functional.py"
    slow = "\n\n_right = hinge_margin_loss\n\n\ndef hinge_margin_loss(*values, **named):\n    import time\n\n"
    slow += "    time.sleep(0.001)\n    return _right(*values, **named)\n"
    functional.write_text(functional.read_text() + slow)
    monkeypatch.setattr(other_commit, "install", lambda ref: ("0123456789ab", site))
    monkeypatch.setattr(cases, "TINY", (cases.hinge(8),))
    monkeypatch.setattr(latency, "TINY", (cases.hinge(8),))
    out = tmp_path / "rows.jsonl"
    assert main(["latency", "--rounds", "3", "--no-compile", "--compare", "v0", "--out", str(out)]) == 0
    found = [row for row in rows.read(out) if isinstance(row, rows.LatencyRow)]
    assert [row.mode for row in found] == [FORWARD, BOTH]
    for row in found:
        # The sleep is certain. The difference is not: on a busy machine this commit's calls may be slow too.
        assert row.seconds["ebgan_fast at v0 (0123456789ab)"].median >= 0.001
        assert row.ratio["ebgan_fast at v0 (0123456789ab)"].low > 1
    assert "ebgan_fast at v0 (0123456789ab)" in capsys.readouterr().out

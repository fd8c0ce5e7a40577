"""The commands of all studies have common flags and files, and common words for a user's mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ebgan_fast import cli
from ebgan_fast.studies import all_studies, theory
from ebgan_fast.studies.framework import results
from ebgan_fast.studies.framework.command import command_of, conduct
from ebgan_fast.studies.framework.flags_file import with_file
from ebgan_fast.studies.framework.results import read
from ebgan_fast.studies.framework.study import Options
from ebgan_fast.studies.theory import Game


def test_a_study_that_is_done_is_drawn_anew_and_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One study stands for all, because all share the code that conducts them."""
    arguments = ["theory", "--out", str(tmp_path), "--rounds", "200", "--workers", "1"]
    assert cli.main(arguments) == 0
    first, table = read(tmp_path / "results.json"), (tmp_path / "table.md").read_text()
    for name in ("table.md", "theory.png"):
        (tmp_path / name).unlink()
    capsys.readouterr()
    assert cli.main(arguments) == 0
    assert "2 of 2 trials were done before" in capsys.readouterr().out
    assert (tmp_path / "table.md").read_text() == table
    assert (tmp_path / "theory.png").exists()
    assert read(tmp_path / "results.json").trials == first.trials


def test_two_processes_that_end_at_once_write_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process writes its whole set of files, so results, table and figures fit together."""
    options = Options(tmp_path, workers=1)
    writing: list[str] = []
    write = results.write

    def slow(found: results.Results, folder: Path) -> None:
        writing.append("begins")
        time.sleep(0.3)
        write(found, folder)
        writing.append("ends")

    monkeypatch.setattr(results, "write", slow)
    threads = [threading.Thread(target=conduct, args=(theory.STUDY, Game(rounds=20), options)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writing == ["begins", "ends"] * 2
    assert len(read(tmp_path / "results.json").trials) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("grid --size-g 401", "size_g: got 401, expected some of 400, 800, 1600, 3200"),
        ("grid --steps 0", "steps: got 0, expected at least 1"),
        ("margin-sweep --margins 0", "margins: got 0.0, expected positive numbers"),
        ("margin-sweep --seeds 0", "seeds: got 0, expected at least 1"),
        ("pt-study --batch-size 1", "batch_size: got 1, expected at least 2, a pair to repel"),
        ("pt-study --other-weight -1", "other_weight: got -1.0, expected a positive number"),
        ("pt-study --sets ring --batch-size 20001", "batch_size: got 20001, expected at most 20000"),
        ("energy-surface --sets ring --point-batch-size 20001", "point_batch_size: got 20001, expected at most 20000"),
        ("energy-surface --point-batch-size 1", "point_batch_size: got 1, expected at least 2"),
        ("semi-supervised --labels 105", "labels: got 105, expected a multiple of 10"),
        ("semi-supervised --margin-steps 5000", "margin_steps: got 5000, expected 1 to the 3000 of ebgan_steps"),
        ("theory --points 1", "points: got 1, expected at least 4"),
        ("grid --file nowhere.yaml", "nowhere.yaml: No such file or directory"),
        ("grid --data nowhere", "nowhere: got no such folder"),
        *(
            (f"{study} --device cuda:99 --data nowhere", "device: got 'cuda:99', expected a device that torch can use")
            for study in ("grid", "margin-sweep", "pt-study", "energy-surface")
        ),
        ("semi-supervised --device cuda:99", "device: got 'cuda:99', expected a device that torch can use here"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_nothing(
    tmp_path: Path, arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *flags = arguments.split()
    assert cli.main([name, "--out", str(tmp_path / "out"), *flags]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_gives_flags_that_the_command_line_overrides(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("size_g: [400, 800]\nsteps: 7\ndropout_d: [true]\n")
    given = with_file(["grid", "--out", "x", "--file", str(path), "--steps", "9"])
    assert given == [
        *("grid", "--size-g", "400", "800", "--steps", "7", "--dropout-d", "True"),
        *("--out", "x", "--steps", "9"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "got a list, expected lines"),
        ("a: {b: 1}\n", "a: got a mapping, expected one value"),
        ("a: [\n", "YAML"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        with_file(["grid", "--file", str(path)])


def test_a_budget_sets_the_defaults_of_the_other_flags(capsys: pytest.CaptureFixture[str]) -> None:
    for budget, rounds in (("minutes", 100_000), ("hour", 1_000_000)):
        with pytest.raises(SystemExit) as stop:
            cli.main(["theory", "--budget", budget, "--help"])
        assert stop.value.code == 0
        assert f"(default: {rounds})" in " ".join(capsys.readouterr().out.split())


def test_the_list_of_commands_says_of_a_study_what_its_help_says() -> None:
    for study in all_studies().values():
        assert (command_of(study).__doc__ or "").splitlines()[0] == study.summary


def test_the_list_of_commands_does_without_optuna() -> None:
    """Optuna is an extra, and its import takes half a second."""
    program = "import sys; sys.modules['optuna'] = None; from ebgan_fast import cli; cli.main(['--help'])"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert all(f"• {name} " in told.stdout for name in all_studies())


def test_results_that_are_none_are_named(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"study": "grid"}))
    with pytest.raises(ValueError, match="something else than a study's results"):
        read(path)

"""Each study as a command: from flags to results, table and pictures; and what its user is told of mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from ebgan_fast import cli
from ebgan_fast.studies import commands
from ebgan_fast.studies.argument_file import with_file
from ebgan_fast.studies.results import read

GRID = (
    "--n-layer-g 2 --n-layer-d 2 --size-g 400 --size-d 128 --dropout-d False --optim-g adam --optim-d adam --lr 0.001"
)
COMMANDS = {
    "grid": (f"{GRID} --steps 3 --samples 100", 2, {"histograms.png", "by-optimiser.png", "best.png"}),
    "margin-sweep": (
        "--margins 1 32 --seeds 1 --steps 3 --samples 100 --size-g 16 --size-d 16",
        2,
        {"margins.png"},
    ),
    "pt-study": (
        "--terms none paper --sets ring mnist --steps 3 --point-steps 3 --samples 100 --size-g 16 --size-d 16",
        4,
        {"terms.png"},
    ),
    "semi-supervised": (
        "--labels 100 --models LN EBGAN-LN --seeds 1 --steps 2 --ebgan-steps 2 --margin-steps 1",
        2,
        {"errors.png", "samples-100-0.png"},
    ),
}


@pytest.fixture(scope="module")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thousand images to learn from and two hundred to test with, in the ten classes, as IDX files."""
    folder = tmp_path_factory.mktemp("digits")
    chance = torch.Generator().manual_seed(0)
    for part, count in (("train", 1000), ("t10k", 200)):
        sizes = {"images-idx3": (count, 28, 28), "labels-idx1": (count,)}
        images = torch.randint(0, 256, sizes["images-idx3"], generator=chance, dtype=torch.uint8)
        for name, values in (("images-idx3", images), ("labels-idx1", torch.arange(count) % 10)):
            head = bytes([0, 0, 8, len(sizes[name])]) + b"".join(size.to_bytes(4, "big") for size in sizes[name])
            (folder / f"{part}-{name}-ubyte").write_bytes(head + values.to(torch.uint8).numpy().tobytes())
    return folder


def _arguments(name: str, out: Path, few_digits: Path) -> list[str]:
    # The ladder is measured on every image there is; the others' classifier knows the real digits.
    data = ["--data", str(few_digits)] if name == "semi-supervised" else []
    return [name, "--out", str(out), "--workers", "1", "--device", "cpu", *COMMANDS[name][0].split(), *data]


@pytest.mark.slow
@pytest.mark.usefixtures("digit_classifier")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_study_writes_results_table_and_pictures(
    tmp_path: Path, name: str, few_digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, count, pictures = COMMANDS[name]
    out = tmp_path / "out"
    assert cli.main(_arguments(name, out, few_digits)) == 0
    results = read(out / "results.json")
    assert results.study == name
    assert len(results.measured()) == count, [trial.reason for trial in results.trials]
    assert results.settings["budget"] == "minutes"
    assert results.settings["steps"] in (2, 3)
    assert {"ebgan_fast", "torch", "python", "optuna"} <= set(results.versions)
    said = capsys.readouterr().out
    assert (out / "table.md").read_text() in said
    for picture in pictures:
        with Image.open(out / picture) as image:
            assert min(image.size) > 100


@pytest.mark.slow
@pytest.mark.usefixtures("digit_classifier")
def test_a_study_that_is_done_is_drawn_anew_and_not_repeated(
    tmp_path: Path, few_digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One stands for all: they share the code that conducts them."""
    out = tmp_path / "out"
    arguments = _arguments("margin-sweep", out, few_digits)
    assert cli.main(arguments) == 0
    results, first = read(out / "results.json"), (out / "table.md").read_text()
    for name in ("table.md", "margins.png"):
        (out / name).unlink()
    capsys.readouterr()
    assert cli.main(arguments) == 0
    assert "2 of 2 trials were done before" in capsys.readouterr().out
    assert (out / "table.md").read_text() == first
    assert (out / "margins.png").exists()
    assert [trial.seconds for trial in read(out / "results.json").trials] == [trial.seconds for trial in results.trials]


def test_the_theory_check_writes_them_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["theory", "--out", str(tmp_path), "--rounds", "200"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "table.md", "theory.png"}
    assert "gradient play" in capsys.readouterr().out
    assert [trial.result["name"] for trial in read(tmp_path / "results.json").trials if trial.result] == [
        "best responses to averages",
        "gradient play",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("grid --size-g 401", "size_g: got 401, expected some of 400, 800, 1600, 3200"),
        ("grid --steps 0", "steps: got 0, expected at least 1"),
        ("margin-sweep --margins 0", "margins: got 0.0, expected positive numbers"),
        ("margin-sweep --seeds 0", "seeds: got 0, expected at least 1"),
        ("pt-study --batch-size 1", "batch_size: got 1, expected at least 2, a pair to repel"),
        ("pt-study --weight -1", "weight: got -1.0, expected a positive number"),
        ("semi-supervised --labels 105", "labels: got 105, expected a multiple of 10"),
        ("semi-supervised --margin-steps 5000", "margin_steps: got 5000, expected 1 to the 2000 of ebgan_steps"),
        ("theory --points 1", "points: got 1, expected at least 4"),
        ("grid --file nowhere.yaml", "nowhere.yaml: No such file or directory"),
        ("grid --data nowhere", "nowhere: got no such folder"),
        *(
            (f"{study} --device cuda:99 --data nowhere", "device: got 'cuda:99', expected a device that torch can use")
            for study in ("grid", "margin-sweep", "pt-study")
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


def test_the_list_of_commands_says_of_a_study_what_its_help_says(capsys: pytest.CaptureFixture[str]) -> None:
    for name, summary in cli.STUDIES.items():
        command = commands.study_command(name, [])
        assert (command.__doc__ or "").splitlines()[0] == summary


def test_results_that_are_none_are_named(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"study": "grid"}))
    with pytest.raises(ValueError, match="something else than a study's results"):
        read(path)

"""The command line gives exit statuses and one-line errors, and does whole small runs.

Most commands run in this process. Each also runs once as a process (`as_a_process`), and one as `python -m ebgan_fast`.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ebgan_fast import cli
from ebgan_fast.data import PackedImages
from ebgan_fast.metrics import DigitClassifier
from ebgan_fast.training.run import checkpoint

from .conftest import Fork

Command = Callable[..., "Ended"]
pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ("--steps", "6", "--size-g", "16", "--size-d", "16", "--batch-size", "8", "--log-every", "3")


@dataclasses.dataclass(frozen=True)
class Ended:
    """A command's exit status, and its output on both streams."""

    status: object
    out: str
    err: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Give a function that runs a command in this process without a change of the allocator's settings."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: True)

    def run(*arguments: str | Path) -> Ended:
        capsys.readouterr()
        try:
            status: object = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
        return Ended(status, *capsys.readouterr())

    return run


def as_a_process(*arguments: str) -> None:
    sys.exit(cli.main(arguments))


def _idx(values: torch.Tensor) -> bytes:
    return struct.pack(f">BBBB{values.dim()}I", 0, 0, 8, values.dim(), *values.shape) + values.numpy().tobytes()


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write IDX files of noise, 40 images for training and 20 for tests; return their folder."""
    folder = tmp_path_factory.mktemp("idx")
    for split, count in (("train", 40), ("t10k", 20)):
        images = torch.randint(
            0, 256, (count, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(count)
        )
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(_idx(images)))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(_idx(torch.arange(count, dtype=torch.uint8) % 10))
    return folder


@pytest.fixture(scope="module")
def run_folder(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "keep_freed_memory", lambda: True)
        assert cli.main(["train", "--out", str(folder), "--data", str(digits), *SMALL]) == 0
    return folder


def test_a_run_leaves_its_folder(run_folder: Path) -> None:
    assert {"config.json", "curves.png", "samples", "checkpoint.pt"} <= {path.name for path in run_folder.iterdir()}
    steps = [json.loads(line)["step"] for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == [3, 6]


def test_sample_draws_a_grid_or_a_folder(command: Command, run_folder: Path, tmp_path: Path) -> None:
    grid, folder = tmp_path / "grid.png", tmp_path / "folder"
    assert command("sample", run_folder, grid, "--count", "7", "--columns", "4").status == 0
    with Image.open(grid) as image:
        width, height = image.size
    assert width > 4 * 32 > height > 2 * 32 > 0
    assert command("sample", run_folder / "checkpoint.pt", folder, "--count", "3").status == 0
    assert sorted(path.name for path in folder.iterdir()) == ["00000.png", "00001.png", "00002.png"]
    again = command("sample", run_folder, folder)
    assert again.status == 1
    assert "isn't empty" in again.err


def test_doctor_names_every_backend_and_the_machine(command: Command) -> None:
    done = command("doctor")
    assert done.status == 0
    for word in ("reference", "cpu", "triton", "cuda", "threads", "instruction set", "torch", "processor", "caches"):
        assert word in done.out


def test_help_lists_commands_and_fields(command: Command) -> None:
    assert "evaluate" in command("--help").out
    assert "--margin-schedule" in command("train", "--help").out


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write 20 small pictures of noise and a damaged one; return their folder."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(20):
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(folder / f"{number:02d}.png")
    (folder / "damaged.jpg").write_bytes(b"no picture")
    return folder


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
def test_a_folder_of_pictures_from_end_to_end(fork: Fork, photos: Path, tmp_path: Path) -> None:
    """Each command runs in a process of its own, and knows only its arguments."""
    packed, run = tmp_path / "packed", tmp_path / "run"

    def said(*arguments: str | Path) -> str:
        child = fork(as_a_process, *map(str, arguments))
        assert child.status() == 0, child.said
        return child.said

    lines = said("prepare", photos, packed, "--size", "64", "--workers", "1").splitlines()
    assert lines[0].startswith(f"left out: {photos / 'damaged.jpg'}: ")
    assert lines[-1] == f"20 images of 64 x 64, 1 that can't be decoded left out: {packed}"
    small = ("--width", "0.04", "--batch-size", "4", "--steps", "4", "--log-every", "2", "--threads", "1")
    training = ("train", "--preset", "celeba64", "--out", run, "--data", packed, *small)
    said(*training)
    config = json.loads((run / "config.json").read_text())
    assert (config["margin"], config["lr_g"], config["networks"]["width"]) == (20.0, 0.0002, 0.04)
    assert "done: 6 steps" in said(*training, "--steps", "6", "--resume")
    said("sample", run, tmp_path / "ways.png", "--count", "6", "--columns", "3", "--interpolate")
    with Image.open(tmp_path / "ways.png") as picture:
        assert picture.size == (3 * 66 + 2, 2 * 66 + 2)
    said("report", run, "--no-neighbors")
    assert "<img" in (run / "report.html").read_text()
    assert (run / "interpolation.png").exists()
    assert "reference" in said("doctor")


def test_help_shows_a_presets_own_settings(command: Command) -> None:
    shown = command("train", "--preset", "imagenet128", "--help").out
    assert "(1024)4c-(512)4c2s" in shown
    assert "100-64-32-16-8-4" in shown
    assert "--generator-layers" not in command("train", "--help").out


MISTAKES: dict[str, tuple[tuple[str, ...], int, str]] = {
    "no command": ((), 2, "prepare, train, sample, evaluate, report, doctor"),
    "unknown command": (("trian",), 2, "trian"),
    "unknown option": (("train", "--out", "{new}", "--stepz", "3"), 2, "--stepz"),
    "not a number": (("train", "--out", "{new}", "--steps", "many"), 2, "--steps"),
    "missing option": (("train",), 2, "--out"),
    "impossible value": (
        ("train", "--out", "{new}", "--steps", "0"),
        1,
        "ebgan-fast: steps: got 0, expected an integer of at least 1",
    ),
    "wrong data folder": (("train", "--out", "{new}", "--data", "{nowhere}"), 1, "{nowhere}"),
    "a folder in use": (("train", "--out", "{run}"), 1, "--resume"),
    "another config": (("train", "--out", "{run}", "--data", "{digits}", "--resume", "--margin", "3"), 1, "margin"),
    "no checkpoint": (("sample", "{nowhere}", "{new}"), 1, "{nowhere}"),
    "a truncated checkpoint": (("sample", "{broken}", "{new}"), 1, "{broken}"),
    "a checkpoint that is something else": (("evaluate", "{other}"), 1, "{other}"),
    "too few samples": (("evaluate", "{run}", "--samples", "3"), 1, "samples: got 3"),
    "an unknown preset": (("train", "--preset", "celeba", "--out", "{new}"), 2, "--preset"),
    "a preset without images": (("train", "--preset", "celeba64", "--out", "{new}"), 1, "ebgan-fast prepare"),
    "images that aren't packed": (
        ("train", "--preset", "lsun64", "--out", "{new}", "--data", "{digits}"),
        1,
        "{digits}: got gray digits, expected images of 3 channels",
    ),
    "a folder of pictures": (
        ("train", "--preset", "lsun64", "--out", "{new}", "--data", "{run}"),
        1,
        "prepare {run} FOLDER --size 64",
    ),
    "an unknown layer": (
        ("train", "--preset", "lsun64", "--out", "{new}", "--encoder-layers", "64x4", "--data", "{digits}"),
        1,
        "{digits}",
    ),
    "no pictures": (("prepare", "{nowhere}", "{new}", "--size", "64"), 1, "{nowhere}: got no such file or folder"),
    "an impossible size": (("prepare", "{digits}", "{new}", "--size", "0"), 1, "size: got 0"),
    "an unknown kind": (("prepare", "{digits}", "{new}", "--size", "8", "--kind", "films"), 2, "--kind"),
    "no such split": (("prepare", "{run}", "{new}", "--size", "8", "--split", "test"), 1, "{run}: got no split 'test'"),
    "a column of a picture": (("prepare", "{run}", "{new}", "--size", "8", "--column", "a"), 1, "{run}: got "),
    "no size": (("prepare", "{digits}", "{new}"), 2, "--size"),
    "a report of no run": (("report", "{digits}"), 1, "{digits}"),
    "interpolations into a folder": (("sample", "{run}", "{new}", "--interpolate"), 1, "ending in .png"),
    "draw on no device": (("sample", "{run}", "{new}", "--device", "cuda:99"), 1, "device: got 'cuda:99', expected"),
    "score on no device": (("evaluate", "{run}", "--device", "gpu"), 1, "device: got 'gpu', expected"),
    "compare on no device": (("report", "{run}", "--device", "meta"), 1, "(it holds no values)"),
    "unavailable backend": (("train", "--out", "{new}", "--data", "{digits}", "--backend", "cuda"), 1, "'cuda'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_a_status(
    name: str, command: Command, run_folder: Path, digits: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.pt"
    broken.write_bytes((run_folder / "checkpoint.pt").read_bytes()[:5000])
    other = tmp_path / "other.pt"
    torch.save({"a": 1}, other)
    places = {
        "run": run_folder,
        "digits": digits,
        "new": tmp_path / "new",
        "nowhere": tmp_path / "nowhere",
        "broken": broken,
        "other": other,
    }
    before = {path: path.stat().st_mtime_ns for path in run_folder.rglob("*")}
    arguments, status, words = MISTAKES[name]
    done = command(*(argument.format(**places) for argument in arguments))
    assert done.status == status, done.err
    lines = done.err.strip().splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("ebgan-fast: ")
    assert words.format(**places) in lines[0]
    assert not (tmp_path / "new").exists()
    assert {path: path.stat().st_mtime_ns for path in run_folder.rglob("*")} == before


def test_commands_run_on_the_device_named(
    run_folder: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Generator, samples, classifier and feature net are on the named device; the device meta stands in for a GPU."""
    meta = torch.device("meta")
    used: list[object] = []
    load_run, colored = cli.load_run, False

    def load(path: Path, device: torch.device) -> object:
        used.append(device)
        loaded, fingerprint = load_run(path)
        if colored:
            loaded.generator.image_shape = (3, 32, 32)
            fingerprint = PackedImages(packed).fingerprint
        return loaded, fingerprint

    class Evaluator:
        def __init__(self, features: str, images: object, device: torch.device) -> None:
            used.append(device)
            self.features, self.scorer = 8, None

        def score(self, *_: object) -> dict[str, object]:
            names = ("fd", "kid", "kid_std", "kid_subset_size", "samples", "real_images")
            return {"features": "FD", **dict.fromkeys(names, 5)}

    def classifier(*_: object, device: torch.device, **__: object) -> DigitClassifier:
        used.append(device)
        return DigitClassifier((2, 2, 2)).eval()

    def scored(classifier: object, generator: object, samples: int, seed: int, device: object) -> dict[str, object]:
        used.append(device)
        names = dict.fromkeys(("exp_score", "exp_score_std", "kl_conditional_marginal", "kl_marginal_conditional"), 1.0)
        return {"classifier_test_accuracy": 1.0, **names, "class_share": [0.1] * 10}

    monkeypatch.setattr(cli, "usable_device", {"a GPU": meta}.__getitem__)
    monkeypatch.setattr(cli, "load_run", load)
    monkeypatch.setattr(cli, "load_generator", lambda *given: load(*given)[0])  # type: ignore[index]
    monkeypatch.setattr(cli, "load_classifier", classifier)
    monkeypatch.setattr(cli, "score_digits", scored)
    monkeypatch.setattr(cli, "Evaluator", Evaluator)
    for name in ("draw_interpolation", "draw_neighbors", "write_report"):
        monkeypatch.setattr(cli, name, lambda *_, **__: None)
    copied, packed = tmp_path / "run", tmp_path / "packed"
    shutil.copytree(run_folder, copied)
    assert cli.main(["prepare", str(photos), str(packed), "--size", "32", "--workers", "1"]) == 0
    of_colors = ("--data", str(packed))
    for arguments, devices in (
        (("sample", str(copied), str(tmp_path / "grid.png")), [meta]),
        (("evaluate", str(copied), "--samples", "20"), [meta, meta, meta]),
        (("evaluate", str(copied), "--samples", "20", "--features", "net"), [meta, meta]),
        (("report", str(copied)), [meta]),
        (("evaluate", str(copied), *of_colors), [meta, meta]),
        (("report", str(copied), *of_colors), [meta, meta]),
    ):
        colored = of_colors[0] in arguments
        assert cli.main([*arguments, "--device", "a GPU"]) == 0
        assert used == devices
        used.clear()
    capsys.readouterr()


def colors(tmp_path: Path, photos: Path) -> tuple[Path, Path]:
    """Train on packed pictures, then move the run and the pictures; return both new folders."""
    packed, run = tmp_path / "packed", tmp_path / "run"
    assert cli.main(["prepare", str(photos), str(packed), "--size", "32", "--workers", "1"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "keep_freed_memory", lambda: True)
        assert (
            cli.main(
                ["train", "--out", str(run), "--data", str(packed), "--keep", "1", *SMALL, "--checkpoint-every", "3"]
            )
            == 0
        )
    return run.rename(tmp_path / "moved run"), packed.rename(tmp_path / "moved pictures")


@pytest.mark.slow
def test_a_run_whose_images_were_moved(
    command: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ebgan_fast.metrics.features import FeatureNet

    def net(images: torch.Tensor) -> torch.Tensor:
        return images.float().mean((2, 3))

    monkeypatch.setenv("EBGAN_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ebgan_fast.training.scoring.load_feature_net", lambda spec: FeatureNet(net, "FD", "mean", 3))
    run, packed = colors(tmp_path, photos)
    old = tmp_path / "packed"
    done = command("evaluate", run, "--samples", "20")
    assert done.status == 1
    missing = f"{old}: got no such folder, expected one that ebgan-fast prepare made, or one of MNIST's four IDX files"
    assert f"{missing}; --data names where the run's images are now" in done.err

    done = command("report", run)
    assert done.status == 0
    assert f"nearest training images are left out ({missing}); --data names where they are now" in done.err
    done = command("evaluate", run, "--samples", "20", "--data", packed)
    assert done.status == 0
    assert "20 generated images against 20 training images" in done.out
    for path in (run, run / "checkpoint.pt", run / "checkpoints" / "step_000003.pt"):
        for name in ("report.html", "neighbors.png"):
            (run / name).unlink(missing_ok=True)
        done = command("report", path, "--data", packed)
        assert (done.status, done.out.splitlines()[-1]) == (0, f"report: {run / 'report.html'}")
        assert (run / "neighbors.png").exists()
    assert command("train", "--out", run, "--data", packed, *SMALL, "--steps", "7", "--resume").status == 0


def test_scores_are_printed_before_they_are_written(
    command: Command, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = shutil.copytree(run_folder, tmp_path / "run")
    (copied / "score.json").mkdir()  # a folder where the file would be written
    judge = DigitClassifier((2, 2, 2)).eval()
    judge.test_accuracy = 0.5
    monkeypatch.setattr(cli, "load_classifier", lambda *_, **__: judge)
    done = command("evaluate", copied, "--samples", "20")
    assert done.status == 1
    assert "20 generated digits" in done.out
    assert "score.json" in done.err


@pytest.mark.xdist_group("forked")
@pytest.mark.slow
def test_settings_of_a_later_version_are_a_line(fork: Fork, run_folder: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(run_folder, tmp_path / "run")
    path = copied / "checkpoint.pt"
    state = checkpoint.read(path)
    state["config"] |= {"depth": 3, "norm": "l7"}
    checkpoint.write(path, state)
    for arguments in (("sample", copied, tmp_path / "grid.png"), ("report", copied, "--no-neighbors")):
        child = fork(as_a_process, *map(str, arguments))
        assert child.status() == 0, child.said
        first, second, _ = child.said.splitlines()
        assert first == f"ebgan-fast: {path}: depth: got a field that this version doesn't know, and ignores"
        assert second.startswith(f"ebgan-fast: {path}: norm: got 'l7', expected one of ")


def test_long_work_is_told_of_without_a_terminal(
    command: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "paced", lambda say: lambda share, text: say(f"{share:.2f} {text}"))
    done = command("prepare", photos, tmp_path / "packed", "--size", "8", "--workers", "1")
    said = [line for line in done.err.splitlines() if not line.startswith("left out")]
    assert said == [f"images: {number / 21:.2f} {number} of 21" for number in range(1, 22)]


@pytest.mark.slow
def test_a_mistake_from_outside(digits: Path, tmp_path: Path) -> None:
    """A wrong backend in the environment is one line. The variable is read on import, so a new interpreter runs."""
    arguments = ["train", "--out", tmp_path / "new", "--data", digits, *SMALL]
    done = subprocess.run(
        [sys.executable, "-m", "ebgan_fast", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "EBGAN_FAST_BACKEND": "cuda"},
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("ebgan-fast: EBGAN_FAST_BACKEND: got backend 'cuda', which cannot run here")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()

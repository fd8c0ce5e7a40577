"""The page of GPUs' results and the first choice follow from made-up results."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import main
from bench.commands import page
from bench.pages import gpu
from bench.pages.committed import gpus
from bench.results.provenance import ROOT
from bench.results.rows import GraphRow, LatencyRow, Result, Row, TrainRow, append, append_all, read, spread
from ebgan_fast.ops import backends
from tests import stand_in

H100 = {
    "processor": "NVIDIA H100 80GB HBM3, CUDA 13.0",
    "isa": "sm_90, backend triton",
    "device": "cuda",
    "backend": "triton",
    "tf32": {"matmul": False, "cudnn": True},
    "versions": {
        "ebgan_fast": "0.1.0",
        "torch": "2.11.0",
        "python": "3.12",
        "compiler": "Triton 3.6.0; nvcc 13.0",
        "driver": "580.65.06",
    },
}
Make = Callable[..., Row]


def _row(make_row: Make, cuda: float = 0.8, **fields: Any) -> Row:
    """Return a row of Triton's kernels at 40 us. CUDA's take `cuda` times as long, eager torch 3, torch.compile 1.5."""
    ratios = {"cuda": cuda, "eager": 3.0, "torch.compile": 1.5}
    seconds = {name: 40e-6 * ratio for name, ratio in {"ebgan_fast": 1.0, **ratios}.items()}
    told: dict[str, Any] = {
        **H100,
        "seconds": {name: spread([value]) for name, value in seconds.items()},
        "ratio": {name: spread([value]) for name, value in ratios.items()},
        "first_call": {"ebgan_fast": 1.25, "cuda": 0.01, "eager": 0.02, "torch.compile": 9.5},
        "share": 0.87,
        "ceiling": {"name": "copy", "value": 3000.0},
        "shape": "64x16384",
    }
    return make_row(**{**told, **fields})


def _trained(**fields: Any) -> TrainRow:
    seconds = {"public loop": 0.0064, "ebgan_fast float32": 0.004, "ebgan_fast bfloat16": 0.0025}
    told: dict[str, Any] = {
        **H100,
        "preset": "celeba64",
        "width": 1.0,
        "batch_size": 128,
        "threads": 2,
        "seconds": seconds,
        "median": seconds,
        "images_per_s": {name: 128 / value for name, value in seconds.items()},
        "speedup": {"float32": 1.6, "bfloat16": 2.56},
        "targets": {},
        "data_cost": None,
        "native_bfloat16": True,
        "rounds": 5,
        "first_call": {"public loop": 0.5, "ebgan_fast float32": 7.25, "ebgan_fast bfloat16": 3.0},
        "peak": dict.fromkeys(seconds, 3 * 2**29),
        "source_hash": "0123456789abcdef",
        "omp_wait_policy": None,
        "omp_num_threads": None,
        "date": "2026-01-01T00:00:00+00:00",
    }
    return TrainRow(**{**told, **fields})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "bench" / "results").mkdir(parents=True)
    (tmp_path / gpu.TEMPLATE).parent.mkdir()
    shutil.copy(ROOT / gpu.TEMPLATE, tmp_path / gpu.TEMPLATE)
    return tmp_path


def _write(root: Path, *rows: Result, name: str = "ops-nvidia-h100") -> None:
    append_all(rows, root / "bench" / "results" / f"{name}.jsonl")


def _text(root: Path) -> str:
    found = gpus(root)
    return gpu.text(found, gpu.choices(found), root)


def _tables(text: str) -> list[list[str]]:
    """Return the cells of all lines of all tables."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_an_op_has_its_share_of_the_roofline_and_its_ratios(make_row: Make, root: Path) -> None:
    _write(root, _row(make_row), _row(make_row, watch="replayed", cuda=1.1, dtype="bfloat16"))
    text = _text(root)
    shared = ["pulling_away_term", "64x16384"]
    assert [*shared, "copy", "87 %", "40.0", "triton", "-", "0.80x", "3.00x", "1.50x"] in _tables(text)
    assert [*shared, "copy", "87 %", "40.0", "triton", "-", "1.10x", "3.00x", "1.50x"] in _tables(text)
    assert text.index("float32, called") < text.index("0.80x") < text.index("bfloat16, replayed") < text.index("1.10x")
    assert [*shared, "float32", "1.25", "-", "0.01", "9.50"] in _tables(text)
    for words in ("## NVIDIA H100 80GB HBM3, CUDA 13.0", "driver 580.65.06", "torch 2.11.0", "Triton 3.6.0; nvcc 13.0"):
        assert words in text
    assert "Float32 products of torch run in float32, its convolutions may be rounded to tf32." in text


def test_the_training_step_has_its_table(root: Path) -> None:
    _write(root, _trained(rounds=1, speedup={"float32": 1.1, "bfloat16": 1.2}), _trained(), name="train-nvidia-h100")
    networks = "celeba64, width 1, batches of 128"
    assert [row for row in _tables(_text(root)) if row[0] == networks] == [
        [networks, "public loop", "6.40", "20000", "-", "0.5", "1.50"],
        [networks, "ebgan_fast float32", "4.00", "32000", "1.60x", "7.2", "1.50"],
        [networks, "ebgan_fast bfloat16", "2.50", "51200", "2.56x", "3.0", "1.50"],
    ]


def _graph_row(**fields: Any) -> GraphRow:
    told = {name: value for name, value in vars(_trained()).items() if name in GraphRow.__dataclass_fields__}
    own = {"case": "celeba64, bfloat16", "batch_size": 64, "steps": 200, "equal": True}
    return GraphRow(**{**told, **own, **fields})


def test_a_recorded_step_has_its_line_and_its_losses_are_told(root: Path) -> None:
    name = "ebgan_fast bfloat16, cuda_graph"
    seconds = {"public loop": 0.0064, name: 0.002}
    row = _trained(
        seconds=seconds,
        images_per_s={who: 128 / value for who, value in seconds.items()},
        speedup={"bfloat16, cuda_graph": 3.2},
        first_call=dict.fromkeys(seconds, 1.0),
        peak=None,
    )
    _write(root, row, _graph_row(equal=False), _graph_row(), name="train-nvidia-h100")
    text = _text(root)
    assert [celeba for celeba in _tables(text) if celeba[1] == name] == [
        ["celeba64, width 1, batches of 128", name, "2.00", "64000", "3.20x", "1.0", "-"]
    ]
    (said,) = (line for line in text.splitlines() if line.startswith("* celeba64, bfloat16"))
    assert said == (
        "* celeba64, bfloat16, batches of 64: losses of 200 steps and the weights after them are the same with a CUDA "
        "graph, bit for bit"
    )


def test_a_graph_alone_has_its_section(root: Path) -> None:
    _write(root, _graph_row(equal=False, largest=0.001, first=5, repeats=True), name="train-nvidia-h100")
    text = _text(root)
    assert "differ with a CUDA graph, by up to 1.0e-03 of their value, from step 5 on; without one they repeat" in text
    assert "### The training step" in text
    assert "driver 580.65.06" in text
    assert not _tables(text)


def test_a_step_with_wrong_losses_has_no_figure(root: Path) -> None:
    _write(root, _trained(wrong="loss_g of the first step is off"), name="train-nvidia-h100")
    text = _text(root)
    assert "celeba64, width 1, batches of 128: loss_g of the first step is off" in text
    assert "6.40" not in text


def test_calls_have_their_table(make_row: Make, root: Path) -> None:
    _write(root, LatencyRow(**vars(_row(make_row, shape="8x16"))), name="latency-nvidia-h100")
    (line,) = (row for row in _tables(_text(root)) if row[1] == "8x16")
    assert line[4:6] == ["40.0 ±0 %", "32.0 (0.80x)"]


def test_the_latest_row_of_a_case_counts(make_row: Make, root: Path) -> None:
    """The latest row counts case by case, so that a run that was cut short removes no rows of earlier runs."""
    _write(root, _row(make_row, shape="8x32"), _row(make_row), _row(make_row, cuda=0.5, run="later"))
    (gpu,) = gpus(root)
    assert [(row.shape, row.ratio["cuda"].median) for row in gpu.ops] == [("8x32", 0.8), ("64x16384", 0.5)]


def test_rows_of_the_cpu_and_comparisons_are_no_results_of_a_gpu(make_row: Make, root: Path) -> None:
    _write(root, make_row(), name="ops-cpu")
    _write(root, _trained(device="cpu"), _trained(compared="ebgan_fast at v0"), name="train-cpu")
    assert gpus(root) == []
    (root / "bench" / "results" / "train-cpu.jsonl").write_text("no rows\n")
    with pytest.raises(ValueError, match=r"train-cpu\.jsonl, line 1: got something else"):
        gpus(root)


CHOICES = {
    "cuda is faster": ([{"cuda": 0.8}, {"cuda": 0.95}], "cuda"),
    "cuda is slower": ([{"cuda": 1.2}, {"cuda": 0.9}], "triton"),
    "cuda is 1 % faster, which is noise": ([{"cuda": 0.99}], "triton"),
    "cuda ran first, and triton is faster": ([{"cuda": 0.0, "backend": "cuda", "ratio": {"triton": 0.8}}], "triton"),
    "cuda ran first, and triton is slower": ([{"cuda": 0.0, "backend": "cuda", "ratio": {"triton": 1.3}}], "cuda"),
    "cuda is faster and wrong": ([{"cuda": 0.5}, {"cuda": 0.5, "wrong": {"cuda": "loss is off"}}], "triton"),
    "triton is faster and wrong": ([{"cuda": 2.0}, {"cuda": 2.0, "wrong": {"ebgan_fast": "loss is off"}}], "cuda"),
    "cuda was not built": ([{"cuda": 0.0, "ratio": {"eager": 3.0}}], None),
}


@pytest.mark.parametrize("name", CHOICES)
def test_the_first_choice_is_the_faster_one_that_is_right(name: str, make_row: Make, root: Path) -> None:
    changes, expected = CHOICES[name]
    for index, fields in enumerate(changes):
        ratio = {who: spread([value]) for who, value in fields.get("ratio", {}).items()}
        _write(root, _row(make_row, **{**fields, **({"ratio": ratio} if ratio else {})}, op=f"op {index}"))
    found = gpu.choices(gpus(root))
    assert {arch: entry["backend"] for arch, entry in found.items()} == ({"sm_90": expected} if expected else {})
    assert json.loads(gpu.dump(found)) == found
    if expected:
        assert found["sm_90"]["why"].startswith("measured: ")
        assert f"the {expected} kernels run first; measured: " in _text(root)


def test_the_mean_is_geometric_and_of_each_architecture(make_row: Make, root: Path) -> None:
    _write(root, _row(make_row, cuda=0.5), _row(make_row, cuda=1.8, op="another"))
    other = {"processor": "NVIDIA A100", "isa": "sm_80, backend triton"}
    _write(root, _row(make_row, cuda=2.0, **other), name="ops-nvidia-a100")
    found = gpu.choices(gpus(root))
    assert {arch: entry["backend"] for arch, entry in found.items()} == {"sm_80": "triton", "sm_90": "cuda"}
    assert "cuda takes 0.95 of the time of triton over 2 cases" in found["sm_90"]["why"]


def test_the_command_writes_page_and_choice_and_takes_them_back(
    make_row: Make, copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(page, "draw_all", lambda results: None)  # pictures show the CPU alone
    assert main(["page"]) == 0
    choice, gpu_page = copy / gpu.FIRST_CHOICE, copy / gpu.PAGE
    assert json.loads(choice.read_text()) == {}
    assert not gpu_page.exists()

    _write(copy, _row(make_row))
    capsys.readouterr()
    assert main(["page", "--check"]) == 1
    said = capsys.readouterr().err
    assert "docs/performance-gpu.md: not what" in said
    assert f"{gpu.FIRST_CHOICE}: not what" in said
    assert main(["page"]) == 0
    assert main(["page", "--check"]) == 0
    assert "64x16384" in gpu_page.read_text()
    monkeypatch.setattr(backends, "FIRST_CHOICE", choice)
    monkeypatch.setattr(backends, "architecture", lambda device: "sm_90")
    backends.refresh()
    with stand_in.backend("triton", takes="cuda"), stand_in.backend("cuda", takes="cuda"):
        assert backends.choose("cuda", 0) == "cuda"  # the package follows the file
    backends.refresh()

    (copy / "bench/results/ops-nvidia-h100.jsonl").unlink()
    assert main(["page", "--check"]) == 1
    assert main(["page"]) == 0
    assert json.loads(choice.read_text()) == {}
    assert not gpu_page.exists()


def test_a_row_of_train_comes_back_as_it_went(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    row = _trained()
    append(row, path)
    assert read(path) == [row]

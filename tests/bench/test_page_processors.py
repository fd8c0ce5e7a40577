"""Each figure of the page stands under the processor that it was measured on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.commands import page
from bench.pages import performance_prose, performance_tables
from bench.pages.committed import RESULTS, Results
from bench.results.provenance import ROOT, Processor, source_hash, titles
from bench.results.rows import Row, last_runs
from bench.subjects.cases import CASES

EPYC = Processor("AMD EPYC (x86_64, 2 cores)", "avx2")
XEON = Processor("Intel(R) Xeon(R) Processor @ 2.70GHz (x86_64, 2 cores)", "avx512bf16")
TRAIN, ONE_PASS = "bench/results/train-cpu.jsonl", "bench/results/one-pass-cpu.jsonl"
OTHERS = (TRAIN, ONE_PASS, "bench/results/stacked-cpu.jsonl")
Line = dict[str, Any]


@pytest.mark.parametrize(
    ("model", "short"),
    [
        (EPYC.model, "AMD EPYC, isa"),
        (XEON.model, "Intel Xeon, isa"),
        ("AMD Ryzen 9 7950X 16-Core Processor (x86_64, 32 cores)", "AMD Ryzen, isa"),
        ("13th Gen Intel(R) Core(TM) i7-1360P (x86_64, 16 cores)", "Intel Core, isa"),
        ("Neoverse-N1 (aarch64, 4 cores)", "Neoverse-N1, isa"),
    ],
)
def test_a_processor_is_called_by_its_maker_family_and_instruction_set(model: str, short: str) -> None:
    assert Processor(model, "isa").short == short


def test_processors_that_share_the_short_name_are_named_in_full() -> None:
    larger = EPYC._replace(model="AMD EPYC (x86_64, 64 cores)")
    assert titles([EPYC, XEON, larger, EPYC]) == {
        EPYC: "AMD EPYC (x86_64, 2 cores), avx2",
        XEON: "Intel Xeon, avx512bf16",
        larger: "AMD EPYC (x86_64, 64 cores), avx2",
    }
    assert len(set(titles([XEON, XEON._replace(isa="avx2")]).values())) == 2


def test_a_later_run_replaces_those_on_its_processor_alone(make_row: Callable[..., Row]) -> None:
    rows = [
        make_row(processor=one.model, isa=one.isa, run=run, shape=shape)
        for one, run in ((EPYC, "Monday"), (XEON, "Tuesday"), (EPYC, "Wednesday"), (XEON, "Sunday"), (EPYC, "Friday"))
        for shape in ("8x32", "9x32")
    ]
    found = {one: [(row.run, row.shape) for row in own] for one, own in last_runs(rows).items()}
    assert found == {
        EPYC: [("Friday", "8x32"), ("Friday", "9x32")],
        XEON: [("Sunday", "8x32"), ("Sunday", "9x32")],
    }


@pytest.fixture(scope="module")
def committed() -> dict[str, list[Line]]:
    """Return the lines of the last run in each file."""
    found = {}
    for name in (*RESULTS.values(), *OTHERS):
        lines = [json.loads(line) for line in (ROOT / name).read_text().splitlines()]
        last = lines[-1]  # the newest run has every case
        here = [line for line in lines if (line["processor"], line["isa"]) == (last["processor"], last["isa"])]
        found[name] = [line for line in here if line.get("run") == here[-1].get("run")]
    assert {case.shape for case in CASES} <= {line["shape"] for line in found[RESULTS["ops"]]}
    return found


class Recorder:
    """A writer of runs that differ by a factor from the committed ones."""

    def __init__(self, root: Path, committed: dict[str, list[Line]]) -> None:
        self.root, self._committed = root, committed

    def measures(self, one: Processor, day: int, factor: float, *names: str, **changes: Any) -> None:
        """Add a run of a processor.

        Args:
            one: The processor.
            day: The day of the run, in January 2999.
            factor: The factor on the committed times and ratios.
            *names: The files. None: all files.
            **changes: Fields to replace in each line.
        """
        for name in names or self._committed:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [self._line(line, one, day, factor) | changes for line in self._committed[name]]
            with path.open("a") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)

    def _line(self, line: Line, one: Processor, day: int, factor: float) -> Line:
        date = f"2999-01-{day:02}T00:00:00+00:00"
        line = {**line, "processor": one.model, "isa": one.isa, "date": date}
        if "run" in line:
            line["run"] = date
        for name in ("seconds", "ratio", "speedup", "peak"):
            if isinstance(line.get(name), dict):
                line[name] = {provider: _scaled(value, factor) for provider, value in line[name].items()}
        return line


def _scaled(value: Any, factor: float) -> Any:
    return [factor * one for one in value] if isinstance(value, list) else factor * value


@pytest.fixture
def recorder(tmp_path: Path, committed: dict[str, list[Line]]) -> Recorder:
    return Recorder(tmp_path, committed)


def _text(root: Path) -> str:
    return page.performance(page.values_of(Results.read(root)))


def _section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def _table(text: str, begin: str = "") -> list[list[str]]:
    """Return the cells of the first table after `begin`, titles first."""
    lines = text[text.index(begin) :].partition("| ")[2].split("\n\n")[0].splitlines()
    table = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    return [table[0], *table[2:]]


def _four(line: Line) -> list[float | str]:
    """Return the cells that the table must have for a row, by arithmetic of the test's own."""
    ratios = []
    for name in ("eager", "torch.compile"):
        value = line["ratio"][name][1]
        digits = 2 if value < 10 else 1 if value < 100 else 0
        ratios.append(f"{value:.{digits}f}x")
    return [float(f"{1e3 * line['seconds']['ebgan_fast'][1]:.3g}"), *ratios, f"{100 * line['share']:.0f} %"]


def _expected(root: Path, one: Processor, day: int, threads: int) -> list[list[float | str]]:
    lines = map(json.loads, (root / RESULTS["ops"]).read_text().splitlines())
    run = f"2999-01-{day:02}T00:00:00+00:00"
    chosen = [line for line in lines if (line["processor"], line["run"], line["threads"]) == (one.model, run, threads)]
    return [_four(line) for line in chosen]


def _columns(root: Path, threads: int, first: int) -> list[list[float | str]]:
    table = _table(_section(_text(root), "Every op"), f"\n{threads} thread")
    return [[float(line[first]), *line[first + 1 : first + 4]] for line in table[1:]]


@pytest.mark.parametrize("threads", [1, 2])
def test_both_processors_have_their_columns(recorder: Recorder, threads: int) -> None:
    recorder.measures(EPYC, 1, 1.0)
    recorder.measures(XEON, 2, 1.7)
    titles_ = _table(_section(_text(recorder.root), "Every op"), f"\n{threads} thread")[0]
    assert titles_[3::4] == ["AMD EPYC, avx2: ms", "Intel Xeon, avx512bf16: ms"]
    assert len(titles_) == 3 + 2 * 4
    for one, day, first in ((EPYC, 1, 3), (XEON, 2, 7)):
        assert _columns(recorder.root, threads, first) == _expected(recorder.root, one, day, threads)


def test_a_new_run_moves_no_column_and_leaves_the_others_figures(recorder: Recorder) -> None:
    recorder.measures(EPYC, 1, 1.0)
    recorder.measures(XEON, 2, 1.7)
    recorder.measures(EPYC, 3, 2.9)
    assert _columns(recorder.root, 1, 3) == _expected(recorder.root, EPYC, 3, 1)
    assert _columns(recorder.root, 1, 7) == _expected(recorder.root, XEON, 2, 1)


def test_every_table_names_both(recorder: Recorder) -> None:
    recorder.measures(EPYC, 1, 1.0)
    recorder.measures(XEON, 2, 1.7)
    values = performance_tables.tables(Results.read(recorder.root))
    for name, text in values.items():
        if name != "table_memory":
            assert text.count("AMD EPYC, avx2") == text.count("Intel Xeon, avx512bf16") > 0, name
    first, second = values["table_latency"].split("Intel Xeon, avx512bf16:")
    eager = [float(_table(block)[1][6].split()[0]) for block in (first, second)]
    assert eager[1] / eager[0] == pytest.approx(1.7, rel=0.01)
    cell = _table(values["table_published"], "In a cell: AMD EPYC, avx2 / Intel Xeon, avx512bf16.")[1][2]
    ratios = [float(value.rstrip("x")) for value in cell.split(" / ")]
    assert ratios[1] / ratios[0] == pytest.approx(1.7, rel=0.01)
    kept = _table(values["table_kept"])
    times = [float(cell.split()[0]) for cell in kept[1][2:]]
    assert [times[2] / times[0], times[3] / times[1]] == pytest.approx([1.7, 1.7], rel=0.01)


def test_prose_and_readme_give_each_processors_figures(recorder: Recorder, committed: dict[str, list[Line]]) -> None:
    recorder.measures(EPYC, 1, 1.0)
    recorder.measures(XEON, 2, 1.7)
    (ratio,) = (
        line["ratio"]["eager"][1]
        for line in committed[RESULTS["ops"]]
        if (line["op"], line["shape"], line["threads"]) == ("discriminator_loss", "64x3x128x128, l2", 1)
    )
    results = Results.read(recorder.root)
    values = performance_prose.sentences(results)
    assert f" of the copy's speed, {ratio:.1f} times as fast as eager" in values["large_default"]
    assert f" of the copy's speed, {1.7 * ratio:.1f} times as fast as eager" in values["large_default"]
    assert " and " not in values["two_threads"]  # both factors are equal
    text = performance_tables.headline(results)
    assert "On one CPU thread (Intel Xeon, avx512bf16, float32" in text  # the later of two that ran all cases
    titles_, first, *lines = _table(text)
    assert titles_ == ["op and shape", "eager", "torch.compile"]
    assert first[:2] == ["discriminator loss, 64x3x128x128, l2 (the default)", f"{1.7 * ratio:.2f}x"]
    assert [line[0].partition(",")[0] for line in lines] == [
        *["discriminator loss"] * 2,
        "reconstruction energy",
        *["pulling-away term"] * 2,
    ]
    assert f"* **Intel Xeon, avx512bf16**: {XEON.model}, avx512bf16 kernels" in values["processors"]


def test_one_processor_is_named_and_alone(recorder: Recorder) -> None:
    recorder.measures(EPYC, 1, 1.0)
    results = Results.read(recorder.root)
    assert "On one CPU thread (AMD EPYC, avx2, float32" in performance_tables.headline(results)
    assert "In a cell" not in _text(recorder.root)
    assert "nobody has timed the kernels for AVX-512 and NEON" in _text(recorder.root)
    recorder.measures(XEON, 2, 1.7)
    assert "nobody has timed the kernels for NEON" in _text(recorder.root)


def test_figures_that_one_processor_lacks_are_named(recorder: Recorder) -> None:
    recorder.measures(EPYC, 1, 1.0)
    recorder.measures(XEON, 2, 1.7, RESULTS["latency"])
    recorder.measures(XEON, 2, 1.7, RESULTS["ops"], shape="other")
    results = Results.read(recorder.root)
    values = performance_prose.sentences(results)
    assert values["large_eager"].endswith(" (AMD EPYC, avx2)")
    assert " and " in values["latency_both"]
    assert "(" not in values["latency_both"]
    table = _table(_section(_text(recorder.root), "Every op"), "\n1 thread")
    assert [line[7:] for line in table[1:3]] == [["-"] * 4] * 2
    assert "AMD EPYC, avx2" in performance_tables.headline(results)  # it ran more of the README's cases


def test_training_has_a_row_for_each_processor_and_size(recorder: Recorder) -> None:
    recorder.measures(EPYC, 1, 1.0)
    recorder.measures(EPYC, 1, 1.0, TRAIN, native_bfloat16=False)
    seconds = {name: 1.0 for name in ("public loop", "ebgan_fast float32", "ebgan_fast bfloat16")}
    own: Line = {"width": 1.0, "batch_size": 64, "seconds": seconds, "images_per_s": dict.fromkeys(seconds, 64.0)}
    own["targets"] = {"float32": 1.5, "bfloat16": 2.5}
    for speedup in (9.9, 2.4):
        own["speedup"] = {"float32": 1.6, "bfloat16": speedup}
        recorder.measures(XEON, 2, 1.0, TRAIN, native_bfloat16=True, **own)
    table = _table(_section(_text(recorder.root), "The training step"), "every run")
    step = "1000 ms, 64.0 images/s"
    assert [line for line in table if line[0].startswith("Intel")] == [
        [
            "Intel Xeon, avx512bf16",
            "celeba64, width 1, batches of 64, 2 threads",
            step,
            f"{step}, 1.60x",
            f"{step}, 2.40x",
        ]
    ]
    emulated = [line for line in table if line[-1].startswith("emulated: ")]
    assert {line[0] for line in emulated} == {"AMD EPYC, avx2"}
    assert len(emulated) == len({line[1] for line in emulated})  # a row for each size


def _one_pass(ratio: float, networks: str = "mnist", batch_size: int = 64, threads: int = 1) -> Line:
    seconds = {"usual loop": 0.012, "one pass": 0.01}
    return {"networks": networks, "batch_size": batch_size, "threads": threads, "seconds": seconds, "ratio": ratio}


def test_one_pass_has_a_row_for_each_size_and_nothing_of_a_processor_without_one(recorder: Recorder) -> None:
    recorder.measures(EPYC, 1, 1.0, *RESULTS.values(), *(name for name in OTHERS if name != ONE_PASS))
    recorder.measures(XEON, 2, 1.0)
    (recorder.root / ONE_PASS).write_text("")
    others = (_one_pass(1.25, "celeba64"), _one_pass(1.1, "celeba64", 16), _one_pass(1.15, "celeba64", 16, 2))
    for own in (_one_pass(9.9), *others, _one_pass(1.2)):  # the last line of a size counts
        recorder.measures(XEON, 2, 1.0, ONE_PASS, **own, bound=1.219)
    table = _table(_section(_text(recorder.root), "One pass for both updates"))
    assert table == [
        ["processor", "networks", "usual loop", "one pass", "ratio", "bound"],
        ["Intel Xeon, avx512bf16", "mnist, batches of 64, 1 thread", "12.0 ms", "10.0 ms", "1.20x", "1.22x"],
        ["Intel Xeon, avx512bf16", "celeba64, batches of 64, 1 thread", "12.0 ms", "10.0 ms", "1.25x", "1.22x"],
        ["Intel Xeon, avx512bf16", "celeba64, batches of 16, 1 thread", "12.0 ms", "10.0 ms", "1.10x", "1.22x"],
        ["Intel Xeon, avx512bf16", "celeba64, batches of 16, 2 threads", "12.0 ms", "10.0 ms", "1.15x", "1.22x"],
    ]


def test_the_table_of_one_pass_gives_each_processors_ratios_on_one_thread(recorder: Recorder) -> None:
    recorder.measures(EPYC, 1, 1.0)
    (recorder.root / ONE_PASS).write_text("")
    for one, own in (
        (XEON, _one_pass(1.2)),
        (EPYC, _one_pass(9.9, threads=2)),
        (XEON, _one_pass(9.9, "celeba64", threads=2)),
    ):
        recorder.measures(one, 2, 1.0, ONE_PASS, **own)
    xeon = "Intel Xeon, avx512bf16: times as fast as the usual loop"
    found = _table(performance_tables.one_pass(Results.read(recorder.root)))
    assert found == [["one thread", xeon], ["mnist, batches of 64", "1.20x"]]
    recorder.measures(EPYC, 3, 1.0, ONE_PASS, **_one_pass(1.18))
    for networks, ratio in (("celeba64", 1.146), ("faces", 1.1)):
        recorder.measures(XEON, 3, 1.0, ONE_PASS, **_one_pass(ratio, networks))
    assert _table(performance_tables.one_pass(Results.read(recorder.root))) == [
        ["one thread", "AMD EPYC, avx2: times as fast as the usual loop", xeon],
        ["mnist, batches of 64", "1.18x", "1.20x"],
        ["celeba64, batches of 64", "-", "1.15x"],
        ["faces, batches of 64", "-", "1.10x"],
    ]


def test_a_readme_without_figures_is_not_written(recorder: Recorder) -> None:
    recorder.measures(EPYC, 1, 1.0)
    (recorder.root / RESULTS["ops"]).write_text("")
    recorder.measures(EPYC, 1, 1.0, RESULTS["ops"], shape="other")
    with pytest.raises(LookupError, match=r"README"):
        performance_tables.headline(Results.read(recorder.root))


def test_a_table_of_one_pass_without_figures_is_not_written(recorder: Recorder) -> None:
    recorder.measures(EPYC, 1, 1.0)
    (recorder.root / ONE_PASS).write_text("")
    with pytest.raises(LookupError, match="one-pass"):
        performance_tables.one_pass(Results.read(recorder.root))


def test_memory_is_that_of_the_processor_measured_last(recorder: Recorder) -> None:
    recorder.measures(XEON, 2, 1.25)
    recorder.measures(EPYC, 1, 1.0)  # later in the file, but of an earlier day
    values = performance_tables.tables(Results.read(recorder.root))
    assert values["memory_of"] == (
        "Intel Xeon, avx512bf16, the processor measured last; "
        "the peaks of ebgan_fast are within 20.0 % of those on AMD EPYC, avx2"
    )
    assert _table(values["table_memory"])[1][5] == "7.50 (1.25x)"


def test_each_processors_source_is_told_apart(recorder: Recorder) -> None:
    recorder.measures(EPYC, 1, 1.0, source_hash="f" * 16)
    recorder.measures(XEON, 2, 1.0, source_hash=source_hash())
    table = _table(_section(_text(recorder.root), "Where the figures come from"))[1:]
    assert len(table) == 2 * len(RESULTS)
    for line in table:
        expected = "changed since" if line[1] == "AMD EPYC, avx2" else "of this version"
        assert line[4].endswith(expected), line
        assert line[2] == ("2999-01-01" if line[1] == "AMD EPYC, avx2" else "2999-01-02")

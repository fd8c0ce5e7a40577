"""The tuner chooses the right tiles, on a clock that only the made-up costs of the tiles move."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from tests.older_versions import OLDEST_TRITON

pytest.importorskip("triton", minversion=OLDEST_TRITON, reason="triton is not installed (Linux only)")

import ebgan_fast
from bench.__main__ import main
from bench.subjects import formulas
from bench.subjects.cases import Case, pulling_away
from bench.timing import devices
from bench.timing.devices import Device
from bench.timing.watches import WallClock
from bench.tuning import knobs, tuner
from bench.tuning.knobs import KNOBS, Entry, Knob
from bench.tuning.tuner import Tuner
from ebgan_fast.ops import backends
from ebgan_fast.ops.backends.triton import launch, tables
from tests import stand_in

from .conftest import Clock

pytestmark = pytest.mark.usefixtures("same_threads")

ARCHITECTURE = "sm_89"  # an architecture without a section of its own
COMMITTED = tables.TABLES.read_text(encoding="utf-8")
IN_USE = json.loads(COMMITTED)["pulling_away"]["default"]["programs"]["count"]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a copy of the tables, and a folder for results, in place of the committed ones."""
    path = tmp_path / "tables.json"
    path.write_text(COMMITTED, encoding="utf-8")
    monkeypatch.setattr(tables, "TABLES", path)
    monkeypatch.setattr(tables, "architecture", lambda device: ARCHITECTURE)
    monkeypatch.setattr(devices, "RESULTS", tmp_path / "results")
    return path


@pytest.fixture(autouse=True)
def _triton_can_run() -> Iterator[None]:
    with stand_in.backend("triton", takes="cuda"):
        yield


@pytest.fixture
def device() -> Device:
    return Device(torch.device("cpu"), {"replayed": WallClock()}, "a-gpu", "triton")


@pytest.fixture
def knob(clock: Clock) -> Callable[..., Knob]:
    """Return a function that makes a knob for counts of programs, each with its cost in units of 10 ms.

    The count `broken` raises an error, and the results of the count `wrong` are 1 % off.
    """

    def make(costs: dict[int, float], wrong: int | None = None, broken: int | None = None) -> Knob:
        case = pulling_away(8, 32)

        def package(code: torch.Tensor) -> torch.Tensor:
            count = tables.gram_programs(ARCHITECTURE)
            if count == broken:
                raise RuntimeError("out of resource: shared memory\nand many more lines")
            clock.now += 0.01 * costs[count]
            return formulas.pulling_away_term(code) * (1.01 if count == wrong else 1.0)

        case = Case(case.op, case.shape, case.inputs, case.formula, package, case.work)
        return Knob("pulling_away", ("programs",), ({"count": tuple(costs)},), (case,), (torch.float32,))

    return make


def _trials() -> list[dict[str, object]]:
    (path,) = devices.RESULTS.glob("tune-*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_faster_entry_is_written_into_the_section_of_the_gpu(
    file: Path, device: Device, knob: Callable[..., Knob], capsys: pytest.CaptureFixture[str]
) -> None:
    Tuner(device, 3, None).turn(knob({16: 0.9, 32: 0.8, IN_USE: 1.0, 256: 1.1}))
    written, before = json.loads(file.read_text()), json.loads(COMMITTED)
    programs = written["pulling_away"].pop(ARCHITECTURE)["programs"]
    assert written == before
    assert programs["count"] == 32
    assert programs["why"].startswith(f"measured: 0.80 of the time of count {IN_USE} (")
    assert "0.80 of its time" in capsys.readouterr().out
    first = _trials()[:4]
    assert [trial["tile"] for trial in first] == [{"count": count} for count in (IN_USE, 16, 32, 256)]
    assert [trial["ratio"] for trial in first] == pytest.approx([1.0, 0.9, 0.8, 1.1])
    assert [trial["seconds"] for trial in first] == pytest.approx([0.01, 0.009, 0.008, 0.011])
    assert first[0]["case"] == "pulling_away_term 8x32 float32"
    assert {"source_hash", "versions", "date"} <= first[0].keys()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [({"wrong": 32}, "loss is off"), ({"broken": 32}, "cannot run: RuntimeError: out of resource: shared memory")],
)
def test_an_entry_that_is_wrong_or_cannot_run_is_never_chosen(
    file: Path, device: Device, knob: Callable[..., Knob], settings: dict[str, int], complaint: str
) -> None:
    Tuner(device, 3, None).turn(knob({16: 0.9, 32: 0.1, IN_USE: 1.0}, **settings))
    assert json.loads(file.read_text())["pulling_away"][ARCHITECTURE]["programs"]["count"] == 16
    (trial,) = [trial for trial in _trials() if trial["tile"] == {"count": 32}]
    assert trial["seconds"] is trial["ratio"] is None
    assert str(trial["complaint"]).startswith(complaint)


def test_two_percent_are_not_worth_an_entry(file: Path, device: Device, knob: Callable[..., Knob]) -> None:
    Tuner(device, 3, None).turn(knob({32: 0.985, IN_USE: 1.0}))
    assert file.read_text() == COMMITTED


def test_what_is_faster_only_once_is_not_kept(
    file: Path, device: Device, knob: Callable[..., Knob], capsys: pytest.CaptureFixture[str]
) -> None:
    tuner, ratios = Tuner(device, 1, None), [[1.0, 0.5], [1.0, 1.02]]
    with mock.patch.object(tuner, "ratios", side_effect=ratios):
        tuner.turn(knob({32: 1.0, IN_USE: 1.0}))
    assert file.read_text() == COMMITTED
    assert f"stays count {IN_USE}" in capsys.readouterr().out


def test_an_entry_in_use_that_is_wrong_stops_the_tuner(file: Path, device: Device, knob: Callable[..., Knob]) -> None:
    with pytest.raises(ValueError, match=rf"pulling_away programs: the entry in use, .*{IN_USE}.* right results"):
        Tuner(device, 1, None).turn(knob({32: 0.5, IN_USE: 1.0}, wrong=IN_USE))
    assert file.read_text() == COMMITTED


def test_descent_turns_one_group_after_the_other_until_nothing_is_faster() -> None:
    """The search finds the best entry, although the best of the second group depends on the first group."""
    groups = ({"block": (32, 64, 128), "num_warps": (4, 8)}, {"block_k": (16, 32), "num_stages": (1, 2)})
    knob = Knob("pulling_away", ("gram", "float32"), groups, (), ())
    seen: list[int] = []

    def seconds(entry: Entry) -> float:
        return 8.0 - (entry["block"] == 64) * (1 + (entry["block_k"] == 32)) - (entry["num_stages"] == 2)

    def ratios(entries: list[Entry]) -> list[float | None]:
        seen.append(len(entries))
        return [seconds(entry) / seconds(entries[0]) for entry in entries]

    start = {"block": 128, "num_warps": 8, "block_k": 16, "num_stages": 1, "why": "a reason"}
    found = tuner.descend(knob, start, ratios)
    assert found == {"block": 64, "num_warps": 4, "block_k": 32, "num_stages": 2, "why": "a reason"}
    assert seen == [5, 4, 5, 4]


@pytest.fixture
def a_gpu(file: Path, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu", lambda: device)


@pytest.mark.usefixtures("a_gpu", "cpu_backend")
def test_the_command_writes_the_file_that_it_is_told_to(
    file: Path,
    tmp_path: Path,
    knob: Callable[..., Knob],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("bench.commands.tune.KNOBS", (knob({32: 0.5, IN_USE: 1.0}),))
    out = tmp_path / "mine.json"
    assert main(["tune", "--only", "programs", "--rounds", "1", "--out", str(out)]) == 0
    assert file.read_text() == COMMITTED
    assert json.loads(out.read_text())["pulling_away"][ARCHITECTURE]["programs"]["count"] == 32
    assert str(out.name) in capsys.readouterr().out


@pytest.mark.usefixtures("a_gpu")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "nothing"), "only: got 'nothing', expected a part of one of: energy rows 0; "),
        (("--rounds", "0"), "rounds: got 0, expected at least 1"),
        (("--out", "/no/such/folder/tables.json"), "out: got /no/such/folder/tables.json"),
    ],
    ids=["only", "rounds", "out"],
)
def test_a_mistake_ends_in_one_line(arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.usefixtures("a_gpu", "cpu_backend")
def test_entries_come_in_the_order_they_are_asked_for_until_the_time_is_up(
    knob: Callable[..., Knob], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now, turned = [100.0], []
    monkeypatch.setattr("bench.commands.tune.time", SimpleNamespace(monotonic=lambda: now[0]))
    knobs_there = [dataclasses.replace(knob({IN_USE: 1.0}), path=(name,)) for name in ("a", "b", "c", "d")]
    monkeypatch.setattr("bench.commands.tune.KNOBS", knobs_there)

    def turn(self: Tuner, knob: Knob) -> None:
        turned.append(knob.path[0])
        now[0] += 6.0
        if knob.path == ("c",):
            raise ValueError("the entry in use is wrong")

    monkeypatch.setattr(Tuner, "turn", turn)
    arguments = ["tune", "--only", "c", "a", "pulling", "--seconds", "10", "--out", str(tmp_path / "mine.json")]
    assert main(arguments) == 1
    assert turned == ["c", "a"]
    said = capsys.readouterr()
    assert "tuned 2 of 4 entries, 0 of them anew" in said.out
    assert "the entry in use is wrong" in said.err


def test_fewer_cases_and_sweeps_try_less(file: Path, device: Device, knob: Callable[..., Knob], tmp_path: Path) -> None:
    one = knob({16: 0.9, IN_USE: 1.0})
    twice = dataclasses.replace(one, cases=2 * one.cases, groups=2 * one.groups)
    tried = {}
    for name, settings in {"all": {}, "one case": {"cases": 1}, "one sweep": {"sweeps": 1}}.items():
        path = tmp_path / f"{name}.jsonl"
        Tuner(device, 1, tmp_path / "mine.json", trials=path, **settings).turn(twice)
        tried[name] = len(path.read_text().splitlines())
    # Two groups of two tiles, in two sweeps, then two tiles for the confirmation. In the second sweep the best tile is
    # in use.
    assert tried == {"all": 2 * (2 + 2 + 2 + 2 + 2), "one case": 2 + 2 + 2 + 2 + 2, "one sweep": 2 * (2 + 2 + 2)}


def test_everything_is_compiled_before_any_of_it_is_timed(
    file: Path, device: Device, knob: Callable[..., Knob], clock: Clock
) -> None:
    one = knob({16: 0.9, 32: 0.8, IN_USE: 1.0})
    ahead: list[tuple[float, list[int], int]] = []

    def compile_ahead(contestants: Sequence[knobs.Tables], settings: Sequence[object]) -> None:
        counts = [it["pulling_away"][ARCHITECTURE]["programs"]["count"] for it in contestants]
        ahead.append((clock.now, counts, len(settings)))

    Tuner(device, 1, None, compile_ahead=compile_ahead).turn(one)
    assert ahead[0] == (0.0, [IN_USE, 16, 32], 1)
    assert [counts for _, counts, _ in ahead[1:]] == [[IN_USE, 32]]


def test_a_compiler_runs_the_case_under_the_tables(knob: Callable[..., Knob], monkeypatch: pytest.MonkeyPatch) -> None:
    """The case runs under each table. An error of a tile is ignored here, as the timing reports it."""
    seen: list[int] = []
    one = knob({32: 0.5, IN_USE: 1.0})
    (case,) = one.cases

    def package(code: torch.Tensor) -> torch.Tensor:
        seen.append(tables.gram_programs(ARCHITECTURE))
        if seen[-1] == 32:
            raise RuntimeError("out of resource")
        return formulas.pulling_away_term(code)

    mine = dataclasses.replace(case, package=package)
    monkeypatch.setattr("bench.tuning.tuner.KNOBS", (knob({IN_USE: 1.0}), dataclasses.replace(one, cases=(case, mine))))
    assert tuner.place_of(mine) == (1, 1)
    for count in (32, IN_USE):
        turned = one.turned(json.loads(COMMITTED), ARCHITECTURE, {"count": count, "why": ""})
        tuner.run_once(turned, (1, 1), torch.float32, "cpu")
    assert seen == [32, IN_USE]


def test_triton_s_kernels_are_tuned_where_another_backend_is_the_first_choice(
    file: Path, device: Device, knob: Callable[..., Knob], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Triton's kernels run in the processes that compile and in the process that times."""
    asked: list[str] = []
    monkeypatch.setattr(devices, "gpu", lambda: dataclasses.replace(device, backend="cuda", others=("triton",)))
    one = knob({32: 0.5, IN_USE: 1.0})
    (case,) = one.cases

    def package(code: torch.Tensor) -> torch.Tensor:
        asked.append(backends.requested())
        return case.package(code=code)

    mine = dataclasses.replace(one, cases=(dataclasses.replace(case, package=package),))
    monkeypatch.setattr("bench.commands.tune.KNOBS", (mine,))
    monkeypatch.setattr("bench.tuning.tuner.KNOBS", (mine,))
    trials = tmp_path / "trials.jsonl"
    assert main(["tune", "--rounds", "1", "--out", str(tmp_path / "mine.json"), "--trials", str(trials)]) == 0
    tuner.run_once(json.loads(COMMITTED), (0, 0), torch.float32, "cpu")
    assert len(asked) > 4
    assert set(asked) == {"triton"}
    assert json.loads(trials.read_text().splitlines()[0])["seconds"] is not None


@pytest.mark.usefixtures("file")
def test_without_triton_the_tuner_ends_in_one_line(
    device: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "gpu", lambda: dataclasses.replace(device, backend="cuda"))
    assert main(["tune"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "expected one that can run (a stand-in)" in line


def _die(*arguments: object) -> None:
    os._exit(1)


@pytest.mark.slow
def test_a_compiler_that_dies_keeps_nothing_from_being_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuner, "run_once", _die)
    case = KNOBS[0].cases[0]
    with tuner.Compilers(1) as compilers:
        for _ in range(2):  # a broken pool refuses the second call
            compilers.compile([json.loads(COMMITTED)], [(case, torch.float32)])


def test_the_committed_tables_are_as_the_tuner_writes_them() -> None:
    assert knobs.dump(json.loads(COMMITTED)) + "\n" == COMMITTED


@pytest.mark.parametrize("architecture", ["default", "sm_90", "gfx942"])
def test_every_entry_but_float64s_has_a_knob(architecture: str) -> None:
    whole = json.loads(COMMITTED)
    turned = [id(knob.current(whole, architecture)) for knob in KNOBS]

    def entries(value: object, path: str) -> Iterator[tuple[str, int]]:
        if isinstance(value, dict) and "why" in value:
            yield path, id(value)
        elif isinstance(value, (dict, list)):
            for key, below in value.items() if isinstance(value, dict) else enumerate(value):
                yield from entries(below, f"{path} {key}")

    names = set(whole["pulling_away"]["default"]) | set(whole["energy"]["default"])
    sections = {name: knobs.section_of(whole[op], architecture, name) for op in whole for name in whole[op]["default"]}
    assert sections.keys() == names
    found = [entry for name, section in sections.items() for entry in entries(section, name)]
    assert sorted(turned) == sorted(entry for path, entry in found if "float64" not in path)


@contextlib.contextmanager
def _recorded() -> Iterator[list[launch.Launch]]:
    """Give a list that notes launches on CPU tensors, which are not run."""
    launches: list[launch.Launch] = []
    with (
        mock.patch.object(launch, "run", launches.append),
        stand_in.backend("triton"),
        ebgan_fast.use_backend("triton"),
    ):
        yield launches


def _configurations(knob: Knob, chosen: knobs.Tables) -> list[tuple[object, ...]]:
    """Return the launches of the knob's cases: kernel, grid, warps, stages and constants."""
    with tables.replaced(chosen), _recorded() as launches:
        for case in knob.cases:
            arguments = case.inputs(knob.dtypes[0])
            inputs = [value for value in arguments.values() if isinstance(value, torch.Tensor) and value.requires_grad]
            torch.autograd.grad(case.package(**arguments), inputs)
    return [
        (it.kernel, it.grid, it.num_warps, it.num_stages, *(v for k, v in it.arguments.items() if k.isupper()))
        for it in launches
    ]


@pytest.mark.slow  # all knobs take 5 s
@pytest.mark.parametrize("number", range(len(KNOBS)), ids=[knob.name for knob in KNOBS])
def test_a_knob_turns_the_launches_of_its_cases(number: int) -> None:
    knob, committed = KNOBS[number], json.loads(COMMITTED)
    start = knob.current(committed, "default")
    in_use = _configurations(knob, committed)
    for field in {name for group in knob.groups for name in group}:
        turned = [other for group in knob.alternatives(start) for other in group if other[field] != start[field]]
        assert turned, field
        differs = [_configurations(knob, knob.turned(committed, "default", other)) != in_use for other in turned[:2]]
        assert any(differs), field


def test_other_tables_are_forgotten_after_their_block() -> None:
    other = json.loads(COMMITTED)
    other["pulling_away"]["default"]["programs"]["count"] = 7
    assert tables.gram_programs("default") == IN_USE
    with contextlib.suppress(RuntimeError), tables.replaced(other):
        assert tables.gram_programs("default") == 7
        raise RuntimeError
    assert tables.gram_programs("default") == IN_USE

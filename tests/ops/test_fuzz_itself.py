"""The differential test itself: it finds planted bugs, covers every kind of call, and rounds as IEEE 754 does."""

from __future__ import annotations

import ast
import functools
import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

import ebgan_fast
from ebgan_fast import functional

from .fuzz import __main__ as command
from .fuzz import drawing, energies, pulling_away, ranges
from .fuzz.bugs import BUGS, by_threads
from .fuzz.checking import given, problems, run
from .fuzz.drawing import FORMATS, NORMS, OPS, Case, draw
from .fuzz.layouts import LAYOUTS, laid_out, memory, negative_view
from .fuzz.pulling_away import PullingAway
from .fuzz.ranges import FLOAT32, FLOAT64, Range
from .fuzz.running import Run
from .fuzz.traits import EXPECTED, chosen, layouts_of, scale_of, traits

pytestmark = pytest.mark.slow

BACKEND = "cpu" if ebgan_fast.backends()["cpu"].available else "reference"

# ---- The bugs that it finds


def _outcome(case: Case) -> list[Tensor]:
    """Return the results of a call on two threads, and the memory of its input tensors after the call."""
    was = torch.get_num_threads()  # a worker beside others has one thread
    torch.set_num_threads(2)
    try:
        results = [tensor.resolve_neg().double() for tensor in run(case, BACKEND).values()]
    finally:
        torch.set_num_threads(was)
    return [*results, *(memory(tensor) for tensor in given(case).values())]


@functools.cache
def _outcomes(op: str) -> dict[int, list[Tensor]]:
    """Return the outcomes of 24 small cases of an op, by seed; each of them passes without a bug.

    The largest cases have enough elements to give a second thread work.
    """
    cases = (case for case in map(draw, itertools.count()) if case.op == op)
    small = (case for case in cases if sum(tensor.numel() for tensor in case.tensors.values()) <= 3000)
    right = (case.seed for case in small if not problems(case, BACKEND))
    return {seed: _outcome(draw(seed)) for seed in itertools.islice(right, 24)}


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted bug is found in most of the cases in which it changes a number.

    In the other cases it may be harmless: the change stays within rounding, or the number is 0 but for rounding.
    """
    op, bug = BUGS[name]
    if bug is by_threads and BACKEND == "reference":
        pytest.skip("torch's own sums may depend on the number of threads")
    right, outcomes = getattr(ebgan_fast, op), _outcomes(op)
    monkeypatch.setattr(ebgan_fast, op, lambda **given: bug(right, given))
    changed, seen = 0, 0
    for seed, expected in outcomes.items():
        got = _outcome(draw(seed))
        if all(torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)) for a, b in zip(expected, got, strict=True)):
            continue
        if bug is by_threads and len(draw(seed).threads) == 1:  # one thread leaves nothing to compare
            continue
        changed += 1
        with np.errstate(all="ignore"):
            seen += bool(problems(draw(seed), BACKEND))
    assert 2 * seen > changed, f"{seen} of {changed}"


# ---- The calls that it covers


def test_the_same_integer_gives_the_same_case() -> None:
    for seed in range(40):
        one, other = draw(seed), draw(seed)
        assert str(one) == str(other)
        for name, tensor in one.tensors.items():
            assert tensor.stride() == other.tensors[name].stride()
            assert torch.equal(tensor.nan_to_num(7.0), other.tensors[name].nan_to_num(7.0))


def test_every_op_and_norm_is_drawn() -> None:
    assert set(OPS) == {name for name in functional.__all__ if name.islower()}
    assert set(NORMS) == set(get_args(functional.Norm))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_what_its_name_says(layout: str) -> None:
    rng = np.random.default_rng(0)
    for shape in ((3,), (3, 4), (3, 2, 4, 5), (3, 2, 2, 4, 5), (3, 1), (0, 3)):
        values = torch.arange(1.0, 1 + int(np.prod(shape))).reshape(shape)
        tensor, name = laid_out(values, layout, rng)
        assert name in (layout, "contiguous")
        assert not tensor.numel() or name in layouts_of(tensor)
        if not name.startswith(("expanded", "windows")):
            assert torch.equal(tensor, values)
        negative = negative_view(tensor)
        assert negative.is_neg()
        assert torch.equal(negative, tensor)
        assert (negative.stride(), negative.storage_offset()) == (tensor.stride(), tensor.storage_offset())
    assert laid_out(torch.zeros(3, 2, 4, 5), layout, rng)[1] == layout


def test_the_scale_of_a_code() -> None:
    code = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    assert scale_of(code) == "plain"
    assert scale_of(code * 2.0**100) == scale_of(code * 2.0**-100) == "any"
    assert scale_of(code * torch.tensor([[2.0**100], [2.0**-100], [1.0]])) == "rows"
    assert scale_of(code * 0) is None


# Only for float64: values of kind "wide" span the range of the other types, but not float64's.
_FAR = set(itertools.product(("any", "rows"), (torch.float64,), ("primal", "dual")))


@pytest.mark.parametrize(
    ("part", "identity", "lost"),
    [
        ("laid_out", lambda values, layout, rng: (values, layout), set(LAYOUTS) - {"contiguous"}),
        ("negative_view", lambda values: values, {"negative_view"}),
        ("_scaled", lambda rng, values, scale, own: values, _FAR | set(itertools.product(["not_finite"], FORMATS))),
    ],
)
def test_what_is_not_drawn_is_missed(
    part: str, identity: Callable[..., Any], lost: set[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, part, identity)
    found = {trait for seed in range(200) for trait in traits(draw(seed))}
    assert lost <= EXPECTED - found


def test_a_choice_of_cases_meets_what_its_first_lack() -> None:
    def is_odd(case: Case) -> bool:
        return case.seed % 2 == 1

    assert [case.seed for case in chosen(3, is_odd, frozenset())] == [1, 3, 5]
    cases = chosen(3, is_odd, frozenset(LAYOUTS))
    assert [case.seed for case in cases[:3]] == [1, 3, 5]
    assert all(map(is_odd, cases))
    found = {trait for case in cases[:3] for trait in traits(case)}
    for case in cases[3:]:
        assert not set(LAYOUTS).intersection(traits(case)) <= found
        found.update(traits(case))
    assert set(LAYOUTS) <= found


# ---- The formulas


def test_the_formulas_share_nothing_with_the_package() -> None:
    for module in (energies, pulling_away, ranges):
        tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
        names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        names += [str(node.module) for node in froms if node.level == 0]
        assert {name.split(".")[0] for name in names} <= {"numpy", *sys.stdlib_module_names}
        assert {(node.level, node.module) for node in froms if node.level} <= {(1, "ranges")}


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_a_format_is_the_types(dtype: torch.dtype) -> None:
    own, limits = FORMATS[dtype], torch.finfo(dtype)
    assert (2 * own.unit, own.smallest, own.largest) == (limits.eps, limits.smallest_normal, limits.max)
    assert own.step == limits.smallest_normal * limits.eps


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_range_holds_what_torch_rounds_to_and_little_more(dtype: torch.dtype) -> None:
    own, rng = FORMATS[dtype], np.random.default_rng(0)
    exponents = rng.integers(own.bottom - own.digits, own.top, 20_000)
    values = np.ldexp(rng.uniform(0.5, 1.0, exponents.size) * rng.choice((-1, 1), exponents.size), exponents)
    rounded = torch.from_numpy(values).to(dtype).double().numpy()
    right = Range.exactly(values).rounded(own)
    assert not right.lacks(rounded).any()
    spacing = np.maximum(np.ldexp(2 * own.unit, exponents - 1), own.step)
    for numbers_further in (-3, 3):
        assert right.lacks(rounded + numbers_further * spacing).all()


def test_the_term_at_any_scale() -> None:
    code = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, -1.0]])
    for power in (-1000, 0, 1000):
        for form in ("primal", "dual", "projected"):
            truth = PullingAway(np.ldexp(code, power), FLOAT64, form)
            assert not truth.value().lacks(np.float64(1 / 3))
            assert truth.value().lacks(np.float64(1 / 3 + 1e-12))
            assert not truth.gradient(1.0).lacks(np.zeros((3, 2))).any()


def test_the_gradient_at_any_scale() -> None:
    """The term of two codes is cos^2 of their angle, so at 45 degrees its slope is -1 divided by each code's length."""
    code = np.array([[1.0, 0.0], [1.0, 1.0]])
    expected = np.array([[0.0, 1.0], [0.5, -0.5]])
    for power in (-1000, 0, 1000):
        found = PullingAway(np.ldexp(code, power), FLOAT64, "primal").gradient(1.0)
        assert not found.lacks(np.ldexp(expected, -power)).any()
        assert found.lacks(np.ldexp(expected * (1 + 1e-12), -power))[expected != 0].all()


def test_an_energy_that_may_be_out_of_range() -> None:
    large, small = np.full((1, 2), 1e30), np.full((1, 2), 1e-30)
    zeros = np.zeros((1, 2))
    of_large, of_small = energies.energy(large, zeros, "l2", FLOAT32), energies.energy(small, zeros, "l2", FLOAT32)
    assert not of_large.lacks(np.array([np.inf])).any()
    assert not of_small.lacks(np.array([0.0])).any()
    assert of_small.lacks(np.array([np.inf])).all()
    for right, wrong in ((of_large, 1e29), (of_small, 1e-15)):
        assert right.lacks(np.array([wrong])).all()


# ---- The command


def test_what_the_command_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--isa", "avx9"]) == 2
    assert "--isa: got 'avx9', expected one of" in capsys.readouterr().err
    assert command.main(["--minutes", "0"]) == 2
    assert "--minutes: got 0.0, expected more than 0" in capsys.readouterr().err


def test_a_case_is_shown_with_its_verdict(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seed = next(seed for seed in itertools.count() if draw(seed).op == "hinge_margin_loss")
    arguments = ["--case", str(seed), "--isa", "reference"]
    assert command.main(arguments) == 0
    assert f"case {seed} on reference: hinge_margin_loss" in capsys.readouterr().out
    right = ebgan_fast.hinge_margin_loss
    monkeypatch.setattr(ebgan_fast, "hinge_margin_loss", lambda **given: right(**given) * 2)
    assert command.main(arguments) == 1
    assert "value[]: got" in capsys.readouterr().out


def test_a_process_that_dies_is_no_success(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def die(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command[-1])
        return subprocess.CompletedProcess(command, -11 if command[-1] == "first" else 0)

    monkeypatch.setattr(command, "_sets", lambda: ["first", "second"])
    monkeypatch.setattr(command.subprocess, "run", die)
    assert command.main(["--case", "5"]) == 1
    assert asked == ["first", "second"]
    assert "case 5 on first: the process ended with status -11" in capsys.readouterr().out


def test_a_set_without_a_case_is_no_success(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_case(run: Run, seconds: float, first: int) -> None:
        run.tally.cases["an_op", "float32", "first"] += 1

    monkeypatch.setattr(command, "_sets", lambda: ["first", "second"])
    monkeypatch.setattr(Run, "__call__", one_case)
    assert command.main(["--minutes", "0.05"]) == 1
    assert capsys.readouterr().err == "fuzz: no case ran on second in 0.05 minutes\n"
    assert command.main(["--minutes", "0.05", "--isa", "first"]) == 0


# A worker that starts at 5 passes one case, fails one and dies in a third. One that starts at 20 hangs. All others pass
# one case and end.
WORKER = """
import json, os, sys, time
first = int(sys.argv[2])
say = lambda **it: print(json.dumps(it), flush=True)
done = lambda seed, found: say(seed=seed, op="an_op", dtype="float32", found=found)
if first == 5:
    done(5, [])
    done(6, ["value: got 1, expected 2", "gradient: got 3, expected 4"])
    say(seed=7)
    os._exit(3)
if first == 20:
    say(seed=20)
    time.sleep(600)
done(first, [])
"""
COMMAND = ("-I", "-S", "-c", WORKER)  # without site-packages the interpreter starts at once


def test_a_turn_goes_on_behind_what_failed() -> None:
    said: list[str] = []
    run = Run(["one"], said.append, COMMAND)
    assert run._turn("one", 5, 1e12) == 9
    wrong, died = run.tally.failed
    assert "an_op float32 value: got 1, expected 2 (and 1 more) | python -m tests.ops.fuzz --case 6 --isa one" in wrong
    assert "the process ended with status 3 | python -m tests.ops.fuzz --case 7 --isa one" in died
    assert run.tally.cases == {("an_op", "float32", "one"): 3}
    assert said[:2] == [wrong, died]
    assert "3 cases, 2 failed" in said[2]
    assert str(run.tally).endswith("fuzz: 3 cases, 2 failed")


def test_a_turn_goes_on_behind_what_hangs() -> None:
    run = Run(["one"], lambda line: None, COMMAND, silence=1.0)
    assert run._turn("one", 20, 1e12) == 22
    (hung,) = run.tally.failed
    assert "the process said nothing for 1 s | python -m tests.ops.fuzz --case 20 --isa one" in hung
    assert run.tally.of("one") == 1


def test_a_run_gives_every_set_its_turn() -> None:
    turns: list[str] = []

    class Turns(Run):
        def _turn(self, isa: str, first: int, until: float) -> int:
            turns.append(isa)
            assert first == 4 + len(turns)
            time.sleep(max(0.0, until - time.time()))
            return first + 1

    Turns(["one", "other"], turns.append)(0.02, 5)
    assert turns[:2] == ["one", "other"]


def test_a_worker_that_cannot_begin_ends_the_turn() -> None:
    run = Run(["one"], lambda line: None, ("-c", "import os; os._exit(9)"))
    run._turn("one", 5, 1e12)
    (line,) = run.tally.failed
    assert "the process ended with status 9" in line

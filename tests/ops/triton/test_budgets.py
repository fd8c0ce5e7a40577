"""The resources of every kernel on every target stay within the committed budgets.

After a wanted change, `python -m tests.ops.triton.test_budgets [NAME ...]` writes the budgets again: all, or those of
the named calls. Read the difference before you commit it. gpuless/tests/test_resources.py plants a regression for each
kind of budget.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.older_versions import OLDEST_TRITON

pytest.importorskip("triton", minversion=OLDEST_TRITON, reason="triton is not installed (Linux only)")

import triton

from gpuless.resources import Resources, budget_of, measure_all, read_budgets, violations, write_budgets

from .compiling import TARGETS, compile_launch
from .shapes import calls
from .stand_ins import recorded

RELEASE = "3.9"
FILE = Path(__file__).with_name("budgets.json")
NAMES = [name for name, _ in calls()]
BUDGETS = read_budgets(FILE) if FILE.exists() else {}
# The most common GPUs. Before a release, the kernels are compiled for the others too: `pytest --release`.
ALWAYS = ("sm_80", "sm_90")


@functools.cache
def _measured(names: tuple[str, ...], target: str) -> dict[str, Resources]:
    """Return the resources of each launch of these calls, by "call | kernel | target"."""
    found = {}
    for name in names:
        with recorded(target) as launches:
            dict(calls())[name]()
        for launch in launches:
            artifact = compile_launch(launch, target)
            found[f"{name} | {artifact.name} | {target}"] = artifact
    return dict(zip(found, measure_all(list(found.values())), strict=True))


@pytest.fixture
def measured(request: pytest.FixtureRequest, target: str) -> dict[str, Resources]:
    """Measure all calls that are tested for a target at once, as each run of the disassembler costs its start."""
    wanted = test_within_the_budget.__name__
    tests = [item for item in request.session.items if getattr(item, "originalname", None) == wanted]
    return _measured(tuple(dict.fromkeys(item.callspec.params["name"] for item in tests)), target)


def _of_one_worker(target: str) -> object:
    group = [pytest.mark.xdist_group(f"budgets for {target}")]
    return pytest.param(target, marks=group if target in ALWAYS else [*group, pytest.mark.release])


@pytest.mark.slow
@pytest.mark.skipif(not triton.__version__.startswith(RELEASE), reason=f"budgets are of Triton {RELEASE}'s compiler")
@pytest.mark.parametrize("target", [_of_one_worker(target) for target in TARGETS])
@pytest.mark.parametrize("name", NAMES)
def test_within_the_budget(name: str, target: str, measured: dict[str, Resources]) -> None:
    found = {key: resources for key, resources in measured.items() if key.startswith(f"{name} | ")}
    assert found
    broken = [f"{key}: {line}" for key, resources in found.items() for line in violations(resources, BUDGETS[key])]
    assert not broken, "\n".join(broken)


# On gfx942 a thread has 32 rows of a tile, with a length and a scale for each, which take 167 registers. This was never
# timed.
SPILLED = {f"pulling-away {shape} bfloat16 | primal_gradient | gfx942": 2 for shape in ("128x16384", "512x1024")}


def test_no_budget_allows_what_is_never_right() -> None:
    """No recorded budget allows spills, a stack, float atomics or other things that are never right.

    A budget records what a kernel took. These limits hold for every record.
    """
    assert BUDGETS
    for key, budget in BUDGETS.items():
        assert budget["spills"] <= SPILLED.get(key, 0), key
        assert budget["stack"] == 0, key
        assert budget["float_atomics"] == 0, key
        assert budget["occupancy"] > 0, key
        if "gram_matrix" in key or "primal_gradient" in key or "dual_gradient" in key:
            assert budget["tensor_core"] > 0, key
        if ("loss_by" in key or "energy_gradient" in key) and " 64 " not in key:  # 64 are too few for wide loads
            assert budget["wide_loads"] > 0, key


def test_every_budget_is_of_a_call() -> None:
    assert {key.split(" | ")[0] for key in BUDGETS} == set(NAMES)


def record(names: Sequence[str]) -> None:
    """Write the budgets that the kernels just meet."""
    kept = {key: budget for key, budget in BUDGETS.items() if key.split(" | ")[0] not in names}
    found = {key: budget_of(it) for target in TARGETS for key, it in _measured(tuple(names), target).items()}
    write_budgets(FILE, {**kept, **found})


if __name__ == "__main__":
    record(sys.argv[1:] or NAMES)

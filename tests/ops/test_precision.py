"""Each switch of torch that allows tf32 is obeyed. Every case has its own process, as some switches cannot be reset."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from ebgan_fast.ops.backends import gpu
from tests.older_versions import reads_sources
from tests.programs import printed

LEGACY = "torch.set_float32_matmul_precision({!r})"
ALL = "torch.backends.fp32_precision = {!r}"
MATMUL = "torch.backends.cuda.matmul.fp32_precision = {!r}"
CASES = [
    ((), False),
    ((LEGACY.format("highest"),), False),
    ((LEGACY.format("high"),), True),
    ((LEGACY.format("medium"),), True),
    (("torch.backends.cuda.matmul.allow_tf32 = True",), True),
    ((ALL.format("tf32"),), True),
    ((ALL.format("ieee"),), False),
    ((MATMUL.format("tf32"),), True),
    ((MATMUL.format("ieee"),), False),
    # The narrower switch wins, unless it is "none".
    ((ALL.format("tf32"), MATMUL.format("ieee")), False),
    ((ALL.format("ieee"), MATMUL.format("tf32")), True),
    ((ALL.format("tf32"), MATMUL.format("none")), True),
    # Both kinds of switches in one program: the switch of matrix products wins.
    ((LEGACY.format("high"), MATMUL.format("ieee")), False),
    ((LEGACY.format("highest"), MATMUL.format("tf32")), True),
    ((MATMUL.format("tf32"), LEGACY.format("highest")), False),
]
has_switches = pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason=f"torch {torch.__version__} has no fp32_precision"
)

# Runs each case's statements in a forked child, and prints what gpu.allows_tf32() and backend triton then say: one line
# of JSON for each case.
PROGRAM = """
import json, os, sys
import torch
from ebgan_fast.ops.backends import gpu
try:
    from ebgan_fast.ops.backends.triton import pulling_away
except ModuleNotFoundError:
    pulling_away = None
for statements in json.loads(sys.argv[1]):
    if os.fork():
        os.wait()
        continue
    try:
        exec(statements)
        by_triton = pulling_away and pulling_away.float32_precision("sm_90") == "tf32"
        print(json.dumps([statements, gpu.allows_tf32(), by_triton]), flush=True)
    except BaseException as error:
        print(json.dumps([statements, repr(error), None]), flush=True)
    finally:
        os._exit(0)
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, tuple[object, object]]:
    asked = ["\n".join(statements) for statements, _ in CASES]
    lines = printed(PROGRAM, json.dumps(asked)).splitlines()
    return {statements: (said, by_triton) for statements, said, by_triton in map(json.loads, lines)}


@has_switches
@pytest.mark.slow
@pytest.mark.xdist_group("precision")  # one worker starts the process
@pytest.mark.parametrize(
    ("statements", "allowed"), CASES, ids=lambda it: "; ".join(it) if isinstance(it, tuple) else ""
)
def test_every_switch_is_heard(
    answers: dict[str, tuple[object, object]], statements: tuple[str, ...], allowed: bool
) -> None:
    said, by_triton = answers["\n".join(statements)]
    assert said is allowed
    assert by_triton in (allowed, None)


@pytest.mark.parametrize(("word", "allowed"), [("highest", False), ("high", True), ("medium", True)])
def test_an_older_torch_has_the_function_alone(word: str, allowed: bool) -> None:
    with (
        mock.patch.object(torch.backends.cuda, "matmul", SimpleNamespace()),
        mock.patch.object(torch, "get_float32_matmul_precision", return_value=word),
    ):
        assert gpu.allows_tf32() is allowed


@reads_sources
def test_nobody_else_asks_the_function_that_may_raise() -> None:
    root = Path(gpu.__file__).parents[3]
    asking = [
        path.relative_to(root).as_posix()
        for folder in ("ebgan_fast", "bench", "examples")
        for path in (root / folder).rglob("*.py")
        if "get_float32_matmul_precision" in path.read_text(encoding="utf-8")
    ]
    # bench/results/tf32.py also works beside packages of other commits. It restores both sets of switches and handles
    # the error.
    assert sorted(asking) == ["bench/results/tf32.py", "ebgan_fast/ops/backends/gpu.py"]

"""Which backend runs, and what is said of those that can't."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

import ebgan_fast
from ebgan_fast.ops import backends, library


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def test_every_backend_has_a_status_with_a_reason() -> None:
    statuses = ebgan_fast.backends()
    assert list(statuses) == ["reference", "cpu", "triton", "cuda"]
    assert statuses["reference"].available
    assert all(status.reason for status in statuses.values())


def test_use_backend_reaches_the_op_and_is_undone(monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(library, "_kernel", lambda name, backend: seen.append(backend) or _fail())

    def _fail():
        raise LookupError

    with ebgan_fast.use_backend("reference"):
        ebgan_fast.pulling_away_term(torch.ones(2, 2))
        assert seen == []
    if ebgan_fast.backends()["cpu"].available:
        with pytest.raises(LookupError), ebgan_fast.use_backend("cpu"):
            ebgan_fast.pulling_away_term(torch.ones(2, 2))
        assert seen == ["cpu"]
    assert backends._requested == os.environ.get("EBGAN_FAST_BACKEND", "auto")


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="got backend 'gpu', expected one of 'auto', 'reference', 'cpu'"):
        ebgan_fast.use_backend("gpu").__enter__()  # type: ignore[arg-type]


def test_an_unavailable_backend_says_why() -> None:
    missing = [name for name, status in ebgan_fast.backends().items() if not status.available]
    assert missing
    for name in missing:
        with (
            pytest.raises(ebgan_fast.BackendUnavailableError, match=rf"backend '{name}' cannot run here: "),
            ebgan_fast.use_backend(name),
        ):
            pass


def test_the_environment_variable_chooses() -> None:
    code = "import torch, ebgan_fast; from ebgan_fast.ops import backends; print(backends.choose('cpu'))"
    result = _python(code, EBGAN_FAST_BACKEND="reference")
    assert result.stdout.strip() == "reference"
    result = _python(code, EBGAN_FAST_BACKEND="fastest")
    assert result.returncode != 0
    assert "EBGAN_FAST_BACKEND: got backend 'fastest'" in result.stderr


def test_the_cpu_backend_refuses_other_devices() -> None:
    if not ebgan_fast.backends()["cpu"].available:
        pytest.skip(f"backend cpu: {ebgan_fast.backends()['cpu'].reason}")
    with (
        ebgan_fast.use_backend("cpu"),
        pytest.raises(ValueError, match="got a tensor on 'meta', expected one on 'cpu'"),
    ):
        ebgan_fast.pulling_away_term(torch.ones(2, 2, device="meta"))


def test_auto_runs_other_devices_on_the_reference() -> None:
    assert ebgan_fast.pulling_away_term(torch.ones(2, 2, device="meta")).device.type == "meta"


def test_import_is_light() -> None:
    heavy = ("matplotlib", "PIL", "tyro", "rich", "triton", "torch._dynamo")
    code = (
        "import sys, torch; before = set(sys.modules); import ebgan_fast; "
        f"print([name for name in {heavy} if name in set(sys.modules) - before])"
    )
    assert _python(code).stdout.strip() == "[]"


def test_torch_is_loaded_before_the_extension() -> None:
    code = (
        "import sys, ebgan_fast; names = list(sys.modules); print(names.index('torch') < names.index('ebgan_fast._C'))"
    )
    if not ebgan_fast.backends()["cpu"].available:
        pytest.skip(f"backend cpu: {ebgan_fast.backends()['cpu'].reason}")
    assert _python(code).stdout.strip() == "True"

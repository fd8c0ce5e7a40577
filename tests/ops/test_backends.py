"""The choice of a backend, and the reasons that are given for backends that cannot run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import ebgan_fast
from ebgan_fast import functional
from ebgan_fast.ops import backends, op
from tests import stand_in
from tests.older_versions import needs_triton


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
    monkeypatch.setattr(op, "kernel", lambda name, backend: seen.append(backend) or _fail())

    def _fail():
        raise LookupError

    with ebgan_fast.use_backend("reference"):
        ebgan_fast.pulling_away_term(torch.ones(2, 2))
        assert seen == []
    if ebgan_fast.backends()["cpu"].available:
        with pytest.raises(LookupError), ebgan_fast.use_backend("cpu"):
            ebgan_fast.pulling_away_term(torch.ones(2, 2))
        assert seen == ["cpu"]
    assert backends.requested() == os.environ.get("EBGAN_FAST_BACKEND", "auto")


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="got backend 'gpu', expected one of 'auto', 'reference', 'cpu'"):
        ebgan_fast.use_backend("gpu").__enter__()  # type: ignore[arg-type]


def test_an_unavailable_backend_says_why() -> None:
    missing = [name for name, status in ebgan_fast.backends().items() if not status.available]
    assert missing
    for name in missing:
        with (
            pytest.raises(ebgan_fast.BackendUnavailableError, match=rf"got backend '{name}', which cannot run here: "),
            ebgan_fast.use_backend(name),
        ):
            pass


@pytest.mark.slow
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


@needs_triton
@pytest.mark.slow
def test_the_backend_says_that_it_is_interpreted() -> None:
    status = _python("import ebgan_fast; print(ebgan_fast.backends()['triton'])", TRITON_INTERPRET="1").stdout
    assert "BackendStatus(available=True" in status
    assert "interpreter" in status


@pytest.mark.slow
def test_torch_is_loaded_before_the_extension() -> None:
    code = (
        "import sys, ebgan_fast; names = list(sys.modules); print(names.index('torch') < names.index('ebgan_fast._C'))"
    )
    if not ebgan_fast.backends()["cpu"].available:
        pytest.skip(f"backend cpu: {ebgan_fast.backends()['cpu'].reason}")
    assert _python(code).stdout.strip() == "True"


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Simulate an H100 and an A100 for both GPU backends, and give the file of measured choices, still empty."""
    choices = tmp_path / "first_choice.json"
    choices.write_text("{}")
    monkeypatch.setattr(backends, "FIRST_CHOICE", choices)
    monkeypatch.setattr(backends, "architecture", lambda device: ("sm_90", "sm_80")[device.index])
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    backends.refresh()
    with (
        stand_in.backend("triton", takes="cuda"),
        stand_in.backend("cuda", takes="cuda"),
        ebgan_fast.use_backend("auto"),
    ):
        yield choices
    backends.refresh()


def test_without_a_measurement_triton_is_first(two_gpus: Path) -> None:
    assert [backends.choose("cuda", index) for index in (0, 1)] == ["triton", "triton"]


def test_the_faster_backend_is_first_on_each_gpu(two_gpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_gpus.write_text(json.dumps({"sm_90": {"backend": "cuda", "why": "measured"}}))
    assert [backends.choose("cuda", index) for index in (0, 1)] == ["cuda", "triton"]
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert backends.choose("cuda") == "triton"
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert backends.choose("cuda") == "cuda"


@pytest.mark.parametrize(("missing", "runs"), [("cuda", "triton"), ("triton", "cuda")])
def test_a_faster_backend_that_is_missing_is_not_chosen(two_gpus: Path, missing: str, runs: str) -> None:
    two_gpus.write_text(json.dumps({"sm_90": {"backend": missing, "why": "measured"}}))
    with stand_in.backend(missing, takes="cuda", available=False):
        assert backends.choose("cuda", 0) == runs


def test_triton_in_its_interpreter_takes_no_tensor_of_a_gpu(two_gpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in.backend("triton", takes="cpu"):
        assert backends.choose("cuda", 0) == "cuda"


def test_triton_takes_tensors_of_a_gpu_unless_it_is_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, device in {"1": "cpu", "on": "cpu", "0": "cuda"}.items():
        monkeypatch.setenv("TRITON_INTERPRET", value)
        assert backends.KNOWN["triton"].takes() == device


@pytest.mark.filterwarnings("error")  # torch.compile would warn of a cached function that it traces into
def test_the_choice_is_a_constant_of_compiled_code(two_gpus: Path) -> None:
    two_gpus.write_text(json.dumps({"sm_90": {"backend": "cuda", "why": "measured"}}))

    def step(x: torch.Tensor) -> torch.Tensor:
        return (
            x
            + (10 if backends.choose("cuda", 0) == "cuda" else 20)
            + (1 if backends.choose("cuda", 1) == "cuda" else 2)
        )

    torch._dynamo.reset()
    assert torch.compile(step, backend="eager", fullgraph=True)(torch.zeros(())).item() == 12


def test_the_tensor_s_own_gpu_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(backends, "choose", lambda *device: asked.append(device) or "reference")
    for name in ("cpu", "meta", "cuda:1"):
        device = torch.device(name)
        functional.backend_of(SimpleNamespace(device=device, is_cpu=device.type == "cpu"))  # type: ignore[arg-type]
    assert asked == [("cpu",), ("meta", None), ("cuda", 1)]


def test_the_committed_choices_name_backends_with_a_reason() -> None:
    for entry in json.loads(backends.FIRST_CHOICE.read_text(encoding="utf-8")).values():
        assert entry["backend"] in ("triton", "cuda")
        assert entry["why"].startswith("measured: ")


@pytest.mark.skipif(not ebgan_fast.backends()["cpu"].available, reason="the compiled module is not installed")
def test_compile_does_not_trace_into_the_search_for_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile must not trace backends(): it calls compiled modules, for example to count CUDA's devices."""
    from ebgan_fast import _C

    torch.compiler.reset()
    status = backends.BackendStatus(True, "asked")
    asked = backends.KNOWN["cpu"]._replace(status=lambda: (_C.build_info(), status)[1])
    monkeypatch.setitem(backends.KNOWN, "cpu", asked)
    batch = torch.ones(2, 3, device="cpu")
    with ebgan_fast.use_backend("cpu"):
        compiled = torch.compile(ebgan_fast.reconstruction_energy, fullgraph=True, backend="eager")
        assert compiled(batch, 2 * batch, norm="mse").tolist() == [1.0, 1.0]

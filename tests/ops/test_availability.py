"""The status of GPUs, Triton and CUDA kernels on machines that lack something, all simulated by stand-ins."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import ebgan_fast
from ebgan_fast import doctor
from ebgan_fast.ops import backends
from ebgan_fast.ops.backends import availability
from tests import stand_in
from tests.older_versions import NO_TRITON, needs_triton

Gpus = Callable[..., None]
_MODULE = """
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "ebgan_fast_probe", NULL, -1, NULL};
PyMODINIT_FUNC PyInit_ebgan_fast_probe(void) { return PyModule_Create(&module); }
"""


class _Driver:
    """Triton's driver, which builds its launcher as the real driver does, but without the GPU's library."""

    @property
    def active(self) -> SimpleNamespace:
        from triton.runtime.build import compile_module_from_src

        return SimpleNamespace(utils=compile_module_from_src(_MODULE, "ebgan_fast_probe"))


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gpus]:
    """Give a function that makes torch see GPUs of these compute capabilities, on a machine where Triton can build."""

    def see(*capabilities: tuple[int, int]) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=0: capabilities[_number(index)])
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index=0: f"NVIDIA {_number(index)}")
        monkeypatch.setattr(torch.version, "hip", None)
        backends.refresh()

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    if NO_TRITON is None:
        monkeypatch.setattr("triton.runtime.driver", _Driver())
    _forget_compiler()
    backends.refresh()
    with ebgan_fast.use_backend("auto"):
        yield see
    monkeypatch.undo()
    _forget_compiler()
    backends.refresh()


def _number(device: object) -> int:
    return device if isinstance(device, int) else torch.device(str(device)).index or 0


def _forget_compiler() -> None:
    """Make Triton look for a compiler again."""
    if NO_TRITON is not None:
        return
    import triton.runtime.build

    if find := getattr(triton.runtime.build, "_find_compiler", None):
        find.cache_clear()


def _triton() -> backends.BackendStatus:
    backends.refresh()
    return ebgan_fast.backends()["triton"]


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "ebgan_fast"]


@needs_triton
def test_triton_of_another_distribution_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    import triton

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert availability.triton_version() == triton.__version__
    assert triton.__version__ in _triton().reason
    assert f"  triton      {triton.__version__}" in doctor.report().splitlines()


@pytest.mark.parametrize("source", ["", "raise ImportError('libtriton.so: undefined symbol')"])
def test_a_triton_without_a_version_or_that_does_not_load(
    source: str, gpus: Gpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").write_text(source)
    spec = importlib.util.spec_from_file_location("triton", tmp_path / "triton" / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    if source:
        monkeypatch.setitem(__import__("sys").modules, "triton", None)
    gpus((9, 0))
    version = availability.triton_version()
    assert version is not None
    if source:
        assert version.startswith("of unknown version (")
        assert not _triton().available
        assert "it can't be imported" in _triton().reason


def test_a_folder_called_triton_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin=None))
    assert _triton() == availability.NO_TRITON


@pytest.mark.parametrize("version", ["2.1.0", "3.4.0+git1", "3.4.1"])
def test_a_triton_older_than_the_kernels_need(version: str, gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus((9, 0))
    monkeypatch.setattr(availability, "triton_version", lambda: version)
    status = _triton()
    assert not status.available
    assert f"triton {version} is older than 3.5" in status.reason
    assert backends.choose("cuda", 0) == "reference"


@needs_triton
@pytest.mark.parametrize("version", ["3.5.0", "3.5.1+rocm6.4", "3.10.0", "4.0", "of unknown version"])
def test_a_triton_that_is_new_enough(version: str, gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus((9, 0))
    monkeypatch.setattr(availability, "triton_version", lambda: version)
    assert _triton() == backends.BackendStatus(True, f"triton {version}")


@needs_triton
def test_an_old_gpu_runs_on_plain_torch(gpus: Gpus, caplog: pytest.LogCaptureFixture) -> None:
    gpus((6, 1))
    reason = "GPU 0 (NVIDIA 0, sm_61) is older than sm_70, the oldest that Triton compiles for"
    assert not _triton().available
    assert reason in _triton().reason
    assert reason in doctor.report()
    with caplog.at_level(logging.WARNING):
        assert [backends.choose("cuda", 0) for _ in range(3)] == ["reference"] * 3
    (told,) = _warnings(caplog)
    assert reason in told
    assert "on backend 'reference'" in told
    with pytest.raises(ebgan_fast.BackendUnavailableError, match="sm_61"), ebgan_fast.use_backend("triton"):
        pass


@needs_triton
def test_an_old_gpu_beside_a_new_one(gpus: Gpus) -> None:
    gpus((9, 0), (6, 1))
    assert _triton().available
    assert "GPU 1 (NVIDIA 1, sm_61)" in _triton().reason
    assert [backends.choose("cuda", index) for index in (0, 1)] == ["triton", "reference"]
    with ebgan_fast.use_backend("triton"):
        assert backends.choose("cuda", 0) == "triton"
        with pytest.raises(ebgan_fast.BackendUnavailableError, match="cannot run on this GPU: GPU 1"):
            backends.choose("cuda", 1)


@needs_triton
def test_a_gpu_of_amd_has_other_numbers(gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus((6, 1))
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert _triton().available


def _no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv("PATH", str(tmp_path))
    return "C compiler"


def _no_such_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv("CC", str(tmp_path / "cc"))
    return "CC may name"


def _no_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CC", str(compiler))
    return "Python's headers"


def _no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "file" / "cache"))
    return "TRITON_CACHE_DIR names another folder"


@needs_triton
@pytest.mark.parametrize("lack", [_no_compiler, _no_such_compiler, _no_headers, _no_cache])
def test_a_machine_on_which_triton_cannot_build(
    lack: Callable[[pytest.MonkeyPatch, Path], str],
    gpus: Gpus,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gpus((9, 0))
    assert _triton().available  # the compiler and the cache are still there
    way_out = lack(monkeypatch, tmp_path)
    _forget_compiler()
    if lack is not _no_cache:
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "another"))
    status = _triton()
    assert not status.available
    assert "can't launch kernels: " in status.reason
    assert way_out in status.reason
    assert status.reason in doctor.report()
    with caplog.at_level(logging.WARNING):
        assert [backends.choose("cuda", 0) for _ in range(2)] == ["reference"] * 2
        with stand_in.backend("cuda", takes="cuda"):
            backends.refresh()
            assert backends.choose("cuda", 0) == "cuda"
    told = _warnings(caplog)
    assert len(told) == 2  # one for each of the two sets of backends
    assert all(way_out in one for one in told)


def test_kernels_of_cuda_without_triton_are_no_reason_to_warn(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpus((9, 0))
    monkeypatch.setattr(availability, "triton_version", lambda: None)
    with caplog.at_level(logging.WARNING), stand_in.backend("cuda", takes="cuda"):
        backends.refresh()
        assert backends.choose("cuda", 0) == "cuda"
    assert _warnings(caplog) == []


@pytest.mark.parametrize(
    ("capability", "has_ptx", "runs"),
    [
        ((8, 0), False, True),
        ((8, 6), False, True),
        ((9, 0), False, True),
        ((7, 5), True, False),
        ((10, 0), False, False),
        ((10, 0), True, True),
    ],
)
def test_kernels_of_cuda_on_a_gpu_that_they_were_not_built_for(
    capability: tuple[int, int], has_ptx: bool, runs: bool, gpus: Gpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ebgan_fast import _C

    built = SimpleNamespace(architectures="80 90", has_ptx=has_ptx, compiler="nvcc", device_error=lambda: "")
    monkeypatch.setattr(_C, "cuda", built, raising=False)
    gpus(capability)
    status = ebgan_fast.backends()["cuda"]
    assert status.available is runs
    assert status.reason.startswith("built for sm_80…90 (nvcc)")
    assert ("EBGAN_FAST_CUDA=" in status.reason) is not runs
    assert (backends.choose("cuda", 0) == "cuda") is (runs and not ebgan_fast.backends()["triton"].available)


@needs_triton
def test_a_gpu_that_torch_cannot_use(gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus((9, 0))

    def fail(index: object = 0) -> str:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\nCompile with TORCH_USE...")

    monkeypatch.setattr(torch.cuda, "get_device_name", fail)
    monkeypatch.setattr(torch.cuda, "get_device_capability", fail)
    assert "GPU 0 can't be used (CUDA error: all CUDA-capable devices are busy" in _triton().reason
    assert "torch counts 1, and can't use them (CUDA error: all CUDA-capable devices are busy" in doctor.report()

"""The wheel with kernels for GPUs: its machine code, and its messages on a machine without a GPU.

It is built for the oldest and the newest GPU, with EBGAN_FAST_TEST_RELEASE=1 for all seven.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed, whose wheel has cuobjdump (Linux only)")

from gpuless.resources import Budget, Resources, measure_sass, read_budgets, violations
from gpuless.tools import nvcc

from .conftest import ARCHITECTURES, EVERY_GPU, ROOT, Build
from .machine_code import FILE, READ, cuobjdump, resources_of

NVCC = "13.0"  # the version that the budgets were recorded with
BUDGETS = read_budgets(FILE)

_needs_nvcc = pytest.mark.skipif(nvcc() is None, reason="nvcc is not installed (CUDA toolkit)")


def of_the_wheel(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that looks at the one wheel, so that one worker builds it."""
    return pytest.mark.slow(pytest.mark.xdist_group("build")(_needs_nvcc(test)))


@pytest.fixture(scope="session")
def unpacked(compiled: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled.unpack(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def module(unpacked: Path) -> Path:
    (found,) = (unpacked / "ebgan_fast").glob("_C.*.so")
    return found


@pytest.fixture(scope="session")
def resources(module: Path) -> dict[str, Resources]:
    return resources_of(module)


@_needs_nvcc
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_a_warning_ends_a_strict_build_alone(tmp_path: Path) -> None:
    """A compiler's warning ends only a strict build, or a new compiler could cost users the kernels."""
    pybind11 = pytest.importorskip("pybind11", reason="pybind11 is not installed, which the bindings need")
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    shutil.copy2(ROOT / "CMakeLists.txt", tmp_path)
    # This replaces kernels that take 10 s to compile.
    (tmp_path / "csrc" / "cuda" / "energy.cu").write_text("void planted() { int never_used; }\n")
    made = tmp_path / "build"
    options = [
        *("-DEBGAN_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={nvcc()}", "-DCMAKE_CUDA_ARCHITECTURES=90-real"),
        *(f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"),
    ]
    configure = ["cmake", "-GUnix Makefiles", "-S", tmp_path, "-B", made, *options]
    one_file = ["make", "-C", str(made), "-f", "CMakeFiles/kernels_cuda.dir/build.make"]
    target = "CMakeFiles/kernels_cuda.dir/csrc/cuda/energy.cu.o"
    for strict in ([], ["-DEBGAN_WERROR=ON"], ["-DEBGAN_WERROR=OFF"]):  # the first is the default
        subprocess.run([*configure, *strict], check=True, capture_output=True)
        done = subprocess.run([*one_file, target], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert "never_used" in done.stdout
        assert (done.returncode != 0) == ("-DEBGAN_WERROR=ON" in strict), done.stdout
        assert (made / target).exists() == (done.returncode == 0)
        (made / target).unlink(missing_ok=True)


@of_the_wheel
def test_the_wheel_is_built_without_a_warning(compiled: Build) -> None:
    assert "ebgan_fast: CUDA kernels for 75-real" in compiled.log
    assert "every warning an error" in compiled.log


@of_the_wheel
def test_there_is_code_for_every_gpu_that_was_asked_for(module: Path, resources: dict[str, Resources]) -> None:
    kernels = {key.split(" | ")[0] for key in resources}
    assert resources.keys() == {f"{kernel} | {it}" for kernel in kernels for it in ARCHITECTURES}
    (target,) = set(re.findall(r"\.(sm_\d+)\.ptx", cuobjdump(module, "--list-ptx")))
    assert target == ARCHITECTURES[-1]


@of_the_wheel
def test_within_the_budgets(resources: dict[str, Resources]) -> None:
    version = subprocess.run([str(nvcc()), "--version"], check=True, capture_output=True, text=True).stdout
    if f"release {NVCC}" not in version:
        pytest.skip(f"budgets are of nvcc {NVCC}")
    assert resources.keys() == {key for key in BUDGETS if key.endswith(ARCHITECTURES)}
    broken = [f"{key}: {line}" for key, it in resources.items() for line in violations(it, BUDGETS[key])]
    assert not broken, "\n".join(broken)


def test_there_are_budgets_for_every_gpu() -> None:
    kernels = {key.split(" | ")[0] for key in BUDGETS}
    assert BUDGETS.keys() == {f"{kernel} | {it}" for kernel in kernels for it in EVERY_GPU}


@pytest.mark.parametrize("kernel", sorted({key.split(" | ")[0] for key in BUDGETS}))
def test_no_budget_allows_what_is_never_right(kernel: str) -> None:
    """No recorded budget allows a stack, spills, float atomics or other things that are never right.

    A budget records what a kernel took. These limits hold for every record.
    """
    for key in (f"{kernel} | {it}" for it in EVERY_GPU):
        _check_budget(key, BUDGETS[key])


def _check_budget(key: str, budget: Budget) -> None:
    assert budget["stack"] == 0
    assert budget["occupancy"] > 0
    if not key.endswith(READ):
        return
    assert budget["spills"] == 0
    assert budget["float_atomics"] == 0
    takes_packets = not re.search(r"(, 1[,>]|row_lengths|finish_rows|hinge_loss)", key)
    assert (budget["wide_loads"] > 0) == takes_packets
    if takes_packets and "gram_matrix" not in key:
        assert budget["wide_stores"] > 0
    products = "gram_matrix" in key or "primal" in key or "dual" in key
    assert (budget["tensor_core"] > 0) == (products and "double" not in key and not key.endswith("sm_75"))


def test_a_planted_regression_is_seen() -> None:
    key = "gram_matrix<float, 128, false> | sm_90"
    met = measure_sass("sm_90", "REG:100 STACK:0", ["HMMA.1684.F32.TF32"], 1024, 8)
    assert "registers" not in "".join(violations(met, {"registers": 100}))
    assert violations(met, {"registers": 99}) == ["registers: got 100, expected at most 99"]
    assert violations(met, {"tensor_core": 2}) == ["tensor_core: got 1, expected at least 2"]
    assert key in BUDGETS


PROGRAM = """
import sys
# An editable install of this tree would lend its own _C to the unpacked package.
sys.meta_path[:] = [f for f in sys.meta_path if not getattr(f, '__module__', '').startswith('__editable__')]
import json, torch, ebgan_fast
from ebgan_fast import _C
from ebgan_fast.doctor import report
errors = []
hinge = 0, 0, 0, 0, 0, 0, 0, 0.0, 0
for call in (lambda: _C.cuda.hinge(1, hinge, 0), ebgan_fast.use_backend('cuda').__enter__):
    try:
        call()
    except Exception as error:
        errors.append(f'{type(error).__name__}: {error}')
print(json.dumps([ebgan_fast.__file__, report(), errors]))
"""


@of_the_wheel
def test_without_a_driver_it_imports_and_says_so(unpacked: Path) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has a driver")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=unpacked, env={"PYTHONPATH": str(unpacked)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    file, report, errors = json.loads(done.stdout)
    assert Path(file).is_relative_to(unpacked)
    said = rf"built for sm_75…120 \(nvcc {NVCC}[.\d]*\), no driver"
    assert re.search(rf"cuda +no +{said}", report)
    assert errors[0] == "RuntimeError: no NVIDIA GPU or driver: cudaErrorInsufficientDriver"
    assert re.match(rf"BackendUnavailableError: .*got backend 'cuda', which cannot run here: {said}", errors[1])


@of_the_wheel
def test_the_extension_needs_no_library_of_cuda(module: Path, needed: Callable[[Path], list[str]]) -> None:
    assert not [library for library in needed(module) if "cuda" in library or "torch" in library]

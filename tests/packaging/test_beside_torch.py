"""The wheel installs beside any torch that users have: pip touches neither torch nor its Triton."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("build")]

# For each torch, the Triton that its Linux wheel requires and the name it is installed under. The last entry stands for
# builds for CPUs. It also stands for systems that package torch themselves, such as Alpine, where Triton has no wheel.
TORCH: dict[str, tuple[str, str, str]] = {
    "2.6": ("2.6.0+cu124", "triton==3.2.0", "triton 3.2.0"),
    "2.8": ("2.8.0+cu128", "triton==3.4.0", "triton 3.4.0"),
    "2.10": ("2.10.0+cu128", "triton==3.6.0", "triton 3.6.0"),
    "2.14": ("2.14.1+cu130", "triton~=3.8.0", "triton 3.8.0"),
    "ROCm": ("2.8.0+rocm6.4", "pytorch-triton-rocm==3.4.0", "pytorch-triton-rocm 3.4.0"),
    "2.13 without Triton": ("2.13.0+cpu", "", ""),
}


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel without the extension, whose requirements are the same."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("pip is not installed in this environment")
    folder = tmp_path_factory.mktemp("wheel")
    program = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        cwd=sources,
        env={**os.environ, "EBGAN_FAST_BUILD_EXT": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def _installed(environment: Path, name: str, version: str, *requires: str) -> None:
    """Put only a package's metadata into an environment."""
    paths = sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)})
    folder = Path(paths) / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")
    (folder / "RECORD").touch()
    (folder / "INSTALLER").write_text("pip\n")


@pytest.mark.parametrize("build", TORCH)
def test_pip_adds_the_package_alone(build: str, wheel: Path, tmp_path: Path) -> None:
    version, requires, triton = TORCH[build]
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    _installed(environment, "torch", version, *([requires] if requires else []))
    _installed(environment, "numpy", "2.1.0")
    if triton:
        _installed(environment, *triton.split())
    report = tmp_path / "report.json"
    python = environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    command = [sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "--python", str(python)]
    # Without an index pip cannot fetch anything, so a further requirement would fail.
    command += ["install", "--dry-run", "--quiet", "--no-index", f"--report={report}", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    chosen = [entry["metadata"]["name"] for entry in json.loads(report.read_text())["install"]]
    assert [name.replace("-", "_") for name in chosen] == ["ebgan_fast"]

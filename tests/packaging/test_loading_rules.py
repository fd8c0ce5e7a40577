"""The package meets the rules of loaders of kernels, such as Hugging Face's `kernels`.

They ask for relative imports, few requirements, and a public surface in `__all__`. The namespace of torch ops must be
the package's own under any name that it is loaded by.
"""

from __future__ import annotations

import ast
import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ebgan_fast"
CORE = [
    *(PACKAGE / name for name in ("__init__.py", "_checks.py", "functional.py", "nn.py")),
    *sorted((PACKAGE / "ops").rglob("*.py")),
]
PUBLIC = [
    "ebgan_fast",
    *(f"ebgan_fast.{name}" for name in ("functional", "game", "nn", "data", "metrics", "models", "report", "training")),
    *(f"ebgan_fast.ops.{name}" for name in ("backends", "reference")),
]


def _imports(file: Path) -> Iterator[str]:
    """Yield the first name of each absolute import."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").partition(".")[0]


def test_the_package_imports_itself_relatively() -> None:
    for file in PACKAGE.rglob("*.py"):
        assert "ebgan_fast" not in set(_imports(file)), file


@pytest.mark.parametrize("file", CORE, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_the_core_needs_torch_alone(file: Path) -> None:
    allowed = {"torch", *sys.stdlib_module_names}
    # availability.py asks Triton, where it is installed, whether it can launch.
    if "triton" in file.relative_to(PACKAGE).parts or file.name == "availability.py":
        allowed.add("triton")
    assert set(_imports(file)) <= allowed


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_module_names_its_surface(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__all__
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        assert hasattr(module, public), public
        assert not public.startswith("_") or public == "__version__"


# The names of copies, with the namespaces of their ops.
_COPIES = {"ebgan_fast_0123abcd": "ebgan_fast_0123abcd", "vendor.ebgan_fast": "vendor_ebgan_fast"}
_BESIDE = """
import importlib, sys
sys.path[:0] = sys.argv[1:3]
import torch, ebgan_fast
packages = {{name: importlib.import_module(name) for name in {copies!r}}}
assert len({{ebgan_fast.__file__, *(package.__file__ for package in packages.values())}}) == 3
recon, target = torch.rand(4, 6, requires_grad=True), torch.rand(4, 6)
found = []
for package in (ebgan_fast, *packages.values()):
    energy = torch.compile(package.reconstruction_energy, backend="aot_eager", fullgraph=True)
    loss = energy(recon, target, norm="mse").sum()
    found.append((loss, *torch.autograd.grad(loss, recon)))
assert all(torch.equal(first, one) for first, *others in zip(*found) for one in others)
for name, namespace in {copies!r}.items():
    has_op = hasattr(getattr(torch.ops, namespace), "reconstruction_energy")
    print(packages[name].backends()["cpu"].available, has_op)
"""


@pytest.mark.slow
def test_copies_of_other_names_work_beside_it(tmp_path: Path) -> None:
    for name in _COPIES:
        to = tmp_path.joinpath(*name.split("."))
        shutil.copytree(PACKAGE, to, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", _BESIDE.format(copies=_COPIES), str(tmp_path), str(ROOT)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    has_kernels = any(PACKAGE.glob("_C.*.so"))
    assert done.stdout.splitlines() == [f"{has_kernels} True"] * 2

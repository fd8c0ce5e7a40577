"""What loaders of kernels ask of a package (Hugging Face's `kernels`): relative imports, few requirements, a public
surface in `__all__`, and a namespace of torch ops that is its own under whatever name it is loaded."""

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
    *(PACKAGE / name for name in ("__init__.py", "_checks.py", "distributed.py", "functional.py", "nn.py")),
    *sorted((PACKAGE / "ops").rglob("*.py")),
]
PUBLIC = [
    "ebgan_fast",
    *(
        f"ebgan_fast.{name}"
        for name in ("functional", "nn", "distributed", "data", "metrics", "models", "report", "training")
    ),
    *(f"ebgan_fast.ops.{name}" for name in ("backends", "reference")),
]


def _imports(file: Path) -> Iterator[str]:
    """The absolute ones, by their first name."""
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
    if "triton" in file.relative_to(PACKAGE).parts:
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


_BESIDE = """
import torch, ebgan_fast, {other} as other
assert other.__file__ != ebgan_fast.__file__
recon, target = torch.rand(4, 6, requires_grad=True), torch.rand(4, 6)
found = []
for package in (ebgan_fast, other):
    loss = torch.compile(package.reconstruction_energy, backend="aot_eager", fullgraph=True)(recon, target).sum()
    found.append((loss, *torch.autograd.grad(loss, recon)))
assert all(torch.equal(*pair) for pair in zip(*found))
print(other.backends()["cpu"].available, hasattr(torch.ops.{namespace}, "reconstruction_energy"))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "namespace"), [("ebgan_fast_0123abcd", "ebgan_fast_0123abcd"), ("vendor.ebgan_fast", "vendor_ebgan_fast")]
)
def test_a_copy_of_another_name_works_beside_it(tmp_path: Path, other: str, namespace: str) -> None:
    to = tmp_path.joinpath(*other.split("."))
    shutil.copytree(PACKAGE, to, ignore=shutil.ignore_patterns("__pycache__"))
    program = _BESIDE.format(other=other, namespace=namespace)
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n{program}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    has_kernels = any(PACKAGE.glob("_C.*.so"))
    assert done.stdout.split() == [str(has_kernels), "True"]

"""Count the places that know an op: python -m tests.ops.places [COMMIT].

Three counts. The files whose code runs when `discriminator_loss` is called on the CPU a second time, backward included:
Python's are watched, C++'s are the bindings and the kernels' file with their headers. The places that spell the op's
arguments, device kernels apart. And, with a COMMIT, the files that it touches, generated ones and the changelog apart.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parents[2]
_ENTRIES = ("csrc/bindings.cpp", "csrc/cpu/energy.cpp")
_GENERATED = (
    "CHANGELOG.md",
    "bench/results/",
    "docs/figures.json",
    "docs/images/",
    "docs/performance.md",
    "tests/ops/triton/budgets.json",
    "tests/packaging/cuda_budgets.json",
)


def _python_of_a_call() -> set[Path]:
    import torch

    import ebgan_fast

    package = ROOT / "ebgan_fast"
    batches = [torch.rand(3, 5, requires_grad=True) for _ in range(4)]
    seen: set[Path] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if package in path.parents:
            seen.add(path)

    with ebgan_fast.use_backend("cpu"):
        for watch in (None, note):
            sys.setprofile(watch)
            try:
                ebgan_fast.discriminator_loss(*batches, 1.0)[0].backward()
            finally:
                sys.setprofile(None)
    return seen


def _with_headers(file: Path) -> set[Path]:
    """A source of C++ and the project's headers that it includes, directly or not."""
    found, waiting = set(), [file]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for name in re.findall(r'#include "([^"]+)"', path.read_text()):
            waiting.append((path.parent / name).resolve())
    return found


def files_of_a_call() -> dict[str, int]:
    """The lines of each file that one call is understood from."""
    paths = _python_of_a_call().union(*(_with_headers(ROOT / entry) for entry in _ENTRIES))
    return {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in sorted(paths)}


def _in_python(text: str) -> Iterator[int]:
    """The lines at which a parameter list, a class's fields or a schema spells the arguments."""
    for node in ast.walk(ast.parse(text)):
        names: set[str] = set()
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            names = {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
        elif isinstance(node, ast.ClassDef):
            fields = (it.target for it in node.body if isinstance(it, ast.AnnAssign))
            names = {target.id for target in fields if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "(Tensor " in node.value:
            names = set(re.findall(r"Tensor (\w+)", node.value))
        if {"recon_real", "recon_fake"} <= names or {"real", "fake", "margin", "norm"} <= names:
            yield getattr(node, "lineno", 0)


def _in_cpp(text: str) -> Iterator[int]:
    for match in re.finditer(r"[({][^(){}]*[)}]", text):
        words = set(re.findall(r"\w+", re.sub(r"//.*", "", match[0])))
        if {"recon_real", "recon_fake"} <= words or {"real", "fake", "margin", "norm"} <= words:
            yield text.count("\n", 0, match.start()) + 1


def spellings() -> list[str]:
    """The places that spell the arguments of `discriminator_loss`, as file:line."""
    found = []
    for folder, endings, lines in (
        ("ebgan_fast", (".py", ".pyi"), _in_python),
        ("csrc", (".h", ".cpp", ".cu"), _in_cpp),
    ):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in endings and not path.stem.endswith("_kernels"):
                place = path.relative_to(ROOT).as_posix()
                found += [f"{place}:{line}" for line in lines(path.read_text())]
    return found


def files_of_a_commit(commit: str) -> list[str]:
    """The files that a commit touches, but for generated ones."""
    names = subprocess.run(
        ["git", "show", "--format=", "--name-only", commit], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    return [name for name in names if not name.startswith(_GENERATED)]


if __name__ == "__main__":
    files = files_of_a_call()
    print(f"one CPU call of discriminator_loss: {len(files)} files")
    for name, lines in files.items():
        print(f"  {lines:4} {name}")
    places = spellings()
    print(f"its arguments are spelled in {len(places)} places", *places, sep="\n  ")
    for commit in sys.argv[1:]:
        touched = files_of_a_commit(commit)
        print(f"{commit}: {len(touched)} files", *touched, sep="\n  ")

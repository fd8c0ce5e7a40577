"""The files that a release needs: the wheels' configuration, the citation, and types for users."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import ebgan_fast

from .test_loading_rules import PACKAGE, ROOT


def _identifiers(platform: str) -> list[str]:
    if importlib.util.find_spec("cibuildwheel") is None:
        pytest.skip("cibuildwheel is not installed: pip install -e '.[test]'")
    command = [sys.executable, "-m", "cibuildwheel", "--platform", platform, "--print-build-identifiers", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(("platform", "machines"), [("linux", ("x86_64", "aarch64")), ("macos", ("arm64",))])
def test_wheels_are_for_every_python_and_machine(platform: str, machines: tuple[str, ...]) -> None:
    system = {"linux": "manylinux", "macos": "macosx"}[platform]
    pythons = (f"cp31{minor}" for minor in range(5))
    assert set(_identifiers(platform)) == {f"{python}-{system}_{machine}" for python in pythons for machine in machines}


@pytest.mark.slow
def test_the_program_that_tries_a_wheel_passes_here() -> None:
    if not ebgan_fast.backends()["cpu"].available:
        pytest.skip("a wheel has the compiled kernels; this installation lacks them")
    program = Path(__file__).with_name("installed.py")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ebgan_fast" in done.stdout


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == ebgan_fast.__version__
    assert (citation["cff-version"], citation["type"], citation["license"]) == ("1.2.0", "software", "MIT")
    (paper,) = citation["references"]
    assert paper["identifiers"][0]["value"] == "arXiv:1609.03126"


_USE = """
import torch
import ebgan_fast
batch = torch.zeros(2, 3)
reveal_type(ebgan_fast.discriminator_loss(batch, batch, batch, batch, 1.0, norm="mse"))
reveal_type(ebgan_fast.nn.PullingAwayTerm().forward(batch))
ebgan_fast.reconstruction_energy(batch, batch, norm="mean")
ebgan_fast.pulling_away_term(batch, process_group=0.1)
"""


@pytest.mark.slow
def test_a_user_s_types_are_checked(tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(_USE)
    # A copy, as in site-packages: an editable package is found by an import hook, which mypy does not run.
    (tmp_path / "ebgan_fast").symlink_to(PACKAGE)
    # No type from torch's compilers reaches a loss, and reading them takes half of the time.
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\n[mypy-torch._dynamo.*,torch._functorch.*,torch._inductor.*,torch.ao.*,torch.export.*,torch.fx.*]\n"
        "follow_imports = skip\n"
    )
    # torch's types are most of the work, so they are kept where `make lint` keeps its own.
    kept = ROOT / ".mypy_cache" / "of_a_user"
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", f"--cache-dir={kept}", "use.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (PACKAGE / "py.typed").is_file()
    said = [line.partition(": ")[2] for line in done.stdout.splitlines() if line.startswith("use.py")]
    assert len(said) == 4, done.stdout
    assert said[0].startswith('note: Revealed type is "tuple[torch._tensor.Tensor, torch._tensor.Tensor')
    assert said[1].startswith('note: Revealed type is "torch._tensor.Tensor"')
    assert 'Argument "norm"' in said[2]
    assert 'expected "Literal' in said[2]
    assert 'Argument "process_group"' in said[3]

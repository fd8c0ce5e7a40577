"""An instruction set runs the cases of the sources that are compiled for it, and at least some."""

from __future__ import annotations

from pathlib import Path

import pytest

from .builds import Build, FailedError


def _made(folder: Path, isa: str, *sources: str) -> Build:
    """A build with these objects."""
    objects = folder / "CMakeFiles" / f"kernels_{isa}.dir" / "csrc" / "cpu"
    objects.mkdir(parents=True)
    for source in sources:
        (objects / f"{source}.cpp.o").touch()
    return Build(folder)


def test_a_set_with_every_source_runs_all(tmp_path: Path) -> None:
    made = _made(tmp_path, "avx512", "energy", "hinge", "pulling_away", "kernels")
    assert made.own("avx512") == ["energy", "hinge", "code"]


def test_a_set_leaves_to_another_what_it_takes_from_there(tmp_path: Path) -> None:
    assert _made(tmp_path, "avx512bf16", "pulling_away").own("avx512bf16") == ["code"]


def test_the_losses_run_both_their_sources(tmp_path: Path) -> None:
    assert _made(tmp_path, "other", "hinge").own("other") == ["energy", "hinge"]


def test_a_set_without_objects_is_an_error(tmp_path: Path) -> None:
    """CMake may put them elsewhere one day: nothing would be run."""
    with pytest.raises(FailedError, match="avx2: no object of energy, hinge, code in"):
        _made(tmp_path, "avx512", "kernels").own("avx2")

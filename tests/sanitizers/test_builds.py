"""An instruction set runs all cases, except those of kernels that it takes from another set."""

from __future__ import annotations

from pathlib import Path

import pytest

from .builds import Build, FailedError


def _made(folder: Path, isa: str, *sources: str) -> Build:
    """Return a build that has these objects."""
    objects = folder / "CMakeFiles" / f"kernels_{isa}.dir" / "csrc" / "cpu"
    objects.mkdir(parents=True)
    for source in sources:
        (objects / f"{source}.cpp.o").touch()
    return Build(folder)


def test_a_set_with_every_source_runs_all(tmp_path: Path) -> None:
    made = _made(tmp_path, "avx512", "energy", "pulling_away")
    assert made.own("avx512") == ["energy", "hinge", "code"]


def test_a_set_leaves_to_another_what_it_takes_from_there(tmp_path: Path) -> None:
    assert _made(tmp_path, "avx512bf16", "pulling_away").own("avx512bf16") == ["code"]


@pytest.mark.parametrize(
    ("isa", "sources"),
    [
        ("avx2", ["renamed"]),
        ("avx2", ["energy", "renamed"]),  # no set would run the cases of codes
        ("avx512bf16", ["energy", "pulling_away"]),
    ],
)
def test_a_source_that_is_missing_or_new_is_an_error(tmp_path: Path, isa: str, sources: list[str]) -> None:
    with pytest.raises(FailedError, match=f"{isa}: got objects of .*, expected .* in "):
        _made(tmp_path, isa, *sources).own(isa)

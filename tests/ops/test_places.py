"""One op is understood from few files, and its arguments are spelled in few places."""

from __future__ import annotations

import pytest

import ebgan_fast
from tests.older_versions import reads_sources

from . import places


@reads_sources
@pytest.mark.skipif(
    not ebgan_fast.backends()["cpu"].available, reason=f"backend cpu: {ebgan_fast.backends()['cpu'].reason}"
)
def test_one_call_is_understood_from_twelve_files() -> None:
    files = places.files_of_a_call()
    assert {"ebgan_fast/functional.py", "ebgan_fast/ops/op.py", "csrc/norm.h"} <= files.keys()
    assert len(files) <= 12, files
    assert max(files.values()) <= 400, files


@reads_sources
def test_the_arguments_of_the_discriminator_loss_are_spelled_eight_times_at_most() -> None:
    found = places.spellings()
    assert any(place.startswith("ebgan_fast/functional.py") for place in found)
    assert any(place.startswith("csrc/kernels.h") for place in found)
    assert len(found) <= 8, found

"""Tests that training computes the same bits as when first_steps.json was written."""

from __future__ import annotations

import copy
import json
import platform
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from .first_steps import RECORD, cases, digest_of, digests, state_after

_RECORDS: list[dict[str, Any]] = json.loads(RECORD.read_text())


def record_for(roots: str) -> dict[str, Any] | None:
    """Return the record of processors with these square roots, or the record whose roots are "unknown"."""
    by_roots = {record["digests"]["roots"]: record for record in _RECORDS}
    return by_roots.get(roots, by_roots.get("unknown"))


@pytest.mark.slow
def test_the_first_steps_have_the_bits_of_the_record() -> None:
    if platform.machine() != "x86_64" or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("the bits are those of x86-64 processors with AVX2")
    found = digests()
    record = record_for(found["roots"])
    if record is None:
        pytest.skip(f"no record is of a processor whose square roots are {found['roots']}")
    made_with, here = record["torch"], torch.__version__
    if here != made_with:
        pytest.skip(f"the bits were recorded with torch {made_with}, and another torch, {here}, may round otherwise")
    assert [case for case in cases() if found[case] != record["digests"][case]] == []


def test_every_case_is_recorded() -> None:
    for record in _RECORDS:
        assert list(record["digests"]) == ["roots", *cases()]


def leaves(state: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the container and key of every tensor and plain value."""
    for key, value in state.items() if isinstance(state, dict) else enumerate(state):
        if isinstance(value, (dict, list)):
            yield from leaves(value)
        elif not isinstance(value, tuple):
            yield state, key


def changed(value: object) -> object:
    """Return another value: a tensor or float with its lowest bit changed, an integer plus 1, or another text."""
    if isinstance(value, Tensor):
        value.view(-1).view(torch.uint8)[0] ^= 1
        return value
    if isinstance(value, float):
        return value * (1 + 2**-52) if value else 5e-324
    return value + 1 if isinstance(value, int) else f"not {value}"


def test_no_part_of_the_state_can_change_unnoticed() -> None:
    state = copy.deepcopy(state_after(cases()["mnist"]))
    found = {digest_of(state)}
    places = list(leaves(state))
    for container, key in places:
        container[key] = changed(container[key])
        found.add(digest_of(state))
    assert len(found) == len(places) + 1 > 50


def test_a_digest_is_of_the_values_alone() -> None:
    weight = torch.arange(24.0).view(1, 2, 3, 4)
    same = {"b": weight.to(memory_format=torch.channels_last), "a": 1.0}
    assert digest_of({"a": 1.0, "b": weight}) == digest_of(same)
    for other in ({"a": 1, "b": weight}, {"a": 1.0, "b": weight.view(2, 12)}, {"a": 1.0, "b": weight.double()}):
        assert digest_of(other) != digest_of(same)

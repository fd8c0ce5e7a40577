"""A trial's trainer is checked at intervals, and is closed at the end of its steps."""

from __future__ import annotations

import pytest

from ebgan_fast.studies.networks.steps import train
from ebgan_fast.training.statistics import NonFiniteError


def test_training_checks_every_hundred_steps_and_closes() -> None:
    calls: list[str] = []

    class Recorder:
        def step(self) -> None:
            calls.append("step")

        def check_finite(self) -> None:
            calls.append("check")
            if calls.count("check") == 3:
                raise NonFiniteError("got loss nan, expected a finite number")

        def close(self) -> None:
            calls.append("close")

    ticks: list[int] = []
    train(Recorder(), 150, lambda: ticks.append(1))
    assert [call for call in calls if call != "step"] == ["check", "check", "close"]
    assert calls.count("step") == len(ticks) == 150
    with pytest.raises(NonFiniteError):
        train(Recorder(), 150, lambda: None)
    assert calls[-1] == "close"


def test_looks_come_after_their_steps() -> None:
    calls: list[str] = []

    class Recorder:
        def step(self) -> None:
            calls.append("step")

        def check_finite(self) -> None: ...

        def close(self) -> None: ...

    train(Recorder(), 4, lambda: None, {1: lambda: calls.append("look"), 4: lambda: calls.append("last look")})
    assert calls == ["step", "look", "step", "step", "step", "last look"]

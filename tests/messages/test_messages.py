"""Each mistake ends in one sentence that helps; the page shows every message, and no place that raises is forgotten."""

from __future__ import annotations

import pytest

from . import rule, sites
from .case import Case
from .page import CASES, PAGE, outcome, page

# All tests run in one process, so that each case runs once.
pytestmark = pytest.mark.xdist_group("messages")


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_a_mistake_is_one_sentence_that_helps_and_changes_nothing(case: Case) -> None:
    assert list(rule.complaints(case, outcome(case))) == []


def test_no_two_cases_have_one_name() -> None:
    assert len({case.id for case in CASES}) == len(CASES)


@pytest.mark.slow
def test_the_page_shows_what_the_commands_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.messages writes it anew"


@pytest.mark.slow
def test_every_place_that_raises_is_reached_or_listed() -> None:
    reached = {place for case in CASES for place in outcome(case).raised}
    assert list(sites.complaints(reached)) == []

"""docs/versions.md is as the program wrote it, and all its runs passed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.older_versions import OLDEST_TRITON
from tests.versions import record
from tests.versions.record import Result

ROOT = Path(__file__).parents[2]
VERSIONS = {"torch": "2.14.1+cu130", "triton": "3.8.0", "numpy": "2.4.6", "python": "3.11.7"}


def test_the_last_run_passed_on_the_oldest_of_both() -> None:
    found = {result.name: result for result in record.read((ROOT / record.PAGE).read_text())}
    allowed = re.search(r'^dependencies = \[.*"torch>=([0-9.]+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert allowed is not None
    assert f"torch {allowed[1]}.0" in found
    assert any(result.versions["triton"].startswith(f"{OLDEST_TRITON}.") for result in found.values())
    for name, version in (name.split() for name in found):
        assert found[f"{name} {version}"].versions[name].partition("+")[0] == version
    for result in found.values():
        assert result.failed == 0
        assert result.passed > 1000


def _results() -> list[Result]:
    return [
        Result("a", VERSIONS, 10, 0, {"needs a GPU; `make gpu` runs it": 2, "big": 1}, 3.0),
        Result("b", VERSIONS, 9, 1),
    ]


def test_a_page_reads_back_as_it_was_written() -> None:
    assert (
        record.read(record.page("ebgan_fast-0.1.0-cp311-cp311-linux_x86_64.whl", "2026-01-01", _results()))
        == _results()
    )


@pytest.mark.parametrize(("old", "new"), [("| 10 | 0 | 3 |", "| 11 | 0 | 4 |"), ("fresh", "old"), ("* a, 2", "* a, 3")])
def test_a_page_edited_by_hand_is_refused(old: str, new: str) -> None:
    text = record.page("ebgan_fast-0.1.0-cp311-cp311-linux_x86_64.whl", "2026-01-01", _results())
    assert old in text
    with pytest.raises(ValueError, match="did not write"):
        record.read(text.replace(old, new))


REPORT = """<testsuites><testsuite>
<testcase name="a"/><testcase name="b"/>
<testcase name="c"><failure message="1 != 2"/></testcase><testcase name="d"><error message="no"/></testcase>
<testcase name="e"><skipped message="collection skipped">('/a/b.py', 17, 'Skipped: needs a GPU')</skipped></testcase>
<testcase name="f"><skipped message="needs a GPU"/></testcase>
</testsuite></testsuites>"""


def test_the_report_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    path.write_text(REPORT)
    assert Result.read(path, "a", VERSIONS, 1.0, 1) == Result("a", VERSIONS, 2, 2, {"needs a GPU": 2}, 1.0)


def test_a_run_without_a_report_has_failed(tmp_path: Path) -> None:
    assert Result.read(tmp_path / "none.xml", "a", VERSIONS, 1.0, 3).failed == 1

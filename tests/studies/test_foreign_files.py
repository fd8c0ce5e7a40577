"""A study's YAML file and results may come from strangers: for a malformed one, an error of one sentence names the
file."""

from __future__ import annotations

import cProfile
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ebgan_fast import cli
from ebgan_fast.studies.framework.flags_file import with_file
from ebgan_fast.studies.framework.results import read, results_of, write

from ..training.test_foreign_run_folder import ESCAPE, LONG, NO_FILE, NO_OBJECT, of, put, refusal

_LAUGHS = "".join(
    f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 10)}]\n" if number else "a0: &a0 [1, 1]\n"
    for number in range(30)
)
_MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{number}: &a{number} {{<<: [*a{number - 1}, *a{number - 1}]}}\n" for number in range(1, 40)
)

NO_FLAGS: dict[str, bytes] = {
    "nothing": b"",
    "help": b"help: 1\n",
    "file": b"file: other.yaml\n",
    "comment": b"# size_g: 400\n",
    "zeros": bytes(100),
    "not-utf-8": b"size_g: \xff\xfe\n",
    "utf-16": "size_g: 400\n".encode("utf-16"),
    "surrogate": b"size_g: \xed\xa0\x80\n",
    "text": b"size_g",
    "long-text": b"x" * 10_000,
    "list": b"- 1\n",
    "two-documents": b"a: 1\n---\nb: 2\n",
    "tab": b"a:\n\t- 1\n",
    "raw-escape": b"a: \x1b[31m\n",
    "deep-lists": b"a: " + b"[" * 10_000,
    "brackets": b"a: " + b"[" * 1000,
    "tagged-document": b"!!python/object:os.system {a: 1}\n",
    "deep-mappings": b"{a: " * 3000,
    "deep-entries": b"- " * 8000,
    "long-file": b"# " + b"x" * 20_000,
    "laughs": _LAUGHS.encode(),
    "merges": _MERGES.encode(),
    "many-aliases": b"a0: &a [" + b"1, " * 1000 + b"]\n" + b"".join(b"b%d: *a\n" % number for number in range(1000)),
    "itself": b"a: &a [*a]\n",
    "merge": b"<<: {a: 1}\n",
    "mapping": b"a: {b: 1}\n",
    "lists": b"a: [[1]]\n",
    "code": b"a: !!python/object/apply:os.system ['exit 1']\n",
    "code-in-a-value": b"a: !!python/name:os.system ''\n",
    "unknown-tag": b"a: !" + b"t" * 5000 + b" 1\n",
    "twice": b"steps: 1\nsteps: 2\n",
    "name-list": b"? [a]\n: 1\n",
    "name-with-escape": b'"\\e[31m": 1\n',
    "name-with-space": b"a --out: 1\n",
    "long-name": b"x" * 900 + b": 1\n",
    "long-value": b"a: " + b"x" * 9000 + b"\n",
    "long-integer": b"a: " + b"9" * LONG + b"\n",
    "month-13": b"a: 2020-13-01\n",
    "no-boolean": b"a: !!bool maybe\n",
    "no-integer": b"a: !!int ''\n",
    "no-float": b"a: !!float " + b"x" * 900 + b"\n",
    "no-time": b"a: !!timestamp '\\e[31m'\n",
}


@pytest.mark.parametrize("odd", [*NO_FILE, *NO_FLAGS])
def test_files_that_give_no_flags(tmp_path: Path, odd: str) -> None:
    path = put(tmp_path / "grid.yaml", NO_FILE.get(odd) or of(NO_FLAGS[odd]))
    refusal(lambda: with_file(["grid", "--file", str(path)]), path)


@pytest.mark.parametrize("study", ["theory", "grid"])
@pytest.mark.parametrize(
    "odd", ["pipe", "loop", "not-utf-8", "no-boolean", "laughs", "name-with-escape", "unknown-tag"]
)
def test_a_command_ends_in_one_line(tmp_path: Path, study: str, odd: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(tmp_path / "study.yaml", NO_FILE.get(odd) or of(NO_FLAGS[odd]))
    assert cli.main([study, "--out", str(tmp_path / "out"), "--file", str(path)]) == 1
    out, said = capsys.readouterr()
    assert out == ""
    assert said.count("\n") == 1
    assert str(path) in said
    assert len(said) <= 500
    assert said.rstrip("\n").isprintable()


def test_what_is_harmless_stays_accepted(tmp_path: Path) -> None:
    """A file may have a byte order mark from a Windows editor, lists that share their values, and YAML's own words for
    values."""
    path = tmp_path / "grid.yaml"
    path.write_bytes(
        b"\xef\xbb\xbfsize_g: &sizes [400, 800]\nsize-d: *sizes\nflip: yes\ndata:\nlr: 1.0e-3\nname: '\xc3\xa9'\n"
    )
    assert with_file(["grid", "--file", str(path)]) == [
        *("grid", "--size-g", "400", "800", "--size-d", "400", "800", "--flip", "True", "--data", "None"),
        *("--lr", "0.001", "--name", "é"),
    ]


def written(folder: Path) -> Path:
    write(results_of("theory", {"budget": "minutes"}, "cpu", []), folder)
    return folder / "results.json"


@pytest.mark.parametrize("odd", [*NO_FILE, *NO_OBJECT])
def test_results_that_are_none(tmp_path: Path, odd: str) -> None:
    path = put(written(tmp_path), NO_FILE.get(odd) or of(NO_OBJECT[odd]))
    refusal(lambda: read(path), path)


TRIAL: dict[str, Any] = {"params": {"seed": 0}, "result": None, "reason": "too little memory", "seconds": 1.0}
Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "change",
    [
        *(
            lambda content, name=name, value=value: content.update({name: value})
            for name in ("study", "settings", "versions", "machine", "date", "trials")
            for value in (1, None, [ESCAPE * 999, 1], 10**400)
        ),
        lambda content: content.pop("trials"),
        lambda content: content.update({ESCAPE * 99: 1}),
        *(
            lambda content, name=name, value=value: content["trials"].append({**TRIAL, name: value})
            for name in (*TRIAL, ESCAPE)
            for value in (True, [1], ESCAPE * 999 if name != "reason" else 1, 10**400, float("inf"))
        ),
        lambda content: content["trials"].append({"params": {}}),
    ],
)
def test_values_that_no_study_writes(tmp_path: Path, change: Change) -> None:
    path = written(tmp_path)
    content = json.loads(path.read_text())
    content["trials"] = [TRIAL]
    change(content)
    path.write_text(json.dumps(content))
    assert "something else than a study's results" in refusal(lambda: read(path), path)


def test_a_file_of_many_results_takes_as_much_longer(tmp_path: Path) -> None:
    """The number of calls grows in proportion to the number of trials, of which the paper's whole grid has 6144 for
    GANs.

    Work inside one call, such as a search through a list, isn't seen.
    """
    path = written(tmp_path)
    content = json.loads(path.read_text())
    trial = {**TRIAL, "result": {"score": 9.9, "shares": [0.1] * 10}}

    def calls(count: int) -> int:
        path.write_text(json.dumps({**content, "trials": [trial] * count}))
        profile = cProfile.Profile()
        assert len(profile.runcall(lambda: read(path).measured())) == count
        return sum(entry.callcount for entry in profile.getstats())

    assert calls(800) < 5 * calls(200)

"""The project's sentences keep the rules of CONTRIBUTING.md, as far as a program can see, and what breaks them is seen."""

from __future__ import annotations

import pytest

from .language import LONGEST_PART, complaints, files
from .pages import ROOT


@pytest.mark.parametrize("name", files())
def test_a_file_keeps_the_rules(name: str) -> None:
    assert [str(found) for found in complaints(name, (ROOT / name).read_text(encoding="utf-8"))] == []


def test_the_files_of_every_folder_are_read() -> None:
    folders = {name.split("/")[0] for name in files()}
    assert folders >= {"ebgan_fast", "csrc", "bench", "tests", "gpuless", "examples", "docs", "README.md", "Makefile"}


LONG = " and".join([" more"] * LONGEST_PART)

# The name of a file, its text, and a part of what must be said of it.
PLANTED = {
    "a clause that begins with What": ("a.py", '"""What a path holds, told by what lies there."""', "begins with 'What'"),
    "a clause that begins with Whether": (
        "a.py",
        'def can() -> bool:\n    """Whether the gradients can be handed out as they are."""',
        "begins with 'Whether'",
    ),
    "a subject that is left out": ("a.py", 'def test_it():\n    """Of a float16 run."""', "begins with 'Of'"),
    "a subject that another docstring has": ("a.py", 'class A:\n    """The same of steps."""', "begins with 'The same'"),
    "a field's docstring": ("a.py", 'class A:\n    b: int\n    """By provider, why."""', "begins with 'By'"),
    "a shape in place of a sentence": ("a.py", 'def a():\n    """(C, H, W)."""', "expected a word"),
    "too few words": ("a.py", 'def a():\n    """Copies there."""', "understood without the file"),
    "a parameter without a word": (
        "a.py",
        'def a(b, c):\n    """Add two numbers.\n\n    Args:\n        b: one of them.\n    """',
        "no word of the parameter c",
    ),
    "a parameter that is none": ("a.py", 'def a():\n    """Add numbers.\n\n    Args:\n        b: one.\n    """', "got b"),
    "a sentence without end": ("a.md", f"It has{LONG}.", "words in one go"),
    "a comment without end": ("a.py", f"a = 1  # it has{LONG}", "words in one go"),
    "a comment of lines without end": ("a.cuh", f"// it has\n//{LONG}", "words in one go"),
    "a long line": ("a.md", "A page. " * 20, "a line of 160 characters"),
    "British spelling": ("a.toml", "# a colour", "American spelling"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_what_breaks_a_rule_is_seen(planted: str) -> None:
    file, text, told = PLANTED[planted]
    assert [found.words for found in complaints(file, text) if told in found.words], complaints(file, text)


def test_what_keeps_the_rules_is_let_be() -> None:
    python = '''
"""The energy of an auto-encoder: the length of what it leaves out."""

COUNT = 3
"""Samples in one batch."""


def energy(recon, images, *, norm="l2"):
    """Return the energy of each sample.

    Args:
        recon, images: [N, ...], the reconstructions and what they are of.
        norm: kind of energy.

    Returns:
        [N]
    """
    # One fact. Another one; and a third.
    return norm
'''
    page = f"# What it is\n\nOne sentence. {'Another one here. ' * 4}\n\n| a cell |{LONG} |\n\n```text\n{LONG}\n```\n"
    assert [*complaints("a.py", python), *complaints("a.md", page)] == []

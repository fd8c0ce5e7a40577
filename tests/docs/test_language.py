"""Every file keeps those rules of CONTRIBUTING.md that a program can check, and the check sees bad sentences."""

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

# Docstrings that this project had, and a part of the complaint.
SENTENCES = [
    ("What a path holds, told by what lies there.", "begins with 'What'"),
    ("Whether the gradients can be handed out as they are.", "begins with 'Whether'"),
    ("Of a float16 run's gradients, before its first step.", "begins with 'Of'"),
    ("The same of (prepared) steps of this process.", "begins with 'The same'"),
    ("They were set for float32; others are held against twice that.", "begins with 'They'"),
    ("By provider, why it has no figure.", "begins with 'By'"),
    ("As a run folder's name does; matplotlib reads formulas between dollars.", "begins with 'As'"),
    ("How many of each, and where they end.", "begins with 'How'"),
    ("(C, H, W) of one image.", "begins with '(', expected a word"),
    ("Copies there.", "got 'Copies there.' as a docstring's first sentence"),
    (f"Add one{LONG}.", "words in one go"),
    ("Draw in its own colour.", "got colour, expected American spelling"),
]
PLACES = {
    "module": '"""{}"""',
    "function": 'def call():\n    """{}"""',
    "method": 'class Some:\n    def call(self):\n        """{}"""',
    "class": 'class Some:\n    """{}"""',
    "field": 'class Some:\n    count: int\n    """{}"""',
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("sentence", "complaint"), SENTENCES)
def test_a_bad_sentence_is_seen_in_every_docstring(sentence: str, complaint: str, place: str) -> None:
    found = complaints("a.py", PLACES[place].format(sentence))
    assert any(complaint in words for _, _, words in found), found


# The ending of a file, its text, and a part of the complaint.
ELSEWHERE = {
    "a parameter without a word": (
        "py",
        'def a(b, c):\n    """Add two numbers.\n\n    Args:\n        b: one of them.\n    """',
        "no word of the parameter c",
    ),
    "a word of no parameter": (
        "py",
        'def a():\n    """Add no numbers.\n\n    Args:\n        b: one.\n    """',
        "got b in",
    ),
    "a sentence of a page": ("md", f"It has{LONG}.", "words in one go"),
    "an entry of a list": ("md", f"* One.\n* Two{LONG}.\n* Three.", "words in one go"),
    "a comment beside code": ("py", f"a = 1  # it has{LONG}", "words in one go"),
    "a comment of several lines": ("cuh", f"// it has\n//{LONG}", "words in one go"),
    "a long line of a page": ("md", "A page. " * 20, "a line of 160 characters"),
    "a long line of C++": ("cpp", "// " + "One more. " * 13, "a line of 133 characters"),
    "a comment of another file": ("toml", "# a neighbour", "American spelling"),
}


@pytest.mark.parametrize("place", ELSEWHERE)
def test_what_breaks_another_rule_is_seen(place: str) -> None:
    ending, text, complaint = ELSEWHERE[place]
    found = complaints(f"a.{ending}", text)
    assert any(complaint in words for _, _, words in found), found


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

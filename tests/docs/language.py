"""The rules of the project's English that a program can check: CONTRIBUTING.md has them in words.

`python -m tests.docs.language [PATH...]` prints a line for each broken rule, in all files or in those below the paths.
"""

from __future__ import annotations

import ast
import io
import itertools
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tests.repository import names_of_files

from .pages import ROOT

LONGEST_PART = 30
"""Words between two of . ; : ? and !."""
LONGEST_LINE = 130
"""Characters of a line of C++, or of Markdown without tables, code, and lines that a link or a picture fills.

Ruff holds the lines of Python to 120.
"""

# First words of a clause whose subject is left out, or is somewhere else in the file.
_WITHOUT_SUBJECT = re.compile(
    r"(?:What|How|Whether|Of|Where|Which|Why|Who|Whose|When|They|Them|Those|These|That|Their|It|Its|As|By|The same|Such"
    r"|And|But|Or|So|Then|Also|Because)\b"
)
_BRITISH = re.compile(
    r"\b\w*(?:colour|neighbour|behaviour|favour|honour|labour|flavour|artefact|grey|centre|fibre|licence|defence|catalogue"
    r"|(?:optim|normal|initial|special|standard|synchron|vector|quant|organ|recogn|serial|summar|general|minim|maxim"
    r"|parallel|random|regular|final|util|real|penal|visual|token|custom|emphas)is(?:e|ed|es|ing|er|ers|ation|ations)\b"
    r"|(?:label|model|signal|travel|cancel)l(?:ed|ing)\b|analyse|fulfil\b|whilst|amongst|towards\b|afterwards\b|judgement)"
    r"\w*",
    re.IGNORECASE,
)
# A misspelling that a user may type, and what is told of it.
_QUOTED = ("--neighbours",)

_HEADING = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Example):$", re.MULTILINE)
_ENTRY = re.compile(r"^    (\*{0,2}\w+(?:, \*{0,2}\w+)*(?: and \w+)?): \S", re.MULTILINE)
_EXAMPLE = re.compile(r"^\s*(?:Example|Examples):\s*$.*", re.MULTILINE | re.DOTALL)


class Complaint(NamedTuple):
    file: str
    line: int
    words: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.words}"


def complaints(file: str, text: str) -> list[Complaint]:
    """Return what breaks a rule in a file of this name and content."""
    found = [*_spelling(text)]
    if file.endswith(".py"):
        found += _python(text)
    elif file.endswith(".md"):
        found += _markdown(text)
    elif file.endswith((".h", ".cpp", ".cu", ".cuh")):
        found += [*_long_lines(enumerate(text.splitlines(), 1)), *_long_parts(_blocks(_comments_of_c(text)))]
    return [Complaint(file, line, words) for line, words in sorted(set(found))]


def _spelling(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        for quoted in _QUOTED:
            line = line.replace(quoted, "")
        for word in _BRITISH.findall(line):
            yield number, f"got {word}, expected American spelling"


class _Comment(NamedTuple):
    line: int
    is_alone: bool
    """True if no code stands before it."""
    words: str


def _blocks(comments: Iterable[_Comment]) -> list[tuple[int, str]]:
    """Return the line and the words of each block: comments that stand alone on successive lines are one."""
    found: list[tuple[int, str]] = []
    last = -1
    for line, is_alone, words in comments:
        if is_alone and line == last + 1:
            found[-1] = (found[-1][0], f"{found[-1][1]} {words}")
        else:
            found.append((line, words))
        last = line if is_alone else -1
    return found


# ---- Python


def sections(docstring: str) -> dict[str, str]:
    """Return the content of each section of a docstring by its heading. "" is the text before the first heading."""
    parts = _HEADING.split(docstring)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def entries(section: str) -> set[str]:
    """Return the names that a section explains, those of "ValueError, TypeError: ..." apart."""
    return {name.strip("* ") for names in _ENTRY.findall(section) for name in re.split(r", | and ", names)}


def _python(text: str) -> Iterator[tuple[int, str]]:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        for line, docstring in _docstrings(node):
            yield from ((line, words) for words in _first_sentence(docstring))
            yield from _long_parts([(line, docstring)])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from ((node.lineno, words) for words in _parameters(node))
    yield from _long_parts(_blocks(_comments_of_python(text)))


def _docstrings(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Give the line and text of a node's docstring, and of those below the fields and constants in its body."""
    body = getattr(node, "body", None)
    if not isinstance(body, list):
        return
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        docstring = ast.get_docstring(node)
        if docstring is not None:
            yield body[0].lineno, docstring
    for before, after in itertools.pairwise(body):
        is_field = isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr)
        if is_field and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            yield after.lineno, after.value.value


def _first_sentence(docstring: str) -> Iterator[str]:
    first = re.split(r"(?<=[.:?!])\s|\n\s*\n", docstring.strip(), maxsplit=1)[0]
    if found := _WITHOUT_SUBJECT.match(first):
        yield f"got a docstring that begins with {found[0]!r}, expected an imperative or the name of the thing"
    if not re.match(r"[A-Z0-9`\"'∂√]|[a-z]\w*\b", first):
        yield f"got a docstring that begins with {first[:1]!r}, expected a word"
    if len(first.split()) < 3:
        yield f"got {first!r} as a docstring's first sentence, expected one that is understood without the file"


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Hold the names of a section Args against the function's parameters."""
    found = sections(ast.get_docstring(function) or "")
    if "Args" not in found:
        return
    told = entries(found["Args"])
    taken = function.args
    names = [*taken.posonlyargs, *taken.args, *taken.kwonlyargs, *filter(None, (taken.vararg, taken.kwarg))]
    expected = {name.arg for name in names} - {"self", "cls"}
    for name in sorted(expected - told):
        yield f"got no word of the parameter {name} in the section Args"
    for name in sorted(told - expected):
        yield f"got {name} in the section Args, which is no parameter"


def _comments_of_python(text: str) -> Iterator[_Comment]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            words = token.string.lstrip("#").strip()
            yield _Comment(token.start[0], token.line.strip().startswith("#"), words)


# ---- C++ and Markdown


def _comments_of_c(text: str) -> Iterator[_Comment]:
    for number, line in enumerate(text.splitlines(), 1):
        before, slashes, words = line.partition("//")
        if slashes:
            yield _Comment(number, not before.strip(), words.strip())


def _markdown(text: str) -> Iterator[tuple[int, str]]:
    is_code = False
    paragraph: list[str] = []
    paragraphs: list[tuple[int, str]] = []
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        is_prose = not (is_code or line.lstrip().startswith(("|", "```", "#", "<", "![")))
        if is_prose and not re.fullmatch(r"\W*\[.*\]\(\S*\)\W*", line):
            yield from _long_lines([(number, line)])
        if not is_prose or not line.strip() or re.match(r"\s*(?:[*-]|\d+\.) ", line):
            if paragraph:
                paragraphs.append((number - len(paragraph), " ".join(paragraph)))
            paragraph = [line] if is_prose and line.strip() else []
        else:
            paragraph.append(line)
    yield from _long_parts(paragraphs)


def _long_lines(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    for number, line in lines:
        if len(line) > LONGEST_LINE:
            yield number, f"got a line of {len(line)} characters, expected {LONGEST_LINE} at most"


def _long_parts(texts: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Give the sentences, or the parts of them between two semicolons or colons, that have too many words."""
    for line, text in texts:
        plain = re.sub(r"<!--.*?-->", "", _EXAMPLE.sub("", text), flags=re.DOTALL)
        for block in re.split(r"\n\s*\n|\n\s+(?=[\w*, ]+: )|\n\s*(?:[*-]|\d+\.) |\n(?=\s{4,}\S+ {2,})", plain):
            for part in re.split(r"(?<=[.;:?!])[)\"*]*\s+| · ", re.sub(r"\s+", " ", block)):
                words = [word for word in part.split() if re.search(r"\w", word)]
                if len(words) > LONGEST_PART:
                    start = " ".join(words[:6])
                    yield line, f"got {len(words)} words in one go ({start} …), expected {LONGEST_PART} at most"


# ---- The repository

_WRITTEN_ELSEWHERE = re.compile(r"tests/written_before/[0-9a-f]{7}/|docs/studies/results/|bench/results/|LICENSE")
_QUOTING = ("tests/docs/language.py", "tests/docs/test_language.py")  # they hold the words that are looked for
_ENDINGS = (
    "Makefile",
    ".py",
    ".pyi",
    ".md",
    ".h",
    ".cpp",
    ".cu",
    ".cuh",
    ".toml",
    ".yml",
    ".html",
    ".css",
    ".sh",
    ".cff",
)


def files() -> list[str]:
    """Return the files of the repository that hold sentences; paths from its root."""
    return [
        name
        for name in names_of_files(ROOT)
        if name.endswith(_ENDINGS) and not _WRITTEN_ELSEWHERE.match(name) and name not in _QUOTING
    ]


def main(paths: list[str]) -> int:
    """Print the complaints of the files below some paths; returns the exit status."""
    found = [
        complaint
        for name in files()
        if not paths or any(name == path or name.startswith(path.rstrip("/") + "/") for path in paths)
        for complaint in complaints(name, (ROOT / name).read_text(encoding="utf-8"))
    ]
    print("\n".join(map(str, found)))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Find the statements that can raise, and compare them with those that the cases reached or unreached.py lists."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .case import PACKAGE, Place
from .unreached import MODULES, UNREACHED

# Exceptions that no mistake of a user causes: of control flow, of signals, and of the program's own checks.
_NO_MISTAKES = {
    "AssertionError", "AttributeError", "IndexError", "KeyboardInterrupt", "NotImplementedError", "StoppedError",
    "SystemExit",
}  # fmt: skip


class Site(NamedTuple):
    """A statement that raises, or that calls `fail`.

    Attributes:
        file: its file, a path within the package.
        function: the qualified name of the function around it.
        start: the first 50 characters of its message, or of its code if it has no message.
    """

    file: str
    function: str
    start: str


class _Found(NamedTuple):
    site: Site
    first: int
    last: int


def sites() -> list[_Found]:
    """Return every statement that raises or calls `fail`, in the modules that commands run, with its lines."""
    return [
        found
        for path in sorted(PACKAGE.rglob("*.py"))
        for name in (path.relative_to(PACKAGE).as_posix(),)
        if not name.startswith(tuple(MODULES))
        for found in _sites_of(name, ast.parse(path.read_text(encoding="utf-8")), "")
    ]


def _sites_of(file: str, node: ast.AST, function: str) -> Iterator[_Found]:
    for child in ast.iter_child_nodes(node):
        inside = function
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            inside = f"{function}.{child.name}".lstrip(".")
        raised = child.exc if isinstance(child, ast.Raise) else None
        told = child if isinstance(child, ast.Call) and ast.unparse(child.func) == "fail" else raised
        if told is not None and _name(told) not in _NO_MISTAKES:
            assert isinstance(child, (ast.Raise, ast.Call))
            yield _Found(Site(file, function, _start(told)), child.lineno, child.end_lineno or child.lineno)
        yield from _sites_of(file, child, inside)


def _name(raised: ast.expr) -> str:
    called = raised.func if isinstance(raised, ast.Call) else raised
    return ast.unparse(called).rpartition(".")[2]


def _start(raised: ast.expr) -> str:
    """Return the first 50 characters of the message, with {} for each value in it; of the code if it has none."""
    for argument in raised.args if isinstance(raised, ast.Call) else ():
        if isinstance(argument, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in argument.values)
            return "".join(map(str, parts))[:50]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            return argument.value[:50]
    return ast.unparse(raised)[:50]


def complaints(reached: Iterable[Place]) -> Iterator[str]:
    """Give a text for each site that is neither reached nor listed, and for each entry that is out of date."""
    lines: dict[str, set[int]] = {}
    for file, line in reached:
        lines.setdefault(file, set()).add(line)
    found = sites()
    listed = {Site(*key) for keys in UNREACHED.values() for key in keys}
    for site, first, last in found:
        is_reached = any(first <= line <= last for line in lines.get(site.file, ()))
        if not is_reached and site not in listed:
            yield f"no case reaches {tuple(site)!r}, and it isn't in tests/messages/unreached.py"
        if is_reached and site in listed and sum(site == other.site for other in found) == 1:
            yield f"a case reaches {tuple(site)!r}, which is in tests/messages/unreached.py"
    for site in sorted(listed - {one.site for one in found}):
        yield f"there is no {tuple(site)!r}, which is in tests/messages/unreached.py"

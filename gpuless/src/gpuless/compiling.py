"""Runs a compiler on sources, unless the cache has what it would make of them.

An entry is named by everything that the compiler reads: the text of the sources and of all that they include, the
options, the compiler's version, and for headers of the system the names, sizes and times of what lies in their folders.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from . import cache

_INCLUDE = re.compile(
    rb"^[ \t]*#[ \t]*(?:include|include_next|embed)\b[ \t]*(.*)|__has_include[ \t]*\([ \t]*([^)]*)\)", re.MULTILINE
)
_NAMED = re.compile(rb'(["<])([^">\n]+)[">]')
# Options that name a file, a folder, another compiler, or the processor of this machine.
_READS_MORE = re.compile(r"-(I|L|B|i|l(?!ineinfo)|specs|optf|ccbin)|@|--\w*(file|include|library|bindir)|-.*=native$")
# Variables by which compilers find files or get options.
_VARIABLES = (
    "CPATH",
    "CPLUS_INCLUDE_PATH",
    "LIBRARY_PATH",
    "NVCC_PREPEND_FLAGS",
    "NVCC_APPEND_FLAGS",
    "NVCC_CCBIN",
    "GCC_EXEC_PREFIX",
)


class _CannotTellError(Exception):
    """A macro, or an option, decides what a compiler reads."""


def compiled(
    compiler: str,
    sources: Sequence[Path],
    *,
    options: Sequence[str] = (),
    headers: Sequence[Path] = (),
    system_headers: Sequence[Path] = (),
    last_headers: Sequence[Path] = (),
    libraries: Sequence[Path] = (),
    root: Path | None = None,
    host_compiler: str | None = None,
    take_root_out: bool = False,
) -> bytes:
    """Compile the sources, or read from the cache what they were compiled to, and return it as bytes.

    headers are folders for -I, system_headers for -isystem, last_headers for -idirafter; libraries are linked by their
    file names, to be found at run time. host_compiler is the one that nvcc calls.

    Of two trees with equal files below `root` the second is not compiled again. The code must then not name the root:
    let `options` map it to something else or, of text, take_root_out. Options that name files are compiled anew each
    time.
    RuntimeError with what the compiler printed if it fails.
    """
    command = [_found(compiler), *options]
    command += [f"-I{path}" for path in headers]
    for path in system_headers:
        command += ["-isystem", str(path)]
    for path in last_headers:
        command += ["-idirafter", str(path)]
    command += map(str, sources)
    for path in libraries:
        command += [f"-L{path.parent}", f"-l:{path.name}"]
    versions = [version(each) for each in (compiler, host_compiler) if each]
    system = [*system_headers, *last_headers]
    name = _name(versions, sources, options, headers, system, libraries, root) if cache.folder() else None

    def make() -> bytes:
        with tempfile.TemporaryDirectory(prefix="gpuless_") as folder:
            output = Path(folder) / "output"
            run([*command, "-o", str(output)])
            made = output.read_bytes()
        return made.replace(f"{root.resolve()}/".encode(), b"") if take_root_out and root else made

    return make() if name is None else cache.once(name, make)


def run(command: Sequence[str]) -> None:
    """Run a compiler; RuntimeError with what it printed if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}")


def write_executable(output: Path, content: bytes) -> Path:
    """Write a program, or a library, in the place of one that may be running."""
    handle, beside = tempfile.mkstemp(dir=output.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.chmod(beside, 0o755)
    os.replace(beside, output)
    return output


def variables() -> list[str]:
    """The variables by which compilers find files or get options, and their values here: "CPATH=/usr/include"."""
    return [f"{name}={os.environ.get(name)}" for name in _VARIABLES]


def _name(
    versions: Sequence[str],
    sources: Sequence[Path],
    options: Sequence[str],
    headers: Sequence[Path],
    system_headers: Sequence[Path],
    libraries: Sequence[Path],
    root: Path | None,
) -> str | None:
    """The key of the entry; None where the files that are read can't be told."""
    here = str(root.resolve()) if root else None
    if any(map(_READS_MORE.match, options)):
        return None
    try:
        read = [part for source in sources for part in _read_by(source.resolve(), tuple(headers), here)]
    except _CannotTellError:
        return None
    fixed = [option.replace(here, "ROOT") if here else option for option in options]
    linked = [part for path in libraries for part in (path.name.encode(), path.read_bytes())]
    groups: list[Sequence[str | bytes]] = [
        *(versions, variables(), fixed, read),
        *([_fingerprint(path) for path in system_headers], linked),
    ]
    return cache.key(*(part for group in groups for part in (str(len(group)), *group)))


def _read_by(source: Path, headers: tuple[Path, ...], root: str | None) -> Iterator[bytes]:
    """Names and texts of a source and of all that it may include from its own folder and those of the headers."""
    waiting, seen = [source], {source}
    while waiting:
        path = waiting.pop()
        text = path.read_bytes()
        yield str(path.relative_to(root) if root is not None and path.is_relative_to(root) else path).encode()
        yield text
        for included in _included(path, text, headers):
            if included not in seen:
                seen.add(included)
                waiting.append(included)


def _included(path: Path, text: bytes, headers: Iterable[Path]) -> Iterator[Path]:
    """The files that its lines name, under any condition. What is found nowhere is the system's."""
    for line, asked in _INCLUDE.findall(text.replace(b"\\\n", b" ")):
        named = _NAMED.match((line or asked).strip())
        if named is None:
            raise _CannotTellError
        folders = [path.parent, *headers] if named[1] == b'"' else list(headers)
        for folder in folders:
            candidate = folder / named[2].decode()
            if candidate.is_file():
                yield candidate.resolve()
                break


@functools.cache
def version(compiler: str) -> str:
    """The text by which a compiler tells its version."""
    return subprocess.run([_found(compiler), "--version"], check=True, capture_output=True, text=True).stdout


@functools.cache
def _fingerprint(folder: Path) -> str:
    """The names, sizes and times of all files in a folder. 2,000 headers of CUDA take 20 ms."""
    found = []
    for path, _, names in os.walk(folder):
        for name in names:
            status = os.stat(os.path.join(path, name))
            found.append((path, name, status.st_size, status.st_mtime_ns))
    return repr(sorted(found))


def forget() -> None:
    """Look at compilers and at headers of the system again, which a process does once."""
    version.cache_clear()
    _fingerprint.cache_clear()


def _found(compiler: str) -> str:
    path = shutil.which(compiler)
    if path is None:
        raise RuntimeError(f"no compiler {compiler!r} is found")
    return path

"""Run a compiler on sources, or take its output from the cache.

The key of a cache entry covers everything that the compiler reads:

* the text of the sources and of every file that they include
* the options, and the compiler's version
* the names, sizes and times of the files in the folders of system headers
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
# Options that name a file, a folder or another compiler, or that mean the processor of this machine.
_READS_MORE = re.compile(r"-(I|L|B|i|l(?!ineinfo)|specs|optf|ccbin)|@|--\w*(file|include|library|bindir)|-.*=native$")
# Environment variables that give compilers search paths or options.
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
    """Raised if a macro or an option decides which files a compiler reads."""


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
    """Compile the sources and return the output file as bytes, from the cache where it is there.

    Two trees whose files below `root` are equal share an entry. The code must then not contain the path of the root:
    let `options` map the path to something else, or remove it from text by `take_root_out`.

    Args:
        compiler: The compiler's name or path.
        sources: The files to compile.
        options: Options of the compiler. With an option that names a file, every call compiles anew.
        headers: Folders for -I.
        system_headers: Folders for -isystem.
        last_headers: Folders for -idirafter.
        libraries: Libraries to link by their file names. They must be found again at run time.
        root: The folder that the names in the key are relative to.
        host_compiler: The C++ compiler that nvcc calls.
        take_root_out: If True, remove the root's path from the output.

    Raises:
        RuntimeError: If the compiler is missing, or fails: with the text that it printed.
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
    """Run a compiler. Raise RuntimeError with the text that it printed if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}")


def write_executable(output: Path, content: bytes) -> Path:
    """Write a program or library to `output`, also while the old file there is running."""
    handle, beside = tempfile.mkstemp(dir=output.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.chmod(beside, 0o755)
    os.replace(beside, output)
    return output


def variables() -> list[str]:
    """Return the environment variables that compilers read, with their values: "CPATH=/usr/include"."""
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
    """Return the key of the entry; None if it is unknown which files the compiler reads."""
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
    """Yield the name and the text of a source, and of each file that it may include from its own folder or from
    `headers`.
    """
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
    """Yield the files that the #include lines of `text` name, under any condition.

    A file that is found in no folder is taken for a system header and left out.
    """
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
    """Return the text that a compiler prints for --version."""
    return subprocess.run([_found(compiler), "--version"], check=True, capture_output=True, text=True).stdout


@functools.cache
def _fingerprint(folder: Path) -> str:
    """Return the names, sizes and times of all files in a folder. CUDA's 2,000 headers take 20 ms."""
    found = []
    for path, _, names in os.walk(folder):
        for name in names:
            status = os.stat(os.path.join(path, name))
            found.append((path, name, status.st_size, status.st_mtime_ns))
    return repr(sorted(found))


def forget() -> None:
    """Forget the compilers' versions and the state of system headers, which a process otherwise reads once."""
    version.cache_clear()
    _fingerprint.cache_clear()


def _found(compiler: str) -> str:
    path = shutil.which(compiler)
    if path is None:
        raise RuntimeError(f"no compiler {compiler!r} is found")
    return path

"""A launcher for CMake that copies an object from gpuless's cache folder if the same compile made it before.

CMake puts the launcher before a compiler's command if the variables of `launched` are set: in the tests, and in
`make setup`, which begins before an environment with gpuless exists. An object's name is the hash of all that the
compile reads: the sources, the headers of its include folders, the compilers' versions, flags and definitions. Only
clean compiles are kept: a compile that failed or printed a warning runs again.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "gpuless" / "src"))

from gpuless import cache, compiling

SOURCES = "csrc"  # only compiles of files below a folder of this name are kept; the hash covers the folder
_PATHS = ("-o", "-c", "-MF", "-MT", "-MQ")  # options before a path that changes no code
_INCLUDES = ("-isystem", "-I")
# Options that read more than the hash covers, or that depend on this machine's processor.
_READS_MORE = re.compile(
    r"-(B|include|imacros|iquote|idirafter|specs|fplugin|ccbin)|--(compiler-bindir|options-file)|@|-.*=native$"
)


def launched() -> dict[str, str]:
    """Return environment variables that make CMake (3.17 or later) start every compiler through this file.

    With -IS Python starts without the packages of its environment, which pip hides from a build in any case.
    """
    launcher = f"{sys.executable};-IS;{Path(__file__).resolve()}"
    return {f"CMAKE_{language}_COMPILER_LAUNCHER": launcher for language in ("CXX", "CUDA")}


def _sources(source: Path) -> Path | None:
    return next((parent for parent in source.resolve().parents if parent.name == SOURCES), None)


def _files(top: Path) -> Iterator[bytes]:
    """Give the name and the bytes of every file below a folder."""
    for path in sorted(path for path in top.rglob("*") if path.is_file()):
        yield path.relative_to(top).as_posix().encode()
        yield path.read_bytes()


def _version(compiler: str) -> bytes:
    try:
        return subprocess.run([compiler, "--version"], capture_output=True).stdout
    except FileNotFoundError:  # a machine may have the compiler that CXX names, and no c++
        return b""


def name_of(command: Sequence[str]) -> str | None:
    """Return the name under which a compile's object is kept, or None if the compile is not kept."""
    if "-c" not in command or "-o" not in command or any(map(_READS_MORE.match, command)):
        return None
    source = Path(command[list(command).index("-c") + 1])
    top = _sources(source)
    if top is None:
        return None
    parts: list[bytes] = [source.resolve().relative_to(top).as_posix().encode(), *_files(top)]
    words = iter(command[1:])
    for word in words:
        if word in _PATHS:
            next(words)
        elif word.startswith(_INCLUDES):
            attached = word.removeprefix("-isystem").removeprefix("-I").removeprefix("=")
            parts += [b"include", *_files(Path(attached or next(words)))]
        else:
            parts.append(word.encode())
    # Also the versions of nvcc's host compiler and of the C library, whose headers come with neither compiler.
    parts += [_version(command[0]), _version("c++"), "".join(platform.libc_ver()).encode()]
    parts += [variable.encode() for variable in compiling.variables()]
    return cache.key(*parts)


def main(command: Sequence[str]) -> int:
    """Run a compiler's command, or copy the object that it made before; return the exit status."""
    name = name_of(command)
    if name is None:
        return subprocess.run(command).returncode
    made, kept = Path(command[list(command).index("-o") + 1]), cache.read(name)
    if kept is not None:
        made.write_bytes(kept)
        if "-MF" in command:  # the list of the headers that were read; make and ninja need the file
            Path(command[list(command).index("-MF") + 1]).write_text(f"{made}:\n")
        return 0
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    sys.stdout.buffer.write(done.stdout)
    if done.returncode == 0 and not done.stdout:
        cache.write(name, made.read_bytes())
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

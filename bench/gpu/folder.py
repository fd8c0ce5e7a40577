"""The folder of results holds few files, and none is large, so that all of it can be copied from a borrowed machine."""

from __future__ import annotations

import re
from pathlib import Path

MOST_FILES = 8
MOST_BYTES = 16 * 2**20
SECTION_BYTES = 3 * 2**19
_NAME = re.compile(r"[A-Za-z0-9._-]+")

# The files that a run may leave.
ENVIRONMENT, VERDICTS, LOG = "env.txt", "verdicts.jsonl", "log.txt"
STEPS, OPS, RUN = "train.jsonl", "ops.jsonl", "run.tar"
TRIALS, TABLES = "tune.jsonl", "tables.json"


def check(folder: Path) -> list[str]:
    """Return the faults of a folder of results, a line for each."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    wrong = [] if len(files) <= MOST_FILES else [f"{len(files)} files, expected at most {MOST_FILES}"]
    for path in files:
        if path.stat().st_size > MOST_BYTES:
            wrong.append(f"{path.name}: {path.stat().st_size} bytes, expected at most {MOST_BYTES}")
        if not all(_NAME.fullmatch(part) for part in path.relative_to(folder).parts):
            wrong.append(f"{path.name}: expected a name of letters, digits, '.', '_' and '-'")
    return wrong


def bound(folder: Path) -> list[str]:
    """Cut every text file that has grown too large, and return the names of the files that were cut."""
    large = [path for path in folder.iterdir() if path.is_file() and path.stat().st_size > MOST_BYTES]
    texts = [path for path in large if path.suffix != ".tar"]
    for path in texts:
        cut(path, MOST_BYTES)
    return [path.name for path in texts]


def cut(path: Path, most: int) -> None:
    """Cut whole lines out of the middle of a text file, so that at most `most` bytes stay.

    A line in their place says how many bytes were cut. A file of JSON lines gets none, as its readers do not know it.
    """
    content = path.read_bytes()
    if len(content) <= most:
        return
    half = (most - 100) // 2  # the marker takes less than 100 bytes
    head = content[: content.rfind(b"\n", 0, half) + 1] or content[:half]
    start = content.find(b"\n", len(content) - half) + 1
    tail = content[start:] if start else content[-half:]
    left_out = len(content) - len(head) - len(tail)
    partial = path.with_name(f".{path.name}.cut")
    partial.write_bytes(head + (b"" if path.suffix == ".jsonl" else marker(left_out)) + tail)
    partial.replace(path)


def marker(count: int) -> bytes:
    """Return the line that stands for bytes that were left out."""
    return f"\n... {count} bytes left out ...\n".encode()


class Section:
    """The part of the log that belongs to one stage. If it grows longer than its share, its middle is cut.

    Every byte is on the disk at once.

    Args:
        path: The log, to which the section is added.
        title: The section's heading.
        most: Bytes that the section may take.
    """

    def __init__(self, path: Path, title: str, most: int = SECTION_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            cut(path, MOST_BYTES - most)
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        self._start = self._file.seek(0, 2)
        self._most = most
        self._head: int | None = None
        """The end of the first bytes, once bytes were left out."""
        self._left_out = 0
        self._end = self._start
        self.write(f"\n== {title}\n".encode())

    def write(self, data: bytes) -> None:
        while data and not self._file.closed:  # a piece larger than the section is cut while it is written
            piece, data = data[: self._most // 4], data[self._most // 4 :]
            self._file.seek(self._end)
            self._file.write(piece)
            self._end += len(piece)
            if self._end - self._start > self._most:
                self._cut()

    def _cut(self) -> None:
        quarter = self._most // 4
        if self._head is None:
            self._head = self._start + quarter
            already = 0
        else:
            already = len(marker(self._left_out))
        self._file.seek(self._head)
        rest = self._file.read(self._end - self._head)[already:]
        tail = rest[-quarter:]
        self._left_out += len(rest) - len(tail)
        self._file.seek(self._head)
        self._file.write(marker(self._left_out) + tail)
        self._end = self._file.tell()
        self._file.truncate()

    def close(self) -> None:
        self._file.close()

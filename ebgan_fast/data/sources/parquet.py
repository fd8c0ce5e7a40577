"""Read images from Parquet as Hugging Face's datasets store them: in a column of bytes, or of structs with bytes."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..._console import shortened, shown
from ..errors import DataError, ImageError, needed, no_images
from .names import HEAD_BYTES, looks_like_image
from .parquet_pages import Part, part_of
from .reading import check_size, quoted
from .source import Tally

_ROWS = 16  # rows that are read at a time: 80 MB of photographs
# Bytes of the rows that are read at a time, if each row is as long as its page. pyarrow takes up to seven times as many
# bytes: for a page, its dictionary, the rows, and the buffer in which the rows grow.
_ROOM = 1 << 27
# Bytes that a row of a small file may take. pyarrow puts at least 1024 values into a page: drawings of 512 kB each.
_LONGEST_ROW = 1 << 29
# Bytes of a row group that are read at a time. Without this limit the whole group is: 2 GB took 7 GB of memory.
_BUFFER = 1 << 20
_USUAL = "image"
_LOOKED_AT = 16  # values of a column that are checked: one of them must begin like an image
# Patterns of pyarrow's names for types.
_OF_BYTES = re.compile(r"(dictionary<values=)?(large_)?binary(_view)?\b")
_OF_LISTS = re.compile(r"((large_)?list(_view)?|fixed_size_list)<")
_TOO_LONG = "may unpack to far more than its file: write it again, without compression"
_LISTS = "columns of lists of images, which can't be taken"


class _Column(NamedTuple):
    """A column's name, and the path of the part to read: the field "bytes" in a column of structs."""

    name: str
    path: str


@dataclass
class _Open:
    """The state of a source while its file is open. It isn't pickled."""

    reader: Any = None
    batches: Iterator[Any] = field(default_factory=lambda: iter(()))
    at_hand: Any = ()  # the rows in memory
    first: int = 0  # the number of the first row in memory
    rows: dict[tuple[str, int], Part] = field(default_factory=dict)  # by path and row group
    looked_through: int = 0  # bytes of the parts whose headers were read
    leaves: list[tuple[str, int]] = field(default_factory=list)  # path and number of each column that holds values
    broken: dict[int, tuple[int, Exception]] = field(default_factory=dict)  # by group: its first bad row, and the error


class ParquetSource:
    """The images of a parquet file, row by row.

    Args:
        path: the file.
        column: the column to take. It must be of bytes, or of structs with bytes, of any content. None: "image", or
            the only column that holds images.

    Raises:
        DataError: the file is no parquet file, pyarrow isn't installed, there is no such column, or it isn't clear
            which column holds images.
    """

    def __init__(self, path: Path, column: str | None = None) -> None:
        self._path = path
        self.aside = Tally()
        self._open = _Open()
        try:
            reader = self._opened()
            names = shown(reader.schema_arrow.names)
            groups = [reader.metadata.row_group(group).num_rows for group in range(reader.num_row_groups)]
            self._ends = list(itertools.accumulate(groups))
            self._column = self._chosen(column, reader)
        except DataError:
            raise
        except Exception as error:  # pyarrow's own kinds, and OSError
            raise DataError(
                f"{path}: got a file that can't be read ({quoted(error)}), expected a whole parquet file"
            ) from error
        finally:
            self.close()
        if not len(self):
            raise no_images(path, f"columns {names} of no rows")

    def _opened(self) -> Any:
        """Return pyarrow's reader of the file, opened if it is closed.

        `Joined` closes it before another file is read: a process may be allowed 64 open files, and a set have 1000.
        """
        if self._open.reader is None:
            parquet = needed("pyarrow.parquet", "data", f"{self._path}: a parquet file")
            self._open.reader = parquet.ParquetFile(self._path, buffer_size=_BUFFER, pre_buffer=False)
        return self._open.reader

    def _chosen(self, column: str | None, reader: Any) -> _Column:
        schema = reader.schema_arrow
        names = shown(schema.names)
        able = {field.name: _column(field) for field in schema if _holds_bytes(field.type)}
        lists = {field.name: _column(field) for field in schema if _holds_lists(field.type)}
        if column is not None and column in able:
            return able[column]
        if column in lists:
            raise DataError(
                f"{self._path}: got the column {column!r} of lists of images, which can't be taken; expected one of "
                "encoded images or of structs with their bytes"
            )
        otherwise = False if _USUAL in able else None
        fitting = [name for name in able if self._is_of_images(reader, able[name], otherwise)]
        if column is not None and able:
            raise DataError(
                f"{self._path}: got columns {names}, of which {column!r} holds no images; expected one of "
                f"{shown(fitting or [*able])}"
            )
        for name in lists:
            if self._is_of_images(reader, lists[name], otherwise=True):
                self.aside.add(_LISTS, name)
        if not fitting:
            raise no_images(
                self._path,
                f"columns {names}",
                str(self.aside),
                "one named image, of encoded images or of structs with their bytes"
                + (f", or --column with one of {shown([*able])}" if able else ""),
            )
        if len(fitting) > 1 and _USUAL not in fitting:
            raise DataError(
                f"{self._path}: got several columns that hold images, {shown(fitting)}; expected one of them: "
                f"--column {shortened(fitting[0])}"
            )
        chosen = _USUAL if _USUAL in fitting else fitting[0]
        for other in fitting:
            if other != chosen:
                self.aside.add("columns of images (--column NAME takes one)", other)
        return able[chosen]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def name(self, index: int) -> str:
        return f"{self._path}, row {index}"

    def read(self, index: int) -> bytes:
        now = self._open
        if not now.first <= index < now.first + len(now.at_hand):
            self._read_up_to(index)
        content = _content(now.at_hand[index - now.first])
        if content is None:
            raise DataError("no bytes in the column, only a path; expected the image itself")
        check_size(content.size)
        read: bytes = content.to_pybytes()
        return read

    def _read_up_to(self, index: int) -> None:
        """Read on until the row is in memory: after the rows in memory, or else from the start of the row's group."""
        now, group = self._open, bisect.bisect_right(self._ends, index)
        if group in now.broken and index >= now.broken[group][0]:
            raise now.broken[group][1].with_traceback(None)
        start = self._ends[group - 1] if group else 0
        following = now.first + len(now.at_hand)
        if not (start < following <= index) or now.reader is None:
            now.batches = self._batches_of(self._opened(), self._column, group)
            following = start
        try:
            while following <= index:
                now.at_hand = ()  # freed before the next batch is read, so that only one is in memory
                batch = next(now.batches, None)
                if batch is None:
                    raise ValueError(f"{following - start} rows in a group of {self._ends[group] - start}")
                now.first, now.at_hand = following, batch
                following += len(batch)
        except Exception as error:
            now.broken[group] = following, error
            now.batches, now.at_hand, now.first = iter(()), (), 0
            raise

    def _batches_of(self, reader: Any, column: _Column, group: int) -> Iterator[Any]:
        """Give the rows of a column in a row group, as many at a time as memory allows.

        Raises:
            ImageError: a row may be longer than `_LONGEST_ROW` and than twice the file.
            ValueError: the group is damaged after the rows that were given.
        """
        known = self._open.rows
        if (column.path, group) not in known:
            known[column.path, group] = self._rows_of(reader, column.path, group)
        longest, whole, damage = known[column.path, group]
        most = max(_LONGEST_ROW, 2 * self._path.stat().st_size)
        if longest > most:
            raise ImageError(_TOO_LONG, f"{longest} bytes, expected at most {most}")
        rows = 1 if damage else max(1, min(_ROWS, _ROOM // max(1, longest)))
        batches = reader.iter_batches(rows, row_groups=[group], columns=[column.path])
        # Found by its name, because another column may have the path as its name. `map` keeps no batch while it reads
        # the next one.
        found = map(lambda batch: batch.column(batch.schema.names.index(column.name)), batches)
        if damage is None:
            yield from found
        else:
            yield from itertools.islice(found, whole)
            raise ValueError(damage)

    def _rows_of(self, reader: Any, path: str, group: int) -> Part:
        """Return for a column in a row group a bound of the bytes of a row, the number of whole rows, and the damage.

        The damage lies after the whole rows. It is None if there is none.

        Raises:
            ValueError: the parts of the file overlap.
        """
        schema, parts = reader.schema, reader.metadata.row_group(group)
        now = self._open
        if not now.leaves:
            now.leaves = sorted((schema.column(number).path, number) for number in range(len(schema)))
        same, first, last = (bisect.bisect_left(now.leaves, (end, 0)) for end in (path, f"{path}.", f"{path}/"))
        itself = itertools.takewhile(lambda leaf: leaf[0] == path, now.leaves[same:])
        longest, whole, damage = 0, parts.num_rows, None
        with self._path.open("rb", buffering=1 << 9) as file:
            size = file.seek(0, 2)
            for _, number in [*itself, *now.leaves[first:last]]:  # "/" is the character after "."
                now.looked_through += parts.column(number).total_compressed_size
                if now.looked_through > size:  # a thousand groups that name the same bytes would take hours
                    raise ValueError("parts that overlap")
                part = part_of(file, parts.column(number))
                # One row may hold all values, if values are lists.
                is_list = schema.column(number).max_repetition_level > 0
                longest += part.longest * (part.values if is_list else 1)
                if part.damage is not None:
                    whole, damage = min(whole, 0 if is_list else part.values), part.damage
        return Part(longest, whole, damage)

    def _is_of_images(self, reader: Any, column: _Column, otherwise: bool | None) -> bool:
        """Return True if a column is named "image", or one of its first values that aren't null begins like an image.

        Args:
            reader: pyarrow's reader of the file.
            column: the column.
            otherwise: the answer if the values can't be read. None: raise the error, because this column may be the one
                to take.

        Raises:
            DataError: the values would fill the memory, and `otherwise` is None.
        """
        if column.name == _USUAL:
            return True
        groups = range(reader.num_row_groups)
        batches = itertools.chain.from_iterable(self._batches_of(reader, column, group) for group in groups)
        contents = (_content(value) for batch in batches for value in batch)
        there = (content for content in contents if content is not None)
        heads = (content[:HEAD_BYTES].to_pybytes() for content in itertools.islice(there, _LOOKED_AT))
        try:
            return any(looks_like_image(head) for head in heads)
        except Exception as error:  # among them pyarrow 17's, for a null among lists of a fixed size
            if otherwise is not None:
                return otherwise
            if isinstance(error, ImageError):
                raise DataError(
                    f"{self._path}: got the column {shortened(column.name)}, which {error}, or name another: "
                    "--column NAME"
                ) from error
            raise

    def files(self) -> Iterator[str]:
        yield str(self._path)

    def close(self) -> None:
        if self._open.reader is not None:
            self._open.reader.close()
        self._open = _Open()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": _Open()}


def _column(field: Any) -> _Column:
    return _Column(field.name, f"{field.name}.bytes" if str(field.type).startswith("struct<") else field.name)


def _holds_bytes(kind: Any) -> bool:
    """Return True for a type of bytes, or of structs with a field of bytes that is named "bytes"."""
    # The fields are asked for by number: pyarrow before 18 has no list of a struct's fields.
    inner = [kind.field(number) for number in range(kind.num_fields)] if str(kind).startswith("struct<") else []
    bytes_inside = [part for part in inner if part.name == "bytes"]
    return any(_OF_BYTES.match(str(each)) for each in (kind, *(part.type for part in bytes_inside)))


def _holds_lists(kind: Any) -> bool:
    return _OF_LISTS.match(str(kind)) is not None and _holds_bytes(kind.value_type)


def _content(value: Any) -> Any:
    """Return the bytes of a value as a buffer, without a copy, or None for null. Of a list, take the first not null."""
    if not value.is_valid:
        return None
    kind = str(value.type)
    if kind.startswith("struct<"):
        return _content(value["bytes"])
    if kind.startswith("dictionary<"):
        return _content(value.value)
    if _OF_LISTS.match(kind):
        return next((content for each in value.values if (content := _content(each)) is not None), None)
    return value.as_buffer()

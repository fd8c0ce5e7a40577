"""Parquet as Hugging Face's datasets store images: a column of structs with the bytes and the path, or of bytes."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError, NoImagesError, needed
from .names import HEAD_BYTES, looks_like_image
from .reading import check_size
from .source import Tally

_ROWS = 16  # at a time: of photographs, 80 MB
# Bytes of a row group that are read at a time. Without, all of it is: groups of 2 GB took 7 GB of memory.
_BUFFER = 1 << 20
_USUAL = "image"
_OF_BYTES = re.compile(r"(dictionary<values=)?(large_)?binary(_view)?\b")  # types by pyarrow's names


class ParquetSource:
    """The images of a parquet file, row by row.

    Args:
        path: the file.
        column: the one that holds the images. None: "image", or the only one that holds any.

    Raises:
        DataError: no parquet, no such column, none or several that hold images.
    """

    def __init__(self, path: Path, column: str | None = None) -> None:
        self._path = path
        self.aside = Tally()
        self._reader: Any = None
        self._batches: Iterator[Any] = iter(())
        self._at_hand: Any = ()  # rows, and the number of the first
        self._first = 0
        try:
            reader = self._opened()
            names = reader.schema_arrow.names
            groups = [reader.metadata.row_group(group).num_rows for group in range(reader.num_row_groups)]
            self._ends = list(itertools.accumulate(groups))
            self._column = self._chosen(column, reader)
        except DataError:
            raise
        except Exception as error:  # pyarrow's own kinds, and OSError
            raise DataError(
                f"{path}: got a file that can't be read ({error}), expected a whole parquet file"
            ) from error
        finally:
            self.close()
        if not len(self):
            raise NoImagesError(path, f"columns {names} of no rows")

    def _opened(self) -> Any:
        """The reader. It is closed between files: of a thousand, a process may open 64."""
        if self._reader is None:
            parquet = needed("pyarrow.parquet", "data", f"{self._path}: a parquet file")
            self._reader = parquet.ParquetFile(self._path, buffer_size=_BUFFER, pre_buffer=False)
        return self._reader

    def _chosen(self, column: str | None, reader: Any) -> str:
        fitting = _image_columns(reader)
        if column is not None and fitting:
            if column not in fitting:
                raise DataError(
                    f"{self._path}: got columns {reader.schema_arrow.names}, of which {column!r} holds no images; "
                    f"expected one of {fitting}"
                )
            return column
        if not fitting:
            raise NoImagesError(
                self._path,
                f"columns {reader.schema_arrow.names}",
                "",
                "one named image, of encoded images or of structs with their bytes",
            )
        if len(fitting) > 1 and _USUAL not in fitting:
            raise DataError(
                f"{self._path}: got several columns that hold images, {fitting}; expected to be told which: --column "
                f"{fitting[0]}"
            )
        chosen = _USUAL if _USUAL in fitting else fitting[0]
        for other in fitting:
            if other != chosen:
                self.aside.add("columns that hold images (--column NAME takes one)", other)
        return chosen

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def name(self, index: int) -> str:
        return f"{self._path}, row {index}"

    def read(self, index: int) -> bytes:
        if not self._first <= index < self._first + len(self._at_hand):
            self._read_up_to(index)
        value = self._at_hand[index - self._first].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None:
            raise DataError("no bytes in the column, only a path; expected the image itself")
        check_size(len(content))
        read: bytes = content
        return read

    def _read_up_to(self, index: int) -> None:
        """Have the row at hand. Rows come from the start of their group, or after those that are at hand."""
        group = bisect.bisect_right(self._ends, index)
        start = self._ends[group - 1] if group else 0
        following = self._first + len(self._at_hand)
        if not (start < following <= index) or self._reader is None:
            self._batches = self._opened().iter_batches(_ROWS, row_groups=[group], columns=[self._column])
            following = start
        while following <= index:
            self._at_hand = ()
            batch = next(self._batches).column(0)
            self._first, self._at_hand = following, batch
            following += len(batch)

    def files(self) -> Iterator[str]:
        yield str(self._path)

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader, self._batches, self._at_hand, self._first = None, iter(()), (), 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None, "_batches": iter(()), "_at_hand": (), "_first": 0}


def _image_columns(reader: Any) -> list[str]:
    """The columns of structs with bytes, and those of bytes whose first is an image's."""
    found = []
    for field in reader.schema_arrow:
        # By number: pyarrow before 18 has no list of a struct's fields.
        inner = [field.type.field(number) for number in range(field.type.num_fields)]
        of_bytes = _OF_BYTES.match(str(field.type)) is not None
        if any(part.name == "bytes" for part in inner) or (of_bytes and _begins_with_image(reader, field.name)):
            found.append(field.name)
    return found


def _begins_with_image(reader: Any, column: str) -> bool:
    for batch in reader.iter_batches(1, columns=[column]):
        value = batch.column(0)[0].as_py()
        if value is not None:
            return looks_like_image(value[:HEAD_BYTES])
    return False

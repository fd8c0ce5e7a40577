"""Parquet as Hugging Face's datasets store images: a column of structs with the bytes and the path of each."""

from __future__ import annotations

import bisect
from pathlib import Path
from typing import Any

from ..errors import DataError, needed

_KEPT_GROUPS = 2  # images are read in order: the row group in use, and the one before at a seam


class ParquetSource:
    """The images of parquet files, row by row, in the order of the files."""

    def __init__(self, files: list[Path]) -> None:
        parquet = needed("pyarrow.parquet", "data", f"{files[0]}: a parquet file")
        self._files = files
        self._readers = []
        self._groups: list[tuple[int, int, int]] = []  # file, row group, its first image
        self._count = 0
        for number, path in enumerate(files):
            try:
                reader = parquet.ParquetFile(path)
            except Exception as error:  # pyarrow's own kinds, and OSError
                raise DataError(f"{path}: got a file that can't be read as parquet ({error})") from error
            self._readers.append(reader)
            for group in range(reader.num_row_groups):
                self._groups.append((number, group, self._count))
                self._count += reader.metadata.row_group(group).num_rows
        self._column = _image_column(self._readers[0].schema_arrow, files[0])
        self._kept: dict[int, Any] = {}

    def __len__(self) -> int:
        return self._count

    def _place(self, index: int) -> tuple[int, int]:
        """(number of the row group among all, row in it)."""
        place = bisect.bisect_right(self._groups, index, key=lambda group: group[2]) - 1
        return place, index - self._groups[place][2]

    def name(self, index: int) -> str:
        place, row = self._place(index)
        number, _, first = self._groups[place]
        start = next(first for file, _, first in self._groups if file == number)
        return f"{self._files[number]}, row {first - start + row}"

    def read(self, index: int) -> bytes:
        place, row = self._place(index)
        if place not in self._kept:
            if len(self._kept) >= _KEPT_GROUPS:
                del self._kept[next(iter(self._kept))]
            number, group, _ = self._groups[place]
            table = self._readers[number].read_row_group(group, columns=[self._column])
            self._kept[place] = table.column(self._column).combine_chunks()
        content = self._kept[place][row]["bytes"].as_py()
        if content is None:
            raise DataError("no bytes in the column, only a path; expected the image itself")
        read: bytes = content
        return read


def _image_column(schema: Any, path: Path) -> str:
    """The column "image", or the only one of structs with bytes."""
    fitting = [
        field.name for field in schema if any(inner.name == "bytes" for inner in getattr(field.type, "fields", []))
    ]
    if "image" in fitting:
        return "image"
    if len(fitting) == 1:
        name: str = fitting[0]
        return name
    raise DataError(f"{path}: got columns {schema.names}, expected one named image of structs with bytes and path")

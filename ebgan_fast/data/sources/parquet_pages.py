"""Sizes of a Parquet file's pages, from the headers before them: a page of 10 kB may unpack to gigabytes.

What the footer says of a column is anyone's word, and nothing is read by it. pyarrow makes room for each page by the
header before the page, and refuses one that unpacks to anything else.
"""

from __future__ import annotations

from typing import IO, Any, NamedTuple, TypeAlias

# Thrift's compact protocol: kinds of a field.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = (*range(1, 11), 12)
_LARGEST_FIELD = (1 << 15) - 1  # a larger one would wrap around, to another field
_LONGEST_HEADER = 1 << 24  # pyarrow's limit
_MOST_LEVELS = 16  # a header has three

# Fields of a page's header, each of its kind: of another kind it would be passed over.
_UNPACKED, _PACKED = (2, _I32), (3, _I32)
_ENCODINGS = (((5, _STRUCT), (2, _I32)), ((8, _STRUCT), (4, _I32)))  # of both versions of pages, in their own headers
_VALUES = (1, _I32)  # their number, in these
_DELTA_BYTE_ARRAY = 7

_Fields: TypeAlias = "dict[tuple[int, int], Any]"


class Part(NamedTuple):
    """A column's part in a row group, as the headers of its pages tell of it: up to the first that is damaged."""

    longest: int  # bytes that no value exceeds
    values: int
    damage: str | None  # what is wrong behind them


def part_of(file: IO[bytes], column: Any) -> Part:
    """Read the headers of all pages of a part.

    Args:
        file: the parquet file.
        column: pyarrow's ColumnChunkMetaData.
    """
    place, dictionary = column.data_page_offset, column.dictionary_page_offset
    if dictionary is not None and 0 < dictionary < place:
        place = dictionary
    end, size = place + column.total_compressed_size, file.seek(0, 2)
    largest = total = count = 0
    grows = False  # from page to page: a value may begin as the one before
    damage = None
    while place < end:
        try:
            header = _header_at(file, place, size)
        except ValueError as error:
            damage = str(error)
            break
        unpacked, packed = header[_UNPACKED], header[_PACKED]
        for own, encoding in _ENCODINGS:
            page = header.get(own, {})
            grows |= page.get(encoding) == _DELTA_BYTE_ARRAY
            count += max(0, page.get(_VALUES, 0))
        largest, total = max(largest, unpacked, packed), total + max(unpacked, packed)
        place = file.tell() + packed
    return Part(total if grows else largest, count, damage)


def _header_at(file: IO[bytes], place: int, size: int) -> _Fields:
    """Read the header of a page, which says how many bytes follow it.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    if not 0 <= place < size:
        raise ValueError(f"no page at byte {place}")
    file.seek(place)
    header = _Header(file).fields()
    if min(header.get(_UNPACKED, -1), header.get(_PACKED, -1)) < 0:
        raise ValueError(f"a damaged page at byte {place}")
    return header


class _Header:
    """The header that begins at a file's place, in Thrift's compact protocol; it ends no later than pyarrow lets it.

    Raises:
        ValueError: it is damaged.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = _LONGEST_HEADER

    def fields(self, levels: int = _MOST_LEVELS) -> _Fields:
        """The values of a struct by field and kind, the last of each, as Thrift has it; None for what is no number."""
        found: _Fields = {}
        number = 0
        while head := self._byte():
            kind = head & 15
            number = number + (head >> 4) if head >> 4 else self._integer()
            if not 0 <= number <= _LARGEST_FIELD:
                raise self._damaged()
            found[number, kind] = self._value(kind, levels)
        return found

    def _value(self, kind: int, levels: int) -> Any:
        """Read a value, or pass over one that is no integer."""
        if levels == 0:
            raise self._damaged()
        if kind in (_I16, _I32, _I64):
            return self._integer()
        if kind == _STRUCT:
            return self.fields(levels - 1)
        if kind == _BINARY:
            self._pass(self._varint())
        elif kind in (_BYTE, _DOUBLE):
            self._pass(1 if kind == _BYTE else 8)
        elif kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            for _ in range(count):
                self._byte() if head & 15 in (_TRUE, _FALSE) else self._value(head & 15, levels - 1)
        elif kind not in (_TRUE, _FALSE):  # whose value is the kind; and no header holds a map
            raise self._damaged()
        return None

    def _pass(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise self._damaged()
        self._file.seek(count, 1)

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                break
        return value

    def _byte(self) -> int:
        self._left -= 1
        byte = self._file.read(1)
        if not byte or self._left < 0:
            raise self._damaged()
        return byte[0]

    def _damaged(self) -> ValueError:
        return ValueError(f"a damaged page at byte {self._file.tell()}")

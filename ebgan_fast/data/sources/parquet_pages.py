"""Read the sizes of a Parquet file's pages from the pages' headers: a page of 10 kB may unpack to gigabytes.

The footer's unpacked sizes aren't used: a stranger may have written them. pyarrow reserves memory for each page by the
header before the page, and refuses a page that unpacks to another size.
"""

from __future__ import annotations

from typing import IO, Any, NamedTuple, TypeAlias

# The kinds of a field in Thrift's compact protocol.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = (*range(1, 11), 12)
_LARGEST_FIELD = (1 << 15) - 1  # a larger number would wrap around to another field
_LONGEST_HEADER = 1 << 24  # bytes, which is pyarrow's limit
_MOST_LEVELS = 16  # structs within structs; a valid header has three

# Fields of a page's header, each with its kind: pyarrow ignores a field of another kind.
_UNPACKED, _PACKED = (2, _I32), (3, _I32)
_ENCODINGS = (((5, _STRUCT), (2, _I32)), ((8, _STRUCT), (4, _I32)))  # each page version's own header, and a field in it
_VALUES = (1, _I32)  # the field with the number of values, in both of these headers
_DELTA_BYTE_ARRAY = 7

_Fields: TypeAlias = "dict[tuple[int, int], Any]"


class Part(NamedTuple):
    """The sizes in a column's part of a row group, by the headers of its pages up to the first damaged one."""

    longest: int  # bytes that no value exceeds
    values: int  # the number of values before the damage
    damage: str | None  # the damage after these values


def part_of(file: IO[bytes], column: Any) -> Part:
    """Read the headers of all pages of a column's part in a row group.

    Args:
        file: the parquet file.
        column: pyarrow's ColumnChunkMetaData.
    """
    place, dictionary = column.data_page_offset, column.dictionary_page_offset
    if dictionary is not None and 0 < dictionary < place:
        place = dictionary
    end, size = place + column.total_compressed_size, file.seek(0, 2)
    largest = total = count = 0
    grows = False  # True if values may grow from page to page: each may begin with the bytes of the one before
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
    """Read the header of the page at a place. The header says how many bytes follow it.

    Raises:
        ValueError: the header is missing or damaged.
    """
    if not 0 <= place < size:
        raise ValueError(f"no page at byte {place}")
    file.seek(place)
    header = _Header(file).fields()
    if min(header.get(_UNPACKED, -1), header.get(_PACKED, -1)) < 0:
        raise ValueError(f"a damaged page at byte {place}")
    return header


class _Header:
    """A reader of the header that begins at a file's current place, in Thrift's compact protocol.

    Raises:
        ValueError: the header is damaged, or longer than pyarrow allows.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = _LONGEST_HEADER

    def fields(self, levels: int = _MOST_LEVELS) -> _Fields:
        """Return the values of a struct by field and kind, with None for values that are neither integer nor struct.

        If a field occurs twice, the last value is returned, as in Thrift.
        """
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
        """Return an integer or the fields of a struct. Skip a value of another kind, and return None for it."""
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
        elif kind not in (_TRUE, _FALSE):  # the kind of a boolean is its value; a header has no maps
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

"""CIFAR's pickled batches are read, and no code that a pickle asks for is run."""

from __future__ import annotations

import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ebgan_fast.data import DataError
from ebgan_fast.data.sources.cifar import open_batch

ROWS = np.random.default_rng(0).integers(0, 256, (7, 3 * 16), dtype=np.uint8)


def python_2(rows: NDArray[np.uint8]) -> bytes:
    """Return a batch as CIFAR's authors wrote it: by Python 2's cPickle, protocol 2, in which text is bytes."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value if len(value) > 255 else b"U" + bytes([len(value)]) + value

    count, width = (b"M" + struct.pack("<H", side) for side in rows.shape)
    dtype = b"cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87Rq\x05"
    array += b"(K\x01" + count + width + b"\x86" + dtype + b"\x89" + text(rows.tobytes()) + b"tb"
    labels = b"]q\x08(K\x06K\x09e"
    return b"\x80\x02}q\x01(U\x04dataq\x0a" + array + text(b"labels") + labels + b"u."


def written(path: Path, batch: object, protocol: int = 4) -> Path:
    path.write_bytes(batch if isinstance(batch, bytes) else pickle.dumps(batch, protocol))
    return path


def refused(words: str, path: Path) -> None:
    with pytest.raises(DataError, match=words) as error:
        open_batch(path)
    assert str(error.value).startswith(f"{path}: got ")
    assert 'expected a pickled dict with "data" of uint8 [N, 3 * side * side]' in str(error.value)
    assert str(error.value).isprintable()


BATCHES = {
    "python 2": python_2(ROWS),
    **{
        f"protocol {protocol}": pickle.dumps(
            {"data": ROWS, "labels": [3] * 7, "mean": ROWS.mean(0), "filenames": [b"a.png"] * 7}, protocol
        )
        for protocol in range(6)
    },
    "numpy 1": pickle.dumps({b"data": ROWS}, 4).replace(b"\x16numpy._core", b"\x15numpy.core"),
    "fortran": pickle.dumps({"data": np.asfortranarray(ROWS)}, 4),
    "fortran, protocol 5": pickle.dumps({"data": np.asfortranarray(ROWS)}, 5),
    "read-only, protocol 5": pickle.dumps({"data": np.frombuffer(ROWS.tobytes(), np.uint8).reshape(7, -1)}, 5),
}


@pytest.mark.parametrize("kind", BATCHES)
def test_a_batch(kind: str, tmp_path: Path) -> None:
    content = BATCHES[kind]
    if kind == "numpy 1":  # the replacement above made the frame one byte shorter
        assert content[2] == pickle.FRAME[0]
        content = content[:2] + content[11:]
    expected: Any = pickle.loads(content, encoding="bytes")  # checks that the content above is a batch
    assert np.array_equal(expected.get(b"data", expected.get("data")), ROWS)
    path = written(tmp_path / "data_batch_1", content)
    source = open_batch(path)
    unread = len(pickle.dumps(source))
    assert len(source) == 7
    assert not source.aside
    assert source.name(2) == f"{path}, image 2"
    assert list(source.files()) == [str(path)]
    for index in (0, 6, 3):
        found = source.read(index)
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.uint8
        assert np.array_equal(found, ROWS[index].reshape(3, 4, 4).transpose(1, 2, 0))
        source.close()
    with pytest.raises(IndexError):
        source.read(7)
    source.read(1)
    assert len(pickle.dumps(source)) == unread
    assert np.array_equal(pickle.loads(pickle.dumps(source)).read(6), ROWS[6].reshape(3, 4, 4).transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ([1, 2], "got a pickled list"),
        (ROWS, "got a pickled _reconstruct"),
        ({}, "got a pickled dict of nothing"),
        ({b"label_names": [b"cat"], "\x1b[2J": 1}, r"got a pickled dict of label_names, \\x1b\[2J"),
        ({"data": [[1, 2, 3]]}, '"data" of list'),
        ({"data": None, b"data": 3}, '"data" of int'),
        ({"data": ROWS.astype(np.float32)}, "dtype f4"),
        ({"data": ROWS.astype(np.int8)}, "dtype i1"),
        ({"data": ROWS.reshape(7, 4, 4, 3)}, r"uint8 \[7, 4, 4, 3\]"),
        ({"data": ROWS[:, :47]}, r"uint8 \[7, 47\]"),
        ({"data": ROWS[:, :45]}, r"uint8 \[7, 45\]"),
        ({"data": ROWS[:0]}, r"uint8 \[0, 48\]"),
        ({"data": ROWS[:, :0]}, r"uint8 \[7, 0\]"),
        ({"data": np.dtype("u1")}, '"data" of dtype'),
        ({"data": {1, 2}}, "a code that isn't taken"),
        ({(1, 2): 3}, "a key of a dict is a tuple"),
        ({"data": Path("a")}, r"asks for pathlib\.\w+, which it may not use"),
        ({"data": np.float64(3)}, "multiarray.scalar, which it may not use"),
    ],
)
def test_other_pickles(batch: object, words: str, tmp_path: Path) -> None:
    refused(words, written(tmp_path / "train", batch))


class Called:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_what_a_pickle_calls_is_not_run(protocol: int, tmp_path: Path) -> None:
    made = tmp_path / "made"
    calls = [Called(os.mkdir, str(made)), Called(exec, f"import os; os.mkdir({str(made)!r})")]
    for call in calls:
        path = written(tmp_path / "train", {"data": ROWS, "more": call}, protocol)
        refused(r"asks for (posix|nt|builtins|__builtin__)\.(mkdir|exec), which it may not use", path)
        assert not made.exists()
        pickle.loads(path.read_bytes())
        made.rmdir()  # made by pickle itself: proof that the test can fail


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
NDARRAY = b"cnumpy\nndarray\n"
ENCODE = b"c_codecs\nencode\n"
MADE = RECONSTRUCT + b")R"
U1 = b"cnumpy\ndtype\n(U\x02u1tR"


def with_state(state: bytes) -> bytes:
    return b"}U\x04data" + MADE + state + b"bs."


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "Ran out of input|EOFError"),
        (b"\x80", "can't be read"),
        (b"text of a train", "can't be read"),
        (b"\x80\x63.", "unsupported pickle protocol"),
        (b".", "can't be read"),
        (python_2(ROWS)[:200], "can't be read"),
        (python_2(ROWS)[:-1], "Ran out of input|EOFError"),
        (ENCODE + b"(U\x01aU\x03hextR.", "encodes other than Latin-1"),
        (ENCODE + b"(X\x01\0\0\0aX\x03\0\0\0hextR.", "encodes other than Latin-1"),
        (ENCODE + b"(X\x03\0\0\0\xe2\x82\xacX\x06\0\0\0latin1tR.", "can't encode"),
        (ENCODE + b")R.", "missing 2 required"),
        (ENCODE + b"}b.", "changes _codecs.encode"),
        (NDARRAY + b"}U\x01aK\x01sb.", "changes ndarray"),
        (NDARRAY + b"(N}U\x01aK\x01stb.", "changes ndarray"),
        (NDARRAY + b")\x81.", "a code that isn't taken"),  # NEWOBJ
        (b"(" + NDARRAY + b"o.", "a code that isn't taken"),  # OBJ
        (b"(ios\nsystem\n.", "a code that isn't taken"),  # INST
        (b"Pname\n.", "a code that isn't taken"),  # PERSID
        (b"\x82\x01.", "a code that isn't taken"),  # EXT1
        (b"K\x01)R.", "not callable"),
        (MADE + b")R.", "not callable"),
        (MADE + b"K\x01a.", "no attribute 'append'"),
        (MADE + b"K\x01K\x02s.", "item assignment"),
        (NDARRAY + b"K\x01R.", "after \\* must be an iterable"),
        (b"}}K\x01b.", "no attribute"),
        (b"}((K\x01K\x02d", "can't be read"),
        (b"}U\x04data" + NDARRAY + b"s.", '"data" of _StandIn'),
        (b"}U\x04data" + MADE + b"s.", '"data" of _reconstruct'),
        (with_state(b"N"), '"data" of _reconstruct'),
        (with_state(b"(K\x01K\x02K\x03K\x04K\x05t"), "an array without a dtype"),
        (with_state(b"(K\x01(K\x02K\x03t" + NDARRAY + b")RK\x04K\x05t"), "an array without a dtype"),
        (with_state(b"(K\x01K\x02" + U1 + b"\x89K\x05t"), "an array without a shape"),
        (with_state(b"(K\x01(K\x02G" + bytes(8) + b"t" + U1 + b"\x89K\x05t"), "an array without a shape"),
        (with_state(b"(K\x01(K\x02K\x03tcnumpy\ndtype\n()tR\x89K\x05t"), r"an array of dtype \(\)"),
        (with_state(b"(K\x01(K\x02K\x03t" + U1 + b"\x89K\x05t"), r"\[2, 3\] with no bytes"),
        (with_state(b"(K\x01(K\x02K\x03t" + U1 + b"\x89U\x05aaaaat"), r"\[2, 3\] with 5 bytes"),
        (with_state(b"(K\x01(J\xfe\xff\xff\xffJ\xfd\xff\xff\xfft" + U1 + b"\x89U\x06aaaaaat"), r"\[-2, -3\]"),
        (with_state(b"(K\x01(J\xff\xff\xff\x7fM\x00\x0ct" + U1 + b"\x89U\x06aaaaaat"), r"\[2147483647, 3072\] with 6"),
    ],
)
def test_hostile_pickles(content: bytes, words: str, tmp_path: Path) -> None:
    refused(words, written(tmp_path / "train", content))


def test_pickles_that_would_fill_the_memory_or_the_stack(tmp_path: Path) -> None:
    tracemalloc.start()
    for content in [
        b"K\x01r\xff\xff\xff\x7f.",  # the largest index of the memo
        b"\x8e" + struct.pack("<Q", 1 << 62) + b"a",
        b"\x96" + struct.pack("<Q", 1 << 62) + b"a",
        b"\x8a\xff" + b"1" * 300,
        b"I" + b"9" * 100_000 + b"\n.",
        b"]" * 100_000 + b".",
        b"}" + b")" + b"\x85" * 200_000 + b"K\x01s.",  # a tuple so deep that its hash would end the process
        with_state(b"(K\x01(\x8a\x80" + b"\x7f" * 128 + b"K\x03t" + U1 + b"\x89U\x06aaaaaat"),
    ]:
        refused("can't be read|a pickled (int|list)|with 6 bytes", written(tmp_path / "train", content))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 << 20


def test_a_batch_that_changed(tmp_path: Path) -> None:
    path = written(tmp_path / "train", {"data": ROWS})
    source = open_batch(path)
    written(path, {"data": ROWS[:5]})
    with pytest.raises(DataError, match="another batch than when it was opened"):
        source.read(0)
    path.unlink()
    refused("No such file", path)

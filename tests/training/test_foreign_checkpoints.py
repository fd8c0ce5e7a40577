"""A checkpoint of a stranger's: it runs nothing, takes no more memory than its own size, and ends in one sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pickle
import resource
import shutil
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ebgan_fast import cli
from ebgan_fast._console import shown
from ebgan_fast.models import Conv
from ebgan_fast.training import CheckpointError, TrainConfig, load_generator, train
from ebgan_fast.training.config import to_dict
from ebgan_fast.training.run import checkpoint

from ..hanging import ends
from ..programs import printed
from .conftest import configuring

if sys.platform != "linux":
    pytest.skip("limits of memory are of Linux", allow_module_level=True)

State = dict[str, Any]
Edit = Callable[[State], object]

_MEMORY = 1 << 30  # over what the process has; the least of what the files below ask for is 4 GB


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, digits_folder: Path) -> tuple[Path, TrainConfig]:
    """A run's folder, for every test to copy, and its config."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    config = dataclasses.replace(configuring(folder, digits_folder)(), steps=2, log_every=2, lr_decay="none")
    config = dataclasses.replace(config, margin_steps=2)
    train(config)
    return folder, config


@pytest.fixture
def run(trained: tuple[Path, TrainConfig], tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained[0], tmp_path / "run"))


def edited(run: Path, edit: Edit) -> None:
    path = run / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    edit(state)
    torch.save(state, path)


@contextlib.contextmanager
def _limited_memory() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + _MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def refusal(run: Path) -> str:
    """The error of loading a run's generator, which must come, take little memory and name the file."""
    with ends(), _limited_memory(), pytest.raises(CheckpointError) as caught:
        load_generator(run / "checkpoint.pt")
    text = str(caught.value)
    assert text.startswith(f"{run / 'checkpoint.pt'}: got ")
    assert text.isprintable()
    assert len(text) < 600
    return text.removeprefix(f"{run / 'checkpoint.pt'}: ")


def networks(**values: Any) -> Edit:
    return lambda state: state["config"]["networks"].update(values)


def trainer(**values: Any) -> Edit:
    return lambda state: state["trainer"].update(values)


def conv(**values: str) -> Edit:
    layers = {"generator_layers": "(8)4c-(1)4c2s", "noise_planes": "4", "encoder_layers": "(2)4c2s"}
    built = Conv(**{**layers, "decoder_layers": "(1)4c2s", **values})
    return lambda state: state["config"].update(networks={"family": "conv", **dataclasses.asdict(built)})


def stretched(state: State) -> None:
    """A weight of 4 TB, of which the file holds one number."""
    weights = state["trainer"]["generator"]
    name = next(name for name, value in weights.items() if value.dim() == 2)
    weights[name] = torch.zeros(1, 1).expand(10**6, 10**6)
    state["config"]["networks"].update(size_g=10**6, z_dim=10**6)


ODD: dict[str, tuple[Edit, str]] = {
    "a size that no tensor has": (networks(size_g=10**6), "generator.layers.0.weight: got float32 [16, 4]"),
    "noise that no tensor has": (networks(z_dim=10**12), "without a fitting generator"),
    "a size beyond torch's": (networks(size_g=10**30), "without a fitting generator"),
    "a million layers": (networks(n_layer_g=10**6), "got 1000000 layers in the generator, expected 3"),
    "another family": (conv(), "got 2 layers in the generator, expected 3"),
    "a weight of one number for all": (stretched, "a tensor of shape [1000000, 1000000] in a storage of 1 numbers"),
    "images of a terabyte": (lambda state: state.update(image_shape=[1, 10**6, 10**6]), "image_shape: got"),
    "images of no size": (lambda state: state.update(image_shape=[1, 0, 32]), "image_shape: got"),
    "images of two sizes": (lambda state: state.update(image_shape=[32, 32]), "image_shape: got 2 values"),
    "a shape of words": (lambda state: state.update(image_shape=["1", "32", "32"]), "image_shape.0: got str"),
    "no shape": (lambda state: state.pop("image_shape"), "image_shape"),
    "no trainer": (lambda state: state.pop("trainer"), "trainer"),
    "a trainer of nothing": (lambda state: state.update(trainer=None), "without a fitting generator"),
    "weights in a list": (trainer(generator=[1, 2]), "without a fitting generator"),
    "weights of words": (trainer(generator={"layers.0.weight": "x"}), "without a fitting generator"),
    "no weights": (trainer(generator={}), "got 3 layers in the generator, expected 0"),
    "an average of one number": (trainer(average=[torch.zeros(())] * 8), "average.0: got float32 []"),
    "a short average": (trainer(average=[]), "average: got 0 values"),
    "a step before the first": (trainer(step=-1), "step: got -1"),
    "a step of words": (trainer(step="2"), "step: got str"),
    "a step that is a bool": (trainer(step=True), "step: got bool"),
    "a half step": (trainer(step=0.5), "step: got a number"),
    "no config": (lambda state: state.pop("config"), "config"),
    "a config in a list": (lambda state: state.update(config=[1]), "got a config of type list"),
    "signs that move a cursor": (networks(**{"\x1b[2J": 1, "size_g": 10**6}), "without a fitting generator"),
    "a name of a megabyte": (lambda state: state["trainer"]["generator"].update({"x" * 2**20: torch.zeros(2, 2)}), ""),
}


@pytest.mark.parametrize("name", ODD)
def test_a_state_that_no_run_writes(name: str, run: Path) -> None:
    edit, told = ODD[name]
    edited(run, edit)
    assert told in refusal(run)


def test_convolutions_are_held_against_their_tensors(run: Path) -> None:
    """A wide convolution has few layers, and its stride doesn't show in its weights."""
    edited(run, conv(generator_layers="(100000)4c-(100000)4c4s-(1)4c2s"))
    assert "generator: got" in refusal(run)


def members(run: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(run / "checkpoint.pt") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(run: Path, parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(run / "checkpoint.pt", "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def structure_of(run: Path) -> str:
    return next(name for name in members(run) if name.endswith("data.pkl"))


def compressed_zeros(run: Path) -> None:
    parts = members(run)
    packed(run, {**parts, "archive/data/0": bytes(1 << 26)}, zipfile.ZIP_DEFLATED)


def short_storage(run: Path) -> None:
    """A tensor whose part holds less than it says: torch reads on behind it."""
    parts = members(run)
    packed(run, {**parts, "archive/data/0": parts["archive/data/0"][:8]})


def missing_storage(run: Path) -> None:
    parts = members(run)
    del parts["archive/data/0"]
    packed(run, parts)


def twice(run: Path) -> None:
    """Two entries of the table for one part, as in an archive that grows without end."""
    parts = members(run)
    with zipfile.ZipFile(run / "checkpoint.pt", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
        for index in range(1000):
            entry = zipfile.ZipInfo(f"archive/data/{1000 + index}")
            held = archive.getinfo("archive/data/0")
            entry.header_offset, entry.CRC = held.header_offset, held.CRC
            entry.file_size = entry.compress_size = held.file_size
            archive.filelist.append(entry)


def locked(run: Path) -> None:
    """A part that claims a password."""
    parts = members(run)
    with zipfile.ZipFile(run / "checkpoint.pt", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
        archive.infolist()[0].flag_bits |= 1


def before_an_archive(run: Path) -> None:
    """A file of torch's older kind, which torch takes, before an archive, which is what Python's reader takes."""
    honest = (run / "checkpoint.pt").read_bytes()
    older = io.BytesIO()
    torch.save({"weights": torch.zeros(3)}, older, _use_new_zipfile_serialization=False)
    (run / "checkpoint.pt").write_bytes(older.getvalue() + honest)


def behind_a_file(run: Path) -> None:
    """Put a whole archive, which tells the places of its parts right, behind a file of torch's older kind."""
    honest = members(run)
    torch.save({"weights": torch.zeros(3)}, run / "checkpoint.pt", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(run / "checkpoint.pt", "a") as archive:
        for name, content in honest.items():
            archive.writestr(name, content)


def end_of(name: str, run: Path) -> tuple[bytes, int]:
    """The archive's bytes, and the place of its last record of that name."""
    whole = (run / "checkpoint.pt").read_bytes()
    return whole, whole.rindex(name.encode())


def a_comment(run: Path) -> None:
    """In it may stand a table that only one of two readers finds."""
    with zipfile.ZipFile(run / "checkpoint.pt", "a") as archive:
        archive.comment = b"PK\x01\x02"


def a_table_elsewhere(run: Path) -> None:
    """The end tells of a table before the one that stands there, which the other reader takes."""
    packed(run, members(run))
    whole, place = end_of("PK\x05\x06", run)
    size, begin = struct.unpack("<2L", whole[place + 12 : place + 20])
    table = whole[begin : begin + size]
    end = whole[place : place + 16] + struct.pack("<LH", begin, 0)
    (run / "checkpoint.pt").write_bytes(whole[:begin] + table + table + end)


def a_record_elsewhere(run: Path) -> None:
    """The locator names a record of 64 bits that isn't the one beside it."""
    packed(run, members(run))
    whole, place = end_of("PK\x05\x06", run)
    size, begin = struct.unpack("<2L", whole[place + 12 : place + 20])
    count = int.from_bytes(whole[place + 10 : place + 12], "little")
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, begin)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, begin + size, 1)
    (run / "checkpoint.pt").write_bytes(whole[:place] + record + record + locator + whole[place:])


def two_tables(run: Path) -> None:
    """The record of 64 bits tells of one table, the end of another."""
    a_record_elsewhere(run)
    whole, place = end_of("PK\x06\x07", run)
    begin = place - 56
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, begin, 1)
    (size,) = struct.unpack("<Q", whole[begin + 40 : begin + 48])
    record = whole[begin : begin + 48] + struct.pack("<Q", begin - size)
    (run / "checkpoint.pt").write_bytes(whole[:begin] + record + locator + whole[place + 20 :])


def in_either_case(run: Path) -> None:
    parts = members(run)
    packed(run, {**parts, "archive/DATA/0": parts["archive/data/0"]})


def two_structures(run: Path) -> None:
    parts = members(run)
    packed(run, {**parts, "other/data.pkl": parts[structure_of(run)]})


class Called:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self._call


def pickled(content: bytes) -> Callable[[Path], None]:
    """A structure beside one storage of no bytes."""
    return lambda run: packed(run, {"archive/data/0": b"", structure_of(run): content})


def shared(container: Callable[[list[Any]], Any]) -> Any:
    """Twenty containers, each of which holds the one before it ten times: 10^20 parts to walk through in few bytes."""
    part = container([])
    for _ in range(20):
        part = container([part] * 10)
    return part


def with_attributes(attributes: State) -> OrderedDict[str, Any]:
    named: OrderedDict[str, Any] = OrderedDict()
    named.__dict__.update(attributes)
    return named


def as_keys(count: int) -> bytes:
    """A dict with keys whose hashes nobody lives to see: Python couldn't make it, so the bytes are joined."""
    key = pickle.dumps(shared(tuple), 2)[2:-1]
    return (
        b"\x80\x02}(" + (b"K\x01K\x01" * (count - 1)) + key + b"K\x01u."
        if count > 1
        else b"\x80\x02}" + key + b"K\x01s."
    )


def a_tensor(
    requires_grad: bytes = b"\x89", hooks: bytes = b"ccollections\nOrderedDict\n)R", more: bytes = b""
) -> bytes:
    """The call that makes a tensor of the archive's first storage, of as many numbers as the test's model has there."""
    storage = b"(X\x07\x00\x00\x00storagectorch\nByteStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x00tQ"
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00))" + requires_grad + hooks + more + b"tR."
    )


FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "zeros in few bytes": (compressed_zeros, "got compressed parts"),
    "a tensor larger than its part": (short_storage, "in a part of 8 bytes"),
    "a tensor without its part": (missing_storage, "in a part of -1 bytes"),
    "a part under many names": (twice, "got "),
    "a part with a password": (locked, "expected a checkpoint"),
    "a file before the archive": (before_an_archive, "expected a table of parts that ends the file"),
    "an archive behind a file": (behind_a_file, "got something before its parts"),
    "a comment": (a_comment, "it ends as no zip"),
    "a table elsewhere": (a_table_elsewhere, "got something behind its parts"),
    "a record elsewhere": (a_record_elsewhere, "got a record elsewhere"),
    "two tables": (two_tables, "got two tables"),
    "nothing": (lambda run: (run / "checkpoint.pt").write_bytes(b""), "it ends as no zip"),
    "names that differ by case": (in_either_case, "got parts that overlap"),
    "two structures": (two_structures, "got 2 parts called data.pkl"),
    "a call": (pickled(pickle.dumps(Called(os.system, "true"), 2)), "posix.system, not tensors"),
    "100 GB of zeros by a call": (pickled(pickle.dumps(Called(bytearray, 10**11), 2)), "bytearray, not tensors"),
    "100 GB of zeros by an instruction": (
        pickled(b"\x80\x05\x96" + struct.pack("<Q", 10**11) + b"."),
        "only 1 remain",
    ),
    "a list in itself": (pickled(b"\x80\x02]2a."), "an instruction DUP"),
    "a place in memory that is far": (pickled(b"\x80\x02Nr" + struct.pack("<I", 2**31 - 1) + b"."), "got "),
    "a number of a million digits": (
        pickled(b"\x80\x02\x8b" + struct.pack("<I", 2**20) + b"\x7f" * 2**20 + b"."),
        "got ",
    ),
    "no structure": (pickled(b""), "got what torch.save doesn't write"),
    "a structure cut short": (lambda run: pickled(members(run)[structure_of(run)][:-10])(run), "got what torch.save"),
    "lists in lists": (pickled(b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"."), "more than 32 levels"),
    "lists that share parts": (pickled(pickle.dumps(shared(list), 2)), "hold one another more than"),
    "tuples that share parts": (pickled(pickle.dumps(shared(tuple), 2)), "hold one another more than"),
    "dicts that share parts": (
        pickled(pickle.dumps(shared(lambda parts: dict(enumerate(parts))), 2)),
        "hold one another more than",
    ),
    "attributes that share parts": (
        pickled(pickle.dumps(with_attributes({"_metadata": shared(list)}), 2)),
        "hold one another more than",
    ),
    "attributes that hide parts": (
        pickled(pickle.dumps(with_attributes({"values": OrderedDict}), 2)),
        "attributes of something else",
    ),
    "attributes of a function": (
        pickled(b"\x80\x02ccollections\nOrderedDict\n}(X\x09\x00\x00\x00_metadataK\x01ub."),
        "attributes of something else",
    ),
    "a type in a key's place": (
        pickled(b"\x80\x02}(X\x0c\x00\x00\x00FloatStorageK\x01ctorch\nFloatStorage\nNu."),
        "a key of type list",
    ),
    "keys of one hash": (
        pickled(pickle.dumps(dict.fromkeys(range(0, 99 << 61, (1 << 61) - 1)), 2)),
        "a key of type int, 2305",
    ),
    "a tensor with hooks": (pickled(a_tensor(hooks=pickle.dumps({0: 1}, 2)[2:-1])), "a gradient, hooks or properties"),
    "a tensor with a gradient": (pickled(a_tensor(requires_grad=b"\x88")), "a gradient, hooks or properties"),
    "a tensor with properties": (
        pickled(a_tensor(more=pickle.dumps({"neg": True}, 2)[2:-1])),
        "a gradient, hooks or properties",
    ),
    "a list in itself by memory": (pickled(b"\x80\x02]q\x00h\x00a."), "hold one another more than"),
    "a dict in itself by memory": (pickled(b"\x80\x02}q\x00K\x01h\x00s."), "hold one another more than"),
    "a key that shares parts": (pickled(as_keys(1)), "a key of type tuple"),
    "keys that share parts": (pickled(as_keys(3)), "a key of type tuple"),
    "a dict of such pairs": (
        pickled(pickle.dumps(Called(OrderedDict, [(shared(tuple), 1)]), 2)),
        "got what torch.save doesn't write",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_torch_save_does_not_write(name: str, run: Path) -> None:
    make, told = FILES[name]
    make(run)
    assert told in refusal(run)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with a name")
def test_a_pipe_in_its_place(run: Path) -> None:
    (run / "checkpoint.pt").unlink()
    os.mkfifo(run / "checkpoint.pt")
    assert refusal(run) == "got a pipe or device, expected a file"


def smaller_moments(state: State) -> None:
    """Moments shorter than their weight, past whose end torch's fused kernel would read and write."""
    moments = state["trainer"]["optimizer_g"]["state"][0]
    moments["exp_avg"] = moments["exp_avg"][:1, :1].clone()


RESUMED: dict[str, tuple[Edit, str]] = {
    "smaller moments": (smaller_moments, "state.0.exp_avg: got float32 [1, 1], expected float32 [16, 4]"),
    "moments of words": (lambda state: state["trainer"]["optimizer_d"].update(state={0: "x"}), "state: got"),
    "a rate of words": (lambda state: state["trainer"]["optimizer_d"]["param_groups"][0].update(lr="x"), "lr: got str"),
    "no optimizer": (lambda state: state["trainer"].pop("optimizer_g"), "optimizer_g"),
    "a random state of one byte": (trainer(torch_rng=torch.zeros(1, dtype=torch.uint8)), "torch_rng: got uint8 [1]"),
    "a noise of floats": (trainer(noise_rng=torch.zeros(5056)), "noise_rng: got float32"),
    "statistics of one number": (trainer(statistics=torch.zeros(())), "statistics: got float32 []"),
    "a margin of words": (trainer(margin="10"), "margin: got str"),
    "a time of words": (lambda state: state.update(elapsed_s="1"), "elapsed_s: got str"),
    "batches of another run": (lambda state: state["trainer"]["batches"].update(seed=7), "seed 7, expected 0"),
    "a place of words": (
        lambda state: state["trainer"]["batches"].update(position="x"),
        "got a state that doesn't fit",
    ),
    "weights of another size": (
        lambda state: state["trainer"]["discriminator"].update({"decoder.bias": torch.zeros(3)}),
        "discriminator.decoder.bias: got float32 [3]",
    ),
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_that_goes_on_from_it(name: str, trained: tuple[Path, TrainConfig], run: Path, no_curves: None) -> None:
    edit, told = RESUMED[name]
    edited(run, edit)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError) as caught:
        train(dataclasses.replace(trained[1], out=run, steps=4), resume=True)
    text = str(caught.value)
    assert text.startswith(f"{run / 'checkpoint.pt'}: got a state that doesn't fit (")
    assert told in text
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"} == before


def test_options_of_a_foreign_optimizer_are_not_taken(
    trained: tuple[Path, TrainConfig], run: Path, tmp_path: Path, no_curves: None
) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    options = {"amsgrad": True, "maximize": True, "weight_decay": 0.5, "eps": 1.0, "betas": (0.0, 0.0)}
    edited(other, lambda state: state["trainer"]["optimizer_g"]["param_groups"][0].update(options))
    weights = []
    for folder in (run, other):
        train(dataclasses.replace(trained[1], out=folder, steps=4), resume=True)
        weights.append(checkpoint.read(folder / "checkpoint.pt")["trainer"]["generator"])
    assert all(torch.equal(one, weights[1][name]) for name, one in weights[0].items())


@pytest.mark.parametrize("command", ["sample", "evaluate", "report", "train"])
def test_every_command_says_it_in_one_line(
    command: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], digits_folder: Path
) -> None:
    edited(run, networks(size_g=10**6))
    given = {
        "sample": [str(run), str(tmp_path / "grid.png")],
        "train": ["--out", str(run), "--data", str(digits_folder), "--resume", "--device", "cpu"],
    }
    capsys.readouterr()
    assert cli.main([command, *given.get(command, [str(run)])]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ebgan-fast: {run / 'checkpoint.pt'}: ")
    assert not (tmp_path / "grid.png").exists()


def test_a_checkpoint_as_it_was_written_still_loads(trained: tuple[Path, TrainConfig], run: Path) -> None:
    loaded = load_generator(run / "checkpoint.pt")
    assert loaded.step == 2
    assert to_dict(loaded.config) == to_dict(dataclasses.replace(trained[1], out=trained[0]))
    edited(run, lambda state: None)  # by torch alone
    again = load_generator(run / "checkpoint.pt")
    noise = torch.randn(3, 4)
    assert torch.equal(again.generator(noise), loaded.generator(noise))


@pytest.mark.slow
def test_no_compiler_is_imported_for_it(run: Path) -> None:
    """As torch does where it draws weights on the meta device: two seconds for every sample."""
    program = (
        "import sys; from ebgan_fast.training import load_generator; load_generator(sys.argv[1]); "
        "print([name for name in ('torch._inductor', 'torch._dynamo') if name in sys.modules])"
    )
    assert printed(program, str(run / "checkpoint.pt")) == "[]\n"


def test_what_is_shown_of_a_value_is_short() -> None:
    """Python's `repr` of them would have 10^20 parts, and reprlib asks it of what it doesn't know."""
    for value in (shared(list), shared(tuple), shared(lambda parts: OrderedDict(enumerate(parts)))):
        with ends():
            assert len(shown(value)) <= 100


def test_memory_is_limited_meanwhile() -> None:
    """So that a file that takes its memory would end in another error."""
    with _limited_memory(), pytest.raises(MemoryError):
        bytearray(2 * _MEMORY)
    bytearray(2 * _MEMORY)

"""Bugs in the way of an image until it is packed: its source, its decoding, its name."""

from __future__ import annotations

from .plant import Planted

_CROP = "tests/data/test_crop.py"
_DECODING = "tests/data/test_decoding.py"
_METADATA = "tests/data/test_decoding_metadata.py"

PLANTS = (
    Planted(
        name="a long image that grows is cut a row off its middle",
        kind="data",
        file="ebgan_fast/data/crop.py",
        text="    start = (grown - size) // 2\n",
        instead="    start = (grown - size) // 2 + 1\n",
        test=f"{_CROP}::test_a_long_image_gives_the_same_pixels",
    ),
    Planted(
        name="all of an upright long image is made wide",
        kind="data",
        file="ebgan_fast/data/crop.py",
        text="    part = image.crop((0, lines[0].first, image.width, lines[-1].end))\n"
        "    wide = part.resize((size, part.height), Image.Resampling.BICUBIC)\n",
        instead="    whole = image.resize((size, image.height), Image.Resampling.BICUBIC)\n"
        "    wide = whole.crop((0, lines[0].first, size, lines[-1].end))\n",
        test=f"{_CROP}::test_no_more_of_a_long_image_is_scaled_than_the_square_shows",
    ),
    Planted(
        name="the orientation of a JPEG with a damaged profile is lost",
        kind="data",
        file="ebgan_fast/data/decoding.py",
        text="            exifs.append(segment[4 + len(_EXIF) :])\n",
        instead="            exifs.append(segment[4 : len(_EXIF)])\n",
        test=f"{_METADATA}::test_what_lies_beside_a_jpeg_costs_no_turn",
    ),
    Planted(
        name="EXIF with a wrong checksum turns a PNG",
        kind="data",
        file="ebgan_fast/data/decoding.py",
        text='        elif name == b"eXIf" and zlib.crc32(chunk[4:-4]).to_bytes(4, "big") == chunk[-4:]:\n',
        instead='        elif name == b"eXIf":\n',
        test=f"{_METADATA}::test_a_png_whose_exif_is_damaged_too_is_not_turned",
    ),
    Planted(
        name="grays near the transparent one become transparent too",
        kind="data",
        file="ebgan_fast/data/decoding.py",
        text='stored == tile.info["transparency"]',
        instead='stored >> 8 == tile.info["transparency"] >> 8',
        test=f"{_DECODING}::test_a_transparent_gray_of_16_bits_lies_on_white",
    ),
    Planted(
        name="a palette's alpha is overlooked",
        kind="data",
        file="ebgan_fast/data/decoding.py",
        text=" or seen_through or ",
        instead=" or ",
        test=f"{_DECODING}::test_the_alpha_of_a_palette_or_beside_it_lies_on_white",
    ),
    Planted(
        name="gray of 12 bits is taken for 16",
        kind="data",
        file="ebgan_fast/data/decoding.py",
        text="_WHITE_OF_12 if tags.get(_TIFF_BITS) == (12,) else _WHITE",
        instead="_WHITE",
        test=f"{_DECODING}::test_a_tiff_says_what_is_white",
    ),
    Planted(
        name="a PNG with a large text is refused",
        kind="data",
        file="ebgan_fast/data/decoding.py",
        text='b"tRNS", b"IDAT", b"IEND"}',
        instead='b"tRNS", b"IDAT", b"IEND", b"zTXt"}',
        test=f"{_METADATA}::test_what_lies_beside_a_png_costs_no_image",
        errors=("ValueError",),
    ),
    Planted(
        name="a transparent color is lost with the text beside it",
        kind="data",
        file="ebgan_fast/data/decoding.py",
        text='b"PLTE", b"tRNS", ',
        instead='b"PLTE", ',
        test=f"{_METADATA}::test_a_transparent_color_outlives_what_is_taken_away",
    ),
    Planted(
        name="floats are shown as if white were 255",
        kind="data",
        file="ebgan_fast/data/decoding.py",
        text='is_deep = image.mode in ("F", "I")',
        instead='is_deep = image.mode in ("I",)',
        test=f"{_DECODING}::test_pixels_without_a_white_are_refused_with_their_mode",
    ),
    Planted(
        name="a foreign index may name a file outside of its folder",
        kind="data",
        file="ebgan_fast/data/packed.py",
        text='    if parts != {name} or name in ("", "..") or "\\0" in name or ":" in name:\n',
        instead="    if not parts:\n",
        test="tests/data/test_packed.py::test_a_strangers_shard_is_a_file_of_the_folder",
        errors=("AssertionError", "Failed", "ValueError", "OSError", "FileNotFoundError", "IsADirectoryError"),
    ),
    Planted(
        name="a name moves the cursor of the terminal",
        kind="data",
        file="ebgan_fast/_console.py",
        text="    if text.isprintable():\n        return text\n",
        instead="    return text\n",
        test="tests/data/test_prepare_command.py::test_no_name_moves_the_cursor",
        errors=("AssertionError", "UnicodeEncodeError"),
    ),
    Planted(
        name="a container's share of the processors is overlooked",
        kind="data",
        file="ebgan_fast/_allowed.py",
        text="            count = min(count, math.ceil(share))\n",
        instead="            count = max(count, math.ceil(share))\n",
        test="tests/test_allowed.py::test_a_container_of_the_second_version",
    ),
    Planted(
        name="a pickle in a CIFAR file may call any function",
        kind="data",
        file="ebgan_fast/data/sources/cifar.py",
        text="        if (module, name) not in _NUMPY:\n"
        '            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which it may not use")\n',
        instead="        if (module, name) not in _NUMPY:\n            return super().find_class(module, name)\n",
        test="tests/data/test_cifar.py::test_what_a_pickle_calls_is_not_run",
    ),
)

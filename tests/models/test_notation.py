from __future__ import annotations

import pytest

from ebgan_fast.models.notation import ConvLayer, parse_layers, parse_noise, widened


def test_the_papers_strings() -> None:
    assert parse_layers("(64)4c2s-(128)4c2s-(3)3c") == (ConvLayer(64, 4, 2), ConvLayer(128, 4, 2), ConvLayer(3, 3, 1))
    assert parse_noise("100-64-32") == (100, 64, 32)
    assert parse_noise("100") == (100,)


@pytest.mark.parametrize("text", ["(64)4c2s", "(1024)4c-(512)4c2s-(3)3c", "(5)11c3s-(1)1c"])
def test_there_and_back(text: str) -> None:
    assert "-".join(map(str, parse_layers(text))) == text


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "''"),
        ("64", "'64'"),
        ("(64)4c2s-", "''"),
        ("(64)4c2s--(3)3c", "''"),
        ("(64)c2s", "'(64)c2s'"),
        ("(64)4c2", "'(64)4c2'"),
        ("(-4)4c2s", "'(-4)'"),
        ("(64)4c0s", "a 0 in '(64)4c0s'"),
        ("(0)4c", "a 0 in '(0)4c'"),
    ],
)
def test_strings_that_cannot_be_read(text: str, part: str) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        parse_layers(text)
    assert part.strip("')") in str(error.value)


@pytest.mark.parametrize("text", ["", "0", "0-64", "a", "100-", "100-x", "1.5", "-3", "٣"])
def test_noise_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ValueError, match="noise"):
        parse_noise(text)


def test_zero_planes_in_between_are_none() -> None:
    assert parse_noise("100-0-4") == (100, 0, 4)


def test_padding_keeps_or_divides_the_side_exactly() -> None:
    for kernel, stride, padding in [(4, 2, 1), (3, 1, 1), (1, 1, 0), (2, 2, 0), (6, 2, 2), (5, 3, 1)]:
        assert ConvLayer(1, kernel, stride).padding == padding
        side = 12 * stride
        assert (side + 2 * padding - kernel) // stride + 1 == 12
    for kernel, stride in [(4, 1), (3, 2), (1, 2)]:
        with pytest.raises(ValueError, match=rf"layer \(1\){kernel}c.*got kernel {kernel} with stride {stride}"):
            _ = ConvLayer(1, kernel, stride).padding


def test_width_scales_all_maps_but_an_images() -> None:
    layers = parse_layers("(64)4c2s-(5)4c2s-(3)4c2s")
    assert [layer.maps for layer in widened(layers, 0.5, keep_last=True)] == [32, 2, 3]
    assert [layer.maps for layer in widened(layers, 0.01, keep_last=False)] == [1, 1, 1]
    assert [layer.maps for layer in widened(layers, 1.5, keep_last=False)] == [96, 8, 4]
    assert all(layer.kernel == 4 and layer.stride == 2 for layer in widened(layers, 3.0, keep_last=True))

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ebgan_fast.models import Conv, Mlp
from ebgan_fast.training.config import (
    TrainConfig,
    absolute,
    check_resumable,
    from_dict,
    read_json,
    to_dict,
    validate,
    write_json,
)

DEFAULT = TrainConfig(out=Path("run"))


def test_the_defaults_are_the_papers_best() -> None:
    """The defaults are those of figure 4, configuration c, and of appendix C."""
    validate(DEFAULT)
    assert DEFAULT.networks == Mlp(n_layer_g=5, n_layer_d=2, size_g=800, size_d=1024, dropout_d=False)
    assert (DEFAULT.lr_g, DEFAULT.lr_d) == (0.001, 0.001)
    assert (DEFAULT.norm, DEFAULT.margin, DEFAULT.pt_weight) == ("l2", 10.0, 0.1)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("out", ["run", None]),
        ("data", ["mnist", 3]),
        ("seed", [0.5, 2**63, -(2**63) - 1, None, True]),
        *(
            (name, [0, -1, 1.5, "3", True, None])
            for name in ("steps", "accumulate", "image_size", "margin_auto_steps", "log_every", "sample_every")
        ),
        *((name, [0, -1, 1.5, "3", True, None]) for name in ("checkpoint_every", "evaluate_samples")),
        ("batch_size", [1, 0, 2.0]),
        ("evaluate_every", [-1, 0.5]),
        ("keep", [-1, 0.5, True, None]),
        ("preset", ["celeba", None]),
        ("precision", ["fp16", None]),
        ("features", ["", None]),
        *((name, [1, None, "no"]) for name in ("flip", "compile", "cudnn_benchmark", "cuda_graph", "tensorboard")),
        ("margin_steps", [0, 1.5]),
        ("threads", [0, -2, "all"]),
        ("margin", [-1, NAN, INF, None, "10", "Auto"]),
        ("pt_weight", [-0.1, NAN, INF]),
        ("margin_end", [-1.0, NAN]),
        ("lr_g", [0, -1e-3, NAN, INF]),
        ("lr_d", [0, -1e-3, NAN, INF]),
        ("beta1", [1, -0.1, NAN]),
        ("lr_decay_start", [1, -0.1]),
        ("ema", [1.0, -0.1, NAN]),
        ("norm", ["l3", None]),
        ("margin_schedule", ["step", None]),
        ("lr_decay", ["cos", None]),
        ("backend", ["gpu", None]),
        ("device", ["gpu9", "meta", "hpu", "privateuseone", "cuda:99", None]),
    ],
)
def test_a_value_that_cannot_be_used(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=f"{name}: got .*, expected "):
            validate(dataclasses.replace(DEFAULT, **{name: value}))


CONV = Conv("(8)4c-(3)4c2s", "10", "(4)4c2s", "(3)4c2s")


@pytest.mark.parametrize(
    ("networks", "name", "values"),
    [
        *((Mlp(), name, [0, -1, 1.5, "3", True, None]) for name in ("z_dim", "n_layer_g", "size_g", "size_d")),
        (Mlp(), "n_layer_d", [1, 0]),
        (Mlp(), "dropout_d", [1, None, "no"]),
        *((CONV, name, ["", None, 3]) for name in ("generator_layers", "noise_planes", "encoder_layers")),
        (CONV, "decoder_layers", ["", None, 3]),
        (CONV, "width", [0, -1.0, NAN, INF, "half"]),
    ],
)
def test_a_size_of_a_network_that_cannot_be_used(networks: Mlp | Conv, name: str, values: list[Any]) -> None:
    validate(dataclasses.replace(DEFAULT, networks=networks))
    for value in values:
        wrong = dataclasses.replace(networks, **{name: value})
        with pytest.raises(ValueError, match=f"{name}: got .*, expected "):
            validate(dataclasses.replace(DEFAULT, networks=wrong))


@pytest.mark.parametrize("networks", [Mlp(), CONV], ids=["mlp", "conv"])
def test_every_field_has_a_rule(networks: Mlp | Conv) -> None:
    """Each field has a rule: a value that no field can use is reported for every field."""
    own = [field.name for field in dataclasses.fields(networks)]
    wrong = dataclasses.replace(networks, **dict.fromkeys(own, object()))
    fields = [field.name for field in dataclasses.fields(TrainConfig) if field.name != "networks"]
    broken = dataclasses.replace(DEFAULT, networks=wrong, **dict.fromkeys(fields, object()))
    with pytest.raises(ValueError, match="got <object") as error:
        validate(broken)
    told = re.findall(r"(\w+): got <object", str(error.value))
    assert sorted(told) == sorted(fields + own)


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"steps: got 0.*lr_g: got -1") as error:
        validate(dataclasses.replace(DEFAULT, steps=0, lr_g=-1))
    assert "margin" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"margin_schedule": "linear"}, "margin_end: got None, expected a number"),
        ({"margin_end": 1.0}, "margin_end: got 1.0, expected None with margin_schedule 'constant'"),
        ({"margin_steps": 5}, "margin_steps: got 5, expected None"),
        ({"accumulate": 3}, "accumulate: got 3, expected a divisor of batch_size 64"),
        ({"accumulate": 64}, "accumulate: got 64, expected .* at least 2 images a part"),
        ({"lr_decay_start": 0.5}, "lr_decay_start: got 0.5, expected 0"),
        ({"cuda_graph": True, "precision": "float16"}, "cuda_graph: got True, expected False with precision 'float16'"),
    ],
)
def test_fields_that_contradict_each_other(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate(dataclasses.replace(DEFAULT, **fields))


def test_json_and_back(tmp_path: Path) -> None:
    full = TrainConfig(
        out=Path("a/b"),
        data=Path("/d"),
        seed=-3,
        margin_schedule="cosine",
        margin_end=0.5,
        threads=2,
        ema=0.0,
    )
    other = dataclasses.replace(full, networks=CONV, margin="auto")
    for one in (DEFAULT, full, other):
        write_json(one, tmp_path / "config.json")
        assert read_json(tmp_path / "config.json") == one


def test_json_that_is_no_config(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    good = to_dict(DEFAULT)
    for text, message in [
        ("{", "Expecting"),
        ("[]", "got a config of type list"),
        (json.dumps({**good, "networks": {"family": "vit"}}), "networks: got {'family': 'vit'}, expected"),
        (json.dumps({**good, "networks": {"family": "conv"}}), "got a config without generator_layers, noise_planes"),
        (json.dumps({**good, "networks": {**good["networks"], "z_dim": 0}}), "z_dim: got 0"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=r"config\.json: ") as error:
            read_json(path)
        assert re.search(message.replace("[", r"\["), str(error.value))


@pytest.mark.parametrize("name", [item.name for item in dataclasses.fields(TrainConfig) if item.name != "networks"])
def test_a_missing_field_takes_its_default(name: str) -> None:
    told: list[str] = []
    fields = {field: value for field, value in to_dict(DEFAULT).items() if field != name}
    found = from_dict(fields, told.append)
    assert found == (dataclasses.replace(DEFAULT, out=Path()) if name == "out" else DEFAULT)
    assert not told
    assert name not in fields  # the caller's own dict


def test_a_missing_size_of_a_network_takes_its_default() -> None:
    for name in to_dict(DEFAULT)["networks"].keys() - {"family"}:
        fields = to_dict(DEFAULT)
        del fields["networks"][name]
        assert from_dict(fields) == DEFAULT
    fields = to_dict(dataclasses.replace(DEFAULT, networks=CONV))
    del fields["networks"]["width"]
    assert from_dict(fields).networks == CONV


def test_an_unknown_field_is_told_and_ignored() -> None:
    told: list[str] = []
    fields = {**to_dict(DEFAULT), "depth": 3}
    fields["networks"]["heads"] = 4
    assert from_dict(fields, told.append) == DEFAULT
    assert [note.partition(":")[0] for note in told] == ["heads", "depth"]
    assert all("doesn't know, and ignores" in note for note in told)


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", "many"), ("norm", "l3"), ("data", 3), ("out", None), ("precision", "float8"), ("margin", [])],
)
def test_a_value_of_a_later_version_is_told_and_replaced(name: str, value: Any) -> None:
    """A value of a later version is reported and replaced by the default. The images that a run draws don't depend on
    it.
    """
    told: list[str] = []
    found = from_dict({**to_dict(DEFAULT), name: value}, told.append)
    assert found == (dataclasses.replace(DEFAULT, out=Path()) if name == "out" else DEFAULT)
    (note,) = told
    assert note.startswith(f"{name}: got {value!r}, expected ")
    assert note.endswith("is used instead")


def test_networks_of_no_family_are_refused() -> None:
    with pytest.raises(ValueError, match="networks: got 'mlp', expected the settings of a family"):
        validate(dataclasses.replace(DEFAULT, networks="mlp"))  # type: ignore[arg-type]
    for family in ("vit", ["mlp"], None):
        with pytest.raises(ValueError, match=r"networks: got .*, expected an object with a family"):
            from_dict({**to_dict(DEFAULT), "networks": {"family": family}})


def test_paths_are_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.pt").write_bytes(b"")
    run = absolute(TrainConfig(out=Path("runs/one"), data=Path("packed"), features="net.pt"))
    assert (run.out, run.data, run.features) == (tmp_path / "runs/one", tmp_path / "packed", str(tmp_path / "net.pt"))
    assert absolute(DEFAULT).features == DEFAULT.features  # the name of a net, not a path


def test_a_config_of_a_device_that_is_not_here_can_be_read() -> None:
    there = dataclasses.replace(DEFAULT, device="cuda:99")
    assert from_dict(to_dict(there)) == there


def _other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, (int, float)) else f"{value}-other"


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(TrainConfig)])
def test_which_fields_a_resumed_run_may_change(name: str) -> None:
    if name == "networks":
        changed, name = dataclasses.replace(DEFAULT, networks=Mlp(size_d=3)), "size_d"
    else:
        changed = dataclasses.replace(DEFAULT, **{name: _other(getattr(DEFAULT, name))})
    free = {"out", "data", "steps", "sample_every", "checkpoint_every", "backend", "threads", "compile", "tensorboard"}
    if name in free | {"evaluate_every", "evaluate_samples", "features", "cudnn_benchmark", "cuda_graph", "keep"}:
        check_resumable(changed, DEFAULT)
    else:
        with pytest.raises(ValueError, match=rf"another config: {name} \(got .*, expected .*\)$"):
            check_resumable(changed, DEFAULT)


@pytest.mark.parametrize(
    ("fields", "stretched"),
    [
        ({"lr_decay": "linear"}, True),
        ({"margin_schedule": "linear", "margin_end": 0.0}, True),
        ({"margin_schedule": "linear", "margin_end": 0.0, "margin_steps": 50}, False),
    ],
)
def test_a_schedule_over_the_whole_run_fixes_its_length(fields: dict[str, Any], stretched: bool) -> None:
    before = dataclasses.replace(DEFAULT, **fields)
    longer = dataclasses.replace(before, steps=before.steps + 1)
    if stretched:
        with pytest.raises(ValueError, match=r"steps \(got 4001, expected 4000\)"):
            check_resumable(longer, before)
    else:
        check_resumable(longer, before)

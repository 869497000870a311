"""Checkpoints of VQA_NIA are read as they are, and nothing they say is done."""

from __future__ import annotations

import os
import pickle
import pickletools
import runpy
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from kovqa_core.errors import ModelError
from kovqa_core.models.safe_unpickle import read_original_checkpoint
from torch import Tensor, nn

from tests import parity

NIA = "vqa_nia"


def same(loaded: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """The same names, types and values?"""
    return loaded.keys() == expected.keys() and all(
        loaded[name].dtype == expected[name].dtype and torch.equal(loaded[name], expected[name])
        for name in expected
    )


def recorded() -> dict[str, Tensor]:
    state = torch.load(parity.path("state_dict.pt", NIA), weights_only=True)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def pickled_model() -> Path:
    """The recorded whole model."""
    return parity.path(parity.json_of("config.json", NIA)["pickle"]["file"], NIA)


@pytest.mark.parametrize("form", ["pickled", "state dict"])
def test_parity_nia_checkpoint(form: str) -> None:
    """The pickled model and the state dict hold the same tensors, all of them, bit for bit."""
    file = pickled_model() if form == "pickled" else parity.path("state_dict.pt", NIA)
    loaded = read_original_checkpoint(file).tensors
    assert same(loaded, recorded())
    assert {name: [list(t.shape), str(t.dtype)] for name, t in loaded.items()} == {
        name: [shape, f"torch.{dtype.removeprefix('torch.')}"]
        for name, shape, dtype in parity.json_of("keys.json", NIA)
    }


@pytest.mark.parametrize("wrapped", [False, True], ids=["names", "module.names"])
def test_a_state_dict_in_any_layout(tmp_path: Path, wrapped: bool) -> None:
    """Views, half precision, counters, parameters; transposed tensors keep their values."""
    big = torch.arange(24.0).reshape(4, 6)
    state = {
        "a": big.t(), "b": big[1:3, 2:4], "c": big[0], "half": big.half(), "bf": big.bfloat16(),
        "count": torch.tensor(7), "yes": torch.tensor([True]), "p": nn.Parameter(big.clone()),
    }  # fmt: skip
    path = tmp_path / "x.pt"
    torch.save(OrderedDict((f"module.{n}" if wrapped else n, t) for n, t in state.items()), path)
    assert same(read_original_checkpoint(path).tensors, state)


def test_a_model_without_data_parallel(tmp_path: Path) -> None:
    """Buffers that are not part of a state dict, and modules that are not there, stay away."""
    model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.BatchNorm1d(2))
    model.register_buffer("passing", torch.ones(2), persistent=False)
    model.register_module("absent", None)
    torch.save(model, tmp_path / "x.pt")
    assert same(read_original_checkpoint(tmp_path / "x.pt").tensors, model.state_dict())


def test_what_the_command_line_was_is_known() -> None:
    """A whole model remembers its arguments; a state dict does not."""
    loaded = read_original_checkpoint(pickled_model()).arguments
    assert (
        loaded["use_transformer_layer"]
        is parity.json_of("config.json", NIA)["pickle"]["use_transformer_layer"]
    )
    with zipfile.ZipFile(pickled_model()) as file:
        (member,) = [name for name in file.namelist() if name.endswith("/data.pkl")]
        operations = [each for each in pickletools.genops(file.read(member)) if "PUT" not in each[0].name]
    for name in ("lang", "batch_size", "lr"):  # in the pickle a value follows its name
        (at,) = [number for number, (_, value, _) in enumerate(operations) if value == name]
        assert loaded[name] == operations[at + 1][1], name
    assert read_original_checkpoint(parity.path("state_dict.pt", NIA)).arguments == {}


# ------------------------------------------------------------------------------- hostile files


@dataclass(frozen=True)
class Call:
    """Unpickled, this calls something."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


class Wakes:
    """Its state is a file that it makes."""

    def __setstate__(self, state: str) -> None:
        Path(state).touch()


@dataclass(frozen=True)
class Build:
    """Unpickled, this sets the state of another object."""

    state: str

    def __reduce__(self) -> tuple[Any, ...]:
        return Wakes, (), self.state


class Found:
    """Unpickled, this is `Path.touch`, fetched by `getattr`."""

    def __call__(self) -> None: ...

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (Path, "touch")


def hostile(kind: str, marker: Path) -> object:
    """An object that makes a file when it is unpickled in the ordinary way."""
    script = f"open({str(marker)!r}, 'w').close()"
    inner = Call(os.system, (f"touch '{marker}'",))
    beside = marker.with_name("beside")
    beside.mkdir(exist_ok=True)
    (beside / "hubconf.py").write_text(f"{script}\ndef model(): pass\n")
    torch.save(inner, beside / "inner.pt")
    return {
        "os.system": inner,
        "eval": Call(eval, (script,)),
        "exec": Call(exec, (script,)),
        "run_path": Call(runpy.run_path, (str(beside / "hubconf.py"),)),
        "nested pickle": Call(pickle.loads, (pickle.dumps(inner),)),
        "torch.load": Call(torch.load, (str(beside / "inner.pt"),)),
        "torch.hub": Call(torch.hub._load_local, (str(beside), "model")),
        "load_from_bytes": Call(torch.storage._load_from_bytes, ((beside / "inner.pt").read_bytes(),)),
        "state": Build(str(marker)),
        "getattr": Call(Found(), (marker,)),
    }[kind]


KINDS = ("os.system", "eval", "exec", "run_path", "nested pickle", "torch.load", "torch.hub", "load_from_bytes",
         "state", "getattr")  # fmt: skip


@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE")
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_a_file_says_is_done(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden in a model it is ignored (or refused); alone it is no model. Torch itself would do it."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # what torch.load inside torch.load needs
    marker, path = tmp_path / "marker", tmp_path / "x.pt"
    model = nn.Linear(3, 2)
    model.extra = hostile(kind, marker)  # type: ignore[assignment]
    torch.save(model, path)
    torch.load(path, weights_only=False)
    assert marker.exists()
    marker.unlink()

    if kind == "getattr":  # what `getattr` would have returned is called: a stub cannot be
        with pytest.raises(ModelError, match="refused: its contents cannot be read"):
            read_original_checkpoint(path)
    else:
        assert same(read_original_checkpoint(path).tensors, model.state_dict())
        torch.save(hostile(kind, marker), path)
        with pytest.raises(ModelError, match="holds neither a model nor a state dict"):
            read_original_checkpoint(path)
    torch.save({"weight": hostile(kind, marker)}, path)
    with pytest.raises(ModelError, match=r"weight is a .*, not a tensor|refused: its contents"):
        read_original_checkpoint(path)
    assert not marker.exists()


@dataclass(frozen=True)
class Values:
    """A storage of 4 numbers in the archive."""

    key: Any = "0"
    kind: Any = torch.FloatStorage


@dataclass(frozen=True)
class Claim:
    """A tensor that says it lies so in a storage."""

    size: Any
    stride: Any
    offset: Any = 0
    values: Any = Values()

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, (self.values, self.offset, self.size, self.stride, False, {})


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return ("storage", obj.kind, obj.key, "cpu", 1 << 40) if isinstance(obj, Values) else None


def archive(path: Path, content: object, packed: int = zipfile.ZIP_STORED) -> Path:
    """A checkpoint as PyTorch lays it out, with 4 stored numbers; bytes are the pickle itself."""
    with zipfile.ZipFile(path, "w", packed) as file:
        if isinstance(content, bytes):
            file.writestr("x/data.pkl", content)
        else:
            with file.open("x/data.pkl", "w") as stream:
                _Pickler(stream, protocol=2).dump(content)
        file.writestr("x/data/0", torch.arange(4.0).numpy().tobytes())
    return path


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        (Claim((1 << 40,), (1,)), "values that are not stored"),
        (Claim((1 << 40,), (0,)), "values that are not stored"),
        (Claim((1 << 24, 1 << 24), (0, 0)), "values that are not stored"),
        (Claim((2,), (1 << 40,)), "values that are not stored"),
        (Claim((2,), (-1,)), "values that are not stored"),
        (Claim((4,), (1,), offset=1), "values that are not stored"),
        (Claim((2,), (1,), offset=-8), "values that are not stored"),
        (Claim(("2",), (1,)), "values that are not stored"),
        (Claim((4,), (1,), values=Values(kind=torch.DoubleStorage)), "values that are not stored"),
        (Claim((4,), (1,), values=Values("1")), "no values in it"),
        (Claim((4,), (1,), values=Values("../../../etc/passwd")), "no values in it"),
        (Claim((4,), (1,), values="0"), "no values in it"),
        (Claim((4,), (1,), values=Values(kind=os.system)), "storage of an unknown type"),
        (Claim((4,), (1,), values=Values(7)), "storage of an unknown type"),
    ],
)
def test_a_tensor_shows_only_what_is_stored(tmp_path: Path, claim: Claim, why: str) -> None:
    good = archive(tmp_path / "good.pt", {"w": Claim((2, 2), (2, 1)), "v": Claim((3,), (1,), 1)})
    assert [t.tolist() for t in read_original_checkpoint(good).tensors.values()] == [
        [[0, 1], [2, 3]],
        [1, 2, 3],
    ]
    with pytest.raises(ModelError, match=why):
        read_original_checkpoint(archive(tmp_path / "bad.pt", {"w": claim}))


def test_many_views_of_one_storage_take_its_memory_once(tmp_path: Path) -> None:
    state = read_original_checkpoint(
        archive(tmp_path / "x.pt", {str(i): Claim((4,), (1,)) for i in range(100)})
    ).tensors
    assert len({tensor.data_ptr() for tensor in state.values()}) == 1


def module(**state: object) -> bytes:
    """A pickled module: class, no arguments, state."""
    return b"cmodel\nVQAModel\n)\x81" + pickle.dumps(state, 2)[2:-1] + b"b."


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"}.", "holds neither a model nor a state dict but a dict"),
        (b"cos\nsystem\n.", "holds neither a model nor a state dict but a os.system"),
        (module(answers=["예"]), "holds neither a model nor a state dict but a model.VQAModel"),
        (module(_modules={"bert": 3}), "bert is a int, not a module"),
        (module(_modules=[]), "_modules is a list"),
        (module(_modules={}, _buffers={1: None}), "names that are not text"),
        (
            b"cmodel\nVQAModel\n)\x81q\x00}X\x08\x00\x00\x00_modules}X\x01\x00\x00\x00ah\x00ssb.",
            "elsewhere too",
        ),
        (b"r\xff\xff\xff\x7f.", "more objects than bytes"),  # would make room for 2^31 objects
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x00.", "cannot be read"),  # bytes that are not there
        (b"cmodel\nVQAModel\n}X\x01\x00\x00\x00a}sb.", "cannot be read"),  # changes a stub's class
        (b"ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00a}sb.", "cannot be read"),  # … or ours
        (b"ctorch\nFloatStorage\n(tR.", "cannot be read"),
        (b"}X\x01\x00\x00\x00a", "cannot be read"),
    ],
)
def test_a_pickle_without_a_model_is_one_error(tmp_path: Path, content: bytes, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        read_original_checkpoint(archive(tmp_path / "x.pt", content))


def test_a_file_that_is_no_whole_checkpoint_is_one_error(tmp_path: Path) -> None:
    checkpoint = pickled_model()
    half = checkpoint.stat().st_size // 2
    (tmp_path / "half.pt").write_bytes(checkpoint.read_bytes()[:half])
    damaged = bytearray(checkpoint.read_bytes())
    damaged[half] ^= 255
    (tmp_path / "damaged.pt").write_bytes(damaged)
    (tmp_path / "text.pt").write_text("<html>")
    (tmp_path / "empty.pt").touch()
    torch.save(nn.Linear(2, 2), tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    archive(tmp_path / "packed.pt", {"w": Claim((4,), (1,))}, zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as file:
        file.writestr("photo.jpg", b"x")
    with zipfile.ZipFile(archive(tmp_path / "big.pt", {"w": Claim((4,), (1,))}), "a") as file:
        file.writestr("x/byteorder", b"big")
    for name, why in {
        "missing.pt": "no checkpoint .*missing.pt.*check the path",
        "half.pt": "truncated or damaged.*copy or fetch it again",
        "damaged.pt": "truncated or damaged.*CRC",
        "text.pt": "is not a PyTorch checkpoint",
        "empty.pt": "is not a PyTorch checkpoint",
        "legacy.pt": r"PyTorch before 1\.6.*torch\.save\(model\.state_dict",
        "packed.pt": "more bytes than it has",
        "other.pt": "no data.pkl in it",
        "big.pt": "byte order",
    }.items():
        with pytest.raises(ModelError, match=f"(?s){why}"):
            read_original_checkpoint(tmp_path / name)

"""Checkpoints of the original -> a state dict, without running anything they say.

The original saved the whole model, not its weights: a pickle that names 33 classes of its own, of
transformers 4.25 and of timm 0.4, and that an ordinary unpickler would obey. Here every name in it
is a stub that does nothing, except for tensors, which are first only written down (`_Stored`), and
made when all has been read and checked. Source: docs/sources/vqa_nia.md, N14.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from kovqa_core.errors import ModelError

_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # what PyTorch before 1.6 wrote first
_STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class OriginalCheckpoint(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        tensors: the state dict, under the original's names without `module.`, on the CPU.
        arguments: of the command that trained it, as far as a whole model remembers them.
    """

    tensors: dict[str, Tensor]
    arguments: dict[str, str | int | float]


def read_original_checkpoint(path: Path) -> OriginalCheckpoint:
    """Read a checkpoint.

    Args:
        path: the whole pickled model, inside `DataParallel` or not, or a state dict, as PyTorch 1.6
            or later saves them.

    Raises:
        ModelError: no such file, cut off, of an older PyTorch, no checkpoint, no model in it, or tensors
            that claim what the file does not hold.
    """
    if not path.is_file():
        raise ModelError(f"no checkpoint {path}", "check the path")
    with path.open("rb") as stream:
        first = stream.read(max(len(_ZIP_MAGIC), len(_LEGACY_MAGIC)))
    if first.startswith(_LEGACY_MAGIC):
        raise ModelError(
            f"{path} is in the format of PyTorch before 1.6, which kovqa does not read",
            "where the model was made, save its weights anew: torch.save(model.state_dict(), FILE)",
        )
    if not first.startswith(_ZIP_MAGIC):
        raise ModelError(f"{path} is no PyTorch checkpoint", "name the .pt file that training wrote")
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, path)
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path} is cut off or damaged ({error})", "copy or fetch it again") from None


def _read_archive(archive: zipfile.ZipFile, path: Path) -> OriginalCheckpoint:
    members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    if "data.pkl" not in members:
        raise ModelError(
            f"{path} is no PyTorch checkpoint: no data.pkl in it", "name the file training wrote"
        )
    # PyTorch never packs; a packed member could unfold into more than the machine has.
    packed = any(info.compress_type != zipfile.ZIP_STORED for info in members.values())
    if packed or sum(info.file_size for info in members.values()) > path.stat().st_size:
        _refuse_checkpoint(path, "it claims more bytes than it has")
    if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
        _refuse_checkpoint(path, "its numbers have the other byte order")
    content = _unpickle_stubs(archive.read(members["data.pkl"]), path)
    values: dict[str, bytearray] = {}  # each is read once, however many tensors show it
    state: dict[str, Tensor] = {}
    for name, stored in _named_tensors(content, path):
        if isinstance(stored, _StoredParameter):
            stored = stored.data
        if not isinstance(stored, _StoredTensor):
            _refuse_checkpoint(path, f"{name} is {_describe_object(stored)}, not a tensor")
        key = f"data/{stored.storage.key}" if isinstance(stored.storage, _StorageRef) else ""
        if key not in members:
            _refuse_checkpoint(path, f"{name} has no values in it")
        if key not in values:
            values[key] = bytearray(archive.read(members[key]))
        made = _view_tensor(stored, values[key])
        if made is None:
            _refuse_checkpoint(path, f"{name} claims values that are not stored")
        state[name.removeprefix("module.")] = made
    return OriginalCheckpoint(state, _training_arguments(content))


def _refuse_checkpoint(path: Path, why: str) -> NoReturn:
    raise ModelError(f"{path} is refused: {why}", "ask its author for another copy, or a state dict")


# ---------------------------------------------------------------------------- the unpickler


class _PickleStub:
    """Stands for any class or function: takes whatever it is given and does nothing with it.

    Attributes:
        named: what it stands for.
        state: attributes the object had, if they came as a dict.
    """

    named = ""
    state: dict[Any, Any]

    def __new__(cls, *args: object, **kwargs: object) -> _PickleStub:
        made = super().__new__(cls)
        made.state = {}
        return made

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, dict) else {}

    def _ignore(self, *args: object) -> None: ...

    __setitem__ = append = extend = add = _ignore


class _PlainOrderedDict(dict[Any, Any]):
    """An `OrderedDict` that has no attributes."""

    def __setstate__(self, state: object) -> None: ...


class _StorageRef(NamedTuple):
    """Where values lie."""

    dtype: torch.dtype
    key: str  # member of the archive

    def __setstate__(self, state: object) -> None: ...


class _StoredTensor(NamedTuple):
    """A tensor as written down: arguments of `torch._utils._rebuild_tensor_v2`."""

    storage: Any
    offset: Any
    size: Any
    stride: Any
    requires_grad: Any = False
    hooks: Any = None
    metadata: Any = None

    def __setstate__(self, state: object) -> None: ...


class _StoredParameter(NamedTuple):
    """Arguments of `torch._utils._rebuild_parameter`, or of `…_with_state`."""

    data: Any
    requires_grad: Any = True
    hooks: Any = None
    state: Any = None

    def __setstate__(self, state: object) -> None: ...


# Everything a checkpoint can call. Each ignores a state, so that none can be changed by one.
_ALLOWED_GLOBALS: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _StoredTensor,
    ("torch._utils", "_rebuild_parameter"): _StoredParameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _StoredParameter,
    ("collections", "OrderedDict"): _PlainOrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    **{("torch", name): dtype for name, dtype in _STORAGE_DTYPES.items()},
}


class _StubUnpickler(pickle.Unpickler):
    """Looks no name up outside of the table above."""

    def find_class(self, module: str, name: str) -> Any:
        known = _ALLOWED_GLOBALS.get((module, name))
        return type("Stub", (_PickleStub,), {"named": f"{module}.{name}"}) if known is None else known

    def persistent_load(self, pid: Any) -> _StorageRef:
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise pickle.UnpicklingError("a storage of an unknown kind")
        return _StorageRef(dtype, key)


def _unpickle_stubs(data: bytes, path: Path) -> Any:
    try:
        for operation, argument, _ in pickletools.genops(data):
            # The unpickler makes room for as many remembered objects as the largest number says.
            if operation.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(data):
                raise pickle.UnpicklingError("more objects than bytes")
        return _StubUnpickler(io.BytesIO(data)).load()
    except Exception as error:  # a forged pickle can make the unpickler raise anything
        _refuse_checkpoint(path, f"its contents cannot be read ({type(error).__name__}: {error})")


# --------------------------------------------------------------------------- what was read


def _named_tensors(content: Any, path: Path) -> Iterator[tuple[str, Any]]:
    """Names and values of a state dict, or of a module and all modules in it."""
    if isinstance(content, dict) and content and all(isinstance(name, str) for name in content):
        yield from content.items()
    elif isinstance(content, _PickleStub) and "_modules" in content.state:
        yield from _tensors_in_modules(content, path)
    else:
        raise ModelError(
            f"{path} holds no model and no state dict but {_describe_object(content)}",
            "name the file training wrote",
        )


def _tensors_in_modules(root: _PickleStub, path: Path) -> Iterator[tuple[str, Any]]:
    waiting: list[tuple[str, Any]] = [("", root)]
    seen = {id(root)}
    while waiting:
        prefix, module = waiting.pop()
        passing = _module_attribute(module, "_non_persistent_buffers_set", set, prefix, path)
        for kind in ("_parameters", "_buffers"):
            for name, value in _module_attribute(module, kind, dict, prefix, path).items():
                if value is not None and name not in passing:
                    yield f"{prefix}{name}", value
        for name, inner in _module_attribute(module, "_modules", dict, prefix, path).items():
            if inner is None:
                continue
            if not isinstance(inner, _PickleStub):
                _refuse_checkpoint(path, f"{prefix}{name} is {_describe_object(inner)}, not a module")
            if id(inner) in seen:  # a module in itself has no end; the original has none in two places
                _refuse_checkpoint(path, f"{prefix}{name} is a module that is elsewhere too")
            seen.add(id(inner))
            waiting.append((f"{prefix}{name}.", inner))


def _training_arguments(content: Any) -> dict[str, str | int | float]:
    """Numbers and texts of the model's `config`, which is the namespace of the command line."""
    inside = content.state["_modules"].get("module") if isinstance(content, _PickleStub) else None
    model = inside if isinstance(inside, _PickleStub) else content
    config = model.state.get("config") if isinstance(model, _PickleStub) else None
    found = config.state if isinstance(config, _PickleStub) else {}
    return {k: v for k, v in found.items() if isinstance(k, str) and isinstance(v, str | int | float)}


def _module_attribute(
    module: _PickleStub, name: str, kind: type[dict] | type[set], prefix: str, path: Path
) -> Any:
    """An attribute of a module; it may be absent, but not another kind of thing."""
    value: Any = module.state.get(name, kind())
    if not isinstance(value, kind):
        _refuse_checkpoint(path, f"{prefix}{name} is {_describe_object(value)}")
    if not all(isinstance(key, str) for key in value):
        _refuse_checkpoint(path, f"{prefix}{name} has names that are no text")
    return value


def _describe_object(value: object) -> str:
    return "a dict" if isinstance(value, dict) else f"a {getattr(value, 'named', type(value).__name__)}"


def _view_tensor(stored: _StoredTensor, values: bytearray) -> Tensor | None:
    """A tensor that shares its memory with the values; None when it claims more than these."""
    dtype, offset, size, stride = stored.storage.dtype, stored.offset, stored.size, stored.stride
    if not (isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= 8):
        return None
    if not all(type(n) is int and 0 <= n < 1 << 48 for n in (offset, *size, *stride)):
        return None
    count = len(values) // dtype.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if not 0 < prod(size) <= count or last >= count:
        return None
    return torch.frombuffer(values, dtype=dtype, count=count).as_strided(size, stride, offset)

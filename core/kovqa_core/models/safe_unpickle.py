"""Checkpoints of the original -> a state dict, without running anything they say.

The original saved the whole model, not its weights: a pickle that names 33 classes of its own, of
transformers 4.25 and of timm 0.4, and that an ordinary unpickler would obey: importing them, calling them.
Here every name in it becomes a stub that does nothing. Only tensors are real, and they are first just
described (`StoredTensor`), and made once everything has been read and checked.
Source: docs/sources/vqa_nia.md, N14.
"""

from __future__ import annotations

import contextlib
import pickle
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeVar, cast

import torch
from torch import Tensor

from kovqa_core.errors import ModelError
from kovqa_core.messages import Message, message
from kovqa_core.models.state_dict_wrappers import find_wrapped_weights, strip_name_prefixes
from kovqa_core.models.stub_unpickler import (
    PickleStub,
    StorageRef,
    StoredParameter,
    StoredTensor,
    unpickle_stubs,
)

ContainerType = TypeVar("ContainerType", bound=dict[str, object] | set[str])
_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # how files of PyTorch before 1.6 begin


class OriginalCheckpoint(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        tensors: the state dict, under the original's names without `module.` and the like, on the CPU.
        arguments: of the command that trained it, as far as a whole model remembers them.
        beside: keys of further weights that were not read, such as `model_ema`.
    """

    tensors: dict[str, Tensor]
    arguments: dict[str, str | int | float]
    beside: tuple[str, ...] = ()


class _DescribedCheckpoint(NamedTuple):
    """What a checkpoint describes, before any value is read."""

    members: Mapping[str, zipfile.ZipInfo]  # of the archive, without the name of its folder
    stored: dict[str, object]  # tensors, if all is well, by the names they have in the file
    arguments: dict[str, str | int | float]
    beside: tuple[str, ...]


def read_original_checkpoint(path: Path, known_prefix: str = "") -> OriginalCheckpoint:
    """Read a checkpoint.

    Args:
        path: the whole pickled model, inside `DataParallel` or not, or a state dict, as PyTorch 1.6
            or later saves them; either may lie below `model`, `state_dict` and the like.
        known_prefix: what the model's own names begin with; never stripped.

    Raises:
        ModelError: no such file, truncated, of an older PyTorch, not a checkpoint, no model in it, or
            tensors that claim more than the file holds.
    """
    with _open_archive(path) as archive:
        described = _describe_checkpoint(archive, path)
        state = _read_values(archive, described, path)
    names = strip_name_prefixes(state, known_prefix)
    tensors = {names[name]: tensor for name, tensor in state.items()}
    return OriginalCheckpoint(tensors, described.arguments, described.beside)


def read_tensor_names(path: Path) -> list[str]:
    """Names of a checkpoint's tensors, without their values; takes and raises what `read_original_checkpoint` does."""
    with _open_archive(path) as archive:
        described = _describe_checkpoint(archive, path)
    return list(strip_name_prefixes(described.stored).values())


@contextlib.contextmanager
def _open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A file of PyTorch's as the zip archive it is; whatever is damaged in it is a `ModelError`."""
    if not path.is_file():
        raise ModelError(
            message("fusion.no-checkpoint", "no checkpoint {path}", path=path),
            message("fusion.no-checkpoint.hint", "check the path"),
        )
    with path.open("rb") as stream:
        first = stream.read(max(len(_ZIP_MAGIC), len(_LEGACY_MAGIC)))
    if first.startswith(_LEGACY_MAGIC):
        raise ModelError(
            message(
                "fusion.legacy-checkpoint",
                "{path} is in the format of PyTorch before 1.6, which kovqa does not read",
                path=path,
            ),
            message(
                "fusion.legacy-checkpoint.hint",
                "where the model was made, save its weights anew: torch.save(model.state_dict(), FILE)",
            ),
        )
    if not first.startswith(_ZIP_MAGIC):
        raise ModelError(
            message("fusion.not-a-checkpoint", "{path} is not a PyTorch checkpoint", path=path),
            message("fusion.not-a-checkpoint.hint", "name the .pt file that training wrote"),
        )
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            message(
                "fusion.damaged-checkpoint",
                "{path} is truncated or damaged ({error})",
                path=path,
                error=error,
            ),
            message("fusion.damaged-checkpoint.hint", "copy or fetch it again"),
        ) from None


def _describe_checkpoint(archive: zipfile.ZipFile, path: Path) -> _DescribedCheckpoint:
    # torch puts everything into one folder, called like the file when it was saved: NAME/data.pkl.
    members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    if "data.pkl" not in members:
        raise ModelError(
            message(
                "fusion.no-pickle-in-checkpoint",
                "{path} is not a PyTorch checkpoint: no data.pkl in it",
                path=path,
            ),
            message("fusion.no-pickle-in-checkpoint.hint", "name the .pt file that training wrote"),
        )
    # PyTorch never compresses; a compressed member could expand into more than the machine has.
    compressed = any(info.compress_type != zipfile.ZIP_STORED for info in members.values())
    if compressed or sum(info.file_size for info in members.values()) > path.stat().st_size:
        _refuse_checkpoint(path, message("fusion.claims-too-much", "it claims more bytes than it has"))
    if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
        _refuse_checkpoint(path, message("fusion.byte-order", "its numbers have the other byte order"))
    content = _unpickle(archive.read(members["data.pkl"]), path)
    beside: list[str] = []
    if isinstance(content, dict):
        content, beside = find_wrapped_weights(content)
    stored = dict(_named_tensors(content, path))
    return _DescribedCheckpoint(members, stored, _training_arguments(content), tuple(beside))


def _read_values(archive: zipfile.ZipFile, described: _DescribedCheckpoint, path: Path) -> dict[str, Tensor]:
    values: dict[str, bytearray] = {}  # each is read once, however many tensors view it
    state: dict[str, Tensor] = {}
    members = described.members
    for name, stored in described.stored.items():
        if isinstance(stored, StoredParameter):
            stored = stored.data
        if not isinstance(stored, StoredTensor):
            kind = _describe_object(stored)
            _refuse_checkpoint(
                path, message("fusion.not-a-tensor", "{name} is {kind}, not a tensor", name=name, kind=kind)
            )
        key = f"data/{stored.storage.key}" if isinstance(stored.storage, StorageRef) else ""
        if key not in members:
            _refuse_checkpoint(
                path, message("fusion.tensor-without-values", "{name} has no values in it", name=name)
            )
        if key not in values:
            # A bytearray, because torch.frombuffer shares this memory and wants to write to it.
            values[key] = bytearray(archive.read(members[key]))
        tensor = _view_tensor(stored, values[key])
        if tensor is None:
            _refuse_checkpoint(
                path,
                message("fusion.tensor-too-large", "{name} claims values that are not stored", name=name),
            )
        state[name] = tensor
    return state


def _unpickle(data: bytes, path: Path) -> object:
    try:
        return unpickle_stubs(data)
    except Exception as error:  # a forged pickle can make the unpickler raise anything
        problem = message(
            "fusion.unreadable-pickle",
            "its contents cannot be read ({kind}: {error})",
            kind=type(error).__name__,
            error=error,
        )
        _refuse_checkpoint(path, problem)


def _refuse_checkpoint(path: Path, problem: Message) -> NoReturn:
    raise ModelError(
        message("fusion.refused-checkpoint", "{path} is refused: {problem}", path=path, problem=problem),
        message("fusion.refused-checkpoint.hint", "ask its author for another copy, or a state dict"),
    )


# --------------------------------------------------------------------------- what was read


def _named_tensors(content: object, path: Path) -> Iterator[tuple[str, object]]:
    """Names and values of a state dict, or of a module and all modules in it."""
    if isinstance(content, dict) and content and all(isinstance(name, str) for name in content):
        yield from content.items()
    elif isinstance(content, PickleStub) and "_modules" in content.state:
        yield from _tensors_in_modules(content, path)
    else:
        raise ModelError(
            message(
                "fusion.no-model-in-checkpoint",
                "{path} holds neither a model nor a state dict but {kind}",
                path=path,
                kind=_describe_object(content),
            ),
            message("fusion.no-model-in-checkpoint.hint", "name the .pt file that training wrote"),
        )


def _tensors_in_modules(root: PickleStub, path: Path) -> Iterator[tuple[str, object]]:
    # Not recursive: a forged pickle may nest modules deeper than Python's stack.
    pending: list[tuple[str, PickleStub]] = [("", root)]
    seen = {id(root)}
    while pending:
        prefix, module = pending.pop()
        not_saved = _module_attribute(module, "_non_persistent_buffers_set", set, prefix, path)
        for attribute in ("_parameters", "_buffers"):
            for name, value in _module_attribute(module, attribute, dict, prefix, path).items():
                if value is not None and name not in not_saved:
                    yield f"{prefix}{name}", value
        for name, inner in _module_attribute(module, "_modules", dict, prefix, path).items():
            if inner is None:
                continue
            if not isinstance(inner, PickleStub):
                problem = message(
                    "fusion.not-a-module",
                    "{name} is {kind}, not a module",
                    name=f"{prefix}{name}",
                    kind=_describe_object(inner),
                )
                _refuse_checkpoint(path, problem)
            if id(inner) in seen:  # a module inside itself has no end; the original has none in two places
                problem = message(
                    "fusion.module-twice", "{name} is a module that is elsewhere too", name=f"{prefix}{name}"
                )
                _refuse_checkpoint(path, problem)
            seen.add(id(inner))
            pending.append((f"{prefix}{name}.", inner))


def _training_arguments(content: object) -> dict[str, str | int | float]:
    """Numbers and texts of the model's `config`, which is the namespace of the command line."""
    modules = content.state["_modules"] if isinstance(content, PickleStub) else None
    wrapped = modules.get("module") if isinstance(modules, dict) else None
    model = wrapped if isinstance(wrapped, PickleStub) else content
    config = model.state.get("config") if isinstance(model, PickleStub) else None
    arguments = config.state if isinstance(config, PickleStub) else {}
    return {k: v for k, v in arguments.items() if isinstance(k, str) and isinstance(v, str | int | float)}


def _module_attribute(
    module: PickleStub, name: str, expected: type[ContainerType], prefix: str, path: Path
) -> ContainerType:
    """An attribute of a module: empty where it is absent, refused where it is of another type."""
    value: object = module.state.get(name, expected())
    if not isinstance(value, expected):
        problem = message(
            "fusion.other-attribute",
            "{name} is {kind}",
            name=f"{prefix}{name}",
            kind=_describe_object(value),
        )
        _refuse_checkpoint(path, problem)
    if not all(isinstance(key, str) for key in cast("Iterable[object]", value)):
        problem = message(
            "fusion.attribute-names", "{name} has names that are not text", name=f"{prefix}{name}"
        )
        _refuse_checkpoint(path, problem)
    return value


def _describe_object(value: object) -> Message:
    kind = "dict" if isinstance(value, dict) else getattr(value, "full_name", type(value).__name__)
    return message("fusion.object-kind", "a {kind}", kind=kind)


def _view_tensor(stored: StoredTensor, values: bytearray) -> Tensor | None:
    """A tensor that shares its memory with the values; None when it claims more than they are.

    Every number comes from the file: each is bounded before torch computes with it.
    """
    storage, offset, size, stride = stored.storage, stored.offset, stored.size, stored.stride
    if not isinstance(storage, StorageRef):
        return None
    if not (isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= 8):
        return None
    if type(offset) is not int or not all(type(n) is int for n in (*size, *stride)):  # nor bool, which is one
        return None
    # Far above any file, far below the 64-bit numbers that as_strided takes.
    if not all(0 <= n < 1 << 48 for n in (offset, *size, *stride)):
        return None
    count = len(values) // storage.dtype.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # A stride of 0 repeats numbers: without a bound one of them could become a tensor of terabytes.
    if not 0 < prod(size) <= count or last >= count:
        return None
    return torch.frombuffer(values, dtype=storage.dtype, count=count).as_strided(size, stride, offset)

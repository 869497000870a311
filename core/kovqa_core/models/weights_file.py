"""One file of weights -> a state dict: safetensors or PyTorch's, whatever lies around the weights.

What is not a tensor is never made (`safe_unpickle.py`): training scripts keep arguments, paths and numpy numbers beside
the weights, and none of them is needed.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from kovqa_core.errors import ModelError
from kovqa_core.messages import Message, message
from kovqa_core.models.safe_unpickle import read_original_checkpoint, read_tensor_names
from kovqa_core.models.state_dict_wrappers import find_wrapped_weights, strip_name_prefixes

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".pth.tar")


class WeightsFile(NamedTuple):
    """What a file of weights holds.

    Attributes:
        tensors: by their names in the model: without `module.` and other prefixes of wrappers.
        beside: keys of further weights that were not read, such as `model_ema`.
    """

    tensors: dict[str, Tensor]
    beside: tuple[str, ...]


def read_weights_file(path: Path, known_prefix: str = "") -> WeightsFile:
    """Read a file of weights, on the CPU, in the types it has.

    Args:
        path: of safetensors, or of what `torch.save` wrote, whatever its suffix.
        known_prefix: what the model's own names begin with; never stripped, such as `model.` of LLaVA.

    Raises:
        ModelError: unreadable, or no state dict in it.
    """
    content, beside = _read_content(path, known_prefix)
    if not isinstance(content, Mapping) or not content:
        raise _no_state_dict(path, message("models.not-a-dict", "a {type}", type=type(content).__name__))
    foreign = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if foreign:
        problem = message("models.not-only-tensors", "{name} is not a tensor", name=foreign[0])
        raise _no_state_dict(path, problem)
    names = strip_name_prefixes(map(str, content), known_prefix)
    name, count = Counter(names.values()).most_common(1)[0]
    if count > 1:
        raise _no_state_dict(path, message("models.weight-twice", "it holds {name} twice", name=name))
    tensors = {names[str(given)]: tensor for given, tensor in content.items()}
    return WeightsFile(tensors, tuple(beside))


def is_unpacked_archive(folder: Path) -> bool:
    """Was it a file of `torch.save`'s, a zip archive, until somebody unpacked it?"""
    return (folder / "data.pkl").exists() or (folder / "archive" / "data.pkl").exists()


def unpacked_archive_error(folder: Path) -> ModelError:
    """The error of an unpacked file of weights."""
    return ModelError(
        message("beit3.unpacked-weights", "{path} is an unpacked weights file", path=folder),
        message("beit3.unpacked-weights.hint", "use the .zip or .pth itself: do not unpack it"),
    )


def read_weight_names(path: Path) -> list[str]:
    """Names of the tensors in a file of weights, without their values.

    Raises:
        ModelError: no such file, unreadable, or no state dict in it.
    """
    if is_unpacked_archive(path):
        raise unpacked_archive_error(path)
    if not path.is_file() or not _is_safetensors(path):
        return read_tensor_names(path)
    try:
        with safe_open(path, "pt") as opened:
            return list(opened.keys())
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, str(error)) from None


def _read_content(path: Path, known_prefix: str) -> tuple[object, list[str]]:
    """The object that should be a state dict, and keys of weights beside it."""
    try:
        if _is_safetensors(path):
            return load_file(path), []
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Other objects than tensors. In a zip archive they are skipped without being made.
        if not zipfile.is_zipfile(path):
            raise _unreadable(path, _foreign_objects(error)) from None
        checkpoint = read_original_checkpoint(path, known_prefix)
        return checkpoint.tensors, list(checkpoint.beside)
    except Exception as error:  # a damaged or forged file can make a reader raise anything
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise _unreadable(path, reason) from None
    return find_wrapped_weights(content) if isinstance(content, Mapping) else (content, [])


def _is_safetensors(path: Path) -> bool:
    """By its content, since people rename files: eight bytes of length, then a JSON object."""
    with path.open("rb") as stream:
        return stream.read(9)[8:] == b"{"


def _foreign_objects(error: pickle.UnpicklingError) -> str:
    """Why torch refuses a pickle; its own text advises to load it all the same."""
    if name := re.search(r"GLOBAL (\S+)", str(error)):
        return message(
            "models.foreign-objects", "it holds {name}, and loading that could run foreign code", name=name[1]
        )
    return message("models.not-a-pickle", "not tensors as torch.save writes them")


def _unreadable(path: Path, reason: str) -> ModelError:
    return ModelError(
        message(
            "models.unreadable-weights",
            "{path} is not a file of weights, or it is damaged: {reason}",
            path=path,
            reason=reason,
        ),
        message(
            "models.unreadable-weights.hint",
            "fetch it again, or ask its author for a file of plain tensors or safetensors",
        ),
    )


def _no_state_dict(path: Path, problem: Message) -> ModelError:
    return ModelError(
        message("models.no-state-dict", "{path} holds no state dict: {problem}", path=path, problem=problem),
        message(
            "models.no-state-dict.hint",
            "weights lie at the top of the file, or below `model`, `module` or `state_dict`",
        ),
    )

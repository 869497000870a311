"""Files of weights that LLaVA and its language models come in, read whole under transformers' names.

Source: docs/sources/llava.md, L17 and L22.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from kovqa_core.errors import ModelError
from kovqa_core.messages import Message, message
from kovqa_core.models.weights_file import read_weights_file

StateDict = dict[str, Tensor]

EMBEDDING_NAME, LM_HEAD_NAME = "model.language_model.embed_tokens.weight", "lm_head.weight"
PROJECTOR_PREFIX = "model.multi_modal_projector."
_NAME_PATTERNS = (
    (re.compile(r"^model\.vision_tower\.(vision_tower\.)?(vision_model\.)?"), "model.vision_tower."),
    (re.compile(r"^model\.mm_projector\.(0\.)?(weight|bias)$"), r"model.multi_modal_projector.linear_1.\2"),
    (re.compile(r"^model\.(embed_tokens|layers|norm)\."), r"model.language_model.\1."),
)
_SECOND_LAYER = re.compile(r"^model\.mm_projector\.2\.")


def read_weight_files(files: Iterable[Path], new_name: Callable[[str], str | None]) -> StateDict:
    """The weights of files under new names; those without one are not read.

    Raises:
        ModelError: a file cannot be read, or two weights are one to transformers.
    """
    state: StateDict = {}
    for path in files:
        for name, tensor in _read_file(path, new_name).items():
            new = new_name(name)
            if new is None:
                continue
            if new in state:
                raise ModelError(
                    message(
                        "vlm.weight-twice", "{file} holds a weight twice: {weight}", file=path, weight=name
                    ),
                    message(
                        "vlm.weight-twice.hint", "remove files that are not of this model, or fetch it again"
                    ),
                )
            state[new] = tensor
    return state


def _read_file(path: Path, new_name: Callable[[str], str | None]) -> StateDict:
    if path.suffix != ".safetensors":
        return load_torch_tensors(path)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if new_name(name)}  # noqa: SIM118
    except Exception as error:  # OSError, or the library's own
        raise _unreadable(path, str(error)) from None


def load_torch_tensors(path: Path) -> StateDict:
    """The tensors of a file written by torch; nothing else in it is run.

    Weights below `model` or `module`, and numpy numbers, paths or arguments beside them, as training scripts
    write them, are read too, though not mapped.

    Raises:
        ModelError: it is broken, or holds other objects.
    """
    try:
        # Mapped, a 7B model costs no memory; torch maps its archives alone, not the files before 1.6.
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError:
        tensors = None
    except Exception as error:  # torch raises a different one for each way
        raise _unreadable(path, str(error)) from None
    if isinstance(tensors, dict) and all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        return tensors
    return read_weights_file(path, known_prefix="model.").tensors


def _unreadable(path: Path, reason: str) -> ModelError:
    return ModelError(
        message(
            "vlm.torch-file-unreadable",
            "{file} cannot be read ({reason})",
            file=path,
            reason=reason.splitlines()[0] if reason else "",
        ),
        message("vlm.torch-file-unreadable.hint", "fetch it again"),
    )


def to_transformers_name(name: str, projector_layers: int) -> str | None:
    """LLaVA's name of a weight -> transformers'; None for buffers that are computed.

    Args:
        name: in LLaVA's file.
        projector_layers: 1 or 2; the second layer of a projector that should have one keeps its name.
    """
    if name.endswith(("rotary_emb.inv_freq", "position_ids")):
        return None
    if projector_layers == 2 and _SECOND_LAYER.match(name):
        return _SECOND_LAYER.sub(PROJECTOR_PREFIX + "linear_2.", name)
    for pattern, replacement in _NAME_PATTERNS:
        if pattern.match(name):
            return pattern.sub(replacement, name)
    return name


def to_vision_tower_name(name: str) -> str | None:
    """A name in a CLIP file -> its name in LLaVA; None for the text tower and both heads."""
    name_in_tower = name.removeprefix("vision_model.")
    if name_in_tower == name or name.endswith("position_ids"):
        return None
    return f"model.vision_tower.{name_in_tower}"


def unknown_weights_error(folder: Path, names: list[str], hint: Message) -> ModelError:
    """Weights that the configuration has no place for, and what to do about it."""
    return ModelError(
        message(
            "vlm.llava-weights-unknown",
            "{folder} has {count} weights that its configuration leaves no place for: {first} …",
            folder=folder,
            count=len(names),
            first=names[0],
        ),
        hint,
    )


def missing_weights_error(folder: Path, names: list[str]) -> ModelError:
    """Weights that the configuration asks for and no file has."""
    return ModelError(
        message(
            "vlm.llava-weights-missing",
            "{folder} lacks {count} weights, {first} …",
            folder=folder,
            count=len(names),
            first=names[0],
        ),
        message("vlm.llava-weights-missing.hint", "fetch it again"),
    )

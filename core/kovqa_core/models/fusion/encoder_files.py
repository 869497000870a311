"""The weight files of a published encoder's folder: one file, or shards with an index."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from kovqa_core.errors import ModelError, name_or_name
from kovqa_core.messages import message
from kovqa_core.models.closed_folder import read_model_json, require_closed_folder, shard_names
from kovqa_core.models.weights_file import WEIGHT_SUFFIXES, read_weights_file

_WHOLE_FILES = ("model.safetensors", "pytorch_model.bin")
# Each names, for every weight, the shard that holds it.
_SHARD_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def read_encoder_files(folder: Path) -> dict[str, Tensor]:
    """All weights of a folder, by name.

    Args:
        folder: with `model.safetensors` or `pytorch_model.bin`, whole or in shards, as transformers writes
            them; or with what a training of timm saved, under one of these names.

    Raises:
        ModelError: no such file, a missing or unreadable one, no weights in it.
    """
    require_closed_folder(folder)
    tensors: dict[str, Tensor] = {}
    for file in _find_encoder_files(folder):
        tensors |= read_weights_file(file).tensors
    return tensors


def _find_encoder_files(folder: Path) -> list[Path]:
    for whole, index in zip(_WHOLE_FILES, _SHARD_INDEXES, strict=True):
        if (folder / whole).is_file():
            return [folder / whole]
        if (folder / index).is_file():
            return _shards_of(folder / index)
    raise _no_weights_error(folder)


def _shards_of(index: Path) -> list[Path]:
    shards = [index.parent / name for name in shard_names(index, read_model_json(index))]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise ModelError(
            message(
                "fusion.missing-shards",
                "{folder} has {here} of {shards} shards: {missing} is missing",
                folder=index.parent,
                here=len(shards) - len(missing),
                shards=len(shards),
                missing=missing[0],
            ),
            message("fusion.missing-shards.hint", "fetch the folder again"),
        )
    return shards


def _no_weights_error(folder: Path) -> ModelError:
    problem = message(
        "fusion.no-encoder-weights",
        "no {names} in {folder}, whole or in shards",
        names=name_or_name(_WHOLE_FILES),
        folder=folder,
    )
    others = sorted(file.name for file in folder.iterdir() if file.name.endswith(WEIGHT_SUFFIXES))
    if others:
        safe_name, torch_name = _WHOLE_FILES
        hint = message(
            "fusion.no-encoder-weights.rename-hint",
            "it has {file}: if those are the weights, rename it to {name}",
            file=others[0],
            name=safe_name if others[0].endswith(".safetensors") else torch_name,
        )
    else:
        hint = message("fusion.no-encoder-weights.hint", "fetch the folder again")
    return ModelError(problem, hint)

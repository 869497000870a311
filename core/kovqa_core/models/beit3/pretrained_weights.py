"""Published and older BEiT-3 weight files -> our names. One named function per step.

Files are torch archives, whatever their suffix (browsers save them as .zip), with the weights below `model`
or `module`, often in fp16. A file of another task is as good as a pretrained one: the body has the same names
in all of them, and a head that is not ours is named and left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from kovqa_core.errors import ModelError, no_names
from kovqa_core.messages import Message, message
from kovqa_core.models.beit3.config import POSITION_OFFSET
from kovqa_core.models.beit3.weights_problems import (
    WeightProblem,
    component_name,
    misshapen_weight,
    missing_weight,
    unfitting_weights_error,
    unknown_weight,
)
from kovqa_core.models.family import unloadable_weights_error
from kovqa_core.models.weights_file import (
    WEIGHT_SUFFIXES,
    WeightsFile,
    is_unpacked_archive,
    read_weights_file,
    unpacked_archive_error,
)

# torchscale's names for the two sets of weights of a multiway module.
_MODALITY_LETTER = {"vision": "A", "text": "B"}
_EMBEDDING_NAMES = {
    "text_embed.weight": "beit3.text_embed.weight",
    "mask_token_embed": "beit3.vision_embed.mask_token",
    "cls_token_embed": "beit3.vision_embed.cls_token",
    "patch_embed.weight": "beit3.vision_embed.proj.weight",
    "patch_embed.bias": "beit3.vision_embed.proj.bias",
    "vision_position_embed": "beit3.encoder.embed_positions.A.weight",
    "text_position_embed": "beit3.encoder.embed_positions.B.weight",
}
_LAYER_NAMES = {
    "norm_attn": "self_attn_layer_norm.{}",
    "inner_norm_attn": "self_attn.inner_attn_ln.{}",
    "out": "self_attn.out_proj.{}",
    "norm_ffn": "final_layer_norm.{}",
    "fc1": "ffn.{}.fc1",
    "inner_norm_ffn": "ffn.{}.ffn_layernorm",
    "fc2": "ffn.{}.fc2",
}
_LAYER_PATTERN = re.compile(r"layers\.(\d+)\.(vision|text)\.(\w+)\.(weight|bias)")
_NORM_PATTERN = re.compile(r"norm\.(vision|text)\.(weight|bias)")

# Unused rows and the class token: they have no place on the grid of image positions.
_POSITIONS_BEFORE_GRID = POSITION_OFFSET + 1

# Tensors with a row for every id: [V, D], [V, D], [V].
TEXT_TABLE_NAME = _EMBEDDING_NAMES["text_embed.weight"]
_VOCAB_TABLES = (TEXT_TABLE_NAME, "mlm_head.weight", "mlm_head.bias")

# What every BEiT-3 has under the same names; all others are heads of a task.
_BODY_PREFIX = "beit3."
# The one part of the body that not every task has.
_FINAL_NORM_PREFIX = "beit3.encoder.layer_norm."


def original_names(name: str) -> list[str]:
    """The original's name of one of our parameters; three (q, k, v) where ours is one.

    Raises:
        KeyError: a name that our networks do not have.
    """
    if not name.startswith("encoder."):
        return [name]
    name = name.removeprefix("encoder.")
    if name in _EMBEDDING_NAMES:
        return [_EMBEDDING_NAMES[name]]
    if match := _NORM_PATTERN.fullmatch(name):
        return [f"beit3.encoder.layer_norm.{_MODALITY_LETTER[match[1]]}.{match[2]}"]
    match = _LAYER_PATTERN.fullmatch(name)
    if match is None:
        raise KeyError(name)
    layer, modality, module, weight_or_bias = match.groups()
    letter = _MODALITY_LETTER[modality]
    if module == "qkv":
        modules = [f"self_attn.{projection}_proj.{letter}" for projection in "qkv"]
    else:
        modules = [_LAYER_NAMES[module].format(letter)]
    return [f"beit3.encoder.layers.{layer}.{module}.{weight_or_bias}" for module in modules]


@dataclass(frozen=True)
class LoadReport:
    """What became of a weights file; all names are the original's."""

    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    newly_initialised: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def describe(self) -> Message:
        """What became of it, in words."""
        none = no_names()
        new = sorted({component_name(name) for name in self.newly_initialised})
        unused = sorted({name.rsplit(".", 1)[0] for name in self.unused})
        return message(
            "beit3.load-report",
            "{loaded} tensors loaded, {resized} resized, newly initialised: {new}; not used: {unused}",
            loaded=len(self.loaded),
            resized=len(self.resized),
            new=", ".join(new) or none,
            unused=", ".join(unused) or none,
        )


def read_pretrained_weights(path: Path) -> WeightsFile:
    """The state dict of a weights file or of a step folder, under the original's names, in fp32.

    Raises:
        ModelError: no such file, unreadable, no state dict; a folder of another family.
    """
    if (path / "model.safetensors").is_file():
        return WeightsFile(_read_step_under_original_names(path), ())
    if not path.is_file():
        raise _no_weights_file_error(path)
    tensors, beside = read_weights_file(path)
    return WeightsFile({name: tensor.float() for name, tensor in tensors.items()}, beside)


def _read_step_under_original_names(folder: Path) -> dict[str, Tensor]:
    state = load_step_weights(folder)
    if TEXT_TABLE_NAME in state:  # exported
        return {name: tensor.float() for name, tensor in state.items()}
    try:
        return {name: tensor for own, weights in state.items() for name, tensor in _split_qkv(own, weights)}
    except KeyError as error:
        raise ModelError(
            message(
                "beit3.other-checkpoint",
                "{path} is not a BEiT-3 checkpoint: its weights have a {name}",
                path=folder,
                name=error,
            )
        ) from None


def _no_weights_file_error(path: Path) -> ModelError:
    if is_unpacked_archive(path):
        return unpacked_archive_error(path)
    inside = sorted(file for ending in WEIGHT_SUFFIXES for file in path.glob(f"*{ending}"))
    if inside:
        return ModelError(
            message("beit3.weights-folder", "{path} is a folder, not a weights file", path=path),
            message("beit3.weights-folder.hint", "name the file in it: {file}", file=inside[0]),
        )
    return ModelError(
        message("beit3.no-weights", "no weights file {path}", path=path),
        message("beit3.no-weights.hint", "check the path"),
    )


def load_step_weights(folder: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint folder, under our names; of an exported one under the original's.

    Raises:
        ModelError: it is missing or broken.
    """
    try:
        return load_file(folder / "model.safetensors")
    except (SafetensorError, OSError) as error:
        raise unloadable_weights_error(folder, error) from None


def to_original_state(state: Mapping[str, Tensor], patch_size: int) -> dict[str, Tensor]:
    """A state dict of ours under the original's names, in its shapes.

    Args:
        state: by our names.
        patch_size: side of a patch, pixels: the original keeps the patches' projection as a convolution.
    """
    named = {
        name: tensor.contiguous()
        for own, weights in state.items()
        for name, tensor in _split_qkv(own, weights)
    }
    projection = named[_EMBEDDING_NAMES["patch_embed.weight"]]
    named[_EMBEDDING_NAMES["patch_embed.weight"]] = projection.reshape(
        len(projection), 3, patch_size, patch_size
    )
    return named


def from_original_state(original: Mapping[str, Tensor], expected: Iterable[str]) -> dict[str, Tensor]:
    """What `to_original_state` was given: joined and reshaped again, bit by bit.

    Args:
        original: by the original's names.
        expected: our names of the network's parameters; what the file lacks of them is left out.
    """
    state = {}
    for own in expected:
        if all(name in original for name in original_names(own)):
            parts = [original[name] for name in original_names(own)]
            state[own] = torch.cat(parts) if len(parts) > 1 else parts[0]
    if (patches := state.get("encoder.patch_embed.weight")) is not None:
        state["encoder.patch_embed.weight"] = patches.flatten(1)
    return state


def _split_qkv(own: str, tensor: Tensor) -> Iterable[tuple[str, Tensor]]:
    """The original's name and tensor of one of ours; of [3 D, D] its q, k and v, each [D, D]."""
    names = original_names(own)
    return zip(names, tensor.float().chunk(len(names)), strict=True)


def position_grid(rows: int) -> int:
    """Patches along a side of the images that a table of so many image positions is for.

    Raises:
        ModelError: the table is not of a square grid.
    """
    grid = math.isqrt(max(rows - _POSITIONS_BEFORE_GRID, 0))
    if grid == 0 or grid * grid != rows - _POSITIONS_BEFORE_GRID:
        raise ModelError(
            message(
                "beit3.position-table-not-square",
                "position table of {rows} rows is not of a square grid",
                rows=rows,
            )
        )
    return grid


def resize_position_embedding(table: Tensor, grid: int) -> Tensor:
    """Image positions [2 + 1 + g², D] for another grid: bicubic, in fp32; the first rows stay.

    Args:
        table: two unused rows, the class token's, then one a patch, row by row.
        grid: patches along a side of the new image.

    Raises:
        ModelError: the table is not of a square grid.
    """
    first = _POSITIONS_BEFORE_GRID
    old_grid = position_grid(len(table))
    if old_grid == grid:
        return table
    # [g², D] as an image of D channels, [1, D, g, g].
    square = table[first:].float().reshape(1, old_grid, old_grid, -1).permute(0, 3, 1, 2)
    square = functional.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([table[:first].float(), square.permute(0, 2, 3, 1).reshape(grid * grid, -1)])


@dataclass(frozen=True)
class _FittedWeight:
    """A tensor of the file in the shape of one of ours, or why it does not fit."""

    value: Tensor | None
    problems: list[WeightProblem]
    is_resized: bool = False


def _fit_weight(
    own: str,
    parameter: Tensor,
    original: Mapping[str, Tensor],
    transfer_rows: Callable[[Tensor], Tensor] | None,
) -> _FittedWeight:
    names = original_names(own)
    if missing := [name for name in names if name not in original]:
        return _FittedWeight(None, list(map(missing_weight, missing)))
    # Of q, k and v the joined weight [3 D, D]; of all others the tensor itself.
    parts = [original[name] for name in names]
    if any(part.shape != parts[0].shape or part.ndim == 0 for part in parts):
        return _FittedWeight(None, [misshapen_weight(names[0], parts, parameter)])
    value = torch.cat(parts)
    is_resized = own == "encoder.vision_position_embed" and value.shape != parameter.shape
    if is_resized:
        value = resize_position_embedding(value, position_grid(len(parameter)))
    # Before shapes are compared: under another tokenizer the file has another number of rows.
    if transfer_rows is not None and names[0] in _VOCAB_TABLES:
        value = transfer_rows(value)
    if own == "encoder.patch_embed.weight" and value[0].numel() == parameter[0].numel():
        value = value.flatten(1)  # a convolution [D, 3, p, p] -> a product [D, 3 p²]
    if value.shape != parameter.shape:
        return _FittedWeight(None, [misshapen_weight(names[0], [value], parameter)])
    return _FittedWeight(value, [], is_resized)


def load_pretrained_weights(
    net: nn.Module,
    original: Mapping[str, Tensor],
    reinit: tuple[str, ...],
    name: str,
    transfer_rows: Callable[[Tensor], Tensor] | None = None,
) -> LoadReport:
    """Copy weights under the original's names into a network.

    Args:
        net: the network; a parameter that the file lacks keeps its value, if `reinit` names it.
        original: state dict under the original's names.
        reinit: components ("head", "pooler", see `component_name`) that are always newly initialised.
        name: what to call the weights in errors.
        transfer_rows: makes rows for another tokenizer of a tensor with a row for every id.

    Raises:
        ModelError: a parameter is missing or has another shape and `reinit` does not name it, or
            the file's body has weights that the network lacks.
    """
    report = LoadReport()
    problems: list[WeightProblem] = []
    used: set[str] = set()
    for own, parameter in net.named_parameters():
        names = original_names(own)
        # Counted as used though not read: a head that the file has, and that begins anew, is not unknown.
        if component_name(names[0]) in reinit:
            report.newly_initialised.extend(names)
            used.update(names)
            continue
        fitted = _fit_weight(own, parameter, original, transfer_rows)
        used.update(name for name in names if name in original)
        problems.extend(fitted.problems)
        if fitted.is_resized:
            report.resized.extend(names)
        if fitted.value is not None:
            with torch.no_grad():
                parameter.copy_(fitted.value)
            report.loaded.extend(names)
    report.unused.extend(name for name in original if name not in used)
    # Heads of other tasks are left over in every published file; more of the body is another model's.
    problems.extend(
        unknown_weight(name)
        for name in report.unused
        if name.startswith(_BODY_PREFIX) and not name.startswith(_FINAL_NORM_PREFIX)
    )
    if problems:
        raise unfitting_weights_error(name, problems, reinit, original)
    return report

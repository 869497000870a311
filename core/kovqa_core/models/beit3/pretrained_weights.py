"""Published and older BEiT-3 weight files -> our names. One named function per step.

Files are torch archives, whatever their suffix (browsers save them as .zip), with the weights below `model`
or `module`, often in fp16, sometimes beside an `argparse.Namespace`. Nothing else is ever unpickled.
"""

from __future__ import annotations

import argparse
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from kovqa_core.errors import ModelError
from kovqa_core.messages import message
from kovqa_core.models.beit3.config import POSITION_OFFSET
from kovqa_core.models.family import unloadable_weights_error

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

# Tensors with a row for every id: [V, D], [V, D], [V].
TEXT_TABLE_NAME = _EMBEDDING_NAMES["text_embed.weight"]
_VOCAB_TABLES = (TEXT_TABLE_NAME, "mlm_head.weight", "mlm_head.bias")

# Prefixes of what pretraining alone uses.
PRETRAINING_ONLY = ("mlm_head.", "mim_head.", "beit3.encoder.layer_norm.")


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

    def __str__(self) -> str:
        new = sorted({name.split(".")[0] for name in self.newly_initialised})
        unused = sorted({name.rsplit(".", 1)[0] for name in self.unused})
        return message(
            "beit3.load-report",
            "{loaded} tensors loaded, {resized} resized, newly initialised: {new}; not used: {unused}",
            loaded=len(self.loaded),
            resized=len(self.resized),
            new=", ".join(new) or "none",
            unused=", ".join(unused) or "none",
        )


def read_pretrained_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of a weights file or of a step folder, under the original's names, in fp32.

    Raises:
        ModelError: no such file, not a torch archive, foreign objects inside, no state dict; a folder
            of another family.
    """
    if (path / "model.safetensors").is_file():
        try:
            return {
                name: tensor
                for own, weights in load_step_weights(path).items()
                for name, tensor in _split_qkv(own, weights)
            }
        except KeyError as error:
            raise ModelError(
                message(
                    "beit3.other-checkpoint",
                    "{path} is not a BEiT-3 checkpoint: its weights have a {name}",
                    path=path,
                    name=error,
                )
            ) from None
    if path.is_dir() and ((path / "data.pkl").exists() or (path / "archive" / "data.pkl").exists()):
        raise ModelError(
            message("beit3.unpacked-weights", "{path} is an unpacked weights file", path=path),
            message("beit3.unpacked-weights.hint", "use the .zip or .pth itself: do not unpack it"),
        )
    if not path.is_file():
        raise ModelError(
            message("beit3.no-weights", "no weights file {path}", path=path),
            message("beit3.no-weights.hint", "check the path"),
        )
    content = _read_torch_archive(path)
    for key in ("model", "module"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ModelError(
            message("beit3.no-state-dict", "{path} holds no state dict", path=path),
            message("beit3.no-state-dict.hint", "a BEiT-3 file has the weights below `model` or `module`"),
        )
    return {str(name): tensor.float() for name, tensor in content.items()}


def _read_torch_archive(path: Path) -> object:
    """What a file holds: tensors and containers, nothing that could run code."""
    try:
        # Older files have the training's arguments beside the weights: a Namespace holds attributes and no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content: object = torch.load(path, map_location="cpu", weights_only=True)
            return content
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL (\S+)", str(error))
        raise ModelError(
            message(
                "beit3.foreign-objects",
                "{path} holds objects that are not tensors{name}; loading them could run foreign code, so it "
                "was refused",
                path=path,
                name=f" ({name[1]})" if name else "",
            ),
            message(
                "beit3.foreign-objects.hint", "ask its author for a file of plain tensors, or safetensors"
            ),
        ) from None
    except (RuntimeError, OSError, EOFError, zipfile.BadZipFile, ValueError) as error:
        raise ModelError(
            message(
                "beit3.not-a-weights-file",
                "{path} is not a torch weights file ({error})",
                path=path,
                error=str(error).splitlines()[0],
            ),
            message("beit3.not-a-weights-file.hint", "fetch it again"),
        ) from None


def load_step_weights(folder: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint folder, under our names.

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


def _split_qkv(own: str, tensor: Tensor) -> Iterable[tuple[str, Tensor]]:
    """The original's name and tensor of one of ours; of [3 D, D] its q, k and v, each [D, D]."""
    names = original_names(own)
    return zip(names, tensor.float().chunk(len(names)), strict=True)


def resize_position_embedding(table: Tensor, grid: int) -> Tensor:
    """Image positions [2 + 1 + g², D] for another grid: bicubic, in fp32; the first rows stay.

    Args:
        table: two unused rows, the class token's, then one a patch, row by row.
        grid: patches along a side of the new image.

    Raises:
        ModelError: the table is not of a square grid.
    """
    # Unused rows and the class token: they have no place on the grid.
    first = POSITION_OFFSET + 1
    old_grid = math.isqrt(len(table) - first)
    if old_grid * old_grid != len(table) - first:
        raise ModelError(
            message(
                "beit3.position-table-not-square",
                "position table of {rows} rows is not of a square grid",
                rows=len(table),
            )
        )
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
    problems: list[str]
    is_resized: bool = False


def _fit_weight(
    own: str,
    parameter: Tensor,
    original: Mapping[str, Tensor],
    transfer_rows: Callable[[Tensor], Tensor] | None,
) -> _FittedWeight:
    names = original_names(own)
    if missing := [name for name in names if name not in original]:
        return _FittedWeight(None, [f"{name} is missing" for name in missing])
    # Of q, k and v the joined weight [3 D, D]; of all others the tensor itself.
    value = torch.cat([original[name] for name in names])
    is_resized = own == "encoder.vision_position_embed" and value.shape != parameter.shape
    if is_resized:
        value = resize_position_embedding(value, math.isqrt(len(parameter) - POSITION_OFFSET - 1))
    # Before shapes are compared: under another tokenizer the file has another number of rows.
    if transfer_rows is not None and names[0] in _VOCAB_TABLES:
        value = transfer_rows(value)
    if own == "encoder.patch_embed.weight" and value[0].numel() == parameter[0].numel():
        value = value.flatten(1)  # a convolution [D, 3, p, p] -> a product [D, 3 p²]
    if value.shape != parameter.shape:
        shapes = f"{names[0]} is {list(value.shape)}, wanted {list(parameter.shape)}"
        return _FittedWeight(None, [shapes])
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
        reinit: first components of names ("head", "pooler") that are always newly initialised.
        name: what to call the weights in errors.
        transfer_rows: makes rows for another tokenizer of a tensor with a row for every id.

    Raises:
        ModelError: a parameter is missing or has another shape and `reinit` does not name it, or
            the file has weights that neither the network nor pretraining knows.
    """
    report = LoadReport()
    problems: list[str] = []
    used: set[str] = set()
    for own, parameter in net.named_parameters():
        names = original_names(own)
        # Counted as used though not read: a head that the file has, and that begins anew, is not unknown.
        if names[0].split(".")[0] in reinit:
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
    # Heads of pretraining are left over in every published file; any other name is another model's.
    problems.extend(f"{name} is unknown" for name in report.unused if not name.startswith(PRETRAINING_ONLY))
    if problems:
        raise _unfitting_weights_error(name, problems)
    return report


def _unfitting_weights_error(name: str, problems: list[str]) -> ModelError:
    return ModelError(
        message(
            "beit3.weights-do-not-fit",
            "{name} does not fit this model: {problems}{more}",
            name=name,
            problems="; ".join(problems[:3]),
            more=f" and {len(problems) - 3} more" if len(problems) > 3 else "",
        ),
        message(
            "beit3.weights-do-not-fit.hint",
            "name components to initialise anew in model.reinit, for instance "
            "--set 'model.reinit=[pooler, head]'",
        ),
    )

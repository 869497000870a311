"""Published and older BEiT-3 weight files -> our names. One named function per step.

Files are torch archives, whatever their suffix (browsers save them as .zip), with the weights
below `model` or `module`, often in fp16, sometimes beside an `argparse.Namespace`. Nothing
else is ever unpickled from them.
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
from kovqa_core.models.beit3.config import POSITION_OFFSET

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

# What has a row for every id: [V, D], [V, D], [V].
TEXT_TABLE_NAME = _EMBEDDING_NAMES["text_embed.weight"]
_VOCAB_TABLES = (TEXT_TABLE_NAME, "mlm_head.weight", "mlm_head.bias")

# Parts of pretrained files that fine-tuning has no use for.
PRETRAINING_ONLY = ("mlm_head.", "mim_head.", "beit3.encoder.layer_norm.")


def original_names(name: str) -> list[str]:
    """The original's name of one of our parameters; three (q, k, v) where ours are one."""
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
    layer, modality, part, kind = match.groups()
    letter = _MODALITY_LETTER[modality]
    parts = (
        [f"self_attn.{x}_proj.{letter}" for x in "qkv"]
        if part == "qkv"
        else [_LAYER_NAMES[part].format(letter)]
    )
    return [f"beit3.encoder.layers.{layer}.{p}.{kind}" for p in parts]


@dataclass(frozen=True)
class LoadReport:
    """What became of a weights file."""

    loaded: list[str] = field(default_factory=list)  # original names, as all lists here
    resized: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = f"{len(self.loaded)} tensors loaded, {len(self.resized)} resized"
        fresh = sorted({name.split(".")[0] for name in self.fresh})
        unused = sorted({name.rsplit(".", 1)[0] for name in self.unused})
        return (
            f"{counts}, newly initialised: {', '.join(fresh) or 'none'}; "
            f"not used: {', '.join(unused) or 'none'}"
        )


def read_pretrained_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of a weights file or of a step folder, under the original's names, in fp32.

    Raises:
        ModelError: no such file, no torch archive, foreign objects inside, no state dict; a folder of
            another family.
    """
    if (path / "model.safetensors").is_file():
        try:
            return {n: part for own, t in load_step_weights(path).items() for n, part in _split_qkv(own, t)}
        except KeyError as error:
            raise ModelError(f"{path} is no BEiT-3 checkpoint: its weights have a {error}") from None
    if path.is_dir() and ((path / "data.pkl").exists() or (path / "archive" / "data.pkl").exists()):
        raise ModelError(
            f"{path} is an unpacked weights file", "use the .zip or .pth itself: do not unpack it"
        )
    if not path.is_file():
        raise ModelError(f"no weights file {path}", "check the path")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL (\S+)", str(error))
        inside = f" ({name[1]})" if name else ""
        raise ModelError(
            f"{path} holds objects that are not tensors{inside}; loading them could run foreign code, so it "
            "was refused",
            "ask its author for a file of plain tensors, or safetensors",
        ) from None
    except (RuntimeError, OSError, EOFError, zipfile.BadZipFile, ValueError) as error:
        raise ModelError(
            f"{path} is no torch weights file ({str(error).splitlines()[0]})", "fetch it again"
        ) from None
    for key in ("model", "module"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ModelError(
            f"{path} holds no state dict", "a BEiT-3 file has the weights below `model` or `module`"
        )
    return {str(name): tensor.float() for name, tensor in content.items()}


def load_step_weights(folder: Path) -> dict[str, Tensor]:
    """The state dict of a step folder, under our names.

    Raises:
        ModelError: it is missing or broken.
    """
    try:
        return load_file(folder / "model.safetensors")
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{folder}/model.safetensors cannot be loaded ({str(error).splitlines()[0]})"
        ) from None


def to_original_state(state: Mapping[str, Tensor], patch: int) -> dict[str, Tensor]:
    """A state dict of ours under the original's names, in its shapes.

    Args:
        patch: side of a patch, pixels: the original keeps their projection as a convolution.
    """
    named = {
        name: part.contiguous() for own, tensor in state.items() for name, part in _split_qkv(own, tensor)
    }
    projection = named[_EMBEDDING_NAMES["patch_embed.weight"]]
    named[_EMBEDDING_NAMES["patch_embed.weight"]] = projection.reshape(len(projection), 3, patch, patch)
    return named


def _split_qkv(own: str, tensor: Tensor) -> Iterable[tuple[str, Tensor]]:
    names = original_names(own)
    return zip(names, tensor.float().chunk(len(names)), strict=True)


def resize_position_embedding(table: Tensor, grid: int) -> Tensor:
    """Picture positions [2 + 1 + g², D] for another grid: bicubic, in fp32; the first rows stay.

    Raises:
        ModelError: the table is not of a square grid.
    """
    first = POSITION_OFFSET + 1
    old = math.isqrt(len(table) - first)
    if old * old != len(table) - first:
        raise ModelError(f"position table of {len(table)} rows is not of a square grid")
    if old == grid:
        return table
    square = table[first:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    square = functional.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([table[:first].float(), square.permute(0, 2, 3, 1).reshape(grid * grid, -1)])


def load_pretrained_weights(
    net: nn.Module,
    original: Mapping[str, Tensor],
    reinit: tuple[str, ...],
    name: str,
    carry: Callable[[Tensor], Tensor] | None = None,
) -> LoadReport:
    """Copy weights under the original's names into a network.

    Args:
        net: the network; a parameter not found keeps its value, if `reinit` allows that.
        original: state dict under the original's names.
        reinit: first parts of names ("head", "pooler") that are newly initialised, always.
        name: what to call the weights in errors.
        carry: makes rows for another tokenizer of what has a row for every id.

    Raises:
        ModelError: a parameter is missing or has another shape and `reinit` does not name it, or
            the file has weights that neither the network nor pretraining knows.
    """
    report = LoadReport()
    wrong: list[str] = []
    used: set[str] = set()
    for own, parameter in net.named_parameters():
        names = original_names(own)
        if names[0].split(".")[0] in reinit:
            report.fresh.extend(names)
            used.update(names)
            continue
        missing = [n for n in names if n not in original]
        if missing:
            wrong.extend(f"{n} is missing" for n in missing)
            continue
        used.update(names)
        value = torch.cat([original[n] for n in names])
        if own == "encoder.vision_position_embed" and value.shape != parameter.shape:
            value = resize_position_embedding(value, math.isqrt(len(parameter) - POSITION_OFFSET - 1))
            report.resized.extend(names)
        if carry is not None and names[0] in _VOCAB_TABLES:
            value = carry(value)
        if own == "encoder.patch_embed.weight" and value[0].numel() == parameter[0].numel():
            value = value.flatten(1)
        if value.shape != parameter.shape:
            wrong.append(f"{names[0]} is {list(value.shape)}, wanted {list(parameter.shape)}")
            continue
        with torch.no_grad():
            parameter.copy_(value)
        report.loaded.extend(names)
    report.unused.extend(n for n in original if n not in used)
    wrong.extend(f"{n} is unknown" for n in report.unused if not n.startswith(PRETRAINING_ONLY))
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ModelError(
            f"{name} does not fit this model: {'; '.join(wrong[:3])}{more}",
            "name parts to initialise anew in model.reinit, for instance --set 'model.reinit=[pooler, head]'",
        )
    return report

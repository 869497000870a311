"""The weights of LLaVA's folders under transformers' names, whole: base, vision tower, projector, LoRA.

Source: docs/sources/llava.md, L11, L16, L17, L22 and L23.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from kovqa_core.errors import ModelError
from kovqa_core.files import read_json
from kovqa_core.messages import message
from kovqa_core.models.vlm.llava_folder import (
    IMAGE_TOKEN,
    PATCH_TOKEN,
    LlavaFolder,
    find_weight_files,
)

StateDict = dict[str, Tensor]

EMBEDDING_NAME, LM_HEAD_NAME = "model.language_model.embed_tokens.weight", "lm_head.weight"
_PROJECTOR_NAME_FORMAT = "model.multi_modal_projector.linear_{}.{}"
_NAME_PATTERNS = (
    (re.compile(r"^model\.vision_tower\.(vision_tower\.)?(vision_model\.)?"), "model.vision_tower."),
    (re.compile(r"^model\.mm_projector\.(0\.)?(weight|bias)$"), r"model.multi_modal_projector.linear_1.\2"),
    (re.compile(r"^model\.mm_projector\.2\."), "model.multi_modal_projector.linear_2."),
    (re.compile(r"^model\.(embed_tokens|layers|norm)\."), r"model.language_model.\1."),
)


@dataclass(frozen=True)
class LlavaDimensions:
    """Sizes a LLaVA's own weights have.

    Attributes:
        vision_width: width of the vision tower.
        text_width: width of the language model.
        vocab_size: rows of the text table and of the head, added tokens included.
        initializer_range: standard deviation of newly drawn rows.
    """

    vision_width: int
    text_width: int
    vocab_size: int
    initializer_range: float


def read_llava_state_dict(
    source: LlavaFolder, language: Path, vision: Path, dimensions: LlavaDimensions, seed: int
) -> StateDict:
    """All weights under transformers' names, in the precision of the language model's.

    Args:
        source: LLaVA's folder.
        language: folder of the language model; the source itself where that is whole.
        vision: folder of the CLIP model; read only where the source has no vision tower of its own.
        dimensions: of the network to be filled.
        seed: of a new projector and the row of `<im_patch>`; for a plain language model.

    Raises:
        ModelError: a file cannot be read, or an adapter belongs to another base.
    """
    state = _read_state_dict(language, to_transformers_name)
    if not any(name.startswith("model.vision_tower.") for name in state):
        state |= _read_state_dict(vision, _to_vision_tower_name)
    # One generator, drawn from in this order: the projector, then the rows of both tables. Another order
    # would give other weights for the same seed.
    generator = torch.Generator().manual_seed(seed)
    if source.folder_type == "projector":
        state |= _rename_tensors(load_torch_tensors(source.path / "mm_projector.bin"))
    elif source.folder_type == "lora":
        _merge_lora(state, source.path)
    elif source.folder_type == "language":
        state |= _init_projector(dimensions, generator)
    if not source.has_mlp_projector:
        # transformers' class always has two layers: v1's one is followed by an identity, with "linear" as
        # the activation between, so that the result is the same number for number.
        state[_PROJECTOR_NAME_FORMAT.format(2, "weight")] = torch.eye(dimensions.text_width)
        state[_PROJECTOR_NAME_FORMAT.format(2, "bias")] = torch.zeros(dimensions.text_width)
    for name in (EMBEDDING_NAME, LM_HEAD_NAME):
        state[name] = _extend_vocab_rows(state[name], source, dimensions, generator)
    dtype = state[LM_HEAD_NAME].dtype
    return {name: tensor.to(dtype).contiguous() for name, tensor in state.items()}


# ------------------------------------------------------------------------------ files and names


def _read_state_dict(folder: Path, new_name: Callable[[str], str | None]) -> StateDict:
    """The weights of a folder under new names; those without one are not read."""
    state: StateDict = {}
    for path in find_weight_files(folder):
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                names = {name: new for name in file.keys() if (new := new_name(name))}  # noqa: SIM118
                state |= {new: file.get_tensor(name) for name, new in names.items()}
        else:
            tensors = load_torch_tensors(path)
            state |= {new: tensor for name, tensor in tensors.items() if (new := new_name(name))}
    return state


def load_torch_tensors(path: Path) -> StateDict:
    """The tensors of a file written by torch; nothing else in it is run.

    Raises:
        ModelError: it is broken, of an old format, or holds other objects.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises a different one for each of the three
        raise ModelError(
            message(
                "vlm.torch-file-unreadable",
                "{file} cannot be read ({reason})",
                file=path,
                reason=str(error).splitlines()[0],
            ),
            message("vlm.torch-file-unreadable.hint", "fetch it again"),
        ) from None


def to_transformers_name(name: str) -> str | None:
    """LLaVA's name of a weight -> transformers'; None for buffers that are computed."""
    if name.endswith(("rotary_emb.inv_freq", "position_ids")):
        return None
    for pattern, replacement in _NAME_PATTERNS:
        if pattern.match(name):
            return pattern.sub(replacement, name)
    return name


def _to_vision_tower_name(name: str) -> str | None:
    """A name in a CLIP file -> its name in LLaVA; None for the text tower and both heads."""
    name_in_tower = name.removeprefix("vision_model.")
    if name_in_tower == name or name.endswith("position_ids"):
        return None
    return f"model.vision_tower.{name_in_tower}"


def _rename_tensors(tensors: StateDict) -> StateDict:
    return {new: tensor for name, tensor in tensors.items() if (new := to_transformers_name(name))}


# ------------------------------------------------------------------------------ projector and rows


def _init_projector(dimensions: LlavaDimensions, generator: torch.Generator) -> StateDict:
    """As torch initialises a linear layer: uniform within 1 / √(input width)."""
    bound = dimensions.vision_width**-0.5
    tensors = {
        "weight": torch.empty(dimensions.text_width, dimensions.vision_width),
        "bias": torch.empty(dimensions.text_width),
    }
    return {
        _PROJECTOR_NAME_FORMAT.format(1, name): tensor.uniform_(-bound, bound, generator=generator)
        for name, tensor in tensors.items()
    }


def _extend_vocab_rows(
    table: Tensor, source: LlavaFolder, dimensions: LlavaDimensions, generator: torch.Generator
) -> Tensor:
    """The table [V, D] with rows for the added tokens, as the original adds them.

    `<im_patch>` is drawn and then replaced by image features; the rows of `<im_start>` and `<im_end>` are the
    mean of all rows before. The row of `<image>`, which the original does not have, is zero.
    """
    tokens = source.added_tokens or [IMAGE_TOKEN]
    # A folder that trained them holds the first of these rows already: only the last ones are missing.
    num_missing = max(0, dimensions.vocab_size - len(table))
    for token in tokens[len(tokens) - num_missing :]:
        row = torch.zeros_like(table[:1])
        if token == PATCH_TOKEN and source.folder_type == "language":
            row.normal_(0, dimensions.initializer_range, generator=generator)
        elif token != IMAGE_TOKEN:
            row = table.float().mean(0, keepdim=True).to(table.dtype)
        table = torch.cat([table, row])
    return table


# ------------------------------------------------------------------------------ LoRA


def _merge_lora(state: StateDict, folder: Path) -> None:
    """Add an adapter's updates to the weights, and put in place what was trained beside it."""
    adapter = read_json(folder / "adapter_config.json")
    tensors = _read_adapter(folder)
    # W + alpha / r · B A, with A [r, in] and B [out, r] (arXiv 2106.09685, section 4.1). In fp32: in 16 bits
    # small updates would be lost in the rounding of the sum.
    scale = adapter["lora_alpha"] / adapter["r"]
    for name, lora_a in tensors.items():
        if ".lora_A." not in name:
            continue
        lora_b = tensors[name.replace(".lora_A.", ".lora_B.")]
        original = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
        target = to_transformers_name(original) or original
        if target not in state:
            raise ModelError(
                message(
                    "vlm.lora-of-another-base",
                    "{folder} adapts {weight}, which the language model does not have",
                    folder=folder,
                    weight=target,
                ),
                message("vlm.lora-of-another-base.hint", "give the base it was trained on: --base"),
            )
        updated = state[target].float() + scale * lora_b.float() @ lora_a.float()
        state[target] = updated.to(state[target].dtype)
    # Projector and token rows were trained as they are: they replace what was read, and nothing is added.
    trained = load_torch_tensors(folder / "non_lora_trainables.bin")
    state |= _rename_tensors({name.removeprefix("base_model.model."): t for name, t in trained.items()})


def _read_adapter(folder: Path) -> StateDict:
    """The tensors of an adapter, in either of peft's file formats.

    Raises:
        ModelError: there is no such file, or it is broken.
    """
    pickled, safe = folder / "adapter_model.bin", folder / "adapter_model.safetensors"
    if pickled.is_file():
        return load_torch_tensors(pickled)
    if safe.is_file():
        with safe_open(safe, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    raise ModelError(
        message("vlm.no-adapter-file", "{folder} has no adapter_model.bin", folder=folder),
        message("vlm.no-adapter-file.hint", "fetch it again"),
    )

"""LLaVA's LoRA folders: an adapter of peft's, and what was trained beside it.

Source: docs/sources/llava.md, L23.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kovqa_core.errors import ModelError
from kovqa_core.messages import message
from kovqa_core.models.closed_folder import read_model_json
from kovqa_core.models.vlm.llava_folder import ADAPTER_CONFIG_FILE, NON_LORA_FILE
from kovqa_core.models.vlm.llava_weight_files import StateDict, read_weight_files

_PREFIX = "base_model.model."  # of peft's names
_A, _B = ".lora_A.weight", ".lora_B.weight"
# Settings of peft that change what an adapter adds, and are not computed here.
_UNSUPPORTED = ("use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "modules_to_save", "lora_bias")


def merge_lora(state: StateDict, folder: Path, new_name: Callable[[str], str | None]) -> None:
    """Add an adapter's updates to the weights.

    Args:
        state: of its base, under transformers' names; changed.
        folder: the adapter's.
        new_name: LLaVA's name of a weight -> transformers'.

    Raises:
        ModelError: it adapts weights of other names or shapes, or in another way.
    """
    scale = _scale(folder)
    adapter = _read_adapter(folder)
    for name in [name for name in adapter if name.endswith(_A)]:
        target = new_name(name.removesuffix(_A) + ".weight")
        lora_a, lora_b = adapter.pop(name), adapter.pop(name.removesuffix(_A) + _B, None)
        weight = state.get(str(target))
        if lora_b is None or weight is None or weight.shape != (len(lora_b), lora_a.shape[1]):
            raise ModelError(
                message(
                    "vlm.lora-of-another-base",
                    "{folder} adapts {weight}, which the language model does not have in this shape",
                    folder=folder,
                    weight=target,
                ),
                message("vlm.lora-of-another-base.hint", "give the base it was trained on: --base"),
            )
        # W + scale · B A, with A [r, in] and B [out, r] (arXiv 2106.09685, section 4.1). In fp32: in 16 bits
        # small updates would be lost in the rounding of the sum.
        state[str(target)] = (weight.float() + scale * lora_b.float() @ lora_a.float()).to(weight.dtype)
    if adapter:
        raise _unsupported(folder, min(adapter))


def read_non_lora_weights(folder: Path, new_name: Callable[[str], str | None]) -> StateDict:
    """The projector, and other weights that were trained as they are: they replace the base's.

    Raises:
        ModelError: the file cannot be read.
    """
    return read_weight_files([folder / NON_LORA_FILE], lambda name: new_name(name.removeprefix(_PREFIX)))


def _scale(folder: Path) -> float:
    """alpha / r, or alpha / √r (arXiv 2312.03732).

    Raises:
        ModelError: the adapter has settings that are not computed here.
    """
    settings = read_model_json(folder / ADAPTER_CONFIG_FILE)
    for name in _UNSUPPORTED:
        if settings.get(name):
            raise _unsupported(folder, f"{name}={settings[name]}")
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, int | float) or rank < 1:
        raise _unsupported(folder, f"r={rank}, lora_alpha={alpha}")
    return float(alpha) / (rank**0.5 if settings.get("use_rslora") else rank)


def _read_adapter(folder: Path) -> StateDict:
    """The tensors of an adapter, in either of peft's file formats, under LLaVA's names."""
    files = [folder / name for name in ("adapter_model.bin", "adapter_model.safetensors")]
    found = [file for file in files if file.is_file()]
    if not found:
        raise ModelError(
            message("vlm.no-adapter-file", "{folder} has no adapter_model.bin", folder=folder),
            message("vlm.no-adapter-file.hint", "fetch it again"),
        )
    return read_weight_files(found[:1], lambda name: name.removeprefix(_PREFIX))


def _unsupported(folder: Path, what: str) -> ModelError:
    return ModelError(
        message(
            "vlm.lora-unsupported",
            "{folder}: the adapter has {what}, which cannot be merged here",
            folder=folder,
            what=what,
        ),
        message(
            "vlm.lora-unsupported.hint", "merge it with peft (merge_and_unload), and import the whole model"
        ),
    )

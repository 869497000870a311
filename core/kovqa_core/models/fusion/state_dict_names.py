"""Names of the original's parameters and ours. Source: docs/sources/vqa_nia.md, N5."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

_OUR_MODULES = {
    "bert": "question",
    "i_model": "picture",
    "encoder": "encoder",
    "linear": "hidden",
    "h_layer_norm": "norm",
    "out_linear": "out",
}
# Stored and never used: a LayerNorm over the classes, and positions transformers counts itself.
_DROPPED_TENSORS = ("layer_norm.weight", "layer_norm.bias", "bert.embeddings.position_ids")


def is_fusion_checkpoint(names: Iterable[str]) -> bool:
    """Are these the names of a VQA_NIA model's tensors, be it a damaged one's?"""
    return any(name.startswith(("bert.", "i_model.", "out_linear.")) for name in names)


def our_tensor_name(original: str) -> str | None:
    """Our name of one of the original's parameters or buffers; None: not used.

    Raises:
        KeyError: a name the original does not have.
    """
    if original in _DROPPED_TENSORS:
        return None
    first, _, rest = original.partition(".")
    return f"{_OUR_MODULES[first]}.{rest}"


def rename_state_dict(original: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the original, without `module.`, under our names."""
    named = ((our_tensor_name(name), tensor) for name, tensor in original.items())
    return {name: tensor for name, tensor in named if name is not None}

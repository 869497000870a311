"""What training scripts put around a state dict, and before its names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# Keys that training scripts keep weights below: BEiT-3's own and DeepSpeed, timm and Lightning, others.
_WEIGHT_KEYS = ("model", "module", "state_dict", "model_state_dict", "model_state", "weights")
# Put before every name by Lightning and by scripts; a name of their own is stripped only if all have it.
_NAME_PREFIXES = ("model.", "state_dict.")
_DATA_PARALLEL_PREFIX = "module."  # DataParallel and DDP; no model of ours has a part of this name
# Put before the names of single layers too: torch.compile of a layer, activation checkpointing, FSDP.
_INNER_PREFIXES = ("_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")
_MAX_DEPTH = 4  # wrappers in wrappers; a forged file may nest without end


def find_wrapped_weights(content: Mapping[object, object]) -> tuple[object, list[str]]:
    """The innermost object that may be a model's weights, and the keys of weights beside it.

    Args:
        content: what a file holds.

    Returns:
        The object below the first known key, or below a known key in that, and so on; and keys beside the
        way to it whose values are dicts of tensors, such as `model_ema`.
    """
    inner: object = content
    beside: list[str] = []
    for _ in range(_MAX_DEPTH):
        if not isinstance(inner, Mapping):
            break
        key = next((key for key in _WEIGHT_KEYS if _is_wrapped(inner.get(key))), None)
        if key is None:
            break
        beside += [str(name) for name, value in inner.items() if name != key and _holds_tensors(value)]
        inner = inner[key]
    return inner, beside


def _is_wrapped(value: object) -> bool:
    """Could it be weights? A dict, or a whole module; a tensor is called `weights` only by chance."""
    return isinstance(value, Mapping) or hasattr(value, "state")


def _holds_tensors(value: object) -> bool:
    """Is it a dict of tensors, or of what stands for them before they are read?"""
    first = next(iter(value.values()), None) if isinstance(value, Mapping) else None
    return hasattr(first, "requires_grad")


def strip_name_prefixes(names: Iterable[str], known_prefix: str = "") -> dict[str, str]:
    """Names as the model itself has them.

    Args:
        names: of a state dict.
        known_prefix: what the model's own names begin with; never stripped.

    Returns:
        given name -> name without what wrappers put before it. Two given names may come out the same: then
        the file holds one weight twice.
    """
    stripped = {name: name for name in names}
    for prefix in _INNER_PREFIXES:
        stripped = {given: name.replace(prefix, "") for given, name in stripped.items()}
    while prefix := _outer_prefix(list(stripped.values()), known_prefix):
        stripped = {given: name.removeprefix(prefix) for given, name in stripped.items()}
    return stripped


def _outer_prefix(names: list[str], known_prefix: str) -> str:
    """What a wrapper put before names; empty: nothing."""
    if any(name.startswith(_DATA_PARALLEL_PREFIX) for name in names):
        return _DATA_PARALLEL_PREFIX
    wrappers = [prefix for prefix in _NAME_PREFIXES if prefix != known_prefix]
    common = (p for p in wrappers if names and all(name.startswith(p) for name in names))
    return next(common, "")

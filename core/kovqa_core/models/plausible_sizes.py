"""Sizes that a configuration states, held against the weights beside it before anything of that size is made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from kovqa_core.errors import ModelError
from kovqa_core.messages import message
from kovqa_core.models.closed_folder import error_reason

# Layers, experts and heads that are made one by one, and sides of tables. Lengths and ids are neither.
_LAYER_KEY = re.compile(
    r"(num|n)_(\w+_)?layers?|depth|depths|num_(local_)?experts|n_routed_experts|num_\w*heads"
)
_WIDTH_KEY = re.compile(
    r"(\w+_)?(hidden|intermediate|embed|vocab|vocabulary)_?(size|dim)|d_model|head_dim|\w*_dim"
)


def require_plausible_sizes(folder: Path, config: Mapping[str, object]) -> None:
    """See that a configuration asks for no more layers than there are tensors, and for no larger table than the weights.

    A damaged number would otherwise be made: a network without end, or all of the memory.

    Args:
        folder: with `config.json`, and weights in safetensors; other weights are not looked at.
        config: its values.

    Raises:
        ModelError: a number is too large; or a weights file is damaged.
    """
    counts = [count_elements(file) for file in sorted(folder.glob("*.safetensors"))]
    if not counts:
        return
    tensors, elements = (sum(numbers) for numbers in zip(*counts, strict=True))
    # Of packed 4-bit weights a tensor holds eight in one number; heads and experts may share one tensor.
    limits = {_LAYER_KEY: max(64 * tensors, 1024), _WIDTH_KEY: max(16 * elements, 1 << 20)}
    found: list[tuple[str, object]] = [("", config)]
    while found:
        path, value = found.pop()
        if isinstance(value, Mapping):
            found += [(f"{path}.{key}".lstrip("."), inner) for key, inner in value.items()]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            key = path.rpartition(".")[2]
            limit = next((n for pattern, n in limits.items() if pattern.fullmatch(key)), None)
            if limit is not None and value > limit:
                raise ModelError(
                    message(
                        "models.implausible-size",
                        "{file}: {key}: {value} is more than the weights beside it can hold ({tensors} tensors, "
                        "{elements:,} numbers)",
                        file=folder / "config.json",
                        key=path,
                        value=value,
                        tensors=tensors,
                        elements=elements,
                    ),
                    message(
                        "models.implausible-size.hint",
                        "put back the config.json that belongs to these weights",
                    ),
                )


def count_elements(file: Path) -> tuple[int, int]:
    """Tensors in a safetensors file, and their elements together, by its header.

    Raises:
        ModelError: it is damaged: header, offsets, or its end is missing.
    """
    from math import prod

    from safetensors import safe_open

    try:
        with safe_open(file, "pt") as opened:
            shapes = [opened.get_slice(name).get_shape() for name in opened.keys()]  # noqa: SIM118
    except Exception as error:  # OSError, or the library's own
        raise ModelError(
            message(
                "models.unreadable-safetensors",
                "{file} is not whole, or not safetensors ({reason})",
                file=file,
                reason=error_reason(error),
            ),
            message("models.unreadable-safetensors.hint", "fetch or copy it again"),
        ) from None
    return len(shapes), sum(prod(shape) for shape in shapes)

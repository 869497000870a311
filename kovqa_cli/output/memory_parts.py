"""What takes the memory of a training step, in words."""

from __future__ import annotations

from collections.abc import Mapping

from kovqa_core.messages import Message, join_messages, message


def memory_parts(parts: Mapping[str, float]) -> Message:
    """Each part with its size: `weights 0.12, gradients 0.12`.

    Args:
        parts: as `MemoryEstimate` names them, in one unit.
    """
    return join_messages(
        ", ",
        [
            message("train.memory-part", "{part} {size:.2f}", part=_part_text(name), size=size)
            for name, size in parts.items()
        ],
    )


def _part_text(name: str) -> str:
    return {
        "weights": message("train.weights", "weights"),
        "gradients": message("train.gradients", "gradients"),
        "optimizer": message("train.optimizer", "optimizer"),
        "averages": message("train.averages", "averages"),
        "activations": message("train.activations", "activations"),
        "logits": message("train.logits", "logits"),
        "workspace": message("train.workspace", "workspace"),
    }.get(name, name)

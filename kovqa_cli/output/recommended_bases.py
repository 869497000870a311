"""What `kovqa models` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kovqa_core.messages import message

from kovqa_cli.output.console import print_json, print_note, print_result
from kovqa_cli.output.table import Column, print_table

if TYPE_CHECKING:
    from kovqa_core.models.vlm.recommended_bases import BaseMemory, RecommendedBase

_LEAST = {"counted": "", "card": "", "weights": "≥"}  # before a figure


def print_bases(gpu_memory: float | None, *, as_json: bool, quiet: bool) -> None:
    """Published models with what they need; those alone that fit into a GPU of so many GB, where it is given."""
    from kovqa_core.download.hub_copies import hub_models_here
    from kovqa_core.models.memory import BYTES_PER_GB, USABLE_FRACTION
    from kovqa_core.models.vlm.recommended_bases import base_memory, base_sources, recommended_bases

    limit = None if gpu_memory is None else gpu_memory * USABLE_FRACTION * BYTES_PER_GB
    here = {name.partition("@")[0] for name in hub_models_here()}
    chosen = [
        (base, memory)
        for base, memory in ((base, base_memory(base)) for base in recommended_bases())
        if limit is None or any(needed is not None and needed <= limit for needed in memory.uses.values())
    ]
    if as_json:
        rows = [_json_fields(base, memory, is_here=base.name in here) for base, memory in chosen]
        print_json({"models": rows, "sources": dict(base_sources())})
        return
    if quiet:
        print_result(*(base.name for base, _ in chosen))
        return
    columns: list[Column] = [
        (message("models.column-name", "name"), "left"),
        (message("models.column-parameters", "parameters"), "right", 3),
        (message("models.column-answers", "answers"), "right"),
        (message("models.column-four-bit", "--load 4bit"), "right"),
        ("LoRA", "right", 2),
        ("QLoRA", "right", 2),
        (message("models.column-licence", "licence"), "text", 1),
        (message("models.column-korean", "Korean benchmarks"), "text", 4),
        (message("models.column-here", "here"), "left"),
    ]
    print_table(columns, [_cells(base, memory, limit, is_here=base.name in here) for base, memory in chosen])
    print_note(
        message(
            "models.gpu-note",
            "GB of the smallest GPU (8, 12, 16, 24, 48, 80); ≥: the weights alone are known; empty: not known, or too much. "
            "Scores of different sources cannot be compared; sources: --json",
        )
    )
    print_note(
        message("models.next", "next: kovqa download hf:NAME, then --model NAME, or --set model.base=NAME")
    )


def _cells(base: RecommendedBase, memory: BaseMemory, limit: float | None, *, is_here: bool) -> list[str]:
    return [
        base.name,
        f"{base.parameters:g}B",
        *(_gpu_cell(needed, memory, limit) for needed in memory.uses.values()),
        base.licence,
        ", ".join(f"{score.set} {score.score:g}" for score in base.korean),
        message("models.is-here", "here") if is_here else "",
    ]


def _gpu_cell(needed: float | None, memory: BaseMemory, limit: float | None) -> str:
    from kovqa_core.models.vlm.recommended_bases import smallest_gpu

    size = smallest_gpu(needed)
    if needed is None or size is None or (limit is not None and needed > limit):
        return ""
    return f"{_LEAST[memory.method]}{size}"


def _json_fields(base: RecommendedBase, memory: BaseMemory, *, is_here: bool) -> dict[str, object]:
    from kovqa_core.models.vlm.recommended_bases import smallest_gpu

    return {
        **base.model_dump(mode="json", exclude={"config"}),
        "memory_gb": {
            use: None if needed is None else round(needed / 2**30, 1) for use, needed in memory.uses.items()
        },
        "smallest_gpu_gb": {use: smallest_gpu(needed) for use, needed in memory.uses.items()},
        "memory_method": memory.method,
        "here": is_here,
    }

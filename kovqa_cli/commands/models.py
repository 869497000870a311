"""kovqa models: published models to begin with, by the memory they need."""

from __future__ import annotations

from typing import Annotated

import typer

from kovqa_cli import options


def models(
    *,
    gpu_memory: Annotated[
        float | None,
        typer.Option(
            "--gpu-memory",
            metavar="GB",
            min=1,
            help="Only what fits into a GPU of so much memory. [default: all, each with the smallest GPU that holds it]",
        ),
    ] = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """List published models to begin with, by memory.

    Vision language models for --model and model.base: what answering, LoRA and QLoRA take, the licence, and what
    they reached on Korean benchmarks. Each figure has its source (--json).
    """
    from kovqa_cli.output.recommended_bases import print_bases

    print_bases(gpu_memory, as_json=json, quiet=quiet)

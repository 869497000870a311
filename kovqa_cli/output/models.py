"""What is shown of models that come from elsewhere or go there."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_cli.output.console import print_json, print_note, print_result, short_path

if TYPE_CHECKING:
    from kovqa_core.models.export import ExportReport
    from kovqa_core.models.fusion.import_original import ImportedFusion
    from kovqa_core.models.vlm import import_llava as llava


def print_imported_model(folder: Path, found: ImportedFusion, as_json: bool, quiet: bool) -> None:
    """What was taken of a checkpoint, what was not, and what to type next."""
    transformer = bool(found.arguments.get("use_transformer_layer"))
    if as_json:
        print_json(
            {
                "path": str(folder),
                "classes": found.classes,
                "taken": len(found.taken),
                "dropped": found.dropped,
                "arguments": found.arguments,
            }
        )
        return
    if not quiet:
        print_note(
            f"{len(found.taken)} tensors taken, dropped (no part in an answer): {', '.join(found.dropped) or 'none'}"
        )
        print_note(f"{found.classes:,} answers")
        if transformer:
            print_note(
                "warning: trained with --use_transformer_layer, whose layers the original drew anew at every "
                "call and never saved: answers are given without them, and are worse than its log says"
            )
        print_note(f"next: kovqa predict -i PICTURE --question '…' --model {short_path(folder)}")
    print_result(short_path(folder))


_LLAVA_KINDS = {
    "projector": "a projector, put between its base and its picture encoder",
    "lora": "a LoRA adapter, added to its base",
    "merged": "a whole LLaVA",
    "language": "a plain language model, given a new projector that knows nothing yet",
}


def print_converted_llava(folder: Path, found: llava.ImportedLlava, as_json: bool, quiet: bool) -> None:
    """What a folder of LLaVA's was, and what to type next."""
    if as_json:
        print_json({"path": str(folder), "kind": found.kind, "settings": found.settings})
        return
    if not quiet:
        print_note(f"{_LLAVA_KINDS[found.kind]}; now a plain Hugging Face folder")
        if found.kind != "language":
            print_note(f"next: kovqa predict -i PICTURE --question '…' --model {short_path(folder)}")
        settings = (f"model.base={short_path(folder)}", *found.settings)
        words = " ".join(f"--set {shlex.quote(setting)}" for setting in settings)
        print_note(f"train it further: kovqa train -r llava-v1 --data DIR {words}")
    print_result(short_path(folder))


def print_exported_model(report: ExportReport, as_json: bool, quiet: bool) -> None:
    """What was written, and where it says how to load it."""
    if as_json:
        print_json({"path": str(report.folder), "model": str(report.step), "files": list(report.files)})
        return
    if not quiet:
        print_note(f"{short_path(report.step)} as {', '.join(report.files)}; README.md says how to load it")
    print_result(short_path(report.folder))

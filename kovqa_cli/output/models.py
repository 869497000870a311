"""What is printed about models that were imported or exported."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.messages import message, shell_quote

from kovqa_cli.output.console import print_outcome, shell_path, short_path

if TYPE_CHECKING:
    from kovqa_core.export.export_model import ExportReport
    from kovqa_core.export.verify_export import VerifyReport
    from kovqa_core.models.imported_checkpoint import ImportedCheckpoint
    from kovqa_core.models.vlm.import_llava import ImportedLlava


def print_imported_model(folder: Path, imported: ImportedCheckpoint, *, as_json: bool, quiet: bool) -> None:
    """What was taken from a checkpoint, what was not, and what to type next."""
    notes: list[str] = [
        message(
            "import.tensors-taken",
            "{count} tensors taken; dropped, as no answer needs them: {dropped}",
            count=len(imported.used),
            dropped=", ".join(imported.unused) or "-",
        ),
        _checkpoint_description(imported),
        *imported.warnings,
    ]
    if imported.arguments.get("use_transformer_layer"):
        notes.append(
            message(
                "import.unsaved-layers",
                "warning: trained with --use_transformer_layer, whose layers the original initialised anew at every "
                "call and never saved: answers are given without them, and are worse than its log says",
            )
        )
    notes.append(_next_command(folder, imported.task))
    fields = {
        "path": str(folder),
        "task": imported.task,
        "classes": imported.num_classes,
        "taken": len(imported.used),
        "dropped": imported.unused,
        "arguments": imported.arguments,
    }
    print_outcome(short_path(folder), fields, notes, as_json=as_json, quiet=quiet)


def _checkpoint_description(imported: ImportedCheckpoint) -> str:
    """What a checkpoint is, and what it does."""
    if imported.num_classes is None:
        return message("import.captioner", "{model}: writes captions", model=imported.model)
    return message(
        "import.classes", "{model}: {classes:,} answers", model=imported.model, classes=imported.num_classes
    )


def print_converted_llava(folder: Path, imported: ImportedLlava, *, as_json: bool, quiet: bool) -> None:
    """What a LLaVA folder was, and what to type next."""
    notes: list[str] = [_llava_description(imported)]
    notes += [
        message(
            "import.file-not-read",
            "not read: {file}; the folder's other weights hold a projector of their own",
            file=short_path(Path(file)),
        )
        for file in imported.unread_files
    ]
    if imported.named_encoder:
        notes.append(
            message(
                "import.encoder-of-another-name",
                "it was trained with the image encoder {name}: the one given has another name and must be the same",
                name=imported.named_encoder,
            )
        )
    if imported.folder_type != "language":
        notes.append(_next_command(folder))
    settings = (f"model.base={short_path(folder)}", *imported.settings)
    notes.append(
        message(
            "import.train-further",
            "train it further: kovqa train -r llava-v1 --data DIR {settings}",
            settings=" ".join(f"--set {shell_quote(setting)}" for setting in settings),
        )
    )
    fields = {
        "path": str(folder),
        "kind": imported.folder_type,
        "settings": imported.settings,
        "not_read": imported.unread_files,
    }
    print_outcome(short_path(folder), fields, notes, as_json=as_json, quiet=quiet)


def _llava_description(imported: ImportedLlava) -> str:
    """What the folder was, by its type."""
    texts = {
        "projector": message(
            "import.was-projector",
            "a projector, put between its base and its vision encoder; now a plain Hugging Face folder",
        ),
        "lora": message(
            "import.was-lora", "a LoRA adapter, merged into its base; now a plain Hugging Face folder"
        ),
        "merged": message("import.was-merged", "a complete LLaVA; now a plain Hugging Face folder"),
        "language": message(
            "import.was-language",
            "a plain language model, given a new, untrained projector; now a plain Hugging Face folder",
        ),
    }
    return texts[imported.folder_type]


def _next_command(folder: Path, task: str = "vqa") -> str:
    if task == "caption":
        return message(
            "import.next-caption", "next: kovqa caption -i IMAGE --model {folder}", folder=shell_path(folder)
        )
    return message(
        "import.next",
        "next: kovqa predict -i IMAGE --question '…' --model {folder}",
        folder=shell_path(folder),
    )


def print_exported_model(report: ExportReport, *, as_json: bool, quiet: bool) -> None:
    """What was written, and where it says how to load it."""
    notes = [*report.notes, *([_verified(report.verified)] if report.verified else [])]
    note = message(
        "export.written",
        "{step} as {files}; README.md says how to load it",
        step=short_path(report.step),
        files=", ".join(report.files),
    )
    fields: dict[str, object] = {
        "path": str(report.folder),
        "model": str(report.step),
        "files": list(report.files),
    }
    if report.verified:
        fields["verified"] = asdict(report.verified)
    if report.onnx_difference is not None:
        fields["onnx_difference"] = report.onnx_difference
        checked = message(
            "export.onnx-checked",
            "onnxruntime gives the logits of torch: the largest difference is {difference:.1e}",
            difference=report.onnx_difference,
        )
        notes.append(checked)
    print_outcome(short_path(report.folder), fields, [note, *notes], as_json=as_json, quiet=quiet)


def _verified(verified: VerifyReport) -> str:
    text = message(
        "export.verified",
        "read by {library} alone: largest logit difference {difference:.2g} on {inputs} ({tolerance:.2g} is allowed; "
        "logits up to {largest:.2g})",
        library=verified.library,
        difference=verified.difference,
        inputs=verified.inputs,
        tolerance=verified.tolerance,
        largest=verified.largest,
    )
    if verified.own_difference <= verified.tolerance:
        return text
    return message(
        "export.verified-rounded",
        "{text}; {difference:.2g} to the model before its updates were rounded into 16 bits ({tolerance:.2g} is allowed)",
        text=text,
        difference=verified.own_difference,
        tolerance=verified.own_tolerance,
    )

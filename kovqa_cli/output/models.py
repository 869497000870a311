"""What is printed about models that were imported or exported."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.errors import SettingsError
from kovqa_core.messages import message, shell_quote

from kovqa_cli.output.console import (
    ask_yes_no,
    is_somebody_there,
    print_note,
    print_outcome,
    print_warnings,
    shell_path,
    short_path,
)

if TYPE_CHECKING:
    from kovqa_core.export.export_model import ExportReport
    from kovqa_core.export.push_folder import PushReport, PushTarget
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


def require_somebody_to_ask() -> None:
    """See, before hours of work, that somebody can be asked whether to publish a model.

    Raises:
        SettingsError: there is no terminal.
    """
    if not is_somebody_there():
        raise SettingsError(
            message("export.nobody-to-ask", "--push asks before it sends anything, and there is no terminal"),
            message("export.nobody-to-ask.hint", "say --yes, or run it in a terminal"),
        )


def print_what_is_pushed(report: ExportReport, target: PushTarget) -> None:
    """Files, where they would go, and what speaks against it."""
    from kovqa_core.export.push_folder import publication_warnings

    for file in report.files:
        print_note(f"{(report.folder / file).stat().st_size / 1e6:>10,.1f} MB  {file}")
    print_warnings(publication_warnings(report.origin, report.licence))
    size = sum((report.folder / file).stat().st_size for file in report.files)
    print_note(
        message(
            "export.push-target",
            "{size:,.1f} MB to {endpoint}/{name}, as {account}",
            size=size / 1e6, endpoint=target.endpoint, name=target.repository, account=target.account,
        )
    )  # fmt: skip


def confirm_push(target: PushTarget) -> bool:
    """Ask."""
    who = (
        message("export.for-everybody", "everybody will see it")
        if target.is_public
        else message("export.private", "private")
    )
    question = message("export.push-question", "Send it to {name} ({who})?", name=target.repository, who=who)
    return ask_yes_no(question)


def commit_text(report: ExportReport) -> str:
    """The first line of a commit."""
    return f"Exported by kovqa: {report.step.name}"


def print_exported_model(
    report: ExportReport, pushed: PushReport | None, *, as_json: bool, quiet: bool
) -> None:
    """What was written, and where it says how to load it; where it was sent."""
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
    if pushed:
        fields["pushed"] = asdict(pushed)
        notes.append(
            message(
                "export.pushed", "sent to {url}, commit {commit}", url=pushed.url, commit=pushed.commit[:12]
            )
        )
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
        "{text}; {difference:.2g} to the model itself, whose weights were rounded on the way ({tolerance:.2g} is allowed)",
        text=text,
        difference=verified.own_difference,
        tolerance=verified.own_tolerance,
    )

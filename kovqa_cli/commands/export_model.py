"""kovqa export: a model -> a folder that other libraries read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from kovqa_core.errors import SettingsError
from kovqa_core.messages import message

from kovqa_cli import completion, options

if TYPE_CHECKING:
    from kovqa_core.export.export_model import ExportReport
    from kovqa_core.export.push_folder import PushReport, PushTarget


def export(
    model: Annotated[
        Path,
        typer.Argument(
            help="Run folder or step folder.", autocompletion=completion.complete_run, metavar="DIR"
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.", metavar="DIR")],
    *,
    as_upstream: Annotated[
        bool,
        typer.Option(
            "--as-upstream", help="Of a LLaVA: mm_projector.bin and config.json, as its scripts read them."
        ),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Let the other library read it alone; refuse it where logits differ.",
        ),
    ] = False,
    onnx: Annotated[
        bool,
        typer.Option(
            "--onnx",
            help="For onnxruntime, of BEiT-3 and fusion models: networks, tokenizer and a program, without torch.",
        ),
    ] = False,
    licence: Annotated[
        str,
        typer.Option("--licence", help="For its card. [default: its base's, if known]", metavar="NAME"),
    ] = "",
    scores: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--scores",
            help="Predictions and the split they answer: their score goes into the card.",
            metavar="FILE SPLIT",
        ),
    ] = None,
    push: Annotated[
        str,
        typer.Option(
            "--push",
            help="Send the finished folder to the Hugging Face hub; asks first.",
            metavar="OWNER/NAME",
        ),
    ] = "",
    public: Annotated[
        bool, typer.Option("--public", help="--push: for everybody to see. [default: private]")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="--push: without asking.")] = False,
    trust_remote_code: options.TrustRemoteCode = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Write a model for other libraries to read; publish it.

    For transformers and timm, or under the original's names; with a card that says how to load it.
    """
    if (public or yes) and not push:
        raise SettingsError(
            message("export.options-of-push", "--public and --yes are for --push"),
            message("export.options-of-push.hint", "leave them out, or name a repository: --push OWNER/NAME"),
        )
    from kovqa_core.export.export_model import export_checkpoint
    from kovqa_core.models.family import LoadOptions
    from kovqa_core.progress import Progress

    from kovqa_cli.output import models, progress

    if onnx:  # which checks itself, with and without --verify
        _refuse_with_onnx(as_upstream=as_upstream, trust_remote_code=trust_remote_code)
    target = _push_target(push, public=public, yes=yes) if push else None
    load_options = LoadOptions(trust_remote_code=trust_remote_code)
    with progress.show_progress(quiet or json) as on_progress:
        on_progress(Progress(message("export.exporting", "exporting")))
        if onnx:
            from kovqa_core.export.onnx_export import export_onnx

            report = export_onnx(model, output, on_progress, licence, scores)
        else:
            report = export_checkpoint(
                model,
                output,
                load_options,
                as_upstream=as_upstream,
                verify=verify,
                licence=licence,
                scored=scores,
                on_progress=on_progress,
            )
    pushed = _push(report, target, yes=yes, silent=quiet or json) if target else None
    models.print_exported_model(report, pushed, as_json=json, quiet=quiet)


def _push_target(name: str, *, public: bool, yes: bool) -> PushTarget:
    """Before hours of work: may it be written, and is there somebody to ask?"""
    from kovqa_core.export.push_folder import find_push_target

    from kovqa_cli.output import models

    if not yes:
        models.require_somebody_to_ask()
    return find_push_target(name, public=public)


def _push(report: ExportReport, target: PushTarget, *, yes: bool, silent: bool) -> PushReport | None:
    """Send what is finished, once people have seen what and where to; None: they did not want it."""
    from kovqa_core.export.push_folder import push_folder
    from kovqa_core.progress import Progress

    from kovqa_cli.output import models, progress

    models.print_what_is_pushed(report, target)
    if not yes and not models.confirm_push(target):
        return None
    with progress.show_progress(silent) as on_progress:
        on_progress(Progress(message("export.pushing", "sending to {name}", name=target.repository)))
        return push_folder(report.folder, target, models.commit_text(report))


def _refuse_with_onnx(**options: bool) -> None:
    """ONNX is a form of its own, and no network of it brings code."""
    for name, given in options.items():
        if given:
            raise SettingsError(
                message(
                    "export.not-with-onnx",
                    "--onnx does not go with {option}",
                    option=f"--{name.replace('_', '-')}",
                ),
                message("export.not-with-onnx.hint", "give one of the two"),
            )

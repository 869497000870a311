"""A model -> a folder that other libraries read, with a card that says what it is and how to load it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kovqa_core.errors import SettingsError
from kovqa_core.export.model_card import CardScore, licence_of_bases, model_card, score_predictions
from kovqa_core.export.model_origin import ModelOrigin, find_model_origin, is_our_card
from kovqa_core.export.verify_export import VerifyReport, verify_export
from kovqa_core.files import write_text
from kovqa_core.messages import message
from kovqa_core.models import family
from kovqa_core.models.checkpoint_info import read_checkpoint_info
from kovqa_core.models.closed_folder import require_closed_folder
from kovqa_core.output_lock import output_lock
from kovqa_core.progress import OnProgress, ignore_progress
from kovqa_core.runs.folder import find_model_folder
from kovqa_core.runs.step_lease import hold_found_step
from kovqa_core.whole_folder import require_new_folder, write_new_folder


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Attributes:
        step: the checkpoint folder it was made of.
        folder: what was written.
        files: of the folder, relative to it, sorted.
        verified: what came out of the check, if it was asked for.
        notes: of the family.
        onnx_difference: the largest between logits of torch and of onnxruntime; None: nothing for onnxruntime.
        origin: what the model was made of.
        licence: that its card states; "": none.
    """

    step: Path
    folder: Path
    files: tuple[str, ...]
    verified: VerifyReport | None = None
    notes: tuple[str, ...] = ()
    onnx_difference: float | None = None
    origin: ModelOrigin | None = None
    licence: str = ""


def export_checkpoint(
    model: Path,
    folder: Path,
    options: family.LoadOptions = family.DEFAULT_LOADING,
    *,
    as_upstream: bool = False,
    verify: bool = False,
    licence: str = "",
    scored: tuple[Path, Path] | None = None,
    on_progress: OnProgress = ignore_progress,
) -> ExportReport:
    """Write a model for other libraries, whole or not at all.

    Args:
        model: run folder (its best step) or step folder.
        folder: what to write; see `write_new_folder`.
        options: how the checkpoint is read.
        as_upstream: as the original's own training saves it.
        verify: see `verify_export`; where it fails, nothing is written.
        licence: of the model, for its card; "": its base's, where that is known.
        scored: predictions file and the split it answers: their score goes into the card.
        on_progress: called with notes.

    Raises:
        SettingsError: a folder that holds something else, or that another process writes; the family has no such form, or
            that form no check.
        ModelError: no model, a broken one, or one whose original saves something else; the check failed.
    """
    require_new_folder(folder, has_our_card)
    if verify and as_upstream:
        raise SettingsError(
            message(
                "export.upstream-not-verified",
                "--verify checks what other libraries read; --as-upstream is read by the original's own code, which is "
                "not here to be asked",
            ),
            message("export.upstream-not-verified.hint", "give one of the two"),
        )
    with hold_found_step(partial(find_model_folder, model, "")) as step:
        scores = (score_predictions(step, *scored),) if scored else ()
        return _export_step(
            step, folder, options, as_upstream=as_upstream, verify=verify, licence=licence, scores=scores,
            on_progress=on_progress,
        )  # fmt: skip


def _export_step(
    step: Path,
    folder: Path,
    options: family.LoadOptions,
    *,
    as_upstream: bool,
    verify: bool,
    licence: str,
    scores: tuple[CardScore, ...],
    on_progress: OnProgress,
) -> ExportReport:
    require_closed_folder(step)
    info = read_checkpoint_info(step)
    chosen = family.load_family(info.family)
    family.require_no_remote_code(info.family, options)
    write_files = chosen.export_upstream if as_upstream else chosen.export_model
    if write_files is None:
        raise SettingsError(
            message(
                "models.one-export-form",
                "{step} is of family {family}, which is exported in one form only",
                step=step,
                family=info.family,
            ),
            message("models.one-export-form.hint", "leave out --as-upstream"),
        )

    verified: list[VerifyReport] = []
    notes: list[str] = []
    origin = find_model_origin(step, info)

    def fill(partial_folder: Path) -> None:
        written = write_files(step, partial_folder, options)
        notes.extend(written.notes)
        card = model_card(step, info, origin, written.loading, licence, scores, opens_here=not as_upstream)
        write_text(partial_folder / "README.md", card)
        if verify:
            verified.append(
                verify_export(step, partial_folder, options, on_progress, is_rounded=written.is_rounded)
            )

    return ExportReport(
        step,
        folder,
        write_export_folder(folder, fill, on_progress),
        verified[0] if verified else None,
        tuple(notes),
        origin=origin,
        licence=licence or licence_of_bases(origin),
    )


def write_export_folder(
    folder: Path, fill: Callable[[Path], None], on_progress: OnProgress
) -> tuple[str, ...]:
    """Write an export, whole or not at all, under its lock.

    Args:
        folder: see `write_new_folder`; only an export of ours is replaced.
        fill: writes into an empty folder.
        on_progress: called with notes.

    Returns:
        The files, relative to the folder, sorted.
    """
    with output_lock(folder):
        require_new_folder(folder, has_our_card)
        write_new_folder(folder, fill, on_progress)
    return tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))


def has_our_card(folder: Path) -> bool:
    """May what is in a folder be an export of ours?"""
    return is_our_card(folder / "README.md")

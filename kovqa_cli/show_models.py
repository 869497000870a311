"""What is shown of models that come from elsewhere or go there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_cli.show import document, note, out, short

if TYPE_CHECKING:
    from kovqa_core.models.fusion.importing import Imported


def imported(folder: Path, found: Imported, as_json: bool, quiet: bool) -> None:
    """What was taken of a checkpoint, what was not, and what to type next."""
    transformer = bool(found.arguments.get("use_transformer_layer"))
    if as_json:
        document(
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
        note(
            f"{len(found.taken)} tensors taken, dropped (no part in an answer): {', '.join(found.dropped) or 'none'}"
        )
        note(f"{found.classes:,} answers")
        if transformer:
            note(
                "warning: trained with --use_transformer_layer, whose layers the original drew anew at every "
                "call and never saved: answers are given without them, and are worse than its log says"
            )
        note(f"next: kovqa predict -i PICTURE --question '…' --model {short(folder)}")
    out(short(folder))


def exported(folder: Path, step: Path, as_json: bool, quiet: bool) -> None:
    """What was written, and where it says how to load it."""
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    if as_json:
        document({"path": str(folder), "model": str(step), "files": files})
        return
    if not quiet:
        note(f"{short(step)} as {', '.join(files)}; README.md says how to load it")
    out(short(folder))

"""What `kovqa runs rm` asks and says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kovqa_core.errors import SettingsError
from kovqa_core.messages import message

from kovqa_cli.output.console import ask_yes_no, is_somebody_there, print_note, print_outcome, short_path
from kovqa_cli.output.run_words import state_word

if TYPE_CHECKING:
    from kovqa_core.runs.remove import RemovableRun


def confirm_removal(runs: Sequence[RemovableRun]) -> bool:
    """Show what would go, and ask.

    Raises:
        SettingsError: nobody is there to answer.
    """
    if not is_somebody_there():
        raise SettingsError(
            message(
                "runs.nobody-to-ask", "runs rm asks before it removes anything, and there is no terminal"
            ),
            message("runs.nobody-to-ask.hint", "look with -n, then say -y"),
        )
    _print_runs(runs)
    return ask_yes_no(message("runs.remove-question", "Remove them for good?"))


def print_removed(
    runs: Sequence[RemovableRun], *, is_done: bool, dry_run: bool, as_json: bool, quiet: bool
) -> None:
    """The runs that are gone, or would be; `quiet`: their folders."""
    if dry_run and not (as_json or quiet):
        _print_runs(runs)
    notes = []
    if dry_run:
        notes.append(message("runs.not-removed-yet", "nothing is removed: leave out -n, and they are"))
    elif not is_done:
        notes.append(message("runs.kept", "nothing was removed"))
    fields = {
        "removed": is_done,
        "runs": [
            {"folder": str(run.folder), "state": run.summary.state, "bytes": run.size, "checkpoints": run.checkpoints}
            for run in runs
        ],
    }  # fmt: skip
    shown = [short_path(run.folder) for run in runs] if is_done or dry_run else []
    print_outcome(shown, fields, notes, as_json=as_json, quiet=quiet)


def _print_runs(runs: Sequence[RemovableRun]) -> None:
    for run in runs:
        print_note(
            message(
                "runs.removable",
                "{folder}: {state}, {checkpoints} checkpoints, {size:,.1f} MB",
                folder=short_path(run.folder),
                state=state_word(run.summary.state),
                checkpoints=run.checkpoints,
                size=run.size / 1e6,
            )
        )

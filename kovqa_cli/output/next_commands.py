"""The commands that one types after a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kovqa_core.messages import shell_quote

from kovqa_cli.output.console import shell_path

if TYPE_CHECKING:
    from kovqa_core.runs.manifest import RunLaunch
    from kovqa_core.runs.summary import RunSummary


def split_rows(launches: Sequence[RunLaunch]) -> Mapping[str, int]:
    """Rows of each split of a run's index; empty where they are not known."""
    return (launches[-1].data.rows or {}) if launches else {}


def next_commands(run: RunSummary, rows: Mapping[str, int]) -> list[str]:
    """Commands one would type next, by the state of a run.

    Args:
        run: in one line.
        rows: of each split of its index; empty: not known.
    """
    folder = shell_path(run.folder)
    if run.state == "queued":
        return [f"squeue -j {run.job}"]
    if run.state in ("stopped", "failed", "planned"):
        return [f"kovqa train --resume -o {folder}"]
    if run.state != "finished":
        return []
    if run.task == "caption":
        return [f"kovqa caption -i IMAGE --model {folder}"]
    commands = [f"kovqa predict -i IMAGE --question '…' --model {folder}"]
    split = next((name for name in ("test", "val") if not rows or rows.get(name)), None)
    if split is None:  # no row was held out: there is nothing to score
        return commands
    predictions = shell_quote(f"{run.folder.name}.jsonl")
    table = shell_quote(f"{run.data}/{split}.jsonl")
    return [
        *commands,
        f"kovqa predict --input {table} -o {predictions} --model {folder}",
        f"kovqa evaluate {predictions} --index {table}",
    ]

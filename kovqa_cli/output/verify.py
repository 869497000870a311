"""What `kovqa runs verify` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.messages import message

from kovqa_cli.output.console import print_note, print_report, short_path
from kovqa_cli.output.table import print_table

if TYPE_CHECKING:
    from kovqa_core.runs.verify import RunVerification


def print_verifications(
    verified: Sequence[RunVerification], root: Path, *, as_json: bool, quiet: bool
) -> None:
    """What was found in runs; `quiet`: the folders in which something is wrong."""
    fields = [
        {
            "folder": str(run.folder),
            "ok": not run.problems,
            "findings": [asdict(finding) for finding in run.findings],
        }
        for run in verified
    ]
    print_report(
        "\n".join(str(run.folder) for run in verified if run.problems),
        {"runs": fields},
        lambda: _print_findings(verified, root),
        as_json=as_json,
        quiet=quiet,
    )


def _print_findings(verified: Sequence[RunVerification], root: Path) -> None:
    if not verified:
        print_note(message("runs.nothing-to-verify", "no runs in {folder}/", folder=root))
        return
    good, bad = message("runs.verified-ok", "ok"), message("runs.verified-damaged", "DAMAGED")
    print_table(
        [
            (message("runs.column-run", "run"), "left"),
            (message("runs.column-file", "file"), "left"),
            ("", "left"),
            ("", "text"),
        ],
        [
            [short_path(run.folder), finding.name, good if finding.ok else bad, finding.detail]
            for run in verified
            for finding in run.findings
        ],
    )

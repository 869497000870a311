"""What `kovqa doctor` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from kovqa_cli.output.console import print_report, print_table

if TYPE_CHECKING:
    from kovqa_core.machine.finding import DoctorFinding


def print_findings(findings: Sequence[DoctorFinding], *, as_json: bool, quiet: bool) -> None:
    """A table of what was looked at; `quiet`: the worst state alone."""
    states = {finding.state for finding in findings}
    worst = next((state for state in ("missing", "warning") if state in states), "ok")
    print_report(
        worst,
        {"state": worst, "findings": [asdict(finding) for finding in findings]},
        lambda: print_table(
            [("", "left"), ("state", "left"), ("what", "text"), ("what to do", "text")],
            [
                [finding.name, finding.state.replace("none", "-"), finding.what, finding.do]
                for finding in findings
            ],
        ),
        as_json=as_json,
        quiet=quiet,
    )

"""What `kovqa doctor` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from kovqa_core.messages import message

from kovqa_cli.output.console import print_report
from kovqa_cli.output.table import print_table

if TYPE_CHECKING:
    from kovqa_core.machine.finding import DoctorFinding


def print_findings(findings: Sequence[DoctorFinding], *, deep: bool, as_json: bool, quiet: bool) -> None:
    """A table of what was looked at; `quiet`: the worst state alone.

    Args:
        findings: in their order.
        deep: were the libraries imported? Else the command that does it is named.
    """
    states = {finding.state for finding in findings}
    worst = next((state for state in ("missing", "warning") if state in states), "ok")
    caption = "" if deep else message("doctor.deep", "kovqa doctor --deep imports the libraries, too")
    print_report(
        worst,
        {"state": worst, "findings": [asdict(finding) for finding in findings]},
        lambda: print_table(
            [("", "left"), ("state", "left"), ("what", "text"), ("what to do", "text")],
            [
                [finding.name, finding.state.replace("none", "-"), finding.what, finding.do]
                for finding in findings
            ],
            caption,
        ),
        as_json=as_json,
        quiet=quiet,
    )

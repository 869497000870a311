"""What `kovqa doctor` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from kovqa_cli.output.console import print_json, print_result, print_table

if TYPE_CHECKING:
    from kovqa_core.machine.doctor import DoctorFinding


def print_findings(found: Sequence[DoctorFinding], as_json: bool, quiet: bool) -> None:
    """A table of what was looked at; the worst of it alone."""
    worst = next((s for s in ("missing", "warning") if any(each.state == s for each in found)), "ok")
    if as_json:
        print_json({"state": worst, "findings": [asdict(each) for each in found]})
    elif quiet:
        print_result(worst)
    else:
        print_table(
            [("", "left"), ("state", "left"), ("what", "text"), ("what to do", "text")],
            [[each.name, each.state.replace("none", "-"), each.what, each.do] for each in found],
        )

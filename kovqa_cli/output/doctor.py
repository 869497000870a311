"""What `kovqa doctor` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from kovqa_core.messages import message

from kovqa_cli.output.console import print_report
from kovqa_cli.output.table import print_table

if TYPE_CHECKING:
    from kovqa_core.machine.finding import DoctorFinding, FindingState


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
            [("", "left"), (message("doctor.state", "state"), "left"), (message("doctor.what", "what"), "text"),
             (message("doctor.do", "what to do"), "text")],
            [[_name_text(each.name), _state_text(each.state), each.what, each.do] for each in findings],
            caption,
        ),
        as_json=as_json,
        quiet=quiet,
    )  # fmt: skip


def _state_text(state: FindingState) -> str:
    words = {
        "ok": message("doctor.state-ok", "ok"),
        "warning": message("doctor.state-warning", "warning"),
        "missing": message("doctor.state-missing", "missing"),
    }
    return words.get(state, "-")


def _name_text(name: str) -> str:
    """What was looked at; libraries keep their names."""
    return {
        "GPUs": message("doctor.gpus", "GPUs"),
        "profile": message("doctor.profile", "profile"),
        "cores": message("doctor.cores", "cores"),
        "memory": message("doctor.memory", "memory"),
        "this folder": message("doctor.this-folder", "this folder"),
        "assets": message("doctor.assets", "assets"),
        "terminal": message("doctor.terminal", "terminal"),
        "keys": message("doctor.keys", "keys"),
        "fetched": message("doctor.fetched", "fetched"),
    }.get(name, name)

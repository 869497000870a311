"""kovqa doctor: what this machine has, what is missing, and what to do about it."""

from __future__ import annotations

from typing import Annotated

import typer
from kovqa_core.errors import MachineError
from kovqa_core.messages import message
from typer.core import TyperGroup

from kovqa_cli import options


def doctor(
    context: typer.Context,
    *,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Import every library, too, and ask torch for the GPUs; half a minute."),
    ] = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Check Python, libraries, GPUs, memory, disks, keys and plug-ins.

    Libraries are looked up, not imported; plug-ins are tried. The exit code is 4 when something needed is missing.
    """
    from kovqa_core.launch.machine_check import local_profiles
    from kovqa_core.machine.doctor import run_doctor_checks

    from kovqa_cli.output.doctor import print_findings
    from kovqa_cli.output.progress import show_progress
    from kovqa_cli.plugin_checks import plugin_findings

    group = context.find_root().command
    own_commands = list(group.commands) if isinstance(group, TyperGroup) else []
    with show_progress(quiet or json) as on_progress:
        findings = [
            *run_doctor_checks(local_profiles(), on_progress, deep=deep),
            *plugin_findings(own_commands, deep=deep),
        ]
    print_findings(findings, deep=deep, as_json=json, quiet=quiet)
    if missing := [finding.name for finding in findings if finding.state == "missing"]:
        raise MachineError(
            message("machine.missing", "missing here: {names}", names=", ".join(missing)),
            message("machine.missing.hint", "the table above says what to do"),
        )

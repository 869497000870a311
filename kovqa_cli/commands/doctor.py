"""kovqa doctor: what this machine has, what is missing, and what to do about it."""

from __future__ import annotations

from kovqa_core.errors import MachineError

from kovqa_cli import options


def doctor(json: options.JsonOption = False, quiet: options.QuietOption = False) -> None:
    """Look at Python, libraries, GPUs, memory, disks, keys. Exit code 4 when a needed part is missing."""
    from kovqa_core.launch.machine_check import local_profiles
    from kovqa_core.machine.doctor import run_doctor_checks

    from kovqa_cli.output import doctor as output_doctor
    from kovqa_cli.output import progress

    with progress.progress_bar("trying imports", quiet or json) as told:
        findings = run_doctor_checks(local_profiles(), told)
    output_doctor.print_findings(findings, json, quiet)
    if missing := [found.name for found in findings if found.state == "missing"]:
        raise MachineError(f"missing here: {', '.join(missing)}", "see above what to do")

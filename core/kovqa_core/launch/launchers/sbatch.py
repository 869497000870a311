"""sbatch: a script that SLURM's queue starts when there is room, and again after its time limit.

Sources: the manual pages sbatch(1), scontrol(1), squeue(1); docs/sources/launching.md, R13 to R16.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from kovqa_core.errors import SettingsError
from kovqa_core.launch.launchers import slurm_options
from kovqa_core.launch.launchers.protocol import JOB_SCRIPT, BatchQueue, LaunchPlan, LaunchRequest
from kovqa_core.messages import message
from kovqa_core.runs.folder import ERROR_FILE
from kovqa_core.settings.profile import Profile

# The rest of the protocol is SLURM's, not this command's.
check_machine = slurm_options.check_slurm_tools
cores_per_process = slurm_options.cores_per_process
rank_from_environment = slurm_options.rank_from_environment
settings_problem = slurm_options.settings_problem
starts_here = slurm_options.starts_here
stop_exit_code = slurm_options.stop_exit_code
worker_environment = slurm_options.worker_environment
world_size_hint = slurm_options.world_size_hint

_QUEUE = BatchQueue("SLURM", "squeue -j {job}", "scancel {job}", "logs/slurm-{job}.out")

# SLURM signals before the time limit (USR1) and when it takes the nodes away (TERM). The script passes it to
# srun as USR1, and the workers leave with a complete checkpoint. A trap ends bash's `wait`, so it is called
# again until the step is gone (R13).
_WAIT_SHELL = r"""trap 'warned=1; kill -USR1 "$step" 2>/dev/null' USR1 TERM
wait "$step"; code=$?
while kill -0 "$step" 2>/dev/null; do wait "$step"; code=$?; done"""
# A task of an array has two names, and only this one is its alone: the number of an array's last task is that of
# the whole array. `sbatch --array=… job.sh`, typed by hand, would train into this folder as often: sweep.sh alone
# starts each script once, and says so.
_JOB_NAME_SHELL = """kovqa_job=$SLURM_JOB_ID
if [ -n "$SLURM_ARRAY_TASK_ID" ]; then
  kovqa_job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
  if [ "$KOVQA_SWEEP_TASK" != "$kovqa_job" ]; then
    echo "kovqa: one run folder, one job: queue this script without --array" >&2
    exit 2
  fi
fi"""
ARRAY_SCRIPT = "sweep.sh"  # in a sweep's folder: its runs as one array
# The job comes back (code 75, `scontrol requeue`, R14)
# * after a checkpoint on request (error.json says Stopped);
# * when processes or nodes were lost (LostError), or killed before they wrote an error.json: after the warning
#   above, or if `last` moved since the start, without a limit; else three times, counted in logs/tries, for a
#   node that was just booted may refuse a launch, but what dies at the same place again and again must end.
# It does not come back after an error of its own; nor when it was cancelled: then it is no longer RUNNING.
_REQUEUE_SHELL = r"""if grep -qs '"kind": "Stopped"' "$error"; then
  code=75
elif [ "$code" != 0 ] && { [ ! -e "$error" ] || grep -qs '"kind": "LostError"' "$error"; }; then
  now=$(cat "$last" 2>/dev/null)
  if [ -n "$warned" ] || [ "$now" != "$before" ]; then
    code=75
    rm -f "$tries"
  elif [ -n "$now" ] && [ "$(cat "$tries" 2>/dev/null | wc -l)" -lt 3 ]; then
    code=75
    echo "$SLURM_JOB_ID: nothing gained" >> "$tries"
  fi
fi
if [ "$code" = 75 ]; then
  if [ "$(squeue -h -j "$kovqa_job" -o %T)" = RUNNING ]; then scontrol requeue "$kovqa_job"; fi
fi"""


def waits_for_all(profile: Profile) -> bool:
    """Never: the job runs when its turn comes."""
    return False


def build_plan(request: LaunchRequest) -> LaunchPlan:
    """RUN/job.sh, and the command that puts it into the queue."""
    script = str(request.folder / JOB_SCRIPT)
    return LaunchPlan(
        ["sbatch", "--parsable", script],
        {},  # the script exports the workers'
        request.folder,
        script=batch_script(request),
        queue=_QUEUE,
        batch_options=tuple(_batch_options(request)),
        test_only_argv=("sbatch", "--test-only", "--parsable", script),
        on_paper=slurm_options.on_paper(request.profile),
    )


def batch_script(request: LaunchRequest) -> str:
    """The text of RUN/job.sh: resources, the workers' step, and what decides whether the job comes back.

    Raises:
        SettingsError: a path with a line break, which SLURM cannot read.
    """
    profile, folder = request.profile, request.folder
    log_file = str(folder / "logs").replace("%", "%%") + "/slurm-%j.out"
    first, *others = _batch_options(request)
    options = [f"--job-name=kovqa-{folder.name}", first, f"--output={log_file}", *others]
    setup = ["set -e", *profile.setup, "set +e"] if profile.setup else []
    step = ["srun", *slurm_options.step_options(profile), *slurm_options.task_command(request)]
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {_sbatch_directive(option)}" for option in options),
        "",
        _JOB_NAME_SHELL,
        *setup,
        *(f"export {key}={shlex.quote(value)}" for key, value in request.env.items()),
        "",
        f"error={shlex.quote(str(folder / ERROR_FILE))}",
        'rm -f "$error"  # of an earlier start',
        f"last={shlex.quote(str(folder / 'last'))}",
        'before=$(cat "$last" 2>/dev/null)',
        f"tries={shlex.quote(str(folder / 'logs' / 'tries'))}",
        "warned=",
        f"{shlex.join(step)} &",
        "step=$!",
        _WAIT_SHELL,
        *([_REQUEUE_SHELL] if profile.slurm.requeue else []),
        'exit "$code"',
    ]
    return "\n".join(lines) + "\n"


def _batch_options(request: LaunchRequest) -> list[str]:
    """What a job is given, whatever it is called: the folder it starts in first."""
    profile = request.profile
    return [
        f"--chdir={request.start_folder}", "--open-mode=append", *slurm_options.resource_options(profile),
        *slurm_options.task_options(profile), *slurm_options.signal_options(profile, "B:USR1"),
        "--requeue" if profile.slurm.requeue else "--no-requeue",
    ]  # fmt: skip


def array_script(folder: Path, names: Sequence[str], batch_options: Sequence[str]) -> str:
    """The text of a sweep's script: one task for each run, which goes on as the run's own job.sh.

    Args:
        folder: of the sweep.
        names: of the run folders in it.
        batch_options: of the launch plans of these runs, which are equal.

    Raises:
        SettingsError: a path with a line break, which SLURM cannot read.
    """
    log_file = str(folder / "logs").replace("%", "%%") + "/slurm-%A_%a.out"
    options = [
        f"--job-name=kovqa-{folder.name}", f"--output={log_file}", f"--array=0-{len(names) - 1}", *batch_options,
    ]  # fmt: skip
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {_sbatch_directive(option)}" for option in options),
        "",
        f"runs=({shlex.join(names)})",
        f'run={shlex.quote(str(folder))}/"${{runs[$SLURM_ARRAY_TASK_ID]}}"',
        "export KOVQA_SWEEP_TASK=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID",
        # In place of this shell, which gets SLURM's signals: job.sh listens to them.
        f'exec bash "$run"/{JOB_SCRIPT} >> "$run/logs/slurm-$KOVQA_SWEEP_TASK.out" 2>&1',
    ]
    return "\n".join(lines) + "\n"


def _sbatch_directive(option: str) -> str:
    """An option as a #SBATCH line takes it: not by the shell's rules, but in double quotes of its own."""
    if "\n" in option:
        raise SettingsError(
            message(
                "launch.line-break",
                "SLURM cannot read an option with a line break: {option!r}",
                option=option,
            )
        )
    if re.fullmatch(r"[\w@%+=:,./-]+", option, re.ASCII):
        return option
    return '"' + re.sub(r'(["\\])', r"\\\1", option) + '"'

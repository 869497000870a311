"""SLURM: what srun and sbatch are told, and the batch script that is kept in the run folder.

Sources: the manual pages srun(1), sbatch(1), scontrol(1); docs/sources/launching.md, R10 to R17.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from kovqa_core.errors import SettingsError
from kovqa_core.runs.folder import ERROR_FILE
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.run import WorkerJob

# srun's names of what torchrun calls a NUMA binding.
_CPU_BIND_VALUES = {"node": "ldoms", "socket": "sockets", "cores": "cores"}

NODE_SCRIPT = Path(__file__).resolve().with_name("node.sh")

# SLURM warns before the time limit (USR1) and when it takes the nodes away (TERM): the workers are told,
# and leave with 75 and a complete checkpoint; or with an error of their own, or without a word, where they
# had not begun. A trap ends `wait`, so it is called again. Processes that were lost with a node, or killed,
# come back too, if they got further than a checkpoint, or else three times: a node that was just booted may
# refuse a launch, but what dies at the same place again and again ends.
# A job that was cancelled is not RUNNING any more: it must not come back.
_WAIT_SHELL = r"""trap 'warned=1; kill -USR1 "$step" 2>/dev/null' USR1 TERM
wait "$step"; code=$?
while kill -0 "$step" 2>/dev/null; do wait "$step"; code=$?; done"""
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
  if [ "$(squeue -h -j "$SLURM_JOB_ID" -o %T)" = RUNNING ]; then scontrol requeue "$SLURM_JOB_ID"; fi
fi"""


def processes_per_task(profile: Profile) -> int:
    """Training processes of one srun task."""
    return profile.processes_per_node if profile.slurm.tasks == "node" else 1


def cpus_per_task(profile: Profile) -> int:
    """CPU cores of one srun task."""
    each = profile.loader_workers + 1
    return profile.slurm.cpus_per_task or each * processes_per_task(profile)


def resource_options(profile: Profile) -> list[str]:
    """What a job is given, as options of sbatch, or of an srun that makes its own allocation."""
    asked = profile.slurm
    named = {"partition": asked.partition, "account": asked.account, "qos": asked.qos, "time": asked.time,
             "mem": asked.memory}  # fmt: skip
    return [*(f"--{name}={value}" for name, value in named.items() if value), *asked.options]


def task_options(profile: Profile) -> list[str]:
    """Nodes, tasks, cores and GPUs: said to sbatch, and again to srun, which inherits not all of it."""
    asked = profile.slurm
    tasks = profile.processes_per_node // processes_per_task(profile)
    words = [f"--nodes={profile.nodes}", f"--ntasks-per-node={tasks}"]
    words.append(f"--cpus-per-task={cpus_per_task(profile)}")
    if profile.device == "cuda" and asked.gpus != "none":
        kind = f"{asked.gpu_type}:" if asked.gpu_type else ""
        gpus = f"{kind}{profile.processes_per_node}"
        words.append(f"--gres=gpu:{gpus}" if asked.gpus == "gres" else f"--gpus-per-node={gpus}")
    return words


def signal_options(profile: Profile, who: str) -> list[str]:
    """The signal before the time limit."""
    seconds = profile.slurm.signal_seconds
    return [f"--signal={who}@{seconds}"] if seconds else []


def step_options(profile: Profile) -> list[str]:
    """srun's options for the workers: the environment whole, and one failure ends them all."""
    bind = [f"--cpu-bind={_CPU_BIND_VALUES[profile.binding]}"] if profile.binding != "none" else []
    return [*task_options(profile), *bind, "--kill-on-bad-exit=1", "--export=ALL"]


def torchrun_per_node(torchrun: list[str], folder: Path) -> list[str]:
    """A torchrun on each node of a job, that meets the others at the job's first host."""
    return ["bash", str(NODE_SCRIPT), str(folder / ERROR_FILE), *torchrun]


def batch_script(run: WorkerJob, env: Mapping[str, str], command: list[str], folder: Path) -> str:
    """The batch script of a run.

    Args:
        run: what is started.
        env: variables of the workers.
        command: the srun command.
        folder: where the job starts.

    Raises:
        SettingsError: a path with a line break, which SLURM cannot read.
    """
    profile = run.profile
    log = str(run.folder / "logs").replace("%", "%%") + "/slurm-%j.out"
    requeue = profile.slurm.requeue
    options = [
        f"--job-name=kovqa-{run.folder.name}", f"--chdir={folder}", f"--output={log}", "--open-mode=append",
        *resource_options(profile), *task_options(profile), *signal_options(profile, "B:USR1"),
        "--requeue" if requeue else "--no-requeue",
    ]  # fmt: skip
    setup = ["set -e", *profile.setup, "set +e"] if profile.setup else []
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {_sbatch_directive(option)}" for option in options),
        "",
        *setup,
        *(f"export {key}={shlex.quote(value)}" for key, value in env.items()),
        "",
        f"error={shlex.quote(str(run.folder / ERROR_FILE))}",
        'rm -f "$error"  # of an earlier start',
        f"last={shlex.quote(str(run.folder / 'last'))}",
        'before=$(cat "$last" 2>/dev/null)',
        f"tries={shlex.quote(str(run.folder / 'logs' / 'tries'))}",
        "warned=",
        f"{shlex.join(command)} &",
        "step=$!",
        _WAIT_SHELL,
        *([_REQUEUE_SHELL] if requeue else []),
        'exit "$code"',
    ]
    return "\n".join(lines) + "\n"


def _sbatch_directive(option: str) -> str:
    """An option as a #SBATCH line takes it: not by the shell's rules, but in double quotes of its own."""
    if "\n" in option:
        raise SettingsError(f"SLURM cannot read an option with a line break: {option!r}")
    if re.fullmatch(r"[\w@%+=:,./-]+", option, re.ASCII):
        return option
    return '"' + re.sub(r'(["\\])', r"\\\1", option) + '"'

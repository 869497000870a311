"""SLURM options of a profile that kovqa sets itself, or that would multiply or break a run: refused by name.

Sources: the manual pages sbatch(1), srun(1) and their input environment variables; docs/sources/launching.md, R28.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kovqa_core.errors import SettingsError
from kovqa_core.messages import Message, message
from kovqa_core.settings.profile import Profile

_SHORT_NAMES = {
    "-A": "account", "-a": "array", "-c": "cpus-per-task", "-D": "chdir", "-e": "error", "-G": "gpus", "-i": "input",
    "-J": "job-name", "-K": "kill-on-bad-exit", "-l": "label", "-n": "ntasks", "-N": "nodes", "-o": "output",
    "-p": "partition", "-q": "qos", "-t": "time", "-W": "wait",
}  # fmt: skip

# Options whose value a key of the profile decides; the second table: only where that key has a value.
_SET_BY_KEY = {
    "cpus-per-task": "slurm.cpus_per_task", "nodes": "nodes", "ntasks": "processes_per_node",
    "ntasks-per-core": "processes_per_node", "ntasks-per-gpu": "processes_per_node",
    "ntasks-per-node": "processes_per_node", "ntasks-per-socket": "processes_per_node", "tasks-per-node":
    "processes_per_node", "requeue": "slurm.requeue", "no-requeue": "slurm.requeue",
}  # fmt: skip
_SET_BY_GIVEN_KEY = {
    "account": "slurm.account", "partition": "slurm.partition", "qos": "slurm.qos", "time": "slurm.time",
    "mem": "slurm.memory", "signal": "slurm.signal_seconds", "cpu-bind": "binding",
}  # fmt: skip
_OUTPUT_OPTIONS = ("output", "error", "input", "label", "open-mode", "pty", "multi-prog", "export", "export-file",
                   "kill-on-bad-exit")  # fmt: skip
# What sbatch and srun read from the environment -> the option that it stands for.
_INPUT_VARIABLES = {
    "sbatch": {"SBATCH_ARRAY_INX": "array", "SBATCH_WAIT": "wait", "SBATCH_OPEN_MODE": "open-mode",
               "SBATCH_SIGNAL": "signal", "SBATCH_NO_REQUEUE": "no-requeue"},
    "srun": {"SLURM_LABELIO": "label", "SLURM_STDOUTMODE": "output", "SLURM_STDERRMODE": "error"},
}  # fmt: skip


def option_conflict(profile: Profile) -> Message | None:
    """The first option of a profile that cannot be passed on to SLURM, and why; None: all can."""
    lists = (("slurm.options", profile.slurm.options), ("slurm.srun_options", profile.slurm.srun_options))
    for key, options in lists:
        for option in options:
            for name in _long_names(option):
                reason = _refusal(profile, name, option, is_of_job=key == "slurm.options")
                if reason is not None:
                    return message(
                        "launch.refused-option",
                        "{key}: {option} cannot be given: {reason}",
                        key=key,
                        option=option,
                        reason=reason,
                    )
    return None


def require_no_input_variable(profile: Profile, environ: Mapping[str, str]) -> None:
    """See that the environment gives SLURM no option that the profile could not give.

    Raises:
        SettingsError: it does; names the variable.
    """
    for variable, name in _INPUT_VARIABLES.get(profile.launcher, {}).items():
        if not environ.get(variable) or (name == "no-requeue" and not profile.slurm.requeue):
            continue
        reason = _refusal(profile, name, variable, is_of_job=True)
        if reason is not None:
            raise SettingsError(
                message(
                    "launch.refused-variable",
                    "{variable}={value} stands in the environment, which {launcher} takes for --{option}: {reason}",
                    variable=variable,
                    value=environ[variable],
                    launcher=profile.launcher,
                    option=name,
                    reason=reason,
                ),
                message("launch.refused-variable.hint", "unset {variable}", variable=variable),
            )


def _long_names(option: str) -> Iterator[str]:
    """What SLURM would read an option as: its long name, also from a short or a cut one (--arr=1-4)."""
    if option[:2] in _SHORT_NAMES:
        yield _SHORT_NAMES[option[:2]]
    elif option.startswith("--"):
        given = option[2:].replace("=", " ").partition(" ")[0]
        known = {*_SHORT_NAMES.values(), *_SET_BY_KEY, *_SET_BY_GIVEN_KEY, *_OUTPUT_OPTIONS, "gres",
                 "gpus-per-node", "wrap", "test-only", "parsable"}  # fmt: skip
        yield from [given] if given in known else sorted(name for name in known if name.startswith(given))


def _refusal(profile: Profile, name: str, option: str, *, is_of_job: bool) -> Message | None:
    """Why an option is refused, by its long name; None: it is not."""
    if name == "array":
        return message(
            "launch.option-multiplies",
            "every job of the array would train into the same run folder; queue one run per folder, each with its "
            "own kovqa train -o",
        )
    if (key := _deciding_key(profile, name, option)) is not None:
        return message("launch.option-of-key", "set {key} of the profile instead", key=key)
    if name in _OUTPUT_OPTIONS:
        return message(
            "launch.option-of-output",
            "kovqa reads what the workers print, hands their environment on (`env` of the profile), and ends them "
            "together",
        )
    if name in ("job-name", "chdir", "wrap", "parsable", "wait", "test-only") and is_of_job:
        if profile.launcher == "srun" and name in ("job-name", "chdir", "wait"):
            return None
        return message("launch.option-of-command", "it changes what kovqa does with the job itself")
    return None


def _deciding_key(profile: Profile, name: str, option: str) -> str | None:
    """The key of the profile that says what an option says; None: no key does."""
    slurm = profile.slurm
    if name in _SET_BY_GIVEN_KEY:
        given = {"slurm.signal_seconds": bool(slurm.signal_seconds), "binding": profile.binding != "none"}
        key = _SET_BY_GIVEN_KEY[name]
        is_set = given[key] if key in given else bool(getattr(slurm, {"mem": "memory"}.get(name, name)))
        return key if is_set else None
    if profile.device == "cuda" and slurm.gpus != "none" and name in ("gres", "gpus", "gpus-per-node"):
        # A second --gres takes the place of the first: a node's GPUs would be lost for its SSD.
        if name == "gres" and slurm.gpus != "gres" and "gpu" not in option:
            return None
        return "slurm.gpus (none leaves GPUs to slurm.options)"
    return _SET_BY_KEY.get(name)

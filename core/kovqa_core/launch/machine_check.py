"""Does this machine have what a profile names, and which profile fits it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kovqa_core.errors import MachineError
from kovqa_core.launch.launchers import find_launcher, launcher_starts_here
from kovqa_core.machine.detect_profile import slurm_partitions
from kovqa_core.machine.gpu_settings import capability_text, profile_notes, training_precision
from kovqa_core.machine.hardware import (
    APPLE_GPU,
    find_gpus,
    lowest_capability,
    nearest_profile,
    smallest_gpu_gb,
    visible_gpus,
)
from kovqa_core.machine.visible_devices import GpuInfo
from kovqa_core.messages import Message, message
from kovqa_core.paths import settings_files
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.resolve import load_profile
from kovqa_core.system_support import require_launching


def check_machine(profile: Profile) -> None:
    """See that this machine has what a profile's launcher needs.

    Raises:
        MachineError: it has not; names the profile that fits. Or this system starts no processes.
        SettingsError: unknown launcher.
    """
    require_launching()
    find_launcher(profile).check_machine(profile, profile_of_this_machine)


def check_training_machine(profile: Profile, *, dry_run: bool) -> None:
    """Like `check_machine`; whoever wants to train here also hears of the dry run, which needs no such machine.

    Raises:
        MachineError: the machine does not fit.
    """
    try:
        check_machine(profile)
    except MachineError as error:
        if dry_run or not error.hint:
            raise
        hint = message("launch.or-dry-run.hint", "{hint}, or see the plan with --dry-run", hint=error.hint)
        raise type(error)(error.message, hint) from None


def profile_of_this_machine() -> str:
    """Name of the profile nearest to what is here."""
    return _nearest(visible_gpus())


def gpu_warnings() -> list[Message]:
    """What a person should know before a profile is chosen for this machine: GPUs that cannot be used, and why."""
    found = find_gpus()
    return [*found.problems, *profile_notes(found.gpus, local_profiles())]


def uses_gpus_here(profile: Profile) -> bool:
    """Do the profile's processes run on GPUs of this machine? Of several nodes all must plan the same: they do not."""
    if profile.device == "cpu" or not launcher_starts_here(profile):
        return False
    gpus = visible_gpus()
    is_apple = bool(gpus) and gpus[0].name == APPLE_GPU
    return len(gpus) >= profile.processes_per_node and is_apple == (profile.device == "mps")


def other_gpu_warnings(profile: Profile) -> list[Message]:
    """That a profile was written for other GPUs than this machine has, and which profile fits these.

    Args:
        profile: whose processes run here, or elsewhere: then there is nothing to say.
    """
    if not uses_gpus_here(profile):
        return []
    gpus = visible_gpus()
    here, stated, capability = smallest_gpu_gb(gpus), profile.gpu_memory_gb, lowest_capability(gpus)
    warnings = []
    if here and stated and abs(here - stated) > 1:
        if here < stated:
            warnings.append(
                message(
                    "launch.smaller-gpus",
                    "profile {profile} is for GPUs of {stated} GB, and {gpu} has {here} GB, which is what is counted with "
                    "(--profile {fits} fits this machine)",
                    profile=profile.name,
                    stated=stated,
                    gpu=gpus[0].name,
                    here=here,
                    fits=_nearest(gpus),
                )
            )
        elif profile.gpu not in gpus[0].name:
            warnings.append(
                message(
                    "launch.larger-gpus",
                    "profile {profile} uses {stated} of the {here} GB that {gpu} has (--profile {fits} fits this machine)",
                    profile=profile.name,
                    stated=stated,
                    gpu=gpus[0].name,
                    here=here,
                    fits=_nearest(gpus),
                )
            )
    if profile.device == "cuda" and capability is not None:
        fitting = training_precision(capability)
        if profile.precision == "bf16" and fitting != "bf16":
            warnings.append(
                message(
                    "launch.no-bf16",
                    "profile {profile} computes in bf16, which {gpu} (compute capability {capability}) is slow in: --set "
                    "profile.precision={fitting}",
                    profile=profile.name,
                    gpu=gpus[0].name,
                    capability=capability_text(capability),
                    fitting=fitting,
                )
            )
    return warnings


def _nearest(gpus: Sequence[GpuInfo]) -> str:
    return nearest_profile(gpus, local_profiles())


def login_node_warnings(profile: Profile, environ: Mapping[str, str]) -> list[Message]:
    """What a person should know of a profile that this machine chose: training on a login node is rarely meant.

    Args:
        profile: the chosen one.
        environ: of this process: inside of a SLURM job its node is meant.
    """
    stays_here = find_launcher(profile).starts_here(profile) and profile.device == "cpu"
    if not stays_here or environ.get("SLURM_JOB_ID") or not slurm_partitions():
        return []
    return [
        message(
            "launch.login-node",
            "no GPU here, and this machine belongs to a SLURM cluster: with profile {profile} training runs on its login "
            "node (kovqa profiles detect -o NAME writes a profile for the queue)",
            profile=profile.name,
        )
    ]


def local_profiles() -> list[Profile]:
    """The profiles for one machine alone, without a queue."""
    profiles = [load_profile(name) for name in settings_files("profiles")]
    return [profile for profile in profiles if launcher_starts_here(profile)]

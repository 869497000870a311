"""Does this machine have what a profile names, and which profile fits it?"""

from __future__ import annotations

from collections.abc import Mapping

from kovqa_core.launch.launchers import LAUNCHERS, find_launcher
from kovqa_core.machine.detect_profile import slurm_partitions
from kovqa_core.machine.hardware import find_gpus, nearest_profile, visible_gpus
from kovqa_core.messages import Message, message
from kovqa_core.paths import settings_files
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.resolve import load_profile


def check_machine(profile: Profile) -> None:
    """See that this machine has what a profile's launcher needs.

    Raises:
        MachineError: it has not; names the profile that fits.
        SettingsError: unknown launcher.
    """
    find_launcher(profile).check_machine(profile, profile_of_this_machine)


def profile_of_this_machine() -> str:
    """Name of the profile nearest to what is here."""
    return nearest_profile(visible_gpus(), local_profiles())


def gpu_warnings() -> list[Message]:
    """What a person should know before a profile is chosen for this machine: GPUs that cannot be used, and why."""
    found = find_gpus()
    if found.gpus and nearest_profile(found.gpus, local_profiles()) == "cpu":
        too_small = message(
            "launch.gpu-too-small",
            "{gpu} ({memory}) is smaller than that of any profile, so models run on the CPU (kovqa profiles detect -o NAME "
            "writes a profile for it)",
            gpu=found.gpus[0].name,
            memory=found.gpus[0].memory_text,
        )
        return [*found.problems, too_small]
    return list(found.problems)


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
    return [
        profile
        for profile in profiles
        if profile.launcher in LAUNCHERS and LAUNCHERS[profile.launcher].starts_here(profile)
    ]

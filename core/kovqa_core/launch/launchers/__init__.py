"""The table of launchers: what `launcher` of a profile may be. A new one is a module here, and a line.

Launchers of plug-ins (`plugins.py`) join it by their names; those of the table win.
"""

from __future__ import annotations

from kovqa_core.errors import KovqaError, SettingsError, unknown_name_error
from kovqa_core.launch.launchers import sbatch, srun, torchrun
from kovqa_core.launch.launchers.protocol import Launcher
from kovqa_core.messages import message
from kovqa_core.plugins import find_plugin, load_plugin, plugin_names, protocol_names
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.strict_yaml import SettingsDocument, build_settings

LAUNCHERS: dict[str, Launcher] = {"torchrun": torchrun, "srun": srun, "sbatch": sbatch}


def find_launcher(profile: Profile, place: str = "") -> Launcher:
    """The launcher that a profile names.

    Args:
        profile: the machine.
        place: where its launcher was written (file, line, column); "": the profile's name.

    Raises:
        SettingsError: nobody knows it (known ones are listed).
        MachineError: the plug-in that brings it does not work.
    """
    place = place or message("launch.profile-place", "profile {name}", name=profile.name)
    if profile.launcher in LAUNCHERS:
        return LAUNCHERS[profile.launcher]
    plugin = find_plugin("launcher", profile.launcher)
    if plugin is None:
        problem = message(
            "launch.unknown-launcher",
            "{place}: unknown launcher '{name}'",
            place=place,
            name=profile.launcher,
        )
        raise unknown_name_error(problem, profile.launcher, launcher_names())
    launcher: Launcher = load_plugin(plugin, protocol_names(Launcher))
    return launcher


def launcher_names() -> list[str]:
    """Names of all launchers that are here."""
    return [*LAUNCHERS, *plugin_names("launcher", LAUNCHERS)]


def launcher_starts_here(profile: Profile) -> bool:
    """Do all its processes run on this machine, without a queue? Not of a launcher that cannot be asked."""
    try:
        return find_launcher(profile).starts_here(profile)
    except KovqaError:
        return False


def check_launcher(profile: Profile, place: str = "") -> None:
    """See that a profile's launcher is known, and that the profile says what it needs.

    Settings lie below launchers and cannot see to this when a profile is read; so whoever reads one to use
    or to write it calls this.

    Raises:
        SettingsError: unknown launcher, or a contradiction.
    """
    problem = find_launcher(profile, place).settings_problem(profile)
    if problem is not None:
        place = place or message("launch.profile-place", "profile {name}", name=profile.name)
        raise SettingsError(
            message("launch.settings-problem", "{place}: {problem}", place=place, problem=problem)
        )


def check_launcher_of(document: SettingsDocument) -> None:
    """`check_launcher` of a profile's document, before it is written.

    Raises:
        SettingsError: unknown launcher, or a contradiction; says where it was written.
    """
    check_launcher(build_settings(Profile, document), document.where(("launcher",)))

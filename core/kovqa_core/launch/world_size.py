"""As many processes train as the global batch was split for."""

from __future__ import annotations

from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import MachineError
from kovqa_core.launch.launchers import find_launcher
from kovqa_core.messages import message
from kovqa_core.settings.profile import Profile


def require_world_size(rank: RankInfo, profile: Profile) -> None:
    """See that as many processes came as the profile has: fewer would leave a part of each batch out.

    Raises:
        MachineError: another number came; says how to get the right one.
    """
    if rank.world_size in (nodes * profile.processes_per_node for nodes in profile.node_range):
        return
    if rank.world_size == 1:
        came = message("launch.one-process-came", "1 process came")
    else:
        came = message("launch.processes-came", "{count} processes came", count=rank.world_size)
    raise MachineError(
        message(
            "launch.other-world-size",
            "{came}, the profile wants {processes} ({nodes} × {per_node}: nodes × processes_per_node)",
            came=came,
            processes=_allowed_processes(profile),
            nodes=profile.nodes,
            per_node=profile.processes_per_node,
        ),
        find_launcher(profile).world_size_hint(profile),
    )


def _allowed_processes(profile: Profile) -> str:
    least = profile.node_range[0] * profile.processes_per_node
    return str(least) if least == profile.processes else f"{least}:{profile.processes}"

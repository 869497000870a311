"""srun: a SLURM step that `kovqa train` waits for, in the allocation it was typed in or in one of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from kovqa_core.launch.launchers import slurm_options
from kovqa_core.launch.launchers.protocol import LaunchPlan, LaunchRequest
from kovqa_core.settings.profile import Profile

# The rest of the protocol is SLURM's, not this command's.
cores_per_process = slurm_options.cores_per_process
rank_from_environment = slurm_options.rank_from_environment
settings_problem = slurm_options.settings_problem
starts_here = slurm_options.starts_here
stop_exit_code = slurm_options.stop_exit_code
worker_environment = slurm_options.worker_environment
world_size_hint = slurm_options.world_size_hint


def check_machine(profile: Profile, nearest_profile: Callable[[], str]) -> None:
    """See that SLURM's tools are here, and that the job this is typed in has a task for each node.

    Raises:
        MachineError: it is not so.
        SettingsError: a variable stands for an option that would break the run.
    """
    slurm_options.check_slurm_tools(profile, nearest_profile)
    slurm_options.require_task_per_node(profile, os.environ)


def waits_for_all(profile: Profile) -> bool:
    """Always: srun ends with its tasks."""
    return True


def build_plan(request: LaunchRequest) -> LaunchPlan:
    """One srun for all nodes; USR1 asks its tasks to stop, as SLURM does before the time limit."""
    profile = request.profile
    options = [
        *slurm_options.resource_options(profile),
        *slurm_options.signal_options(profile, "USR1"),
        *slurm_options.step_options(profile),
        *slurm_options.task_command(request),
    ]
    return LaunchPlan(
        request.after_setup(["srun", *options]),
        dict(request.env),
        request.folder,
        test_only_argv=tuple(request.after_setup(["srun", "--test-only", *options])),
        stop_signal=signal.SIGUSR1,
        on_paper=slurm_options.on_paper(profile),
    )

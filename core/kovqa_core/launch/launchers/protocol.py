"""What a launcher is: a module with the functions of `Launcher`, and the plain data they take and return."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.messages import Message, shell_quote
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.run import WorkerJob

JOB_SCRIPT = "job.sh"  # in the run folder: what a batch queue is given


@dataclass(frozen=True)
class BatchQueue:
    """How people deal with a job of a queue; `{job}` stands for its number.

    Attributes:
        name: of the queue, in messages.
        list_command: shows the job's state.
        cancel_command: ends the job.
        log_file: what the job prints, below the run folder.
    """

    name: str
    list_command: str
    cancel_command: str
    log_file: str


@dataclass(frozen=True)
class LaunchPlan:
    """What is started, as plain data.

    Attributes:
        argv: the command.
        env: variables of the workers, besides those that are set here.
        folder: the run folder.
        script: text of RUN/job.sh, where a queue is given one; None: the command waits for the workers.
        queue: that queue.
        batch_options: what its jobs are given, as options of that queue's command; equal for jobs of one array.
        test_only_argv: asks a scheduler whether it would take the job; empty where there is none.
        stop_signal: asks the workers behind the command to stop.
        rendezvous: HOST:PORT where nodes meet on which the same command is typed; "" otherwise.
        resume_hint: how to go on after a failure; "": with the last checkpoint.
        on_paper: what a plan that starts nothing cannot know; "": nothing.
    """

    argv: list[str]
    env: dict[str, str]
    folder: Path
    script: str | None = None
    queue: BatchQueue | None = None
    batch_options: tuple[str, ...] = ()
    test_only_argv: tuple[str, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    rendezvous: str = ""
    resume_hint: str = ""
    on_paper: str = ""

    def shell_command(self) -> str:
        """The command, to be pasted into a shell."""
        variables = [f"{key}={shell_quote(value)}" for key, value in self.env.items()]
        return " ".join([*variables, *map(shell_quote, self.argv)])


@dataclass(frozen=True)
class LaunchRequest:
    """What a launcher turns into a plan.

    Attributes:
        job: its profile, and the run folder.
        python: the workers' interpreter with what is put before it: a container, numactl.
        worker: worker.py and the file that it reads.
        env: variables of the workers.
        start_folder: where a batch job starts.
    """

    job: WorkerJob
    python: list[str]
    worker: list[str]
    env: Mapping[str, str]
    start_folder: Path

    @property
    def profile(self) -> Profile:
        """The machine."""
        return self.job.profile

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.job.folder

    def after_setup(self, argv: list[str]) -> list[str]:
        """A command after the profile's shell lines; the first of them that fails ends it."""
        return lines_before(self.profile.setup, argv)


def lines_before(lines: Sequence[str], argv: list[str]) -> list[str]:
    """A command after some shell lines; the first of them that fails ends it."""
    return ["bash", "-c", "\n".join(["set -e", *lines, 'exec "$@"']), "kovqa", *argv] if lines else argv


class Launcher(Protocol):
    """A module of this package: one way to start the workers of a profile."""

    def settings_problem(self, profile: Profile) -> Message | None:
        """What in the profile does not go with this launcher; None: nothing."""

    def check_machine(self, profile: Profile, nearest_profile: Callable[[], str]) -> None:
        """See that this machine has what the launcher needs.

        Args:
            profile: the machine as it should be.
            nearest_profile: name of the profile that fits what is here, for the hint.

        Raises:
            MachineError: it does not.
        """

    def starts_here(self, profile: Profile) -> bool:
        """Do all processes run on this machine, without a queue?"""

    def waits_for_all(self, profile: Profile) -> bool:
        """Does one command start all processes and wait until they end?"""

    def build_plan(self, request: LaunchRequest) -> LaunchPlan:
        """The command, script and signals of a launch. Starts nothing."""

    def cores_per_process(self, profile: Profile, cores: int) -> int:
        """CPU cores of one process.

        Args:
            profile: the machine.
            cores: of the machine on which this runs.
        """

    def worker_environment(self, profile: Profile) -> dict[str, str]:
        """Variables that workers need of this launcher alone."""

    def rank_from_environment(self, profile: Profile, environ: Mapping[str, str]) -> RankInfo:
        """Place of this worker among all.

        Raises:
            MachineError: the launcher's variables do not lead to the first host.
        """

    def stop_exit_code(self, profile: Profile, *, is_main_process: bool) -> int:
        """Exit code of a worker that stopped on request, with a complete checkpoint."""

    def world_size_hint(self, profile: Profile) -> Message:
        """What to do when another number of processes came than the profile has."""

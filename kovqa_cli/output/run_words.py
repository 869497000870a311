"""Words of runs that tables show; `--json` and files keep the English ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kovqa_core.messages import Message, join_messages, message

if TYPE_CHECKING:
    from kovqa_core.runs.manifest import RunLaunch
    from kovqa_core.runs.summary import CheckpointSummary, RunSummary

_STATES = {
    "finished": message("runs.state-finished", "finished"),
    "running": message("runs.state-running", "running"),
    "queued": message("runs.state-queued", "queued"),
    "stopped": message("runs.state-stopped", "stopped"),
    "failed": message("runs.state-failed", "failed"),
    "new": message("runs.state-new", "new"),  # of a sweep, where nothing has begun
    "planned": message("runs.state-planned", "planned"),
    "broken": message("runs.state-broken", "broken"),
    "killed": message("runs.state-killed", "killed"),
}
_SECTIONS = {
    "recipe": message("runs.section-recipe", "recipe"),
    "profile": message("runs.section-profile", "profile"),
    "batch": message("runs.section-batch", "batch"),
    "data": message("runs.section-data", "data"),
    "versions": message("runs.section-versions", "versions"),
    "git": message("runs.section-git", "git"),
    "machine": message("runs.section-machine", "machine"),
}


def state_word(state: str) -> str:
    """What a run, or one of its launches, came to."""
    return _STATES.get(state, state)


def section_word(section: str) -> str:
    """One of the sections in which runs differ."""
    return _SECTIONS.get(section, section)


def state_text(run: RunSummary) -> str:
    """The state of a run, why it failed, and its job of SLURM."""
    text = _with_error(state_word(run.state), run.error)
    if not run.job:
        return text
    if not run.job_state:
        return message("runs.with-job", "{state}, job {job}", state=text, job=run.job)
    return message(
        "runs.with-job-state",
        "{state}, job {job} {job_state}",
        state=text,
        job=run.job,
        job_state=run.job_state,
    )


def launch_text(launch: RunLaunch, run: RunSummary, *, is_running: bool) -> str:
    """How a launch ended; of the newest error the run's own folder knows the words in every language."""
    if is_running and launch.outcome is None:
        return state_word("running")
    error = run.error if launch.error == run.error else launch.error
    return _with_error(state_word(launch.outcome or "killed"), error)


def _with_error(state: str, error: str | None) -> str:
    return message("runs.state-error", "{state}: {error}", state=state, error=error) if error else state


def checkpoint_marks(checkpoint: CheckpointSummary) -> Message:
    """What a checkpoint is to its run."""
    marks = (
        (checkpoint.last, message("runs.mark-last", "last")),
        (checkpoint.best, message("runs.mark-best", "best")),
        (checkpoint.resumable, message("runs.mark-resumable", "resumable")),
    )
    return join_messages(", ", [word for is_set, word in marks if is_set])


def machine_text(launch: RunLaunch) -> str:
    """Where a launch ran; "" where that was not written down."""
    machine = launch.machine
    if machine is None:
        return ""
    processors = (
        f"{len(machine.gpus)} × {machine.gpus[0]}"
        if machine.gpus
        else message("runs.cores", "{count} cores", count=machine.cores)
    )
    host: str = machine.host
    if launch.job:
        host = message("runs.host-in-job", "{host}, job {job}", host=machine.host, job=launch.job)
    return message(
        "runs.launch-machine",
        "{host}, {processors}, profile {profile}, torch {torch}",
        host=host,
        processors=processors,
        profile=launch.profile,
        torch=launch.versions.get("torch", "?"),
    )


def engine_text(launch: RunLaunch) -> str:
    """The kovqa of a launch: its version, and of a clone the commit."""
    version = launch.versions.get("kovqa", "?")
    engine = launch.git.engine if launch.git else None
    if engine is None:
        return version
    commit = engine.commit[:9]
    if engine.dirty:
        return message("runs.engine-changed", "{version} {commit} changed", version=version, commit=commit)
    return f"{version} {commit}"

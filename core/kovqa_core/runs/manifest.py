"""`manifest.json`: every launch of a run, as the process that did it saw the world.

`run.yaml` holds the settings; this says what happened: when, on which machine, with which versions,
which code, which data, and how it ended. A resumed run has one entry more.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from kovqa_core.download.hub_copies import hub_identity, pinned_hub_name
from kovqa_core.errors import DataError, KovqaError, Stopped
from kovqa_core.files import write_json
from kovqa_core.machine.versions import (
    GitState,
    MachineFacts,
    engine_git_state,
    git_state,
    machine_facts,
    package_versions,
)
from kovqa_core.messages import Message, message
from kovqa_core.messages.one_line import cut_value
from kovqa_core.runs.events import report_warning
from kovqa_core.runs.folder import MANIFEST_FILE, follow_pointer
from kovqa_core.settings.json_file import check_content, read_json_as
from kovqa_core.settings.run import Run

_TIME_FORMAT = "%Y-%m-%dT%H:%M:%S%z"
LaunchOutcome = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class IndexFacts:
    """An index as a run saw it: its folder, its fingerprint, rows of each split; None: not known."""

    index: str | None = None
    fingerprint: str | None = None
    rows: dict[str, int] | None = None


@dataclass(frozen=True)
class GitStates:
    """The checkouts of the engine and of the folder the command was typed in; None: not in one."""

    engine: GitState | None = None
    folder: GitState | None = None


@dataclass(frozen=True)
class RunLaunch:
    """One entry of the manifest; what an earlier version did not write has its default.

    Attributes:
        began, ended: local time with its offset (`parse_time`); no `ended`: it runs, or was killed.
        from_step, step: optimizer steps of the last checkpoint when it began, and when it ended.
        argv: the command.
        folder: in which it was typed.
        profile: its name.
        processes, micro_batch, accumulate: how the global batch was split.
        data: the index.
        base: OWNER/NAME@COMMIT of a base model that is one of the hub's; "": another, or none.
        versions: of Python and packages, by name.
        git: None: not written down.
        machine: None: not written down.
        job: number of the SLURM job in which it ran; "": in none.
        outcome: how it ended.
        error: why it failed.
    """

    began: str = ""
    from_step: int = 0
    argv: tuple[str, ...] = ()
    folder: str = ""
    profile: str = "?"
    processes: int = 0
    micro_batch: int = 0
    accumulate: int = 0
    data: IndexFacts = IndexFacts()
    base: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    git: GitStates | None = None
    machine: MachineFacts | None = None
    job: str = ""
    ended: str | None = None
    step: int | None = None
    outcome: LaunchOutcome | None = None
    error: str | None = None


def launch_fields(launch: RunLaunch) -> dict[str, Any]:
    """A launch as a JSON object: one that has not ended lacks the keys that say how."""
    values = asdict(launch)
    for key in ("ended", "step", "outcome", "error"):
        if values[key] is None:
            del values[key]
    return values


@dataclass(frozen=True)
class _ManifestFile:
    launches: list[Any]


def read_launches(folder: Path) -> list[RunLaunch]:
    """All launches of a run, oldest first; those that cannot be read, or the whole file, are left out."""
    return [launch for launch in map(_read_launch, _read_entries(folder)) if isinstance(launch, RunLaunch)]


def manifest_problems(folder: Path) -> list[Message]:
    """What `read_launches` leaves out, and why."""
    path = folder / MANIFEST_FILE
    if not os.path.lexists(path):
        return []
    try:
        entries = read_json_as(path, _ManifestFile).launches
    except DataError as error:
        return [
            message("runs.manifest-unreadable", "launches are not known: {problem}", problem=error.message)
        ]
    read = [_read_launch(entry) for entry in entries]
    return [
        message(
            "runs.launch-unreadable", "{file}: launch {number} cannot be read: {problem}",
            file=path, number=number, problem=problem,
        )
        for number, problem in enumerate(read, 1)
        if not isinstance(problem, RunLaunch)
    ]  # fmt: skip


def _read_launch(entry: object) -> RunLaunch | str:
    """One entry; or what is wrong with it."""
    try:
        return check_content(entry, RunLaunch)
    except ValueError as error:
        return str(error)


def _read_entries(folder: Path) -> list[Any]:
    """The manifest's entries as they stand."""
    path = folder / MANIFEST_FILE
    try:
        # A manifest is a record: one that is broken must not keep a run from starting.
        return read_json_as(path, _ManifestFile).launches if path.is_file() else []
    except (DataError, OSError):
        return []


def _set_broken_manifest_aside(folder: Path) -> None:
    """Keep a manifest that cannot be read under another name, for a new one is about to be written."""
    path = folder / MANIFEST_FILE
    try:
        if os.path.lexists(path):
            read_json_as(path, _ManifestFile)
    except DataError as error:
        aside = path.with_name(f"{MANIFEST_FILE}.broken")
        with contextlib.suppress(OSError):
            path.rename(aside)
        report_warning(
            message(
                "runs.manifest-set-aside", "{problem}: it is {aside} now, and a new one begins",
                problem=error.message, aside=aside.name,
            )
        )  # fmt: skip


@contextlib.contextmanager
def record_launch(run: Run) -> Iterator[None]:
    """Around a training, in the process that holds the run folder: write down how it begins and ends.

    A launch without an end was killed.

    Raises:
        KovqaError: what the training raises; or the folder cannot be written.
    """
    _set_broken_manifest_aside(run.folder)
    # Earlier entries are written again as they stand, not as this version reads them.
    earlier = _read_entries(run.folder)
    launch = RunLaunch(
        began=_current_time(),
        from_step=last_checkpoint_step(run.folder),
        argv=tuple(run.argv),
        folder=str(Path.cwd()),
        profile=run.profile.name,
        processes=run.profile.processes,
        micro_batch=run.micro_batch,
        accumulate=run.accumulate,
        data=index_facts(run.recipe.data.index),
        base=_base_name(run.recipe.model.get("base")),
        versions=package_versions(),
        git=GitStates(engine_git_state(), git_state(Path.cwd())),
        machine=machine_facts(),
        job=os.environ.get("SLURM_JOB_ID", ""),
    )
    # Written at the start too: a launch that is killed has no other moment to be written down.
    _write_manifest(run.folder, [*earlier, launch_fields(launch)])
    try:
        yield
    except BaseException as error:
        ended = _ended_launch(launch, run.folder, error)
        with contextlib.suppress(KovqaError, OSError):  # the failure itself is what to report
            _write_manifest(run.folder, [*earlier, launch_fields(ended)])
        raise
    _write_manifest(run.folder, [*earlier, launch_fields(_ended_launch(launch, run.folder, None))])


def _ended_launch(launch: RunLaunch, folder: Path, error: BaseException | None) -> RunLaunch:
    outcome: LaunchOutcome = "finished"
    reason: str | None = None
    if isinstance(error, Stopped):
        outcome = "stopped"
    elif error is not None:
        outcome = "failed"
        if isinstance(error, KovqaError):
            reason = error.message
        else:  # a compiler's is 100,000 characters
            reason = cut_value(f"{type(error).__name__}: {error}")
    step = last_checkpoint_step(folder)
    return replace(launch, ended=_current_time(), step=step, outcome=outcome, error=reason)


def _write_manifest(folder: Path, entries: list[Any]) -> None:
    write_json(folder / MANIFEST_FILE, {"schema": 1, "launches": entries})


def _current_time() -> str:
    return time.strftime(_TIME_FORMAT)


def parse_time(text: str) -> float:
    """Seconds since 1970 of a time as it stands in a manifest; 0 for what is not one."""
    try:
        return datetime.strptime(text, _TIME_FORMAT).timestamp()
    except ValueError:
        return 0.0


def last_checkpoint_step(folder: Path) -> int:
    """Optimizer steps of the last checkpoint; 0 without one."""
    last = follow_pointer(folder, "last")
    number = last.name.removeprefix("step-") if last else ""
    return int(number) if number.isdecimal() else 0


def learned_fingerprint(run: Run) -> str | None:
    """The fingerprint of the data that a run has learned from; None: nothing learned yet, or not known."""
    if follow_pointer(run.folder, "last") is None:
        return None
    known = [launch.data.fingerprint for launch in read_launches(run.folder) if launch.data.fingerprint]
    return known[-1] if known else None


def require_same_data(run: Run) -> None:
    """See that a run goes on with the data it has learned from.

    Raises:
        DataError: its index holds other data now.
    """
    index = run.recipe.data.index
    then, now = learned_fingerprint(run), index_facts(index).fingerprint
    if then is not None and now is not None and then != now:
        raise DataError(
            message(
                "runs.other-data",
                "{index} holds other data than {run} has learned from (fingerprint {then:.12} then, {now:.12} now)",
                index=index,
                run=run.folder.name,
                then=then,
                now=now,
            ),
            message(
                "runs.other-data.hint",
                "write the old index again, or name it with --data; to learn from the new one begin a new run "
                "with another -o",
            ),
        )


def _base_name(base: object) -> str:
    """OWNER/NAME@COMMIT of a base, named so or by the path of a copy; "" where it is none of the hub's."""
    if not isinstance(base, str):
        return ""
    # A run keeps the commit of a name (`FamilyConfig.pinned_settings`); without one it is not the hub's.
    return base if pinned_hub_name(base) else hub_identity(Path(base))


def index_facts(index: str | None) -> IndexFacts:
    """Folder, fingerprint and numbers of rows of an index, as far as its `index.json` can be read."""
    path = Path(index or "") / "index.json"
    try:
        facts = read_json_as(path, IndexFacts) if index and path.is_file() else IndexFacts()
    except KovqaError:
        facts = IndexFacts()
    return replace(facts, index=index)

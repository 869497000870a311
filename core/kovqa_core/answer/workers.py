"""A table answered by all processes of a profile: the job they read, and each one's share of the rows.

    OUTPUT.part              what is answered
    OUTPUT.parts/job.json    what is to be done, for the workers
    OUTPUT.parts/rank-N.jsonl, logs/, error.json

Processes do not talk to each other: whatever number of them goes on with what is left.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kovqa_core.answer.partial_file import (
    JOB_FILE,
    begin_partial_file,
    finish_partial_file,
    merge_rank_files,
    partial_file_path,
    rank_files_folder,
)
from kovqa_core.answer.question_rows import question_image_folder, select_question_rows
from kovqa_core.data.decoding import GREEDY_DECODING, DecodingOptions
from kovqa_core.errors import SettingsError, Stopped
from kovqa_core.files import disk_errors, read_json, write_json
from kovqa_core.launch.launchers import check_launcher, find_launcher
from kovqa_core.launch.machine_check import check_machine
from kovqa_core.launch.plan import plan_launch
from kovqa_core.launch.start import OnEvent, start_processes
from kovqa_core.process_pool import usable_cpu_count
from kovqa_core.runs.events import AnswerProgressEvent, WorkerEvent
from kovqa_core.runs.folder import find_model_folder
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.resolve import load_profile

_RERUN_HINT = "run the same command again: what is answered is kept"


@dataclass(frozen=True)
class TableJob:
    """What the processes of a profile answer."""

    profile: Profile
    folder: Path  # for job, lines, logs and errors
    part: Path
    model: Path
    table: Path
    images: Path
    batch: int
    kinds: Sequence[str]
    decoding: DecodingOptions
    trust_remote_code: bool = False


def write_table_job(job: TableJob) -> None:
    """For the workers."""
    told = {**asdict(job), "profile": job.profile.model_dump(mode="json")}
    write_json(job.folder / JOB_FILE, {k: str(v) if isinstance(v, Path) else v for k, v in told.items()})


def read_table_job(path: Path) -> TableJob:
    """What `write_job` wrote."""
    told = read_json(path)
    paths = {name: Path(told[name]) for name in ("folder", "part", "model", "table", "images")}
    decoding = DecodingOptions(**{**told["decoding"], "answers": tuple(told["decoding"]["answers"])})
    return TableJob(
        Profile(**told["profile"]),
        **paths,
        batch=told["batch"],
        kinds=told["kinds"],
        decoding=decoding,
        trust_remote_code=told["trust_remote_code"],
    )


def answer_table_with_workers(
    profile: str,
    table: Path,
    images: Path | None,
    output: Path,
    model: Path | None,
    batch: int,
    progress: Callable[[int, int], None],
    kinds: Sequence[str] = (),
    decoding: DecodingOptions = GREEDY_DECODING,
    trust_remote_code: bool = False,
) -> tuple[int, Path]:
    """As `predict.answer_table`, by the processes of a profile.

    Args:
        profile: name or path.

    Raises:
        SettingsError: the profile's processes are not of this machine, and nobody waits for them.
        MachineError: this machine is not what the profile says.
        Stopped: the processes were stopped: run again.
        KovqaError: what the first failing process raised.
    """
    chosen = load_profile(profile)
    check_launcher(chosen)
    if not find_launcher(chosen).waits_for_all(chosen):
        raise SettingsError(
            f"a table is answered while you wait, profile {chosen.name} is not for that",
            "use one of this machine, or one with launcher: srun",
        )
    check_machine(chosen)
    folder, part = find_model_folder(model, "vqa").resolve(), partial_file_path(output).resolve()
    rows = select_question_rows(table, "vqa", kinds, decoding)
    ids = [row.example.id for row in rows]
    with disk_errors(output):
        done = begin_partial_file(part, folder, table, rows, None, decoding)
        if len(done) < len(ids):
            job = TableJob(
                chosen, rank_files_folder(part), part, folder, table.resolve(), question_image_folder(table, images).resolve(),
                batch, list(kinds), decoding, trust_remote_code,
            )  # fmt: skip
            write_table_job(job)
            launch = plan_launch(job, sys.executable, usable_cpu_count(), file_name=JOB_FILE)
            start_processes(replace(launch, resume_hint=_RERUN_HINT), _on_worker_event(progress))
            done = merge_rank_files(part)
        if len(done) < len(ids):
            raise Stopped(f"stopped; {len(done):,} of {len(ids):,} rows are answered", _RERUN_HINT)
        finish_partial_file(part, output, ids)
    return len(ids), folder


def _on_worker_event(progress: Callable[[int, int], None]) -> OnEvent:
    def report(event: WorkerEvent) -> None:
        if isinstance(event, AnswerProgressEvent):
            progress(event.done, event.of)

    return report

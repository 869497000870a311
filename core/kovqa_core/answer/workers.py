"""The processes of a profile answer a table: the job they read, and each one's share of the rows.

    OUTPUT.part              what is answered
    OUTPUT.parts/job.json    what is to be done, for the workers
    OUTPUT.parts/rank-N.jsonl, logs/, error.json

Processes do not talk to each other: whatever number of them goes on with what is left. This module, which
starts them, loads no tensors' library; what they run is `local.answer_rank_rows`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from kovqa_core.answer.job import (
    AnswerBackend,
    AnswerJob,
    AnswerOptions,
    resume_hint,
)
from kovqa_core.answer.model_fingerprint import model_fingerprint
from kovqa_core.answer.partial_file import JOB_FILE, PARTIAL_SUFFIX, rank_files_folder
from kovqa_core.answer.question_rows import QuestionRow
from kovqa_core.data.decoding import DecodingOptions
from kovqa_core.data.example import Answer
from kovqa_core.errors import SettingsError
from kovqa_core.files import read_json, real_path, write_json
from kovqa_core.launch.launchers import check_launcher, find_launcher
from kovqa_core.launch.machine_check import check_machine
from kovqa_core.launch.plan import plan_launch
from kovqa_core.launch.start import OnEvent, start_processes
from kovqa_core.machine.detect_profile import load_profile_here
from kovqa_core.messages import message
from kovqa_core.models.precision import own_precision, profile_precision
from kovqa_core.process_pool import usable_cpu_count
from kovqa_core.progress import OnProgress, Progress
from kovqa_core.runs.events import AnswerProgressEvent, WarningEvent, WorkerEvent
from kovqa_core.runs.folder import find_model_folder
from kovqa_core.runs.step_lease import hold_found_step
from kovqa_core.settings.overrides import with_new_names
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.renamed_keys import PROFILE
from kovqa_core.settings.strict_yaml import SettingsDocument


@dataclass(frozen=True)
class WorkerAnswerJob:
    """What the processes of a profile answer; its paths are absolute, its model is a step folder."""

    profile: Profile
    job: AnswerJob

    @property
    def folder(self) -> Path:
        """Of `job.json`, of the processes' lines, logs and errors."""
        return rank_files_folder(self.job.partial_file)


def write_worker_job(worker_job: WorkerAnswerJob) -> None:
    """Write `job.json` for the workers."""
    job = worker_job.job
    write_json(
        worker_job.folder / JOB_FILE,
        {
            "profile": worker_job.profile.model_dump(mode="json"),
            "folder": str(worker_job.folder),
            "part": str(job.partial_file),
            "model": str(job.options.model),
            "table": str(job.table),
            "images": str(job.image_folder),
            "batch": job.batch,
            "precision": job.options.precision,
            "load": job.options.load,
            "instruction": job.options.instruction,
            "max_new_tokens": job.options.max_new_tokens,
            "top_k": job.options.top_k,
            "kinds": job.question_types,
            "columns": dict(job.columns),
            "decoding": asdict(job.options.decoding),
            "trust_remote_code": job.options.trust_remote_code,
            "allow_outside": job.allow_outside,
        },
    )


def read_worker_job(path: Path) -> WorkerAnswerJob:
    """Read a `job.json`, those of earlier versions too."""
    fields = read_json(path)
    # Profiles written before keys were renamed hold their old names.
    profile = with_new_names(SettingsDocument(fields["profile"]), PROFILE, warn=False).values
    partial_file, decoding = Path(fields["part"]), fields["decoding"]
    output = partial_file.with_name(partial_file.name.removesuffix(PARTIAL_SUFFIX))
    options = AnswerOptions(
        model=Path(fields["model"]),
        top_k=fields.get("top_k", 1),
        decoding=DecodingOptions(**{**decoding, "answers": tuple(decoding["answers"])}),
        # Earlier versions knew none but the model's own.
        precision=fields.get("precision") or own_precision(Path(fields["model"])),
        load=fields.get("load", "auto"),
        instruction=fields.get("instruction"),
        max_new_tokens=fields.get("max_new_tokens"),
        trust_remote_code=fields.get("trust_remote_code", False),
    )
    job = AnswerJob(
        table=Path(fields["table"]),
        output=output,
        options=options,
        images=Path(fields["images"]),
        question_types=tuple(fields["kinds"]),
        batch=fields["batch"],
        columns=fields.get("columns", {}),
        allow_outside=fields.get("allow_outside", False),
    )
    return WorkerAnswerJob(Profile(**profile), job)


def worker_backend(profile_name: str, options: AnswerOptions) -> AnswerBackend:
    """A back end that has the processes of a profile answer.

    Args:
        profile_name: name or path of the profile.
        options: which model answers, and how.

    Raises:
        SettingsError: nobody can wait for the profile's processes here.
        MachineError: this machine is not what the profile says.
        ModelError: there is no such model.
    """
    profile = load_profile_here(profile_name)
    check_launcher(profile)
    if not find_launcher(profile).waits_for_all(profile):
        raise SettingsError(
            message(
                "answer.profile-cannot-be-waited-for",
                "profile {profile} cannot answer a table while you wait",
                profile=profile.name,
            ),
            message(
                "answer.profile-cannot-be-waited-for.hint",
                "use a profile of this machine, or one with launcher: srun",
            ),
        )
    check_machine(profile)
    hold = contextlib.ExitStack()  # until all processes have ended: they read the model later
    found = hold.enter_context(hold_found_step(partial(find_model_folder, options.model, options.task)))
    folder = found.resolve()
    precision = profile_precision(options.precision, own_precision(folder), profile)
    answer_rows = partial(_run_workers, profile, folder, precision, hold)
    fingerprint = model_fingerprint(folder, replace(options, precision=precision))
    return AnswerBackend(folder, fingerprint, answer_rows, precision)


def _run_workers(
    profile: Profile,
    folder: Path,
    precision: str,
    hold: contextlib.ExitStack,
    job: AnswerJob,
    rows: Sequence[QuestionRow],
    on_progress: OnProgress,
) -> Iterator[tuple[QuestionRow, Answer]]:
    """Start the processes and wait for them. Yields nothing: their lines are in their own files.

    Raises:
        KovqaError: what the first failing process raised.
    """
    # Workers may start in another folder, or on another host that shares the disk.
    absolute_job = replace(
        job,
        table=real_path(job.table),
        output=real_path(job.output.parent) / job.output.name,
        images=job.image_folder.absolute(),  # by the name that absolute paths in the table begin with
        options=replace(job.options, model=folder, precision=precision),
    )
    worker_job = WorkerAnswerJob(profile, absolute_job)
    write_worker_job(worker_job)
    launch = plan_launch(
        worker_job, sys.executable, usable_cpu_count(), file_name=JOB_FILE, environ=os.environ
    )
    # Started again after a failure, they need no checkpoint: each skips the rows in its own file.
    with hold:
        start_processes(replace(launch, resume_hint=resume_hint()), _on_worker_event(on_progress))
    yield from ()


def _on_worker_event(on_progress: OnProgress) -> OnEvent:
    def on_event(event: WorkerEvent) -> None:
        if isinstance(event, AnswerProgressEvent):
            on_progress(Progress(message("answer.answering", "answering"), event.done, event.of))
        elif isinstance(event, WarningEvent):
            on_progress(Progress(event.note))

    return on_event

"""A table answered by all processes of a profile: the job they read, and each one's share of the rows.

    OUTPUT.part              what is answered
    OUTPUT.parts/job.json    what is to be done, for the workers
    OUTPUT.parts/rank-N.jsonl, logs/, error.json

Processes do not talk to each other: whatever number of them goes on with what is left.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kovqa_core import machine
from kovqa_core.data.decoding import GREEDY, Decoding
from kovqa_core.data.example import prediction_line
from kovqa_core.errors import SettingsError, Stopped
from kovqa_core.files import disk_errors, read_json, write_json
from kovqa_core.launch.plan import plan
from kovqa_core.launch.start import start
from kovqa_core.predict import Progress, begin, pictures_of, ready, rows_of
from kovqa_core.results.part import JOB, answered, finish, gather, part_of, share_of, shares_of
from kovqa_core.runs import find_model
from kovqa_core.settings.find import load_profile
from kovqa_core.settings.profile import Profile
from kovqa_core.train.evaluate import answer_all
from kovqa_core.train.log import WATCHED
from kovqa_core.train.ranks import Rank

_ALONE = Rank(0, 0, 1)


@dataclass(frozen=True)
class Job:
    """What the processes of a profile answer."""

    profile: Profile
    folder: Path  # for job, lines, logs and errors
    part: Path
    model: Path
    table: Path
    images: Path
    batch: int
    kinds: Sequence[str]
    decoding: Decoding


def write_job(job: Job) -> None:
    """For the workers."""
    told = {**asdict(job), "profile": job.profile.model_dump(mode="json")}
    write_json(job.folder / JOB, {k: str(v) if isinstance(v, Path) else v for k, v in told.items()})


def read_job(path: Path) -> Job:
    """What `write_job` wrote."""
    told = read_json(path)
    paths = {name: Path(told[name]) for name in ("folder", "part", "model", "table", "images")}
    decoding = Decoding(**{**told["decoding"], "answers": tuple(told["decoding"]["answers"])})
    return Job(
        Profile(**told["profile"]), **paths, batch=told["batch"], kinds=told["kinds"], decoding=decoding
    )


# ---------------------------------------------------------------------------------- the command


def answer_by_profile(
    profile: str,
    table: Path,
    images: Path | None,
    output: Path,
    model: Path | None,
    batch: int,
    progress: Progress,
    kinds: Sequence[str] = (),
    decoding: Decoding = GREEDY,
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
    if chosen.launcher == "sbatch" or (chosen.launcher == "torchrun" and chosen.nodes > 1):
        raise SettingsError(
            f"a table is answered while you wait, profile {chosen.name} is not for that",
            "use one of this machine, or one with launcher: srun",
        )
    machine.check(chosen)
    folder, part = find_model(model, "vqa").resolve(), part_of(output).resolve()
    rows = rows_of(table, "vqa", kinds, decoding)
    ids = [row.example.id for row in rows]
    with disk_errors(output):
        done = begin(part, folder, table, rows, None, decoding)
        if len(done) < len(ids):
            job = Job(
                chosen, shares_of(part), part, folder, table.resolve(), pictures_of(table, images).resolve(),
                batch, list(kinds), decoding,
            )  # fmt: skip
            write_job(job)
            launch = plan(job, sys.executable, machine.cores(), file=JOB)
            start(replace(launch, again=_AGAIN), _events(progress))
            done = gather(part)
        if len(done) < len(ids):
            raise Stopped(f"stopped; {len(done):,} of {len(ids):,} rows are answered", _AGAIN)
        finish(part, output, ids)
    return len(ids), folder


_AGAIN = "run the same command again: what is answered is kept"


def _events(progress: Progress) -> Callable[[Mapping[str, Any]], None]:
    def told(event: Mapping[str, Any]) -> None:
        if event["kind"] == "progress":
            progress(event["done"], event["of"])

    return told


# ----------------------------------------------------------------------------------- a process


def answer_share(job: Job, rank: Rank, device: torch.device, stop: Callable[[], bool]) -> None:
    """Answer every world-th of the rows that are left, into a file of this process alone.

    Args:
        job: what is answered.
        rank: place of this process.
        device: its own.
        stop: asked after every row.
    """
    rows, before = rows_of(job.table, "vqa", job.kinds, job.decoding), answered(job.part)
    left = [row for row in rows if row.example.id not in before]
    share = share_of(job.part, rank.rank)
    own = answered(share)  # torchrun began this process again
    mine = [row for row in left[rank.rank :: rank.world] if row.example.id not in own]
    if not mine:
        return

    def told(done: int, of: int) -> None:
        """All are about as far as this one."""
        if rank.first and os.environ.get(WATCHED):
            event = {"kind": "progress", "done": len(rows) - len(left) * (of - done) // of, "of": len(rows)}
            print(json.dumps(event), flush=True)

    model, processor, _ = ready(job.model, "vqa", None, job.decoding, device)
    answers = answer_all(
        model, processor, [row.example for row in mine], job.images, _ALONE, device, job.batch,
        job.profile.loader_workers, progress=told,
    )  # fmt: skip
    with disk_errors(share), share.open("a", encoding="utf-8") as stream:
        for number, answer in answers:
            row = mine[number]
            stream.write(prediction_line(row.example.id, answer, row.carried) + "\n")
            stream.flush()
            if stop():
                return

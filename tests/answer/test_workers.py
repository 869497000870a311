"""job.json, which the processes of a profile read: as it is written today, and as it once was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kovqa_core.answer.job import AnswerJob, AnswerOptions
from kovqa_core.answer.workers import WorkerAnswerJob, read_worker_job, write_worker_job
from kovqa_core.data.decoding import DecodingOptions
from kovqa_core.settings.profile import Profile


@pytest.mark.parametrize("decoding", [DecodingOptions(), DecodingOptions(answers=("예", "아니요"))])
def test_a_job_is_read_as_it_was_written(tmp_path: Path, decoding: DecodingOptions) -> None:
    options = AnswerOptions(
        tmp_path / "step", decoding=decoding, precision="bf16", top_k=5, trust_remote_code=True
    )
    job = AnswerJob(
        tmp_path / "t.jsonl", tmp_path / "답.jsonl", options, tmp_path / "images", ("vqa", "triple"), 4
    )
    worker_job = WorkerAnswerJob(Profile(name="p", processes_per_node=2, setup=["module load x"]), job)
    write_worker_job(worker_job)
    assert read_worker_job(tmp_path / "답.jsonl.parts" / "job.json") == worker_job


def test_a_job_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """The file that version 0.1.0 left of a `predict -p` that was stopped."""
    folder = tmp_path / "out.jsonl.parts"
    folder.mkdir()
    old = {
        "profile": {"name": "cpu2", "processes_per_node": 2, "threads": 1, "prologue": ["true"]},
        "folder": str(folder),
        "part": str(tmp_path / "out.jsonl.part"),
        "model": "/runs/r/step-000006",
        "table": "/data/test.jsonl",
        "images": "/data/images",
        "batch": 32,
        "kinds": [],
        "decoding": {"answers": [], "choices": False, "temperature": 0.7, "seed": 3},
    }
    (folder / "job.json").write_text(json.dumps(old), "utf-8")
    worker_job = read_worker_job(folder / "job.json")
    assert worker_job.folder == folder
    assert (worker_job.profile.processes, worker_job.profile.setup) == (2, ["true"])
    assert worker_job.job == AnswerJob(
        table=Path("/data/test.jsonl"),
        output=tmp_path / "out.jsonl",
        options=AnswerOptions(
            Path("/runs/r/step-000006"), decoding=DecodingOptions(temperature=0.7, seed=3), precision="fp32"
        ),
        images=Path("/data/images"),
        batch=32,
    )

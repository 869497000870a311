"""Images that lie in a table are files while it is answered, under the names of its rows, and no longer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from kovqa_core.answer.job import AnswerBackend, AnswerJob, run_answer_job
from kovqa_core.answer.question_rows import QuestionRow
from kovqa_core.data.example import Answer
from kovqa_core.errors import DataError
from kovqa_core.progress import OnProgress

from tests.data.test_parquet_tables import PNG, RED, image_bytes, parquet


@pytest.fixture
def job(tmp_path: Path) -> AnswerJob:
    """Four questions about three images, which lie in the table."""
    images = [{"bytes": PNG, "path": None}, {"bytes": RED, "path": "a.png"}, {"bytes": PNG, "path": None}]
    images += [{"bytes": image_bytes(9), "path": "a.png"}]
    rows = [{"id": n, "img": image, "question": f"{n}?"} for n, image in enumerate(images)]
    table = parquet(tmp_path / "t.parquet", rows)
    return AnswerJob(table, tmp_path / "out" / "답.jsonl", columns={"image": "img"})


def size_backend(seen: list[bytes], *, fails: bool = False) -> AnswerBackend:
    """Answers with the size of the image, which it reads where the job says."""

    def answer_rows(
        job: AnswerJob, rows: Sequence[QuestionRow], on_progress: OnProgress
    ) -> Iterator[tuple[QuestionRow, Answer]]:
        # Another process reads the table by itself, and must find the images that this one has unpacked.
        again = {row.example.id: row.example.image for row in job.read_rows()}
        for row in rows:
            data = (job.image_folder / row.example.image).read_bytes()
            assert again[row.example.id] == row.example.image
            seen.append(data)
            yield row, Answer(str(len(data)), 0.5)
            if fails:
                raise DataError("no more")

    return AnswerBackend("m", {"model": "m"}, answer_rows)


def test_images_of_a_table_are_there_while_it_is_answered(job: AnswerJob) -> None:
    seen: list[bytes] = []
    result = run_answer_job(job, size_backend(seen))
    assert seen == [PNG, RED, PNG, image_bytes(9)] and result.rows == 4
    lines = [json.loads(line) for line in job.output.read_text("utf-8").splitlines()]
    assert [line["answer"] for line in lines] == [str(len(data)) for data in seen]
    assert {path.name for path in job.output.parent.iterdir()} == {"답.jsonl", ".답.jsonl.json"}


def test_an_interrupted_job_leaves_no_image_and_goes_on(job: AnswerJob) -> None:
    seen: list[bytes] = []
    with pytest.raises(DataError, match="no more"):
        run_answer_job(job, size_backend(seen, fails=True))
    assert not list(job.output.parent.rglob("*.png"))
    result = run_answer_job(job, size_backend(seen))
    assert (result.kept, len(seen)) == (1, 4)


def test_a_folder_that_the_user_names_is_meant(job: AnswerJob, tmp_path: Path) -> None:
    for row in job.read_rows():
        (tmp_path / row.example.image).write_bytes(b"of the user")
    seen: list[bytes] = []
    run_answer_job(replace(job, images=tmp_path), size_backend(seen))
    assert seen == [b"of the user"] * 4

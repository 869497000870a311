"""Rows are left out, added or mended, and the same command runs again: what is answered is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from kovqa_core.answer.job import AnswerBackend, AnsweredTable, AnswerJob, run_answer_job
from kovqa_core.answer.partial_file import RowFault
from kovqa_core.answer.question_rows import QuestionRow
from kovqa_core.data.example import Answer
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.progress import OnProgress

Lines = list[dict[str, object]]


def lines(path: Path) -> Lines:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write_table(job: AnswerJob, rows: Sequence[dict[str, object]]) -> None:
    job.table.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


@pytest.fixture
def rows(tmp_path: Path) -> Lines:
    """Four rows about two images, the second of which is empty."""
    (tmp_path / "a.png").write_bytes(b"12345678")
    (tmp_path / "b.png").write_bytes(b"")
    return [{"id": f"Q{n}", "image": "b.png" if n == 2 else "a.png", "question": f"{n}?"} for n in range(4)]


@pytest.fixture
def job(tmp_path: Path, rows: Lines) -> AnswerJob:
    """They are to be answered."""
    job = AnswerJob(tmp_path / "t.jsonl", tmp_path / "out.jsonl", images=tmp_path)
    write_table(job, rows)
    return job


def run(job: AnswerJob, *, model: str = "m") -> tuple[list[str], AnsweredTable]:
    """Ids that were asked, and the table; empty images cannot be read."""
    asked: list[str] = []

    def answer_rows(
        job: AnswerJob, rows: Sequence[QuestionRow], on_progress: OnProgress
    ) -> Iterator[tuple[QuestionRow, Answer | RowFault]]:
        for row in rows:
            asked.append(row.example.id)
            is_empty = not (job.image_folder / row.example.image).stat().st_size
            yield row, RowFault("empty") if is_empty else Answer(row.example.question, 0.5)

    return asked, run_answer_job(job, AnswerBackend(model, {"model": model}, answer_rows))


def test_leaving_a_row_out_keeps_the_answers(job: AnswerJob, rows: Lines) -> None:
    with pytest.raises(DataError, match="1 of 4 rows"):
        run(job)
    del rows[2]
    write_table(job, rows)
    asked, table = run(job)
    assert (asked, table.kept, table.dropped) == (["Q3"], 2, 0)
    assert [row["id"] for row in lines(job.output)] == ["Q0", "Q1", "Q3"]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_finished_file_goes_on_with_what_is_new(job: AnswerJob, rows: Lines, suffix: str) -> None:
    """Of each row that was changed, and of it alone, the question is asked again; other columns are the new ones."""
    job = replace(job, allow_left_out=True, output=job.output.with_suffix(suffix))
    assert run(job)[0] == ["Q0", "Q1", "Q2", "Q3"]
    assert run(job)[0] == ["Q2"], "what failed is tried again"
    (job.image_folder / "b.png").write_bytes(b"mended")
    changed = {**rows[1], "question": "다른 질문?"}
    new = {**rows[0], "id": "Q9", "memo": "새"}
    write_table(job, [{**rows[0], "memo": 7}, changed, rows[2], rows[3], new])
    asked, table = run(job)
    assert (asked, table.kept, table.dropped) == (["Q1", "Q2", "Q9"], 2, 1)
    if suffix == ".jsonl":
        assert [row["answer"] for row in lines(job.output)] == ["0?", "다른 질문?", "2?", "3?", "0?"]
        assert lines(job.output)[0]["memo"] == 7


def test_another_image_of_the_same_name_is_asked_about_again(job: AnswerJob, rows: Lines) -> None:
    del rows[2]
    write_table(job, rows)
    run(job)
    (job.image_folder / "a.png").touch()
    assert run(job)[0] == []
    (job.image_folder / "a.png").write_bytes(b"a different number of bytes")
    asked, table = run(job)
    assert (asked, table.dropped) == (["Q0", "Q1", "Q3"], 3)
    assert run(replace(job, force=True))[0] == ["Q0", "Q1", "Q3"]


def test_another_table_or_model_is_still_refused(job: AnswerJob, rows: Lines) -> None:
    del rows[2]
    write_table(job, rows)
    run(job)
    with pytest.raises(SettingsError, match="of another model"):
        run(job, model="n")
    before = job.output.read_bytes()
    write_table(job, [rows[0], {**rows[1], "id": "x"}, {**rows[2], "id": "y"}])
    with pytest.raises(SettingsError, match="answers to another table") as caught:
        run(job)
    assert "--force" in caught.value.hint
    assert job.output.read_bytes() == before


def test_lines_of_an_earlier_version_count_as_long_as_the_table_is_unchanged(
    job: AnswerJob, rows: Lines
) -> None:
    with pytest.raises(DataError):
        run(job)
    old = [{"id": "Q0", "answer": "옛", "score": 0.25, "memo": 1}]
    job.partial_file.write_text("".join(json.dumps(row) + "\n" for row in old), "utf-8")
    asked, _ = run(replace(job, allow_left_out=True))
    assert asked == ["Q1", "Q2", "Q3"]
    assert lines(job.output)[0] == {"id": "Q0", "answer": "옛", "score": 0.25}
    record = job.output.with_name(f".{job.output.name}.json")
    assert json.loads(record.read_text("utf-8"))["rows"] == ""
    write_table(job, rows[:2])
    with pytest.raises(SettingsError, match="to another table"):
        run(job)


def test_a_row_that_asks_nothing_is_counted_and_never_asked(job: AnswerJob, rows: Lines) -> None:
    rows[2] = {**rows[2], "question": " "}
    write_table(job, rows)
    with pytest.raises(DataError, match=r"1 of 4 rows.*t\.jsonl:3: no question"):
        run(job)
    asked, table = run(replace(job, allow_left_out=True))
    assert asked == ["Q0", "Q1", "Q3"]
    assert list(table.left_out) == ["Q2"]

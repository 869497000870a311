"""Answers below a score become the row's choice that means "unknown"; another score asks no model again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from kovqa_core.answer.job import AnswerBackend, AnswerJob, run_answer_job
from kovqa_core.answer.question_rows import QuestionRow
from kovqa_core.data.example import Answer
from kovqa_core.errors import SettingsError
from kovqa_core.evaluate.evaluation import evaluate_file
from kovqa_core.evaluate.predictions_file import read_predictions
from kovqa_core.evaluate.report import write_report
from kovqa_core.progress import OnProgress

from tests.cli.test_predict import lines

SCORES = {"1": 0.9, "2": 0.3, "3": 0.3, "4": float("nan"), "5": 0.2}


@pytest.fixture
def job(tmp_path: Path) -> AnswerJob:
    """Five questions; the third has no choice that means "unknown"."""
    rows = [
        {"id": id, "image": "x.png", "question": "누구?", "choices": ["갑", "을" if id == "3" else "모름"]}
        for id in SCORES
    ]
    (tmp_path / "x.png").touch()
    table = tmp_path / "문제.jsonl"
    table.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return AnswerJob(table, tmp_path / "답.jsonl", unknown_below=0.5)


def answered(job: AnswerJob, *, fails: bool = False) -> AnswerBackend:
    def answer_rows(
        job: AnswerJob, rows: Sequence[QuestionRow], on_progress: OnProgress
    ) -> Iterator[tuple[QuestionRow, Answer]]:
        assert not fails, "asked again"
        for row in rows:
            text = "모름" if row.example.id == "5" else "갑"
            yield row, Answer(text, SCORES[row.example.id], ((text, 0.5), ("을", 0.1)))

    return AnswerBackend("m", {"model": "m"}, answer_rows)


@pytest.mark.parametrize("name", ["답.jsonl", "답.csv"])
def test_unsure_answers_become_unknown_and_come_back(job: AnswerJob, name: str, tmp_path: Path) -> None:
    job = replace(job, output=tmp_path / name)
    table = run_answer_job(job, answered(job))
    assert (table.abstained, table.without_unknown) == (1, 1)
    found = read_predictions(job.output)
    assert found.texts == {"1": "갑", "2": "모름", "3": "갑", "4": "갑", "5": "모름"}
    assert found.abstained_from == {"2": "갑"} and found.confidence["2"] == 0.3
    if name == "답.jsonl":
        assert lines(job.output)[1] == {
            "id": "2", "answer": "모름", "score": 0.3, "abstained_from": "갑", "likeliest": [["갑", 0.5], ["을", 0.1]],
            "choices": ["갑", "모름"],
        }  # fmt: skip
    before = job.output.read_bytes()
    for below, texts in (
        (0.1, "갑갑갑갑모름"),
        (1.0, "모름모름갑갑모름"),
        (None, "갑갑갑갑모름"),
        (0.5, "갑모름갑갑모름"),
    ):
        run_answer_job(replace(job, unknown_below=below), answered(job, fails=True))
        assert "".join(read_predictions(job.output).texts.values()) == texts
    assert job.output.read_bytes() == before


def test_evaluation_says_where_to_abstain(job: AnswerJob, tmp_path: Path) -> None:
    """Chosen by what the model answered itself, whatever the file abstained from."""
    truths = {"1": "갑", "2": "모름", "3": "갑", "4": "갑", "5": "모름"}
    index = tmp_path / "index.jsonl"
    index.write_text(
        "".join(
            json.dumps({**row, "kind": "", "answers": {truths[row["id"]]: 1.0}}
                       | ({"unknown": "모름"} if row["id"] != "3" else {}), ensure_ascii=False) + "\n"
            for row in map(json.loads, job.table.read_text("utf-8").splitlines())
        ),
        "utf-8",
    )  # fmt: skip
    for below in (None, 1.0):
        run_answer_job(replace(job, unknown_below=below), answered(job))
        found = evaluate_file(job.output, index).abstention
        assert found is not None and found.best is not None
        assert (found.given.ambiguous, found.given.clear) == (2, 2)
        assert found.best.below == 0.6 and found.best.balanced == 1.0
        assert found.given.balanced == 0.75  # one ambiguous row wrong; or both right, and one clear row wrong
    page = tmp_path / "r.html"
    write_report(evaluate_file(job.output, index), page, tmp_path, 3)
    text = page.read_text("utf-8")
    assert "Balanced accuracy" in text and "the best is 0.6" in text and 'data-value="0.6">0.6</th>' in text


def test_rows_without_an_unknown_choice_are_said(job: AnswerJob) -> None:
    job.table.write_text('{"id": "1", "image": "x.png", "question": "?", "choices": ["갑", "을"]}', "utf-8")
    with pytest.raises(SettingsError, match=r"no row of .* has a choice that means 'unknown'"):
        run_answer_job(job, answered(job))
    assert not job.output.exists()

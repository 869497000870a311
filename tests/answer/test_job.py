"""The one answering job, with a back end that is ten lines: what is answered stays, nothing is mixed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kovqa_core.answer import local
from kovqa_core.answer.fingerprint_differences import name_differences
from kovqa_core.answer.job import (
    AnswerBackend,
    AnswerJob,
    AnswerOptions,
    check_missing_images,
    run_answer_job,
)
from kovqa_core.answer.model_fingerprint import model_fingerprint
from kovqa_core.answer.partial_file import RowFault, append_answers, rank_file_path
from kovqa_core.answer.question_rows import QuestionRow
from kovqa_core.data.example import Answer
from kovqa_core.errors import DataError, SettingsError, Stopped
from kovqa_core.evaluate.ensemble import vote_on_files
from kovqa_core.progress import OnProgress, Progress
from safetensors.numpy import save_file

from tests.cli.test_predict import lines

ROWS = 5


@pytest.fixture
def job(tmp_path: Path) -> AnswerJob:
    """Five questions, with a column of their own."""
    rows = [{"id": f"Q{n}", "image": "x.png", "question": f"{n}?", "메모": n} for n in range(ROWS)]
    (tmp_path / "x.png").touch()  # nobody opens it here
    table = tmp_path / "질문.jsonl"
    table.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return AnswerJob(table, tmp_path / "out" / "답.jsonl")


def backend(*, fails_after: int = ROWS, model: str = "m", answered: list[str] | None = None) -> AnswerBackend:
    """Answers each question with itself, the last one first; fails after so many."""

    def answer_rows(
        job: AnswerJob, rows: Sequence[QuestionRow], on_progress: OnProgress
    ) -> Iterator[tuple[QuestionRow, Answer]]:
        for number, row in enumerate(reversed(rows)):
            if number == fails_after:
                raise DataError("no more")
            if answered is not None:
                answered.append(row.example.id)
            yield row, Answer(row.example.question, 0.5)

    return AnswerBackend(model, {"model": model}, answer_rows)


def test_the_file_has_the_tables_order_and_columns(job: AnswerJob) -> None:
    progress: list[Progress] = []
    table = run_answer_job(job, backend(), progress.append)
    assert (table.path, table.rows, table.model) == (job.output, ROWS, "m")
    assert lines(job.output) == [
        {"id": f"Q{n}", "answer": f"{n}?", "score": 0.5, "메모": n} for n in range(ROWS)
    ]
    assert [(p.done, p.total) for p in progress] == [(n + 1, ROWS) for n in range(ROWS)]
    assert {path.name for path in job.output.parent.iterdir()} == {
        job.output.name,
        f".{job.output.name}.json",
    }


def test_what_is_answered_is_not_asked_again(job: AnswerJob) -> None:
    with pytest.raises(DataError):
        run_answer_job(job, backend(fails_after=2))
    with job.partial_file.open("ab") as stream:
        stream.write('{"id": "Q0", "answer": "찢'.encode()[:-1])
    answered: list[str] = []
    progress: list[Progress] = []
    run_answer_job(job, backend(answered=answered), progress.append)
    assert answered == ["Q2", "Q1", "Q0"]
    assert progress[0].done == 3
    assert [row["id"] for row in lines(job.output)] == [f"Q{n}" for n in range(ROWS)]


@pytest.mark.parametrize("name", [".", "/", "가" * 84 + ".jsonl"])
def test_an_output_that_cannot_be_is_named(job: AnswerJob, name: str) -> None:
    with pytest.raises(SettingsError, match=r"unknown format|cannot write"):
        run_answer_job(replace(job, output=Path(name)), backend())


def test_no_output_is_written_over_what_it_is_made_from(job: AnswerJob, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for path in (model / "kovqa.json", model / "extra.jsonl", tmp_path / "x.png", tmp_path / "index.json"):
        path.write_text("{}")
    (tmp_path / "link").symlink_to(job.table)
    (tmp_path / "hard").hardlink_to(job.table)
    part = tmp_path / "b.jsonl.part"
    job.table.rename(part)
    job.table.symlink_to(part)  # an input that the output's unfinished lines would be written into
    outputs = [job.table, part, tmp_path / "hard", tmp_path / "x.png", tmp_path / "b.jsonl"]
    outputs += [model / "kovqa.json", model / "extra.jsonl", tmp_path / "index.json"]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for output in outputs:
        asked = replace(job, output=output, force=True, images=tmp_path)
        with pytest.raises(SettingsError, match="would be overwritten"):
            run_answer_job(asked, replace(backend(), model=model))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    # Answers may lie beside a model, and be replaced there.
    beside = replace(job, output=model / "out.jsonl", force=True, images=tmp_path)
    for name in ("a", "b"):
        run_answer_job(beside, replace(backend(model=name), model=model))


def test_answers_of_another_model_are_not_mixed(job: AnswerJob) -> None:
    with pytest.raises(DataError):
        run_answer_job(job, backend(fails_after=2))
    before = job.partial_file.read_bytes()
    with pytest.raises(SettingsError, match=r"of another model \(m, not other\)\n"):
        run_answer_job(job, backend(model="other"))
    assert job.partial_file.read_bytes() == before


def test_a_model_is_known_by_its_bytes(tmp_path: Path) -> None:
    """A folder that was renamed or copied goes on; of other weights, also of a large file, nothing does."""
    folder = tmp_path / "r1" / "step-000004"
    (folder / "trainer").mkdir(parents=True)
    (folder / "kovqa.json").write_text("{}")
    tensors = {f"w{n}": np.full(300_000, n, np.float32) for n in range(3)}
    save_file(tensors, folder / "model.safetensors")
    options = AnswerOptions()
    before = model_fingerprint(folder, options)
    copied = shutil.copytree(folder, tmp_path / "copied")
    (copied / "trainer" / "state.json").write_text("{}")
    (copied / "README.md").write_text("mine")
    assert name_differences(before, model_fingerprint(copied, options)) == []
    moved = folder.parent.rename(tmp_path / "r1moved") / folder.name
    now = model_fingerprint(moved, options)
    assert name_differences(before, now) == []
    tensors["w1"][-1] = 9
    save_file(tensors, copied / "model.safetensors")
    said = f"of another model ({folder}, not {copied})"
    assert name_differences(before, model_fingerprint(copied, options)) == [said]
    (moved / "answers.txt").write_text("예")  # the same numbers, with other classes
    said = f"of {moved} as it was before its files changed"
    assert name_differences(now, model_fingerprint(moved, options)) == [said]


def test_differences_of_answers_are_named_one_by_one(tmp_path: Path) -> None:
    now = {
        "model": "/r",
        "weights": "w",
        "kovqa.json": "k",
        "beams": None,
        "decoding": {},
        "table": "t",
        "kinds": ["a"],
    }
    earlier = {key: value for key, value in now.items() if key != "weights"}  # as versions before wrote it
    assert name_differences(earlier, now) == []
    assert name_differences({**earlier, "model": "/q"}, now) == ["of another model (/q, not /r)"]
    assert name_differences({**now, "beams": 3}, now) == ["decoded in another way"]
    several = ["with another number of the likeliest answers (1, not 5; see --top-k)"]
    assert name_differences(now, {**now, "top_k": 5}) == several
    assert name_differences({**now, "decoding": {"temperature": 1}}, now) == ["decoded in another way"]
    assert name_differences({**now, "kinds": ["b"], "table": "u"}, now) == [
        "to another table",
        "for other kinds of questions",
    ]
    served = {"served": "m", "instruction": "i", "max_tokens": 9}
    assert name_differences(served, {**served, "served": "n"}) == ["of another model (m, not n)"]
    assert name_differences(served, {**served, "max_tokens": 8}) == ["decoded in another way"]


def test_finished_answers_are_replaced_by_their_own_kind_only(job: AnswerJob, tmp_path: Path) -> None:
    """Another model, other questions, a file of an earlier version or edited by hand: only with force."""
    run_answer_job(job, backend())
    run_answer_job(job, backend())
    before = job.output.read_bytes()
    fewer = replace(job, table=tmp_path / "fewer.jsonl")
    fewer.table.write_text("".join(job.table.read_text("utf-8").splitlines(keepends=True)[:2]), "utf-8")
    for other_job, answers, said in (
        (job, backend(model="other"), r"answers of another model \(m, not other\)\n"),
        (fewer, backend(), "answers to another table\n"),
    ):
        with pytest.raises(SettingsError, match=said) as caught:
            run_answer_job(other_job, answers)
        assert "--force" in caught.value.hint
        assert job.output.read_bytes() == before
    with pytest.raises(SettingsError, match="holds the answers of a model"):
        vote_on_files([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], job.output)
    assert run_answer_job(replace(fewer, force=True), backend()).rows == 2
    job.output.write_text('{"id": "mine", "answer": "손으로"}\n', "utf-8")
    with pytest.raises(SettingsError, match="what wrote it is not known"):
        run_answer_job(fewer, backend())
    assert "손으로" in job.output.read_text("utf-8")
    with pytest.raises(DataError):  # forced once, it goes on without
        run_answer_job(replace(job, force=True), backend(fails_after=2))
    assert run_answer_job(job, backend()).rows == ROWS


def test_force_begins_unfinished_answers_anew(job: AnswerJob) -> None:
    with pytest.raises(DataError):
        run_answer_job(job, backend(fails_after=2))
    answered: list[str] = []
    run_answer_job(replace(job, force=True), backend(model="other", answered=answered))
    assert len(answered) == ROWS


def test_processes_leave_their_lines_in_files_of_their_own(job: AnswerJob) -> None:
    """A back end that yields nothing: its lines are gathered; too few of them mean that it was stopped."""

    def leave_lines(numbers: Sequence[int], rank: int) -> AnswerBackend:
        def answer_rows(
            job: AnswerJob, rows: Sequence[QuestionRow], on_progress: OnProgress
        ) -> Iterator[tuple[QuestionRow, Answer]]:
            path = rank_file_path(job.partial_file, rank)
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(json.dumps({"id": f"Q{n}", "answer": ""}) + "\n" for n in numbers))
            yield from ()

        return AnswerBackend("m", {"model": "m"}, answer_rows)

    with pytest.raises(Stopped, match="3 of 5 rows are answered"):
        run_answer_job(job, leave_lines([4, 0, 2], 1))
    assert run_answer_job(job, leave_lines([3, 1], 0)).rows == ROWS
    assert [row["id"] for row in lines(job.output)] == [f"Q{n}" for n in range(ROWS)]


def with_faults(faults: set[str], answered: list[str]) -> AnswerBackend:
    """A back end that cannot read the images of some rows."""

    def answer_rows(
        job: AnswerJob, rows: Sequence[QuestionRow], on_progress: OnProgress
    ) -> Iterator[tuple[QuestionRow, Answer | RowFault]]:
        for row in rows:
            answered.append(row.example.id)
            id = row.example.id
            yield row, RowFault(f"id {id}: image x.png cannot be read") if id in faults else Answer("예", 0.5)

    return AnswerBackend("m", {"model": "m"}, answer_rows)


def many(job: AnswerJob, rows: int) -> AnswerJob:
    text = "".join(json.dumps({"id": f"Q{n}", "image": "x.png", "question": "?"}) + "\n" for n in range(rows))
    job.table.write_text(text, "utf-8")
    return job


def test_a_row_that_cannot_be_read_is_left_out_and_counted(job: AnswerJob) -> None:
    answered: list[str] = []
    table = run_answer_job(many(job, 20), with_faults({"Q3", "Q17"}, answered))  # a tenth, not more
    assert table.left_out == {n: f"id {n}: image x.png cannot be read" for n in ("Q3", "Q17")}
    assert table.rows == 18
    assert [row["id"] for row in lines(job.output)] == [f"Q{n}" for n in range(20) if n not in (3, 17)]


@pytest.mark.parametrize("text", ["", "모름"])
def test_a_row_that_cannot_be_read_has_the_text_that_was_asked_for(job: AnswerJob, text: str) -> None:
    filled = replace(many(job, 20), fill_unreadable=text)
    table = run_answer_job(filled, with_faults({"Q3", "Q17"}, []))
    assert (table.rows, table.filled, list(table.left_out)) == (20, True, ["Q3", "Q17"])
    answers = {row["id"]: (row["answer"], row["score"]) for row in lines(job.output)}
    assert list(answers) == [f"Q{n}" for n in range(20)]
    assert answers["Q3"] == answers["Q17"] == (text, None)
    assert answers["Q4"] == ("예", 0.5)


def test_filling_lets_no_more_pass_than_leaving_out(job: AnswerJob) -> None:
    filled, faults = replace(many(job, 20), fill_unreadable=""), {"Q3", "Q4", "Q5"}
    with pytest.raises(DataError, match=r"3 of 20 rows"):
        run_answer_job(filled, with_faults(faults, []))
    assert run_answer_job(replace(filled, allow_left_out=True), with_faults(faults, [])).rows == 20


def test_filled_rows_are_tried_again_after_a_kill(job: AnswerJob, monkeypatch: pytest.MonkeyPatch) -> None:
    filled = replace(many(job, 20), fill_unreadable="")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("kovqa_core.answer.job.finish_partial_file", killed)
        with pytest.raises(KeyboardInterrupt):
            run_answer_job(filled, with_faults({"Q3"}, []))
    answered: list[str] = []
    assert run_answer_job(filled, with_faults({"Q4", "Q3"}, answered)).kept == 19
    assert answered == ["Q3"]
    # Also once the file is finished: a text for want of an answer is none.
    again = run_answer_job(filled, with_faults(set(), answered))
    assert (again.kept, again.dropped, again.left_out) == (19, 0, {})
    assert answered == ["Q3", "Q3"]
    assert {row["answer"] for row in lines(job.output)} == {"예"}


def test_more_than_a_tenth_is_an_error_at_once(job: AnswerJob) -> None:
    answered: list[str] = []
    bad = {f"Q{n}" for n in range(3, 20)}
    with pytest.raises(
        DataError, match=r"at least 3 of 20 rows \(15.0%\) are left out: id Q3: image"
    ) as caught:
        run_answer_job(many(job, 20), with_faults(bad, answered))
    assert "--allow-left-out" in caught.value.hint
    assert answered[-1] == "Q5"  # the third: not after all of them
    answered.clear()
    # Whoever has mended an image, or lets them pass, has the answers so far; the others are tried again.
    table = run_answer_job(replace(job, allow_left_out=True), with_faults(bad - {"Q4"}, answered))
    assert answered == [f"Q{n}" for n in range(3, 20)]
    assert [row["id"] for row in lines(table.path)] == ["Q0", "Q1", "Q2", "Q4"]
    assert len(table.left_out) == 16


def test_images_that_are_not_there_are_counted_before_a_model_is_loaded(job: AnswerJob) -> None:
    """The whole number, not as far as it came; of the table's rows, though some are answered already."""
    (job.table.parent / "x.png").rename(job.table.parent / "y.png")
    names = ["x.png" if n % 2 else "y.png" for n in range(20)]
    job.table.write_text(
        "".join(
            json.dumps({"id": f"Q{n}", "image": name, "question": "?"}) + "\n" for n, name in enumerate(names)
        ),
        "utf-8",
    )
    rows = job.read_rows()
    with pytest.raises(
        DataError, match=r"^10 of 20 rows \(50.0%\) are left out: id Q1: image .*x.png is missing"
    ):
        check_missing_images(job, rows, 20)
    with pytest.raises(DataError, match=r"^3 of 20 rows") as caught:
        check_missing_images(job, rows[14:], 20)
    assert caught.value.hint == "mend them, or go on without them: add --allow-left-out"
    check_missing_images(job, rows[16:], 20)  # a tenth
    check_missing_images(replace(job, allow_left_out=True), rows, 20)
    missing_model = replace(job, options=AnswerOptions(model=job.table.parent / "no model"))
    with pytest.raises(DataError, match=r"^10 of 20 rows"):
        run_answer_job(missing_model, AnswerBackend("no model", {}, local._answer_rows))


def test_processes_leave_their_faults_in_files_of_their_own(job: AnswerJob) -> None:
    def answer_rows(
        job: AnswerJob, rows: Sequence[QuestionRow], on_progress: OnProgress
    ) -> Iterator[tuple[QuestionRow, Answer | RowFault]]:
        path = rank_file_path(job.partial_file, 0)
        path.parent.mkdir(exist_ok=True)
        fault = RowFault("gone")
        for _ in append_answers(
            path,
            ((r, fault if r is rows[0] else Answer("", 0)) for r in rows),
            "vqa",
            set(),
            job.image_folder,
        ):
            pass
        yield from ()

    backend = AnswerBackend("m", {"model": "m"}, answer_rows)
    assert run_answer_job(many(job, 10), backend).left_out == {"Q0": "gone"}
    job.output.unlink()
    with pytest.raises(DataError, match="1 of 5 rows"):
        run_answer_job(many(job, 5), backend)

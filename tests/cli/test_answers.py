"""Decoding of kovqa predict: from a list, by letter, sampled; and kovqa vote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.answer.job import AnswerJob, AnswerOptions, run_answer_job
from kovqa_core.answer.local import local_backend
from kovqa_core.answer.question_rows import read_question_table
from kovqa_core.data.decoding import DecodingOptions, decoding_from_options, parse_choices
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.index.reader import open_index
from kovqa_core.models import family
from kovqa_core.models.checkpoint_info import CheckpointInfo
from kovqa_core.progress import Progress

from tests.conftest import Kovqa, Small
from tests.models.vlm.test_vlm import tiny_vlm_recipe

LIST = ["빨간색", "빨간 원", "파란색", "두 개", "세 개", "빨간"]
Lines = list[dict[str, object]]


@pytest.fixture(scope="module")
def model(small: Small, tiny_vlm: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A step folder of a vision language model as it is."""
    made, processor, _ = family.create_model(
        tiny_vlm_recipe(small, tiny_vlm("qwen3_vl"), "model.train=none"), []
    )
    folder = tmp_path_factory.mktemp("그대로")
    family.write_model_folder(made, processor, folder, CheckpointInfo("vlm", "vqa"))
    return folder


def lines(path: Path) -> Lines:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: Lines) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_answers_come_from_the_list(kovqa: Kovqa, small: Small, model: Path, tmp_path: Path) -> None:
    (tmp_path / "목록.txt").write_bytes("\r\n".join([*LIST, "", LIST[0], ""]).encode("cp949"))
    words = ["predict", "--model", model, "--input", small.index / "val.jsonl"]
    done = kovqa(*words, "--answers", "목록.txt", "-o", "p.jsonl")
    assert done.returncode == 0, done.stderr
    predictions = lines(tmp_path / "p.jsonl")
    assert len(predictions) == len(open_index(small.index).split("val"))
    assert {row["answer"] for row in predictions} <= set(LIST)
    image = next((small.root / "images").glob("*.png"))
    words = ["predict", "--model", model, "-i", image, "--question", "무슨 색인가요?", "-q"]
    listed = kovqa(*words, "--answers", small.index)
    assert listed.stdout.strip() in open_index(small.index).answers(), listed.stderr


def test_choices_are_answered_with_one_of_the_row(
    kovqa: Kovqa, small: Small, model: Path, tmp_path: Path
) -> None:
    index = open_index(small.index)
    offered = [["빨강", "파랑"], "셋|넷 | 다섯", '["예", "아니요"]']
    rows: Lines = [
        {"id": f"{n}", "image": example.image, "question": example.question, "choices": choices}
        for n, (example, choices) in enumerate(zip(index.split("val"), offered, strict=False))
    ]
    write(tmp_path / "t.jsonl", rows)
    words = ["predict", "--model", model, "--images", index.images, "--choices", "-o", "p.jsonl", "--input"]
    done = kovqa(*words, "t.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    for row, texts in zip(
        lines(tmp_path / "p.jsonl"), (["빨강", "파랑"], ["셋", "넷", "다섯"], ["예", "아니요"]), strict=True
    ):
        assert row["answer"] in texts
        assert 1 / len(texts) <= float(str(row["score"])) <= 1
    rows[2] |= {"choices": "A|모름|예", "unknown": "모름"}
    write(tmp_path / "t.jsonl", rows)
    ways = ["--choices-by", "text", "--calibrate", "--unknown-below", "1", "--top-k", "2", "--force"]
    done = kovqa(*words, "t.jsonl", *ways, "--json")
    assert done.returncode == 0, done.stderr
    assert {name: json.loads(done.stdout)[name] for name in ("abstained", "without_unknown")} == {
        "abstained": int("abstained_from" in lines(tmp_path / "p.jsonl")[2]), "without_unknown": 2
    }  # fmt: skip
    *others, last = lines(tmp_path / "p.jsonl")
    assert last["answer"] == "모름" and last.get("abstained_from", "예") in ("A", "예")
    assert all(len(row["likeliest"]) == 2 for row in [*others, last])  # type: ignore[arg-type]
    write(tmp_path / "t.jsonl", [*rows, {**rows[0], "id": "넷째", "choices": "하나"}])
    with pytest.raises(DataError, match=r"t\.jsonl:4, id 넷째: 1 choices: 하나"):
        read_question_table(tmp_path / "t.jsonl", choices=True)


def test_sampled_answers_do_not_know_batch_or_interruption(small: Small, model: Path, tmp_path: Path) -> None:
    sampled, table = DecodingOptions(temperature=1.5, seed=3), small.index / "val.jsonl"

    def answered(name: str, batch: int, decoding: DecodingOptions = sampled, stop: int = 99) -> Lines:
        def on_progress(progress: Progress) -> None:
            if progress.done >= stop:
                raise KeyboardInterrupt

        options = AnswerOptions(model, decoding=decoding)
        job = AnswerJob(table, tmp_path / name, options, batch=batch)
        run_answer_job(job, local_backend(options), on_progress)
        return lines(tmp_path / name)

    whole = answered("whole.jsonl", 9)
    with pytest.raises(KeyboardInterrupt):
        answered("parted.jsonl", 2, stop=4)
    assert len(lines(tmp_path / "parted.jsonl.part")) == 4
    for other in (
        DecodingOptions(temperature=1.5, seed=4),
        DecodingOptions(temperature=1.4, seed=3),
        DecodingOptions(),
    ):
        with pytest.raises(SettingsError, match="decoded in another way"):
            answered("parted.jsonl", 2, other)
    parted = answered("parted.jsonl", 3)
    assert [(row["id"], row["answer"]) for row in parted] == [(row["id"], row["answer"]) for row in whole]
    other = answered("other.jsonl", 9, DecodingOptions(temperature=1.5, seed=4))
    assert [row["answer"] for row in other] != [row["answer"] for row in whole]


def test_a_classifier_answers_in_its_own_way(
    kovqa: Kovqa, small: Small, trained: Path, tmp_path: Path
) -> None:
    image = next((small.root / "images").glob("*.png"))
    words = ["predict", "--model", trained, "-i", image, "--question", "무엇?"]
    done = kovqa(*words, "--temperature", "0.7", "--seed", "1")
    assert done.returncode == 2
    assert "family beit3, which answers in one way only" in done.stderr
    assert kovqa(*words, "--temperature", "0").returncode == 0


def test_contradictions_are_settings_errors(kovqa: Kovqa, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("예\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="--answers and --temperature exclude each other"):
        decoding_from_options(tmp_path / "a.txt", choices=False, temperature=0.7, seed=None)
    with pytest.raises(SettingsError, match="--seed is the seed of sampled answers"):
        decoding_from_options(None, choices=False, temperature=None, seed=3)
    (tmp_path / "a.txt").write_text("\n \n", encoding="utf-8")
    with pytest.raises(DataError, match="lists no answers"):
        decoding_from_options(tmp_path / "a.txt", choices=False, temperature=None, seed=None)
    for cell, text in (
        (None, "no choices"),
        (["예", "예"], "2 choices: 예, 예"),
        ("|", "2 choices"),
        (["x"] * 27, "27"),
    ):
        with pytest.raises(DataError, match=text):
            parse_choices(cell, "t.csv:2")
    with pytest.raises(SettingsError, match="--calibrate says how a row's choices are compared"):
        decoding_from_options(None, choices=False, temperature=None, seed=None, calibrate=True)
    with pytest.raises(SettingsError, match="unknown way to compare choices 'words'"):
        decoding_from_options(None, choices=True, temperature=None, seed=None, choices_by="words")
    done = kovqa("predict", "-i", "x.png", "--question", "무엇?", "--choices")
    assert done.returncode == 2
    assert "--choices is a column of a table" in done.stderr


# ------------------------------------------------------------------------------------ kovqa vote


def test_a_vote_is_a_predictions_file(kovqa: Kovqa, small: Small, tmp_path: Path) -> None:
    """Joined by id, whatever the order; evaluated like any other; torch is never loaded."""
    ids = [example.id for example in open_index(small.index).split("val")]
    answers = (["예", "둘", "빨강"], ["예", "셋", "파랑"], ["아니요", "셋", "빨강"])
    for name, texts in zip("abc", answers, strict=True):
        rows: Lines = [
            {"id": id, "answer": texts[n % 3], "score": 0.5, "메모": name} for n, id in enumerate(ids)
        ]
        write(tmp_path / f"{name}.jsonl", rows[::-1] if name == "b" else rows)
    files = ["a.jsonl", "b.jsonl", "c.jsonl"]
    (tmp_path / "torch.py").write_text("raise RuntimeError('loaded')")
    refused = kovqa("vote", *files, "-o", files[1])
    assert refused.returncode == 2
    assert "is an input" in refused.stderr
    done = kovqa("vote", *files, "-o", "v.jsonl", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "schema": 1, "path": "v.jsonl", "rows": len(ids), "votes": files, "unscored": [], "unusable_scores": {},
    }  # fmt: skip
    voted = lines(tmp_path / "v.jsonl")
    assert [row["id"] for row in voted] == ids
    assert [row["answer"] for row in voted[:3]] == ["예", "셋", "빨강"]
    assert {row["score"] for row in voted} == {round(1 / 3, 6)}
    assert {row["메모"] for row in voted} == {"a"}
    scored = kovqa("evaluate", "v.jsonl", "--index", small.index / "val.jsonl", "-q")
    assert scored.returncode == 0, scored.stderr


def test_predict_vote_goes_on_with_a_note(kovqa: Kovqa, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"id": "1", "answer": "예"}, {"id": "2", "answer": "둘"}])
    write(tmp_path / "b.jsonl", [{"id": "2", "answer": "셋"}, {"id": "1", "answer": "예"}])
    new = kovqa("vote", "a.jsonl", "b.jsonl", "-o", "vote.jsonl")
    old = kovqa("predict", "--vote", "a.jsonl", "--vote", "b.jsonl", "-o", "predict.jsonl")
    assert (new.returncode, old.returncode) == (0, 0), old.stderr
    assert (tmp_path / "predict.jsonl").read_bytes() == (tmp_path / "vote.jsonl").read_bytes()
    assert old.stdout == "predict.jsonl\n"
    note, written = old.stderr.splitlines()
    assert "now kovqa vote" in note
    assert new.stderr.splitlines() == [written]
    quiet = kovqa("predict", "--vote", "a.jsonl", "--vote", "b.jsonl", "-o", "q.jsonl", "-q")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    refused = kovqa("predict", "--vote", "a.jsonl", "--vote", "b.jsonl")
    assert refused.returncode == 2
    assert "--vote takes predictions files and --output" in refused.stderr


def test_votes_over_other_questions_are_named(kovqa: Kovqa, tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", [{"id": "1", "answer": "예"}, {"id": "2", "answer": "둘"}])
    for rows, text in (
        ([{"id": "1", "answer": "예"}], "b.jsonl: no prediction for 1 id: 2"),
        ([{"id": n, "answer": "예"} for n in "123"], "b.jsonl: not in a.jsonl: 1 id: 3"),
        ([{"id": n, "answer": "예"} for n in "121"], "b.jsonl: more than once: 1 id: 1"),
        ([{"id": n, "caption": "예"} for n in "12"], "b.jsonl holds captions"),
    ):
        write(tmp_path / "b.jsonl", list(rows))
        done = kovqa("vote", first.name, "b.jsonl", "-o", "v.jsonl")
        assert done.returncode == 3
        assert text in done.stderr
        assert not (tmp_path / "v.jsonl").exists()
    alone = kovqa("vote", "a.jsonl", "-o", "v.jsonl")
    assert alone.returncode == 2
    assert "two predictions files or more, not a.jsonl alone" in alone.stderr
    write(tmp_path / "b.jsonl", [{"id": "2", "answer": "셋"}, {"id": "1", "answer": "예", "score": 0.9}])
    assert kovqa("vote", "a.jsonl", "b.jsonl", "-o", "v.jsonl").returncode == 0
    assert [(row["answer"], row["score"]) for row in lines(tmp_path / "v.jsonl")] == [("예", 1), ("둘", 0.5)]

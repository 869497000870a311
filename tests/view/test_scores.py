"""What the database counts is what `kovqa evaluate` says, and what plain Python counts over the rows."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from kovqa_core.data.example import Example
from kovqa_core.errors import DataError
from kovqa_core.evaluate.evaluation import EvaluationResult, evaluate_file
from kovqa_core.index.reader import open_index
from kovqa_core.view import match
from kovqa_core.view.filters import RowFilter, parse_filter
from kovqa_core.view.inputs import ScoringRules, open_inputs
from kovqa_core.view.queries import ViewQueries, calibration_error
from kovqa_core.view.session import ViewSession

from tests.conftest import Small
from tests.evaluate.pages import captioned
from tests.view.conftest import HOSTILE

TEST = RowFilter(split="test")
SPLITS = ("train", "val", "test")


def queries(session: ViewSession) -> ViewQueries:
    assert session.queries is not None
    return session.queries


def evaluated(small: Small, path: Path, **options: object) -> EvaluationResult:
    return evaluate_file(path, small.index / "test.jsonl", **options)  # type: ignore[arg-type]


def opened(index: Path, *predictions: Path, rules: ScoringRules | None = None) -> ViewSession:
    """A session of its own; whoever asks closes it."""
    started = ViewSession(open_inputs(index, predictions, rules=rules), keep=False)
    started.start()
    try:
        started.wait(60)
    except BaseException:
        started.close()
        raise
    return started


def test_scores_are_those_of_evaluate(session: ViewSession, small: Small, answers: tuple[Path, Path]) -> None:
    results = [evaluated(small, path).scores for path in answers]
    summary = queries(session).summary(RowFilter())
    for model, scores in zip("ab", results, strict=True):
        assert summary[f"{model}_score"] == pytest.approx(scores.total.score, abs=1e-12)
        assert summary[f"{model}_rows"] == scores.total.rows
        assert summary[f"{model}_right"] == int((scores.each >= 0.5).sum())
    right = [scores.each >= 0.5 for scores in results]
    assert summary["both_right"] == int((right[0] & right[1]).sum())
    assert summary["only_a"] == int((right[0] & ~right[1]).sum()) > 0
    assert summary["neither"] == int((~right[0] & ~right[1]).sum()) > 0
    pairs = Counter({pair: n for pair, n in results[0].confusion.items() if pair[0] != pair[1]})
    found = {(row["true_answer"], row["given"]): row["rows"] for row in queries(session).confusion(TEST, "a")}
    assert found == dict(pairs)


def test_rules_of_evaluate_are_followed(small: Small, tmp_path: Path) -> None:
    examples = list(open_index(small.index).split("test"))
    rows = [{"id": e.id, "answer": f"{max(e.answers)}는".replace(" ", "")} for e in examples]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = {}
    for rule in (None, "korean-particles"):
        started = opened(small.index, path, rules=ScoringRules(rule))
        scores[rule] = queries(started).summary(TEST)["a_score"]
        started.close()
        assert scores[rule] == pytest.approx(evaluated(small, path, rule=rule).scores.total.score, abs=1e-12)
    assert scores["korean-particles"] > scores[None]


def test_annotations_are_scored_by_the_official_rule(tmp_path: Path) -> None:
    votes = [["예"] * 3 + ["아니요"] * 7, ["Two"] * 2 + ["2"] * 8, ["예"] * 10]
    examples = [
        Example(str(n), "a.png", "질문?", {texts[-1]: 1.0, texts[0]: 0.9}, annotations=texts)
        for n, texts in enumerate(votes)
    ]
    split, path = tmp_path / "mine.jsonl", tmp_path / "p.csv"
    split.write_text("".join(e.line() + "\n" for e in examples), encoding="utf-8")
    path.write_text("id,answer,score\n0,예,2\n1,two.,0.5\n2,예,\n", encoding="utf-8")
    result = evaluate_file(path, split)
    started = opened(split, path)
    rows = queries(started).rows(RowFilter(), 0)
    facts = json.loads(queries(started).facts())
    started.close()
    assert [row["a_score"] for row in rows] == result.scores.each.tolist()
    assert [row["a_confidence"] for row in rows] == [None, 0.5, None]
    assert facts["predictions"][0]["unusable_scores"] == 1


def test_both_ways_of_matching_agree(
    small: Small, answers: tuple[Path, Path], session: ViewSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = queries(session).rows(TEST, 0)
    monkeypatch.setattr(match, "_is_plain", lambda path: False)
    started = opened(small.index, *answers)
    others = queries(started).rows(TEST, 0)
    likeliest = queries(started).row(2, 0)["a_likeliest"]  # type: ignore[index]
    started.close()
    assert others == rows
    assert json.loads(likeliest) == [["하나", 0.75], ["둘", 0.25]]


def test_a_row_that_stands_twice(small: Small, answers: tuple[Path, Path], tmp_path: Path) -> None:
    split, given = tmp_path / "mine.jsonl", tmp_path / "p.jsonl"
    lines = (small.index / "test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:4]
    split.write_text("".join([*lines, lines[1]]), encoding="utf-8")
    said = answers[0].read_text(encoding="utf-8").splitlines(keepends=True)[:5]
    given.write_text("".join(said), encoding="utf-8")
    with pytest.raises(DataError, match="not in the index"):  # as many ids as rows, and one is foreign
        opened(split, given)
    given.write_text("".join(said[:4]), encoding="utf-8")
    started = opened(split, given)
    summary = queries(started).summary(RowFilter())
    started.close()
    assert (summary["rows"], summary["a_rows"]) == (5, 5)
    assert summary["a_score"] == pytest.approx(evaluate_file(given, split).scores.total.score)


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ('{"id": "x", "answer": "예"}\n', "evaluate.no-prediction"),
        ('{"id": "x", "answer": "예"}\n{"id": "x", "answer": "예"}\n', "evaluate.id-repeated"),
        ('{"id": "x", "answer": ["예", "아니요"]}\n', "evaluate.not-a-prediction"),
        ('{"id": "x", "answer": "예"\n', "data.json-broken"),
        ("", "data.empty-table"),
    ],
)
def test_predictions_that_do_not_fit_are_refused_as_by_evaluate(
    small: Small, tmp_path: Path, lines: str, key: str
) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(lines)
    with pytest.raises(DataError) as by_view:
        opened(small.index / "test.jsonl", path)
    with pytest.raises(DataError) as by_evaluate:
        evaluated(small, path)
    assert by_view.value.message == by_evaluate.value.message
    assert by_view.value.hint == by_evaluate.value.hint


def test_two_files_that_answer_different_splits(
    small: Small, answers: tuple[Path, Path], tmp_path: Path
) -> None:
    val = list(open_index(small.index).split("val"))
    path = tmp_path / "val.jsonl"
    path.write_text("".join(json.dumps({"id": e.id, "answer": "예"}) + "\n" for e in val))
    with pytest.raises(DataError, match=r"answers test.*answers val"):
        opened(small.index, answers[0], path)


def test_captions(small: Small, tmp_path: Path) -> None:
    index, said = captioned(small, tmp_path)
    started = opened(index, said)
    summary = queries(started).summary(RowFilter())
    found = queries(started).rows(RowFilter(search="도형이 3개"), 0)
    facts = json.loads(queries(started).facts())["predictions"][0]
    started.close()
    scores = evaluate_file(said, index).scores
    assert (facts["metric"], facts["score"]) == ("CIDEr", pytest.approx(scores.main.score))
    assert summary["a_score"] == pytest.approx(scores.main.each.mean())
    assert summary["a_right"] == (summary["rows"] + 1) // 2
    assert [row["line"] for row in found] == [1]


def test_a_line_that_is_none_of_an_index_is_named(small: Small, tmp_path: Path) -> None:
    lines = (small.index / "test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(lines[:4]) + '{"id": \n' + "".join(lines[4:]), encoding="utf-8")
    with pytest.raises(DataError, match=r"mine\.jsonl:5: not an index line"):
        opened(path)


def test_an_image_that_is_not_utf_8_and_half_a_letter(tmp_path: Path) -> None:
    rows = [
        Example("1", "\udcb0\udced.png", "무엇?", {"가": 1.0}),
        Example("2", "b.png", "둘", {"\ud800": 1.0}),
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(json.loads(e.line())) + "\n" for e in rows), encoding="utf-8")
    started = opened(path)
    found = queries(started).answers(RowFilter())
    started.close()
    assert Counter(row["answer"] for row in found) == Counter(["가", "?"])


# --------------------------------------------------------------------------------------- filters


def test_filters_against_plain_python(session: ViewSession, small: Small, answers: tuple[Path, Path]) -> None:
    examples = list(open_index(small.index).split("test"))
    given = [json.loads(line) for line in answers[0].read_text(encoding="utf-8").splitlines()]
    right = (evaluated(small, answers[0]).scores.each >= 0.5).tolist()
    word = examples[5].question[:4]
    cases = {
        "q=" + word: [n for n, e in enumerate(examples) if word in e.question],
        "a=wrong": [n for n, hit in enumerate(right) if not hit],
        "low=0.5&high=0.8": [n for n, row in enumerate(given) if 0.5 <= row["score"] <= 0.8],
        "type=" + examples[3].question_type: [
            n for n, e in enumerate(examples) if e.question_type == examples[3].question_type
        ],
        "answer=" + max(examples[4].answers): [
            n for n, e in enumerate(examples) if max(e.answers) == max(examples[4].answers)
        ],
        "given=틀린 답": [n for n, row in enumerate(given) if row["answer"] == "틀린 답"],
    }
    for text, lines in cases.items():
        chosen = parse_filter(dict(part.split("=", 1) for part in ("split=test&" + text).split("&")), SPLITS)
        found = [row["line"] for row in queries(session).rows(chosen, 0)]
        assert found == lines[:48] and lines, text
        assert queries(session).summary(chosen)["rows"] == len(lines), text
    by_confidence = queries(session).rows(RowFilter(split="test", sort="sure"), 0)
    assert [row["line"] for row in by_confidence] == list(range(len(examples)))[::-1][:48]


def test_decomposed_hangul_and_capitals_are_found(session: ViewSession) -> None:
    chosen = parse_filter({"q": unicodedata.normalize("NFD", "도형"), "split": "test"}, SPLITS)
    assert queries(session).summary(chosen)["rows"] > 0
    assert queries(session).summary(RowFilter(search="drop table ROWS"))["rows"] == 1


def test_text_of_users_is_never_sql(session: ViewSession) -> None:
    rows = queries(session).summary(RowFilter())["rows"]
    for name in ("search", "question_type", "answer", "given", "given_b", "question"):
        for text in (HOSTILE, "' OR 1=1 --", "{where}", "%", "_", "\\", '"'):
            found = queries(session).summary(RowFilter(**{name: text}))["rows"]  # type: ignore[arg-type]
            assert found == ((name, text) == ("search", HOSTILE)), (name, text)
    assert queries(session).summary(RowFilter())["rows"] == rows


def test_training_frequency_and_calibration(
    session: ViewSession, small: Small, answers: tuple[Path, Path]
) -> None:
    index = open_index(small.index)
    trained = Counter(max(e.answers) for e in index.split("train"))
    examples = list(index.split("test"))
    never = sum(trained[max(e.answers)] == 0 for e in examples)
    once = sum(1 <= trained[max(e.answers)] < 5 for e in examples)
    found = {row["low"]: row["rows"] for row in queries(session).frequency(TEST)}
    assert (found.get(0, 0), found.get(1, 0)) == (never, once)
    assert sum(found.values()) == len(examples)
    each = evaluated(small, answers[0]).scores.each
    confidence = [n / len(examples) for n in range(len(examples))]
    expected = 0.0
    for low in range(10):
        rows = [n for n, value in enumerate(confidence) if min(int(value * 10), 9) == low]
        if rows:
            gap = sum(each[n] for n in rows) / len(rows) - sum(confidence[n] for n in rows) / len(rows)
            expected += len(rows) * abs(gap) / len(examples)
    assert calibration_error(queries(session).calibration(TEST, "a")) == pytest.approx(expected)


def test_questions_and_answers(session: ViewSession, small: Small) -> None:
    examples = list(open_index(small.index).split("test"))
    times = Counter(e.question for e in examples)
    found = queries(session).questions(TEST)
    assert {row["question"]: row["rows"] for row in found} == dict(times)
    (question, _), *_ = times.most_common(1)
    answers = {max(e.answers) for e in examples if e.question == question}
    assert next(row["answers"] for row in found if row["question"] == question) == len(answers)
    true_rows = {
        row["answer"]: row["true_rows"] for row in queries(session).answers(TEST) if row["true_rows"]
    }
    assert true_rows == dict(Counter(max(e.answers) for e in examples))


def test_an_export_is_a_table_to_predict(session: ViewSession, small: Small, tmp_path: Path) -> None:
    from kovqa_core.answer.question_rows import read_question_table
    from kovqa_core.view.export import export_rows

    chosen = RowFilter(split="test", a="wrong")
    wrong = [row["line"] for row in queries(session).rows(chosen, 0)]
    ids = [open_index(small.index).split("test")[line].id for line in wrong]
    for form in ("csv", "jsonl"):
        path = tmp_path / f"table.{form}"
        path.write_bytes(b"".join(export_rows(session, queries(session), chosen, form)))
        rows = read_question_table(path, images=session.inputs.images)
        assert [row.example.id for row in rows] == ids
        assert not any(row.fault for row in rows)
    assert (tmp_path / "table.csv").read_bytes().startswith(b"\xef\xbb\xbfid,image,question,answer")
    with (tmp_path / "table.csv").open(encoding="utf-8-sig", newline="") as stream:
        first = next(csv.DictReader(stream))
    assert (first["answer_a"], first["split"]) == (HOSTILE, "test")

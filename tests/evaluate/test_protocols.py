"""Protocols: equal to the published programs of VQAv2 and VizWiz on odd rows; kovqa's own rule for other numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from kovqa_core.data.answers import annotator_score, soft_labels
from kovqa_core.data.example import Example
from kovqa_core.errors import DataError, KovqaError, SettingsError
from kovqa_core.evaluate.answer_scores import AnswerScores, score_answers
from kovqa_core.evaluate.evaluation import evaluate_file
from kovqa_core.evaluate.metrics import mean_soft_score
from kovqa_core.evaluate.protocols import choose_row_scorer, official_score
from kovqa_core.index.build import build_index
from kovqa_core.index.reader import open_index
from typer.testing import CliRunner

from kovqa_cli.main import app
from tests.evaluate.official_rows import TEN_ROWS, OfficialRow, generate_rows, hash_rows
from tests.index.raw_data import touch, write

RECORD = json.loads((Path(__file__).parents[1] / "fixtures" / "official" / "scores.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def rows() -> list[OfficialRow]:
    rows = generate_rows()
    assert hash_rows(rows) == RECORD["rows_sha256"], "other rows than those whose scores are recorded"
    return rows


def example(*annotations: str, question_type: str = "", id: str = "1") -> Example:
    """As an index has it."""
    kept = annotations if len(annotations) > 1 else ()
    return Example(id, "a.png", "?", soft_labels(annotations), question_type, annotations=kept)


def score(answer: str, *annotations: str, **options: Any) -> AnswerScores:
    return score_answers([(example(*annotations), answer)], **options)


# --------------------------------------------------------------------------- the published programs


@pytest.mark.parametrize(
    ("program", "protocol"), [("vqav2", "official"), ("vqav2", "auto"), ("vizwiz", "vizwiz")]
)
def test_ten_annotators_score_as_in_the_published_program(
    program: str, protocol: str, rows: list[OfficialRow]
) -> None:
    """Row by row, by answer type, by question type, and in all, as it rounds."""
    recorded = RECORD[program]
    expected = [recorded["score_of_character"][c] for c in "".join(recorded["scores_of_ten"])]
    types: dict[str, tuple[str, ...]] = {
        "perAnswerType": tuple(row.answer_type for row in rows),
        "perQuestionType": tuple(row.question_type for row in rows),
    }
    for name in types.keys() & recorded["accuracy"].keys():
        pairs = [
            (Example(str(row.number), "a", "?", {"x": 1.0}, type, annotations=row.annotations), row.answer)
            for row, type in zip(rows[:TEN_ROWS], types[name], strict=False)
        ]
        found = score_answers(pairs, protocol=protocol)
        each = [round(100 * one, 2) for one in found.each.tolist()]
        assert len(each) == 10_000
        assert not [row for row, a, b in zip(rows, each, expected, strict=False) if a != b]
        by_type = {one.name: round(100 * one.score, 2) for one in found.question_types}
        assert by_type == recorded["accuracy"][name]
        assert round(100 * found.total.score, 2) == recorded["accuracy"]["overall"]
        assert found.protocols == {"vizwiz" if program == "vizwiz" else "official": 10_000}


@pytest.mark.parametrize(("program", "protocol"), [("vqav2", "official"), ("vizwiz", "vizwiz")])
def test_other_numbers_score_as_in_the_published_program_where_it_is_asked_for(
    program: str, protocol: str, rows: list[OfficialRow]
) -> None:
    score_row = choose_row_scorer(protocol)
    found = [
        score_row(Example("1", "a", "?", {"x": 1.0}, annotations=row.annotations), row.answer).score
        for row in rows[TEN_ROWS:]
    ]
    assert {len(row.annotations) for row in rows[TEN_ROWS:]} == {*range(1, 15)} - {10}
    assert [round(100 * one, 2) for one in found] == json.loads(RECORD[program]["scores_of_others"])


@pytest.mark.parametrize(
    ("answer", "annotations", "expected"),
    [
        # Unanimous annotations are not normalised, nor is the answer to them.
        ("2", ["two"] * 10, 0), ("two", ["two"] * 10, 1), ("Two", ["two"] * 10, 0), ("a dog", [" a dog\n"] * 10, 1),
        ("2", ["two"] * 9 + ["two "], 0), ("2", ["two"] * 9 + ["2"], 1),
        # What the normal form empties scores all the same.
        ("the", ["a"] * 3 + ["an"] * 7, 1), ("", ["a", "the", *["dog"] * 8], 0.6), ("a", ["dog"] * 9 + ["An"], 0.3),
        # Number words and articles as whole words only; commas between digits; periods.
        ("10", ["ten"] * 2 + ["often"] * 8, 0.6), ("1000", ["1,000"] * 3 + ["x"] * 7, 0.9),
        ("3.5", ["3.5."] + ["x"] * 9, 0.3),
        ("n/a", ["n a"] + ["x"] * 9, 0.3), ("don't", ["dont"] + ["x"] * 9, 0.3), ("don’t", ["dont"] + ["x"] * 9, 0),
        ("두 개", ["두 개."] * 2 + ["2개"] * 8, 0.6),
    ],
)  # fmt: skip
def test_oddities_of_the_official_rule(answer: str, annotations: list[str], expected: float) -> None:
    found = score(answer, *annotations)
    assert found.each.tolist() == [expected]
    assert (found.protocols, found.rule) == ({"official": 1}, "vqav2")


@pytest.mark.parametrize(
    ("answer", "annotations", "expected"),
    [
        # Nobody is left out: one of ten is a third. Only the answer is normalised, and gets the mark ’.
        ("yes", ["yes"] + ["no"] * 9, 1 / 3), ("Yes.", ["yes"] * 2 + ["no"] * 8, 2 / 3), ("yes", ["Yes"] * 10, 0),
        ("two", ["two"] * 10, 0), ("two", ["2"] * 3 + ["two"] * 7, 1), ("isn't", ["isnt"] * 10, 0),
        ("dont", ["don’t"] * 10, 1), ("cant", ["can't"] * 10, 1), ("the", [""] * 10, 1), ("yes", ["yes "] * 10, 0),
    ],
)  # fmt: skip
def test_oddities_of_vizwizs_rule(answer: str, annotations: list[str], expected: float) -> None:
    found = score(answer, *annotations, protocol="vizwiz")
    assert found.each.tolist() == [expected]
    assert (found.protocols, found.rule) == ({"vizwiz": 1}, "vizwiz")


@pytest.mark.parametrize("annotators", range(1, 15))
def test_the_official_score_is_the_mean_over_sets_that_leave_one_out(annotators: int) -> None:
    for agreeing in range(annotators + 1):
        texts = ["a"] * agreeing + ["b"] * (annotators - agreeing)
        sets = list(combinations(texts, annotators - 1))
        mean = sum(min(1.0, others.count("a") / 3) for others in sets) / len(sets)
        assert official_score(agreeing, annotators) == pytest.approx(mean, abs=1e-12)
    assert official_score(1, 1) == 0, "the program leaves out the only one who could agree"


# ---------------------------------------------------------------------------- kovqa's rule of others


@pytest.mark.parametrize("annotators", range(1, 15))
def test_unanimity_is_always_all_of_it(annotators: int) -> None:
    annotations = ["두 개"] * annotators
    assert soft_labels(annotations) == {"두 개": 1.0}
    for rule in (None, "plain", "korean"):
        assert score("두 개", *annotations, rule=rule).total.score == 1


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        (["a", "a"], {"a": 1.0}), (["a", "b"], {"a": 0.5, "b": 0.5}), (["a", "a", "b"], {"a": 2 / 3, "b": 1 / 3}),
        (["a", "a", "b", "c", "c"], {"a": 2 / 3, "c": 2 / 3, "b": 1 / 3}), (["a"] * 3 + ["b"] * 6, {"b": 1.0, "a": 1.0}),
        (["a", " ", ""], {"a": 1.0}), (["A", "a", "b", "\n"], {"A": 2 / 3, "b": 1 / 3}), (["a"] + [""] * 9, {"a": 0.3}),
        (["a"] * 11 + ["b"], {"a": 1.0, "b": 1 / 3}),
    ],
)  # fmt: skip
def test_other_numbers_of_annotators(annotations: list[str], expected: dict[str, float]) -> None:
    """min(1, k / min(3, n)) for training and for scores; who wrote nothing is not counted, but ten are ten."""
    labels = soft_labels(annotations)
    assert labels == expected
    assert list(labels) == list(expected)
    if len(annotations) != 10:
        for answer, one in expected.items():
            found = score(answer, *annotations)
            assert found.each.tolist() == [one]
            assert found.protocols == {"kovqa": 1}


def test_answers_that_fall_together_add_up_to_what_their_annotators_would_have_given() -> None:
    annotations = ["한 개", "1개", "하나"]
    assert [score("1개", *annotations[:n], rule="korean").total.score for n in (2, 3)] == [1, 1]
    assert score("1개", *annotations, "둘", rule="korean").total.score == 1
    assert score("1개", *annotations[:2], "둘", "셋", rule="korean").each.tolist() == [annotator_score(2, 4)]


def test_a_file_of_several_numbers_says_how_many_were_scored_by_which_rule() -> None:
    pairs = [
        (example(*["예"] * 10), "예"), (example("예", "예", "네"), "예"), (example("예"), "예"), (example("예"), "네"),
        (Example("old", "a", "?", {"예": 0.6, "네": 0.3}), "예"), (Example("test", "a", "?"), "예"),
    ]  # fmt: skip
    found = score_answers(pairs)
    assert found.protocols == {"exact": 2, "official": 1, "kovqa": 1, "index": 1}
    assert found.rule == "auto"
    assert found.each.tolist() == [1, 2 / 3, 1, 0, 0.6, 0]
    assert found.unanswered == 1
    chosen = score_answers(pairs, "korean")
    assert chosen.protocols == {"exact": 2, "official-arithmetic": 1, "kovqa": 1, "index": 1}
    assert chosen.rule == "korean"


def test_an_index_of_an_earlier_version_is_scored_as_before() -> None:
    old = Example("1", "a", "?", {"dog": 1.0, "2": 0.6})
    found = score_answers([(old, "2"), (old, " DOG"), (old, "two"), (old, "cat")])
    assert found.each.tolist() == [0.6, 1, 0, 0]
    assert found.protocols == {"index": 4}


def test_validation_of_a_training_and_evaluate_agree(rows: list[OfficialRow]) -> None:
    some = [*rows[:300], *rows[-300:]]
    examples = [example(*row.annotations, id=str(row.number)) for row in some]
    answers = [row.answer for row in some]
    found = score_answers(zip(examples, answers, strict=True))
    assert mean_soft_score(examples, answers) == pytest.approx(found.total.score, abs=1e-12)
    assert set(found.protocols) == {"official", "kovqa", "exact"}


# ------------------------------------------------------------------------------------ mistakes


def test_a_protocol_that_needs_annotations_says_what_to_do_without() -> None:
    for protocol in ("official", "vizwiz"):
        for without in (example("예"), Example("1", "a", "?", {"예": 0.6, "네": 0.3})):
            with pytest.raises(DataError, match=f"question 1: .* --protocol {protocol} needs") as caught:
                score_answers([(without, "예")], protocol=protocol)
            assert "kovqa index" in str(caught.value.hint)
    # A question that nobody answered is not the index's fault.
    assert score_answers([(Example("1", "a", "?"), "예")], protocol="official").unanswered == 1


def test_a_protocol_goes_with_no_normal_form_but_its_own() -> None:
    for protocol, rule in (
        ("official", "korean"),
        ("official", "plain"),
        ("vizwiz", "korean-particles"),
        ("vizwiz", "vqav2"),
        ("choice", "vqav2"),
        ("circular", "plain"),
    ):
        with pytest.raises(SettingsError, match=f"{protocol} has a normal form of its own"):
            score("예", "예", "예", protocol=protocol, rule=rule)
    assert score("two", *["2"] * 9, "3", protocol="official", rule="vqav2").total.score == 1
    with pytest.raises(SettingsError, match="did you mean official"):
        score("예", "예", protocol="offical")


@pytest.mark.parametrize(
    ("column", "options", "expected"),
    [
        ("caption", {"rule": "korean"}, "holds captions, and --normalise is not for them"),
        ("caption", {"protocol": "official"}, "holds captions, and --protocol is not for them"),
        ("caption", {"rule": "plain", "protocol": "vizwiz"}, "and --normalise, --protocol is not for them"),
        ("answer", {"tokens": "korean"}, "holds answers, and --tokens is not for them"),
    ],
)  # fmt: skip
def test_options_that_a_file_does_not_use_are_refused(
    column: str, options: dict[str, str], expected: str, tmp_path: Path
) -> None:
    write(tmp_path / "p.jsonl", json.dumps({"id": "1", column: "개"}))
    with pytest.raises(SettingsError, match=expected):
        evaluate_file(tmp_path / "p.jsonl", tmp_path / "test.jsonl", **options)


# -------------------------------------------------------------------------------- from the files


def evaluate(tmp_path: Path, index: Path, answers: dict[str, str], **options: str) -> AnswerScores:
    lines = [json.dumps({"id": id, "answer": answer}) for id, answer in answers.items()]
    write(tmp_path / "p.jsonl", "\n".join(lines))
    scores = evaluate_file(tmp_path / "p.jsonl", index, **options).scores
    assert isinstance(scores, AnswerScores)
    return scores


def table(tmp_path: Path, *rows: dict[str, Any], suffix: str = "jsonl") -> Path:
    """The index of a table."""
    text = json.dumps(rows, indent=1) if suffix == "json" else "\n".join(map(json.dumps, rows))
    write(tmp_path / f"t.{suffix}", text)
    touch(tmp_path, {row["image"] for row in rows})
    build_index("table", tmp_path / f"t.{suffix}", None, tmp_path / "index")
    return tmp_path / "index"


def test_two_of_two_annotators_who_agree_are_all_of_them(tmp_path: Path) -> None:
    row = {"id": 1, "image": "1.png", "question": "q", "answers": ["a", "a"], "split": "test"}
    index = table(tmp_path, row)
    found = evaluate(tmp_path, index / "test.jsonl", {"1": "a"})
    assert (found.total.score, found.protocols) == (1, {"kovqa": 1})
    words = ["evaluate", str(tmp_path / "p.jsonl"), "--index", str(index / "test.jsonl")]
    page = tmp_path / "report.html"
    shown = " ".join(CliRunner().invoke(app, [*words, "--report", str(page)]).stdout.split())
    assert "kovqa 자체 규칙, 답변자 n명 중 k명이면 min(1, k / min(3, n))" in page.read_text(encoding="utf-8")
    assert "kovqa's own rule, min(1, k / min(3, n)) of n annotators" in shown
    report = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert (report["protocol"], report["protocols"], report["normalise"]) == ("kovqa", {"kovqa": 1}, "plain")
    # The published program leaves one of the two out: one who agrees is a third.
    official = json.loads(CliRunner().invoke(app, [*words, "--json", "--protocol", "official"]).stdout)
    assert (official["protocol"], official["score"]) == ("official", pytest.approx(1 / 3))


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_vizwizs_own_files_are_read_as_they_are(suffix: str, tmp_path: Path) -> None:
    """Records in `answers`, no ids; the annotators' letters stay."""

    def row(image: str, *answers: str) -> dict[str, Any]:
        records = [{"answer_confidence": "yes", "answer": answer} for answer in answers]
        return {
            "image": image,
            "question": "What is it?",
            "answers": records,
            "answer_type": "other",
            "answerable": 1,
        }

    annotations = [*["unsuitable"] * 3, " Milk", "milk\t", "2 %", "two", "two", "cafe\u0301", ""]
    index = table(tmp_path, *(row(f"VizWiz_val_{n}.jpg", *annotations) for n in range(40)), suffix=suffix)
    examples = [one for split in ("train", "val") for one in open_index(index).split(split)]
    assert len(examples) == 40 == len({one.id for one in examples})
    assert all(list(one.annotations) == annotations for one in examples)
    assert examples[0].answers["unsuitable"] == 0.9
    assert examples[0].question_type == "other"
    answers = {one.id: "Unsuitable." for one in open_index(index).split("val")}
    assert evaluate(tmp_path, index / "val.jsonl", answers).total.score == 0.9
    assert evaluate(tmp_path, index / "val.jsonl", answers, protocol="vizwiz").total.score == 1


@pytest.mark.parametrize("answers", [[{"text": "a"}], [["a"]], [{"answer": ["a"]}], {"answer": {"a": 1}}])
def test_answers_that_are_no_texts_are_named(answers: object, tmp_path: Path) -> None:
    with pytest.raises(KovqaError, match=r"t\.jsonl:1"):
        table(tmp_path, {"image": "1.png", "question": "q", "answers": answers, "split": "train"})


def test_vqav2_keeps_what_annotators_wrote_and_rows_that_have_no_class(tmp_path: Path) -> None:
    from tests.index.test_sources_of_coco import write_vqav2

    odd: Sequence[list[str]] = [
        ["a"] * 9 + ["the"],
        ["Two "] * 10,
        ["cafe\u0301", "1,000", *["yes\n"] * 8],
        [""] * 10,
    ]
    write_vqav2(tmp_path, "train2014", [(id, 7, ["yes"] * 10) for id in range(9)] + [(9, 7, odd[0])])
    write_vqav2(tmp_path, "val2014", [(90 + n, 8, annotations) for n, annotations in enumerate(odd)])
    report = build_index("vqav2", tmp_path, None, tmp_path / "index")
    examples = list(open_index(tmp_path / "index").split("val"))
    assert [list(one.annotations) for one in examples] == odd[:3]
    assert examples[0].answers == {}
    assert {one.reason: one.count for one in report.counts.left_out} == {"answer empty": 2}
    found = evaluate(tmp_path, tmp_path / "index" / "val.jsonl", {"90": "an", "91": "2", "92": "YES"})
    assert found.each.tolist() == [1, 0, 1]
    assert (found.protocols, found.unanswered) == ({"official": 3}, 0)

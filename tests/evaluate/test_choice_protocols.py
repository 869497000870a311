"""Questions with choices: what a text names, circular evaluation, breakdowns and points of a judge."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from kovqa_core.data.benchmark_sets import BENCHMARK_SETS
from kovqa_core.data.circular_rows import circular_rows
from kovqa_core.data.example import Example
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.evaluate import report
from kovqa_core.evaluate.answer_scores import AnswerScores, score_answers
from kovqa_core.evaluate.choice_readers import (
    Unread,
    read_answer_line,
    read_bare_letter,
    read_choice,
    read_first_letter,
)
from kovqa_core.evaluate.evaluation import evaluate_file
from kovqa_core.evaluate.protocols import AUTO, PROTOCOLS, RowPoints, describe_protocol
from kovqa_core.view.inputs import ScoringRules
from PIL import Image
from typer.testing import CliRunner

from kovqa_cli.main import app
from tests.tools.benchmark_index import write_benchmark_index

ANIMALS = ("고양이", "검은 고양이", "강아지", "토끼")
NUMBERS = ("1", "3", "5", "12")


@pytest.mark.parametrize(
    ("text", "choices", "expected"),
    [
        *(
            (text, ANIMALS, 1)
            for text in (
                "B", "b", "(B)", "B.", "[B]", "Ｂ", "②", "2", "2번", "검은 고양이", " 검은  고양이 ", "B입니다",
                "정답은 B입니다.", "정답: (B)", "정답은 2번입니다", "**정답: B**", "답은 ②", "정답\nB", "Answer: (B)",
                "The answer is B.", "Option B", "B. 검은 고양이", "B) 검은 고양이입니다", "검은 고양이가 보입니다.",
                "정답은 A가 아니라 B입니다", "정답은 A 같지만 아니다. 최종 답: B", "최종 답변은 B이고, 정답은 A가 아니다",
                "A cat sits here, so (B)", "정답은 검은 고양이입니다. 강아지는 없습니다.",
                "B\n설명: 토끼는 보이지 않습니다", "A가 아니라 D도 아니다.\n\n(B)",
                "B, because A is wrong", "정답은 B다", "B인 것 같아요", "검은 고양이다.", "정답은 'B'", "2번이 정답입니다",
                "정답은 1번이 아니라 2번입니다", "A는 오답, 2번이 답이다", "답은 2다", "검은 고양이네요",
            )
        ),
        *((text, ANIMALS, Unread.NONE) for text in ("", "모르겠습니다", "E", "5번", "혈액형은 B형", "A cat", "고양이들")),
        *((text, ANIMALS, Unread.NONE) for text in ("토끼인형", "2번이 정답이 아닙니다", "I'D")),
        *(
            (text, ANIMALS, Unread.SEVERAL)
            for text in ("A 또는 B", "B. 강아지", "정답은 A 또는 B입니다", "강아지와 토끼", "A는 틀리고 B가 맞다")
        ),
        ("3", NUMBERS, 1), ("정답은 3입니다", NUMBERS, 1), ("정답: 12", NUMBERS, 3), ("답: 2", NUMBERS, Unread.NONE),
        ("정답은 2", NUMBERS, Unread.NONE), ("2", NUMBERS, Unread.NONE), ("3번", NUMBERS, 1), ("⑩", ANIMALS, Unread.NONE),
        ("A\nB", ANIMALS, Unread.SEVERAL), ("A or B", ANIMALS, Unread.SEVERAL),
    ],
)  # fmt: skip
def test_a_text_names_a_choice(text: str, choices: Sequence[str], expected: int | Unread) -> None:
    assert read_choice(text, choices) == expected


def test_each_set_has_its_own_rule() -> None:
    """The same texts by the rules of K-SEED and K-DTCBench, of K-Viscuit and of KRETA."""
    read = {
        text: tuple(
            reader(text, ANIMALS) for reader in (read_first_letter, read_bare_letter, read_answer_line)
        )
        for text in ("B", "b", "B.", "Because", "정답은 B", "Answer: C", "(A) (C)", "D C ", "강아지", "E")
    }
    none = Unread.NONE
    assert read == {
        "B": (1, 1, 1), "b": (1, none, none), "B.": (1, none, 1), "Because": (1, none, none), "정답은 B": (none, none, 1),
        "Answer: C": (0, none, 2), "(A) (C)": (none, none, 2), "D C ": (3, none, 2), "강아지": (2, 2, 2),
        "E": (none, none, none),
    }  # fmt: skip
    words = "제가 보기에 이 그림 속에는 강아지 말고 토끼 한 마리"
    assert read_answer_line(words, ANIMALS) == 3, "the last of those named, in a text of more than five words"


def questions(number: int = 12) -> list[Example]:
    """Questions of two to four choices; two of them about each image."""
    return [
        Example(
            str(n), f"{n // 2}.png", "?", {ANIMALS[n % (2 + n % 3)]: 1.0}, f"종류 {n % 2}", choices=ANIMALS[: 2 + n % 3],
            columns={"l2": "xyz"[n % 3]},
        )
        for n in range(number)
    ]  # fmt: skip


def test_circular_evaluation_beside_brute_force() -> None:
    """Random tables: a question is right where every turn of it is, found by looking at all turns of all questions."""
    draw = random.Random(7)
    for _ in range(30):
        turns = [turn for question in questions() for turn in circular_rows(question)]
        draw.shuffle(turns)
        likely = draw.choice([0.3, 0.9])
        pairs = [
            (turn, next(iter(turn.answers)) if draw.random() < likely else draw.choice(["고양이", "?", "A"]))
            for turn in turns
        ]
        right = {
            turn.id: answer in turn.answers or (answer == "A" and turn.choices[0] in turn.answers)
            for turn, answer in pairs
        }
        expected = {
            q.id: all(right[q.id if n == 0 else f"{q.id}/{n + 1}"] for n in range(len(q.choices)))
            for q in questions()
        }
        scores = score_answers(pairs, protocol="circular", columns=("l2", "absent"))
        assert scores.circular
        assert scores.examples is not None
        assert {e.id: bool(s) for e, s in zip(scores.examples, scores.each, strict=True)} == expected
        assert scores.total.score == pytest.approx(sum(expected.values()) / 12)
        assert scores.circular.vanilla.score == pytest.approx(sum(right[q.id] for q in questions()) / 12)
        assert (scores.total.rows, scores.circular.turns, scores.unanswered) == (12, len(turns), 0)
        assert scores.unread.get(Unread.NONE, 0) == sum(answer == "?" for _, answer in pairs)
        for kind in (*scores.question_types, *scores.circular.vanilla_types):
            hits = expected if kind in scores.question_types else right
            assert kind.score == pytest.approx(
                sum(hits[q.id] for q in questions() if q.question_type == kind.name) / 6
            )
        (column,) = scores.columns
        by_value = [
            sum(expected[q.id] for q in questions() if q.columns["l2"] == value) / 4 for value in "xyz"
        ]
        assert [value.score for value in column.values] == pytest.approx(by_value)
        assert column.mean.score == pytest.approx(sum(by_value) / 3)
        assert column.mean.low <= column.mean.score <= column.mean.high


def test_a_question_without_all_turns_is_left_out_and_said() -> None:
    turns = [turn for question in questions(3) for turn in circular_rows(question)]
    right = [(turn, next(iter(turn.answers))) for turn in turns if turn.id not in ("1/2", "2")]
    scores = score_answers(right, protocol="circular")
    assert scores.circular
    assert (scores.total.rows, scores.total.score, scores.circular.turns) == (1, 1.0, 2)
    assert list(scores.circular.incomplete) == ["1", "2"]
    with pytest.raises(DataError, match="no question has all turns"):
        score_answers(right[2:], protocol="circular")
    with pytest.raises(DataError, match="no row is a turn"):
        score_answers([(question, "A") for question in questions(2)], protocol="circular")


def test_the_mean_of_groups_counts_each_once() -> None:
    """By hand: of x one of one, of y one of three; together 1/2, the mean of both 2/3."""
    rows = [
        (replace(questions(1)[0], id=str(n), image=f"{n}.png", columns={"l2": value}), answer)
        for n, (value, answer) in enumerate([("x", "A"), ("y", "A"), ("y", "B"), ("y", "둘 다")])
    ]
    scores = score_answers(rows, protocol="choice", columns=("l2",))
    assert scores.total.score == 0.5
    assert scores.columns[0].mean.score == pytest.approx(2 / 3)
    assert scores.unread == {Unread.NONE: 1}


def test_points_of_a_judge_are_summed() -> None:
    """By hand: 6 of 8 and 9 of 6 are 15/14 together, as LLaVA-Bench has it; of ten points each, a mean."""
    rows = [(Example(id, f"{id}.png", "?", {"참": 1.0}, id), "답") for id in ("a", "b")]
    points = {"a": RowPoints(6, 8), "b": RowPoints(9, 6)}
    scores = score_answers(rows, protocol="reference-judge", points=points)
    assert scores.total.score == pytest.approx(15 / 14)
    assert [score.score for score in scores.question_types] == [0.75, 1.5]
    tens = {"a": RowPoints(7, 10), "b": RowPoints(2, 10)}
    assert score_answers(rows, protocol="criteria-judge", points=tens).total.score == pytest.approx(0.45)
    with pytest.raises(SettingsError, match="none was asked"):
        score_answers(rows, protocol="criteria-judge")
    with pytest.raises(DataError, match="question b: the judge gave no points"):
        score_answers(rows, protocol="criteria-judge", points={"a": tens["a"]})


def test_exact_is_right_or_wrong() -> None:
    rows = [(Example("1", "a", "?", {"둘": 1.0, "셋": 0.6}), answer) for answer in ("둘", "셋", "넷")]
    assert score_answers(rows, protocol="exact").each.tolist() == [1, 0, 0]
    two = [(rows[0][0], "2")]
    assert score_answers(two, "korean", protocol="exact").total.score == 1, "in the form that was asked for"
    assert score_answers(two, protocol="exact").protocols == {"exact": 1}


def write_answers(path: Path, answers: dict[str, str]) -> Path:
    lines = (json.dumps({"id": id, "answer": text}, ensure_ascii=False) for id, text in answers.items())
    path.write_text("\n".join(lines), "utf-8")
    return path


def test_the_index_of_a_benchmark_brings_its_protocol(tmp_path: Path) -> None:
    turns = [turn for question in questions(4) for turn in circular_rows(question)]
    split = write_benchmark_index(tmp_path / "index", "k-mmbench", turns, tmp_path)
    for name in {turn.image for turn in turns}:
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    right = {turn.id: next(iter(turn.answers)) for turn in turns}
    predictions = write_answers(tmp_path / "p.jsonl", {**right, "1/2": "모르겠다", "3/2": "정답은 A 또는 B"})
    run = ["evaluate", str(predictions), "--index", str(split)]
    done = CliRunner().invoke(
        app, [*run, "--json", "--report", str(tmp_path / "r.html"), "--log", str(tmp_path / "l")]
    )
    assert done.exit_code == 0, done.exception
    found = json.loads(done.stdout)
    assert (found["protocol"], found["score"], found["all"]["rows"]) == ("circular", 0.5, 4)
    assert found["circular"]["vanilla"]["score"] == 1
    assert (found["circular"]["turns"], found["unread"]) == (11, {"none": 1, "several": 1})
    assert (tmp_path / "l").read_text("utf-8").endswith("2 / 4 = 50.00%\n")
    page = (tmp_path / "r.html").read_text("utf-8")
    assert "2 answers name no choice or more than one" in page and "by the first turn alone 100.0 %" in page
    shown = CliRunner().invoke(app, run)
    for words in (
        "K-MMBench",
        "1 answers name no choice and 1 name more than one",
        "4 questions in 11 turns",
    ):
        assert words in " ".join(shown.stderr.split())
    named = CliRunner().invoke(app, [*run, "--protocol", "choice", "--json"])
    assert json.loads(named.stdout)["score"] == pytest.approx(9 / 11)
    # Whoever names a normal form has chosen what to compare.
    assert evaluate_file(predictions, split, "korean").protocol == "auto"


def test_a_judged_set_needs_a_judge(tmp_path: Path) -> None:
    rows = questions(2)
    split = write_benchmark_index(tmp_path / "index", "koffvqa", rows, tmp_path)
    predictions = write_answers(tmp_path / "p.jsonl", {row.id: "답" for row in rows})
    with pytest.raises(SettingsError, match="none was asked") as refused:
        evaluate_file(predictions, split)
    assert "--judge URL" in refused.value.hint
    result = evaluate_file(predictions, split, points={row.id: RowPoints(4, 10) for row in rows})
    assert isinstance(result.scores, AnswerScores)
    assert result.scores.total.score == pytest.approx(0.4)


def test_the_page_has_words_for_every_protocol() -> None:
    words = Path(report.__file__).with_name("report_words.html").read_text("utf-8")
    assert [name for name in PROTOCOLS if name != AUTO and f'"{name}": (' not in words] == []
    assert len({describe_protocol(name) for name in PROTOCOLS if name != AUTO}) == len(PROTOCOLS) - 1
    assert {each.protocol for each in BENCHMARK_SETS.values()} <= set(PROTOCOLS)


def test_kovqa_view_says_what_it_does_not_score_by() -> None:
    for protocol in ("choice", "circular", "criteria-judge"):
        with pytest.raises(SettingsError, match=f"does not score by {protocol}"):
            ScoringRules(protocol=protocol).scorer()
    assert ScoringRules(protocol="exact").scorer()(Example("1", "a", "?", {"예": 1.0}), "예").score == 1


def test_choices_are_needed_for_a_choice() -> None:
    with pytest.raises(DataError, match="no choices in the index, which --protocol choice needs"):
        score_answers([(Example("1", "a", "?", {"예": 1.0}), "예")], protocol="choice")
    for answer, protocol in product(("토끼", "Z"), ("choice", "choice-bare-letter")):
        row = Example("1", "a", "?", {}, choices=ANIMALS)
        assert score_answers([(row, answer)], protocol=protocol).unanswered == 1


@pytest.mark.parametrize(
    "protocol", ["choice", "choice-first-letter", "choice-bare-letter", "choice-answer-line"]
)
def test_choices_that_differ_in_case_alone_are_two(protocol: str) -> None:
    example = Example("1", "a.png", "?", {"10 m": 1.0}, choices=("10 M", "10 m", "5 m"))
    scores = score_answers([(example, text) for text in ("10 M", "10 m", "A", "B")], protocol=protocol)
    assert scores.each.tolist() == [0, 1, 0, 1]

"""Why a model errs, in numbers worked out by hand: as they are computed, and as the page shows them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from kovqa_core.data.example import Example
from kovqa_core.evaluate.answer_scores import score_answers
from kovqa_core.evaluate.answer_statistics import (
    AnswerCount,
    ConfusedPair,
    answer_distribution,
    count_training_answers,
    hidden_pairs,
    score_by_training_count,
)
from kovqa_core.evaluate.calibration import measure_calibration
from kovqa_core.evaluate.compare_predictions import compare_predictions
from kovqa_core.evaluate.evaluation import EvaluationResult, evaluate_file
from kovqa_core.evaluate.model_source import LearningCurve, ModelSource
from kovqa_core.evaluate.paired_tests import compare_p
from kovqa_core.evaluate.report import write_report
from kovqa_core.evaluate.report_cards import choose_least_sure, choose_surest_wrong, choose_won_and_lost

from tests.conftest import Small
from tests.evaluate.pages import captioned, numbered


def test_calibration_in_bins_of_equal_width() -> None:
    confidence = np.array([0.0, 0.1, 0.3, 0.39, 0.7, 1.0, 0.95, np.nan])
    scores = np.array([0.0, 1.0, 0.0, 1.0, 0.6, 1.0, 0.0, 1.0])
    measured = measure_calibration(confidence, scores)
    # 0.1, 0.3 and 0.7 are lower ends of their bins; 1.0 is in the last one.
    assert [(round(b.low, 1), b.rows) for b in measured.bins] == [
        (0.0, 1), (0.1, 1), (0.3, 2), (0.7, 1), (0.9, 2),
    ]  # fmt: skip
    assert [b.score for b in measured.bins] == pytest.approx([0, 1, 0.5, 0.6, 0.5])
    assert measured.bins[2].confidence == pytest.approx(0.345)
    gaps = 0 + 0.9 + 2 * 0.155 + 0.1 + 2 * 0.475
    assert measured.error == pytest.approx(gaps / 7)
    assert (measured.rows, measured.missing) == (7, 1)
    silent = measure_calibration(np.array([np.nan, np.nan]), np.array([0.0, 1.0]))
    assert (silent.bins, silent.error, silent.rows, silent.missing) == ([], None, 0, 2)


def test_answers_by_how_often_training_saw_them() -> None:
    """In the form that scores compare: 한 개 of the test is 1개 of training."""
    rows = [("a", "한 개", "하나"), ("b", "네", "아니요"), ("c", "파랑", "빨강"), ("d", "빨강", "빨강")]
    pairs = [(Example(id, "x.png", "?", {truth: 1.0}), given) for id, truth, given in rows]
    training = [Example(str(n), "y.png", "?", answers) for n, answers in enumerate(
        [{"1개": 1.0}, *4 * [{"빨강": 1.0, "파랑": 0.3}], {"빨강": 1.0}]
    )]  # fmt: skip
    scores = score_answers(pairs, "korean")
    seen, training_rows = count_training_answers(training, "korean", "auto")
    counted = score_by_training_count(scores, seen, training_rows)
    assert [(b.low, b.high, b.answers, b.rows, b.score) for b in counted.bins] == [
        (0, 0, 1, 1, 0.0),
        (1, 4, 2, 2, 0.5),
        (5, 19, 1, 1, 1.0),
    ]
    assert [rows for _, rows in counted.unseen] == [1]
    assert training_rows == 6
    distribution = answer_distribution(scores, 1)
    assert (distribution.true_answers, distribution.given_answers, distribution.never_given) == (4, 3, 2)
    assert distribution.counts[0] == AnswerCount("빨강", 1, 2)
    assert (distribution.others.true_rows, distribution.others.given_rows) == (3, 2)
    assert hidden_pairs(scores, {"빨강", "파랑"}) == [ConfusedPair("예", "아니요", 1)]


@pytest.fixture
def results(tmp_path: Path) -> list[EvaluationResult]:
    index, *predictions = numbered(tmp_path)
    return [evaluate_file(path, index) for path in predictions]


def english(path: Path) -> str:
    """What the page says in English, without tags."""
    page = re.sub(r'<(span|div|svg)[^>]* ?lang="ko".*?</\1>', "", path.read_text("utf-8"), flags=re.DOTALL)
    page = re.sub(r"<style>.*?</style>|<script>.*?</script>", "", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


def test_the_page_shows_what_was_computed(results: list[EvaluationResult], tmp_path: Path) -> None:
    a, b = results
    comparison = compare_predictions(a, b)
    losses, scores = [(10, 2.5), (20, 1.5)], [(10, 0.25), (20, 0.625)]
    source = ModelSource(
        "", "step-000020", 20, "run-7", "tiny", "beit3", "2026-01-02 03:04", "0.0.9", "2026-01-03 04:05",
        LearningCurve(losses, scores, "accuracy"),
    )  # fmt: skip
    write_report(a, tmp_path / "r.html", tmp_path / "images", 12, source=source, comparison=comparison)
    said = english(tmp_path / "r.html")
    for words in (
        "Model step-000020 Run run-7 Recipe tiny (beit3) Trained 2026-01-02 03:04 · kovqa 0.0.9 Answered 2026-01-03 04:05",
        "Protocol right or wrong by the one true answer",
        "From the log of run-7: 2 losses, 2 validation scores. The model that answered is that of step 20.",
        "step accuracy 10 0.2500 20 0.6250",
        # 20 rows at 0.95 with 15 right, 18 at 0.25 with 11 right: (20 · 0.2 + 18 · 0.3611) / 38.
        "ECE 27.6% Mean confidence 61.8% Score of these questions 68.4%",
        "20–30% 18 25.0% 61.1% +36.1",
        "90–100% 20 95.0% 75.0% -20.0",
        "2 questions without a confidence are left out (1 of them have one that is not in 0…1).",
        "4 different true answers, 5 given ones; 0 true answers are never given.",
        "0 10 7 -3",
        "7 0 12 +12",
        "How many of the 36 rows of the training split",
        "0 · never seen 1 10 70.0% 1 – 4 1 10 70.0% 5 – 19 1 10 70.0% 20 – 99 1 10 70.0%",
        "Never seen in training: 2 (10).",
        "Of the 12 wrong answers that the table does not show one by one",
        "0 7 3 1 7 3 2 7 3 3 7 3",
        "A 70.0% B 60.0% A − B, 95 % interval +10.0",
        "The same text in 16 of 40 rows.",
        "Right by A alone: 12, by B alone: 8, by both: 16, by neither: 4.",
        "A has more right on 6, B on 4, p = 0.75.",
        "raised by Holm's method for 2 comparisons",
        "Right by A alone 8 of 12 , drawn with a fixed seed.",
        "Right by B alone 8 of 8 , drawn with a fixed seed.",
    ):
        assert words in said, words
    assert [compare_p(p) for p in (0.0001, 0.02, 1)] == ["< 0.001", "= 0.020", "= 1.00"]
    test = comparison.total.test
    assert f"[{100 * test.low:+.1f}, {100 * test.high:+.1f}]" in said


def test_the_page_says_what_is_not_known(results: list[EvaluationResult], tmp_path: Path) -> None:
    silent = results[1]  # without confidences
    (tmp_path / "train.jsonl").write_text('{"id": 1}\n')
    write_report(silent, tmp_path / "r.html", tmp_path / "images", 12)
    said = english(tmp_path / "r.html")
    assert "Model not recorded" in said
    assert "Beside the predictions file nothing says which model gave the answers" in said
    assert "the predictions have no usable confidence (a score in 0…1; 40 questions)" in said
    assert "Surest wrong answers Not known: the predictions have no usable confidence." in said
    assert "Not known: the training split (train.jsonl) cannot be read" in said
    (tmp_path / "train.jsonl").unlink()
    write_report(silent, tmp_path / "r.html", tmp_path / "images", 0, source=ModelSource("gone", run="7"))
    said = english(tmp_path / "r.html")
    assert "no training split (train.jsonl) lies beside this one" in said
    assert "The run folder is no longer where it was." in said


def test_cards_of_what_errs(results: list[EvaluationResult]) -> None:
    a, b = results
    assert [card.id for card in choose_surest_wrong(a, 6)] == ["35", "36", "37", "38", "39", "28"]
    assert [card.id for card in choose_least_sure(a, 2)] == ["17", "18"]
    assert len(choose_least_sure(a, 99)) == 38, "those without a confidence are none of them"
    won, lost, won_rows, lost_rows = choose_won_and_lost(compare_predictions(a, b), 5)
    assert (len(won), len(lost), won_rows, lost_rows) == (5, 5, 12, 8)
    assert {(card.right, card.score, card.other_answer, card.other_score) for card in won} == {
        (True, 1, "8", 0)
    }
    assert {int(card.id) for card in lost} <= set(range(28, 36))


def test_captions_are_compared_by_their_main_metric(small: Small, tmp_path: Path) -> None:
    index, predictions = captioned(small, tmp_path)
    rows = [json.loads(line) for line in predictions.read_text("utf-8").splitlines()]
    worse = tmp_path / "worse.jsonl"
    worse.write_text(
        "".join(json.dumps({**row, "caption": "하늘"}, ensure_ascii=False) + "\n" for row in rows)
    )
    a, b = (evaluate_file(path, index) for path in (predictions, worse))
    comparison = compare_predictions(a, b)
    assert comparison.metric == "CIDEr"
    assert comparison.mcnemar is None
    assert comparison.question_types == []
    assert comparison.total.test.difference == pytest.approx(a.scores.main.score - b.scores.main.score)
    assert (comparison.total.test.images, comparison.same_texts) == (len(rows), 0)
    write_report(a, tmp_path / "r.html", small.root / "images", 3, comparison=comparison)
    said = english(tmp_path / "r.html")
    assert "A higher, B lower" in said
    assert "B higher, A lower None." in said
    repeated = len(rows) // 2
    assert (
        f"captions. Of the 1 captions given more than once, the 1 most frequent: caption images 도형 그림 {repeated}"
        in said
    )


def test_files_that_say_the_same_have_p_1(results: list[EvaluationResult], tmp_path: Path) -> None:
    same = compare_predictions(results[0], replace(results[0]))
    assert same.identical
    assert (same.total.test.p, same.mcnemar.p if same.mcnemar else 0) == (1, 1)
    write_report(results[0], tmp_path / "r.html", tmp_path / "images", 0, comparison=same)
    assert "Both files say the same to every row: the difference is 0, p = 1." in english(tmp_path / "r.html")

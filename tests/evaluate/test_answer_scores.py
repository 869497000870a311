"""Scores of answers: the official rule, normal forms, kinds, intervals."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pytest
from kovqa_core.data.answers import normalise_answer, normalise_vqav2, soft_labels
from kovqa_core.data.example import Example
from kovqa_core.errors import SettingsError
from kovqa_core.evaluate.answer_scores import score_answers
from kovqa_core.evaluate.confidence_intervals import bootstrap_sums, score_interval, wilson_interval
from kovqa_core.evaluate.normalise_korean import normalise_korean
from kovqa_core.evaluate.protocols import COMPARISON_RULES


def official(said: str, annotators: list[str]) -> float:
    """VQAv2's accuracy as its paper words it, over the ten sets of nine annotators."""
    sets = list(combinations(annotators, len(annotators) - 1))
    return sum(min(1.0, nine.count(said) / 3) for nine in sets) / len(sets)


@pytest.mark.parametrize("rule", COMPARISON_RULES)
def test_ten_annotators_are_scored_by_the_official_rule(rule: str) -> None:
    """Also where a coarser normal form joins answers that the index holds apart."""
    forms = {"plain": normalise_answer, "korean": normalise_korean, "vqav2": normalise_vqav2}
    form = forms.get(rule, lambda text: normalise_korean(text, particles=True))
    lot = random.Random(4)
    for _ in range(200):
        given = lot.choices(
            ["한 개", "1개", "하나", "두 개", "2", "two", "The dog", "dog", "나무는", "나무"], k=10
        )
        example = Example("1", "a.png", "몇 개?", soft_labels(given))
        for said in given:
            found = score_answers([(example, said)], rule).total.score
            assert found == pytest.approx(official(form(said), [form(text) for text in given]), abs=1e-12)


def test_the_default_form_is_plain() -> None:
    example = Example("1", "a.png", "몇 개?", {"1개": 1.0})
    assert score_answers([(example, "하나")]).total.score == 0
    assert score_answers([(example, " 1개 ")]).rule == "plain"
    assert score_answers([(example, " 1개 ")]).total.score == 1
    assert score_answers([(example, "하나")], "korean").total.score == 1


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(SettingsError, match="did you mean korean"):
        score_answers([(Example("1", "a", "q", {"예": 1.0}), "예")], "corean")


def test_scores_by_kind_and_type_beside_the_most_frequent_answer() -> None:
    rows = [
        (Example("1", "a", "q", {"예": 1.0}, "있나"), "예"), (Example("2", "a", "q", {"예": 1.0}, "있나"), "아니요"),
        (Example("3", "b", "q", {"아니요": 1.0}, "있나"), "예"), (Example("4", "b", "q", {"두 개": 0.6}, "몇"), "두 개"),
        (Example("5", "c", "q", {}, "몇"), "셋"),
    ]  # fmt: skip
    found = score_answers(rows)
    assert [(s.name, s.rows, s.score, s.majority) for s in found.question_types] == [
        ("몇", 2, 0.3, 0.3),
        ("있나", 3, 1 / 3, 2 / 3),
    ]
    assert [(s.name, s.rows) for s in found.types] == [("number", 1), ("other", 1), ("yes/no", 3)]
    assert found.total.score == pytest.approx(1.6 / 5)
    assert found.total.majority == pytest.approx(2.6 / 5)
    assert found.each.tolist() == [1, 0, 0, 0.6, 0]
    assert found.confusion["예", "아니요"] == 1
    assert found.unanswered == 1


# --------------------------------------------------------------------------------- intervals


def test_wilsons_interval() -> None:
    """Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for right, rows, low, high in (
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718),
    ):  # fmt: skip
        assert wilson_interval(right, rows) == pytest.approx((low, high), abs=5e-5)


def test_the_bootstrap_draws_whole_pictures() -> None:
    """Ten questions a picture that are right or wrong together know no more than one question."""
    lot = np.random.default_rng(1)
    right = (lot.random(400) < 0.7).astype(float)
    one = score_interval(np.stack([right, np.ones(400)], 1), binary=True)
    ten = score_interval(np.stack([10 * right, np.full(400, 10)], 1), binary=True)
    assert (one[2], ten[2]) == ("wilson", "bootstrap")
    assert ten[:2] == pytest.approx(one[:2], abs=0.01)


def test_the_bootstrap_agrees_with_the_normal_approximation() -> None:
    scores = np.random.default_rng(2).choice([0, 0.3, 0.6, 0.9, 1], 2000)
    half = 1.96 * scores.std() / len(scores) ** 0.5
    low, high, method = score_interval(np.stack([scores, np.ones(2000)], 1), binary=False)
    assert method == "bootstrap"
    assert (low, high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=half / 10)
    assert score_interval(np.stack([scores, np.ones(2000)], 1), binary=False) == (low, high, method)


def test_all_right_is_not_certainty() -> None:
    low, high, method = score_interval(np.array([[4.0, 4.0]] * 20), binary=True)
    assert (low, high, method) == (*wilson_interval(20, 20), "wilson")
    assert 0.8 < low < 0.9 < high


def test_a_draw_is_as_large_as_the_table() -> None:
    sums = bootstrap_sums(np.array([[1.0, 7.0]] * 30 + [[0.0, 7.0]] * 10))
    assert (sums[:, 1] == 280).all()
    assert sums[:, 0].mean() == pytest.approx(30, abs=0.4)

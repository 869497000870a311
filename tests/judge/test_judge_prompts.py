"""What a judge is asked, and how its reply is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from kovqa_core.errors import SettingsError
from kovqa_core.judge.judge_prompts import (
    JUDGE_FORMS,
    SHORT_REPLY,
    Verdict,
    find_judge_form,
    read_points,
    read_two_points,
)


@pytest.mark.parametrize(
    ("reply", "points"),
    [
        ("기준 1: 충족\n기준 2: 아님\n점수: 4/10", 4),
        ("점수: 3/10 이라고 볼 수도 있으나\n점수: 7.5/10", 7.5),  # the last one counts
        ("최종 점수: 10점 만점에 8점", 8),  # as the set's own prompt asks for it
        ("**점수: 6**", 6),
        ("9", 9),
        ("10점.", 10),
        ("<think>점수: 1/10 일까?</think>점수: 2/10", 2),
        ("**점수: **8**/10", 8),
        ("점수: 3 + 4 = 7", 7),
        ("점수: 8점 / 10점", 8),
        ("4/10일까?</think>점수: 2/10", 2),  # the server kept the first mark for itself
        ("<think>점수: 1/10 일까", None),
        ("점수: 3/5", None),
        ("점수: 8/100", None),
        ("점수: -1/10", None),
        ("점수: 8,5/10", None),
        ("점수: 11/10", None),
        ("맞습니다.", None),
        ("기준 10개 가운데 3개", None),
        ("", None),
    ],
)
def test_points_of_a_reply(reply: str, points: float | None) -> None:
    assert read_points(reply) == (None if points is None else Verdict(points))


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("8 7\n이유", Verdict(7, 8)),
        ("8, 6.5", Verdict(6.5, 8)),
        ("`9 10`\n두 답변 모두 좋다.", Verdict(10, 9)),
        ("어시스턴트1: 8 어시스턴트2: 7", None),  # which number is whose?
        ("8", None),
        ("0 5", None),
        ("8 7 6", None),
        ("이유를 먼저 씁니다.\n8 7", None),
        ("", None),
    ],
)
def test_two_points_of_a_reply(reply: str, verdict: Verdict | None) -> None:
    assert read_two_points(reply) == verdict


def test_texts_with_braces_stay_as_they_are() -> None:
    form = find_judge_form("criteria-judge")
    prompt = form.fill_prompt("{answer}는?", "{criteria}", {"criteria": "1점: {question} 없음"})
    assert "[질문]\n{answer}는?" in prompt
    assert "[답변]\n{criteria}" in prompt
    assert "1점: {question} 없음" in prompt


def test_another_prompt(tmp_path: Path) -> None:
    file = tmp_path / "평가.txt"
    file.write_text("{question} / {answer} / {criteria}", "utf-8")
    assert (
        find_judge_form("criteria-judge", file).fill_prompt("ㄱ", "ㄴ", {"criteria": "ㄷ"}) == "ㄱ / ㄴ / ㄷ"
    )
    with pytest.raises(SettingsError, match=r"must hold \{description\}"):
        find_judge_form("reference-judge", file)
    with pytest.raises(SettingsError, match="criteria-judge"):
        find_judge_form("criteria_judge")


def test_every_form_has_a_short_reply_and_all_its_fields() -> None:
    assert SHORT_REPLY.keys() == JUDGE_FORMS.keys()
    for form in JUDGE_FORMS.values():
        filled = form.fill_prompt("물음", "대답", dict.fromkeys(form.columns, "근거"))
        assert "{" not in filled
        assert all(text in filled for text in ("물음", "대답", "근거"))

"""The Korean normal form: what is one answer, and what only looks like it."""

from __future__ import annotations

import unicodedata

import pytest
from kovqa_core.evaluate.normalise_korean import answer_type, normalise_korean


@pytest.mark.parametrize(
    "same",
    [
        ["1", "1개", "1 개", "한 개", "한개", "하나", "한 명", "한 마리", "하나.", " 1 "],
        ["2", "두 송이", "둘", "두 대", "2권"],
        ["12", "열두 마리", "열둘", "십이", "12장"],
        ["20", "스무 개", "스물", "이십", "이십 명", "20명"],
        ["24살", "스물네 살", "24 살"],
        ["3층", "삼층", "삼 층", "3 층"],
        ["3시", "세 시", "세시", "3 시"],
        ["2번째", "두 번째", "두번째"],
        ["35분", "삼십오 분", "35 분"],
        ["1000원", "천 원", "1,000원", "1,000 원"],
        ["52000원", "오만이천 원", "52,000원"],
        ["예", "네", "네.", unicodedata.normalize("NFD", "네")],
        ["아니요", "아니오", "아뇨", "아니요!"],
        ["노란색", "노란 색", " 노란  색 "],
        ["흰색,갈색", "흰색, 갈색", "흰색 ,갈색", "흰색, 갈색,"],
        ["꽃 두 송이", "꽃 2송이", "꽃 2"],
        ["10개 이상", "열 명 이상", "10 이상"],
        ["두 명이 있다", "2명이 있다"],
        ["STOP", "stop", "'stop'", "ＳＴＯＰ"],
        ["3", "３", "３개", "3 개", "세개", "세 마리"],
        ["50%", "５０％"],
        ["10:30", "１０：３０"],
        ["1000원", "１，０００원", "1천 원"],
        ["tv 2", "ＴＶ ２대", "TV 두 대"],
        ["20대", "20 대", "２０대", "이십 대", "이십대"],
        ["10대", "십대", "십 대"],
        ["20대 여성 2명", "20 대 여성 두 명"],
        ["20대와 30대", "이십 대와 삼십 대"],
        ["20대, 30대", "20 대,30 대"],
        ["자동차 3대", "자동차 세 대", "자동차 3"],
        ["자동차 20대", "자동차 스무 대"],
        ["20", "스무 대"],
        ["20살", "스무 살", "스무살", "20세", "이십 세"],
        ["120", "백스무 명", "백이십 명", "120명"],
        ["201", "이백한 개"],
        ["35000원", "3만 5천 원", "3만5천원", "삼만오천 원", "35,000원"],
        ["1000000원", "백만 원", "100만 원", "1백만원"],
        ["15000원", "1.5만 원"],
        ["2", "두 통", "두 컵", "2캔", "두 세트"],
        ["사과 2, 배 3", "사과 두 개, 배 세 개", "사과 2개,배 3개"],
    ],
)
def test_these_are_one_answer(same: list[str]) -> None:
    assert len({normalise_korean(answer) for answer in same}) == 1, [normalise_korean(a) for a in same]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("네", "4"), ("네 개", "예"), ("이", "2"), ("일", "1"), ("사", "4"), ("한", "1"), ("백", "100"),
        ("이 사람", "두 사람"), ("천장", "천 장"), ("사장", "4장"), ("열대", "10대"), ("세척", "3척"),
        ("세일", "3일"), ("네모", "4모"), ("한국", "1국"), ("사원", "4원"), ("층", "0층"), ("개", "0개"),
        ("소, 개", "소개"), ("종이, 컵", "종이컵"), ("1,2", "12"), ("1/2", "1-2"), ("3.5", "35"), ("10:30", "1030"),
        ("3시", "3"), ("3층", "3"), ("2번째", "2"), ("50%", "50"), ("1 2", "12"), ("?", "!"), ("", "?"),
        ("고양이가", "고양이"), ("20대", "20"), ("30대", "30"), ("십대", "10"), ("20대", "30대"), ("20대", "20살"),
        ("천한 사람", "1001사람"), ("두통", "2"), ("두세 개", "2"), ("백두", "102"), ("세트", "3"), ("3³", "33"),
        ("½", "1/2"), ("열량", "10"), ("2000년대", "2000년"),
    ],
)  # fmt: skip
def test_these_are_two_answers(one: str, other: str) -> None:
    assert normalise_korean(one) != normalise_korean(other)


@pytest.mark.parametrize(
    "answer",
    [
        "20대",
        "이십 대와 30대",
        "스무 살",
        "3만 5천 원",
        "백스무 명",
        "자동차 20대",
        "ＴＶ ２대",
        "한 개",
        "꽃 두 송이",
        "이층 침대",
        "오만 원",
        "1,000",
        "소, 개",
        "a b",
        "?",
    ],
)
def test_a_key_is_its_own_key(answer: str) -> None:
    assert normalise_korean(normalise_korean(answer)) == normalise_korean(answer)


@pytest.mark.parametrize(
    ("with_particle", "bare"),
    [
        ("책상 위에", "책상 위"), ("탁자의 위", "탁자 위"), ("나무는", "나무"), ("사람이", "사람"), ("바나나를", "바나나"),
        ("한 개입니다", "1"), ("빨간색이에요", "빨간색"), ("나무예요", "나무"), ("공원에서", "공원"), ("두 마리가", "둘"),
    ],
)  # fmt: skip
def test_particles_go_when_asked_for(with_particle: str, bare: str) -> None:
    assert normalise_korean(with_particle, particles=True) == normalise_korean(bare, particles=True)
    assert normalise_korean(with_particle) != normalise_korean(bare)


@pytest.mark.parametrize("word", ["사과", "포도", "효과", "주의", "아니요", "고가", "바나나", "나이", "가을"])
def test_words_that_end_like_a_particle_stay(word: str) -> None:
    assert normalise_korean(word, particles=True) == word


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("예", "yes/no"), ("네", "yes/no"), ("아니오", "yes/no"), ("Yes", "yes/no"), ("2", "number"), ("두 개", "number"),
        ("3층", "number"), ("3.5", "number"), ("two", "number"), ("50%", "number"), ("노란색", "other"), ("", "other"),
        ("2층 침대", "other"), ("사장", "other"),
    ],
)  # fmt: skip
def test_answers_have_a_type(answer: str, expected: str) -> None:
    assert answer_type(answer) == expected

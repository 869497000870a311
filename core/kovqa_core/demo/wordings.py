"""How the demonstration asks: a beginning and an ending, both Korean, make a question.

A beginning is a format string. `{a}`, `{b}` are things, `{c}` a colour, `{p}` a place, `{d}` a side;
`{a:은/는}` adds the particle that fits the word. Each beginning goes with the five endings of its
manner of speaking. Every fifth pair is held out: its sentence is never trained on, though its
beginning is known from other endings and its ending from other beginnings.
"""

from __future__ import annotations

from dataclasses import dataclass

# After a noun that ends in a consonant (색), in a vowel (개), after 있-, and choices of size.
CONSONANT_ENDINGS = ("인가요?", "이에요?", "입니까?", "이야?", "인지 알려 주세요.")
VOWEL_ENDINGS = ("인가요?", "예요?", "입니까?", "야?", "인지 알려 주세요.")
EXISTENCE_ENDINGS = ("나요?", "어요?", "습니까?", "어?", "는지 알려 주세요.")
SIZE_ENDINGS = (
    "큰가요, 작은가요?",
    "커요, 작아요?",
    "큽니까, 작습니까?",
    "커, 작아?",
    "큰지 작은지 알려 주세요.",
)
COMPARISON_ENDINGS = ("{is}?", "{polite}?", "{formal}?", "{plain}?", "{whether} 알려 주세요.")
QUESTION_OPENINGS = ("", "", "그림을 보면 ")  # most questions come without one


@dataclass(frozen=True)
class TypeWordings:
    """Sentences for one type of question: those to train on and those kept for testing."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]


def _build_wordings(*manners: tuple[tuple[str, ...], tuple[str, ...]]) -> TypeWordings:
    """All pairs of (beginnings, endings); every fifth goes to the held-out ones, a diagonal."""
    train: list[str] = []
    heldout: list[str] = []
    number = 0
    for beginnings, endings in manners:
        for beginning in beginnings:
            for position, ending in enumerate(endings):
                # A diagonal: each beginning has one held-out ending, and the next beginning another one.
                is_heldout = (2 * number + position) % len(endings) == 0
                for opening in dict.fromkeys(QUESTION_OPENINGS):
                    (heldout if is_heldout else train).append(opening + beginning + ending)
            number += 1
    return TypeWordings(tuple(train), tuple(heldout))


QUESTION_WORDINGS: dict[str, TypeWordings] = {
    "색깔": _build_wordings(
        (
            (
                "{a:은/는} 무슨 색",
                "{a:은/는} 어떤 색",
                "{a}의 색은 무엇",
                "{a}의 색깔은 무엇",
                "{a:은/는} 무슨 색깔",
            ),
            CONSONANT_ENDINGS,
        ),
        (("{a:은/는} 무슨 색으로 칠해져 있", "{a:은/는} 어떤 색으로 칠해져 있"), EXISTENCE_ENDINGS),
    ),
    "모양": _build_wordings(
        (
            (
                "{a:은/는} 무슨 모양",
                "{a:은/는} 어떤 모양",
                "{a}의 모양은 무엇",
                "{c:으로/로} 칠해진 것은 무슨 모양",
                "{c:으로/로} 칠해진 도형의 이름은 무엇",
                "{c}인 것은 무슨 도형",
            ),
            CONSONANT_ENDINGS,
        ),
    ),
    "크기": _build_wordings(
        (("{a:은/는} ", "{a:이/가} ", "{a:은/는} 크기가 ", "{a:이/가} 크기가 "), SIZE_ENDINGS)
    ),
    "위치": _build_wordings(
        (
            (
                "{a:은/는} 어디에 있",
                "{a:이/가} 어디에 있",
                "{a:은/는} 어느 자리에 있",
                "{a:은/는} 어느 곳에 있",
            ),
            EXISTENCE_ENDINGS,
        ),
        (("{a}의 위치는 어디", "{a:이/가} 있는 곳은 어디", "{a:이/가} 있는 자리는 어디"), VOWEL_ENDINGS),
    ),
    "개수": _build_wordings(
        (
            ("도형은 모두 몇 개", "도형은 전부 몇 개", "도형의 수는 모두 몇 개", "도형의 개수는 전부 몇 개"),
            VOWEL_ENDINGS,
        ),
        (("도형이 모두 몇 개 있", "도형이 전부 몇 개 있"), EXISTENCE_ENDINGS),
    ),
    "세기": _build_wordings(
        (("{a:은/는} 몇 개", "{a}의 수는 몇 개", "{a}의 개수는 몇 개"), VOWEL_ENDINGS),
        (("{a:은/는} 몇 개 있", "{a:이/가} 몇 개 있"), EXISTENCE_ENDINGS),
    ),
    "존재": _build_wordings(
        (
            (
                "{a:이/가} 있",
                "여기에 {a:이/가} 있",
                "어딘가에 {a:이/가} 있",
                "{a:을/를} 찾을 수 있",
                "{a:을/를} 볼 수 있",
            ),
            EXISTENCE_ENDINGS,
        ),
    ),
    "확인": _build_wordings(
        (
            (
                "{a:은/는} {c}",
                "{a}의 색은 {c}",
                "{a}의 색깔은 {c}",
                "{a}의 색이 {c}",
                "{a:을/를} 칠한 색은 {c}",
            ),
            CONSONANT_ENDINGS,
        ),
        (("{a:은/는} {c:으로/로} 칠해져 있", "{a:이/가} {c:으로/로} 칠해져 있"), EXISTENCE_ENDINGS),
    ),
    "관계": _build_wordings(
        (
            (
                "{a:은/는} {b}의 {d}에 있",
                "{a:이/가} {b}의 {d}에 있",
                "{a:은/는} {b}보다 {d}에 있",
                "{b}의 {d}에 {a:이/가} 있",
                "{b}보다 {d}에 {a:이/가} 있",
            ),
            EXISTENCE_ENDINGS,
        ),
    ),
    "방향": _build_wordings(
        (
            (
                "{a:은/는} {b}의 어느 쪽에 있",
                "{a:이/가} {b}의 어느 쪽에 있",
                "{b:을/를} 기준으로 {a:은/는} 어느 쪽에 있",
                "{b}에서 보면 {a:은/는} 어느 쪽에 있",
            ),
            EXISTENCE_ENDINGS,
        ),
    ),
    "비교": _build_wordings(
        (
            (
                "{a:와/과} {b} 중 어느 것이 더 ",
                "{a:이랑/랑} {b} 중에 무엇이 더 ",
                "{a:와/과} {b} 가운데 무엇이 더 ",
                "{a:와/과} {b:을/를} 비교하면 어느 것이 더 ",
                "{a:와/과} {b} 중에서 어느 쪽이 더 ",
            ),
            COMPARISON_ENDINGS,
        ),
    ),
    "찾기": _build_wordings(
        (
            (
                "{p}에 있는 것은 무엇",
                "{p}에 있는 도형의 이름은 무엇",
                "{p}에 있는 것은 무슨 모양",
                "{p}에 있는 도형은 어떤 모양",
            ),
            CONSONANT_ENDINGS,
        ),
        (("{p}에 무엇이 있", "{p}에 어떤 도형이 있", "{p}에는 무슨 도형이 있"), EXISTENCE_ENDINGS),
    ),
}

"""Korean questions about a drawn scene, with their answers.

Every question has one clear answer: a thing is asked about only when the words pick out that thing
alone.  Yes/no answers come from a coin, and the others are spread over what the scene offers, so
that guessing the commonest answer does poorly.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kovqa_core.demo.scenes import SHAPE_COLOURS, SHAPE_NAMES, Scene, SceneObject
from kovqa_core.demo.wordings import QUESTION_WORDINGS

# Types that a model of a few hundred thousand weights does not learn in minutes: left out by default.
SLOW_QUESTION_TYPES = ("세기", "관계", "방향")
DEMO_QUESTION_TYPES: tuple[str, ...] = tuple(
    question_type for question_type in QUESTION_WORDINGS if question_type not in SLOW_QUESTION_TYPES
)
YES_ANSWER, NO_ANSWER = "예", "아니요"
COUNT_ANSWERS = ("한 개", "두 개", "세 개", "네 개", "다섯 개")
SHORT_COLOURS = {"노란색": "노란", "하얀색": "하얀"}
SIDE_ANSWERS = ("왼쪽", "오른쪽", "위쪽", "아래쪽")

# particle pair -> (form after a final consonant, form after a vowel)
PARTICLE_PAIRS = {
    "은/는": ("은", "는"),
    "이/가": ("이", "가"),
    "을/를": ("을", "를"),
    "와/과": ("과", "와"),
    "으로/로": ("으로", "로"),
    "이랑/랑": ("이랑", "랑"),
    "이야/야": ("이야", "야"),
    "이에요/예요": ("이에요", "예요"),
}
_RIEUL_FINAL = 8  # index of ㄹ among the 28 final consonants, 0 being none
# Finals of the digits as they are read aloud: 영 일 이 삼 사 오 육 칠 팔 구
_DIGIT_FINALS = (21, _RIEUL_FINAL, 0, 16, 0, 0, 1, _RIEUL_FINAL, _RIEUL_FINAL, 0)


@dataclass(frozen=True)
class DemoQuestion:
    """One question about an image: its type (a key of QUESTION_WORDINGS), the sentence, the right answer, and the one or
    two things that it is about; none where it is about the whole image."""

    question_type: str
    question: str
    answer: str
    asked: tuple[SceneObject, ...] = ()


class KoreanNoun(str):
    """A noun that takes a particle as its format specification: f"{KoreanNoun('별'):은/는}" is "별은"."""

    def __format__(self, pair: str) -> str:
        return attach_particle(self, pair) if pair else str(self)


@dataclass(frozen=True)
class _FilledWording:
    """What a wording is filled with, the answer, and the things it is about."""

    slots: dict[str, str]
    answer: str
    asked: tuple[SceneObject, ...] = ()


def attach_particle(word: str, pair: str) -> str:
    """`word` with whichever particle of `pair` ("은/는", "으로/로", ...) its last sound asks for.

    A word that ends in anything but Hangul or a digit takes the form after a vowel.
    Raises ValueError for an unknown pair.
    """
    if pair not in PARTICLE_PAIRS:
        raise ValueError(f"unknown particle {pair!r}; known: {', '.join(PARTICLE_PAIRS)}")
    after_consonant, after_vowel = PARTICLE_PAIRS[pair]
    final = _final_consonant(word)
    # ㄹ counts as a vowel before 로: 별로, not 별으로.
    closed = final != 0 and not (pair == "으로/로" and final == _RIEUL_FINAL)
    return word + (after_consonant if closed else after_vowel)


def _final_consonant(word: str) -> int:
    """Index of the last syllable's final consonant, 0 for none."""
    last = word[-1:]
    if "가" <= last <= "힣":
        return (ord(last) - ord("가")) % 28
    return _DIGIT_FINALS[int(last)] if last in tuple("0123456789") else 0


def ask_questions(
    scene: Scene,
    rng: random.Random,
    *,
    heldout: bool,
    question_types: Sequence[str] = DEMO_QUESTION_TYPES,
) -> list[DemoQuestion]:
    """At most one question of each type that the scene allows, in the order of the types.

    Args:
        scene: what is drawn.
        rng: decides objects, answers and wordings. The order in which it is drawn from is part of the
            demonstration: recorded scores belong to these very questions.
        heldout: use the wordings for testing, not those for training.
        question_types: keys of `QUESTION_WORDINGS`.

    Raises:
        KeyError: an unknown type.
    """
    questions = []
    for question_type in question_types:
        filled = _QUESTION_BUILDERS[question_type](scene, rng)
        if filled is not None:
            wordings = QUESTION_WORDINGS[question_type]
            wording = rng.choice(wordings.heldout if heldout else wordings.train)
            slots = {name: KoreanNoun(value) for name, value in filled.slots.items()}
            questions.append(
                DemoQuestion(question_type, wording.format(**slots), filled.answer, filled.asked)
            )
    return questions


def _unique_by_shape(scene: Scene) -> list[SceneObject]:
    """Things whose shape no other thing has."""
    counts = Counter(thing.shape for thing in scene.things)
    return [thing for thing in scene.things if counts[thing.shape] == 1]


def _unique_by_colour(scene: Scene) -> list[SceneObject]:
    """Things whose colour no other thing has."""
    counts = Counter(thing.colour for thing in scene.things)
    return [thing for thing in scene.things if counts[thing.colour] == 1]


def _colour_word(colour: str, rng: random.Random) -> str:
    """A colour before a noun: "빨간색" or, where the language has it, "빨간"."""
    return rng.choice((colour, SHORT_COLOURS.get(colour, colour)))


def _object_name(thing: SceneObject, scene: Scene, rng: random.Random) -> str:
    """Words that pick out `thing` alone; shape and colour together always do, as scenes are made."""
    names = [f"{_colour_word(thing.colour, rng)} {thing.shape}"]
    if thing in _unique_by_shape(scene):
        names.append(thing.shape)
    if thing in _unique_by_colour(scene):
        names.append(f"{_colour_word(thing.colour, rng)} 도형")
    return rng.choice(names)


def _ask_colour(scene: Scene, rng: random.Random) -> _FilledWording | None:
    things = _unique_by_shape(scene)
    if not things:
        return None
    thing = rng.choice(things)
    return _FilledWording({"a": thing.shape}, thing.colour, (thing,))


def _ask_shape(scene: Scene, rng: random.Random) -> _FilledWording | None:
    things = _unique_by_colour(scene)
    if not things:
        return None
    thing = rng.choice(things)
    return _FilledWording(
        {"a": f"{_colour_word(thing.colour, rng)} 도형", "c": thing.colour}, thing.shape, (thing,)
    )


def _ask_size(scene: Scene, rng: random.Random) -> _FilledWording | None:
    thing = rng.choice(scene.things)
    return _FilledWording({"a": _object_name(thing, scene, rng)}, "크다" if thing.large else "작다", (thing,))


def _ask_place(scene: Scene, rng: random.Random) -> _FilledWording | None:
    thing = rng.choice(scene.things)
    return _FilledWording({"a": _object_name(thing, scene, rng)}, thing.region, (thing,))


def _ask_total(scene: Scene, rng: random.Random) -> _FilledWording | None:
    return _FilledWording({}, COUNT_ANSWERS[len(scene.things) - 1])


def _ask_count(scene: Scene, rng: random.Random) -> _FilledWording | None:
    shapes = Counter(thing.shape for thing in scene.things)
    colours = Counter(thing.colour for thing in scene.things)
    groups = [*shapes.items()] + [(f"{_colour_word(c, rng)} 도형", n) for c, n in colours.items()]
    most = max(number for _, number in groups)
    if most == 1 and rng.random() < 0.85:  # most scenes repeat nothing: keep "한 개" from taking over
        return None
    wanted = most if rng.random() < 0.85 else 1
    fitting = [group for group in groups if group[1] == wanted] or groups
    name, number = rng.choice(fitting)
    return _FilledWording({"a": name}, COUNT_ANSWERS[number - 1])


def _ask_exists(scene: Scene, rng: random.Random) -> _FilledWording | None:
    looks = {(thing.shape, thing.colour) for thing in scene.things}
    if rng.random() < 0.5:
        # Sorted: the order of a set differs between processes, and recorded scores belong to these questions.
        shape, colour = rng.choice(sorted(looks))
        answer = YES_ANSWER
    else:
        missing = [(s, c) for s in SHAPE_NAMES for c in SHAPE_COLOURS if (s, c) not in looks]
        shape, colour = rng.choice(missing)
        answer = NO_ANSWER
    shapes = {s for s, _ in looks}
    colours = {c for _, c in looks}
    names = []
    if answer == YES_ANSWER or shape not in shapes:
        names.append(shape)
    if answer == YES_ANSWER or colour not in colours:
        names.append(f"{_colour_word(colour, rng)} 도형")
    if not names or rng.random() < 0.25:
        names = [f"{_colour_word(colour, rng)} {shape}"]
    return _FilledWording({"a": rng.choice(names)}, answer)


def _ask_check(scene: Scene, rng: random.Random) -> _FilledWording | None:
    things = _unique_by_shape(scene)
    if not things:
        return None
    thing = rng.choice(things)
    if rng.random() < 0.5:
        return _FilledWording({"a": thing.shape, "c": thing.colour}, YES_ANSWER, (thing,))
    # Half the wrong colours are another thing's, so that the colour being somewhere is not enough.
    elsewhere = sorted({t.colour for t in scene.things} - {thing.colour})
    others = (
        elsewhere if elsewhere and rng.random() < 0.5 else [c for c in SHAPE_COLOURS if c != thing.colour]
    )
    return _FilledWording({"a": thing.shape, "c": rng.choice(others)}, NO_ANSWER, (thing,))


def _ask_relation(scene: Scene, rng: random.Random) -> _FilledWording | None:
    options = [
        (a, b, side)
        for a in scene.things
        for b in scene.things
        if a is not b
        for side in _relative_sides(a, b)
    ]
    if not options:
        return None
    a, b, side = rng.choice(options)
    answer = YES_ANSWER
    if rng.random() < 0.5:
        side, answer = _opposite_side(side), NO_ANSWER
    return _FilledWording(
        {"a": _object_name(a, scene, rng), "b": _object_name(b, scene, rng), "d": side}, answer, (a, b)
    )


def _ask_direction(scene: Scene, rng: random.Random) -> _FilledWording | None:
    # In one row or column: beside it on a slant could be called two things.
    options = [
        (a, b)
        for a in scene.things
        for b in scene.things
        if a is not b and (a.row == b.row or a.column == b.column)
    ]
    if not options:
        return None
    a, b = rng.choice(options)
    return _FilledWording(
        {"a": _object_name(a, scene, rng), "b": _object_name(b, scene, rng)}, _relative_sides(a, b)[0], (a, b)
    )


def _relative_sides(a: SceneObject, b: SceneObject) -> list[str]:
    """On which sides of `b` thing `a` lies: one for a row or column shared, else two."""
    sides = []
    if a.column != b.column:
        sides.append("왼쪽" if a.column < b.column else "오른쪽")
    if a.row != b.row:
        sides.append("위쪽" if a.row < b.row else "아래쪽")
    return sides


def _opposite_side(side: str) -> str:
    # Opposite sides are neighbours in the list: 0 and 1, 2 and 3.
    return SIDE_ANSWERS[SIDE_ANSWERS.index(side) ^ 1]


def _ask_bigger(scene: Scene, rng: random.Random) -> _FilledWording | None:
    things = _unique_by_shape(scene)
    pairs = [(a, b) for a in things for b in things if a.large and not b.large]
    if not pairs:
        return None
    large, small = rng.choice(pairs)
    first, second = rng.sample((large, small), 2)
    words = {"a": first.shape, "b": second.shape}
    if rng.random() < 0.5:
        forms = {"is": "큰가요", "plain": "커", "polite": "커요", "formal": "큽니까", "whether": "큰지"}
        return _FilledWording(words | forms, large.shape, (large, small))
    forms = {"is": "작은가요", "plain": "작아", "polite": "작아요", "formal": "작습니까", "whether": "작은지"}
    return _FilledWording(words | forms, small.shape, (large, small))


def _ask_find(scene: Scene, rng: random.Random) -> _FilledWording | None:
    things = [thing for thing in scene.things if not _is_ambiguous(thing, scene)]
    if not things:
        return None
    thing = rng.choice(things)
    return _FilledWording({"p": thing.region}, thing.shape, (thing,))


def _is_ambiguous(thing: SceneObject, scene: Scene) -> bool:
    """Whether "왼쪽" (or another whole side) could also mean a thing in one of that side's corners."""
    if thing.region not in SIDE_ANSWERS:
        return False
    across = thing.region in ("왼쪽", "오른쪽")
    return any(
        other is not thing and (other.column == thing.column if across else other.row == thing.row)
        for other in scene.things
    )


_QUESTION_BUILDERS: dict[str, Callable[[Scene, random.Random], _FilledWording | None]] = {
    "색깔": _ask_colour,
    "모양": _ask_shape,
    "크기": _ask_size,
    "위치": _ask_place,
    "개수": _ask_total,
    "세기": _ask_count,
    "존재": _ask_exists,
    "확인": _ask_check,
    "관계": _ask_relation,
    "방향": _ask_direction,
    "비교": _ask_bigger,
    "찾기": _ask_find,
}

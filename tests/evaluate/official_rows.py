"""Questions with annotators' answers in every odd form, and an answer to each: the same ones from the same seed."""

from __future__ import annotations

import hashlib
import json
import random
import unicodedata
from collections.abc import Callable
from dataclasses import asdict, dataclass

SEED = 15
TEN_ROWS = 10_000  # with ten annotators
OTHER_ROWS = 1_200  # after them, with 1 to 14 others

# Each stands for a rule of the published programs, or for letters that somebody's keyboard has.
_TEXTS = (
    "yes", "no", "Yes.", "none", "zero", "one", "two", "ten", "eleven", "10", "2", "two dogs", "one, two", "None.",
    "1,000", "1000", "1,000.5", "1 , 000", "12,34,56", "3.5", "3.5.", "5.", ".5", "$5.00", "1.000.000", "10:30 pm",
    "a", "an", "the", "A", "The", "a the", "the a dog", "the dog", "a dog", "an apple", "dog", "theatre", "a.", "the,",
    "dont", "don't", "don’t", "Dont", "cant", "Im", "im", "I'm", "ive", "its", "shes", "hes", "youll", "yall", "weve",
    "couldnt've", "couldn'tve", "hadn'tve", "hed've", "ow's'at", "'ow'sat", "somebody'd", "somebodyd", "wheres", "whove",
    "oclock", "twas", "girl's", "girls'", "left-right", "left - right", "left right", "red/white", "red / white",
    "red/ white", "(yes)", "[yes]", "{yes}", "<yes>", "yes!", "yes !", "yes?", "what ?", "n/a", "a_b",
    "a\\b", "`x`", "x=y", "x+y", "x;y",
    "x; y", "home@", "@ home", '"stop"', "“stop”", "‘stop’", "stop", "STOP", "stop sign", "U.S.A.", "usa", "a.b.c", "...",
    "." * 40, "x" + "." * 33 + "y", "-", "- -", "?", ",", "1,", ",1", "1,a", "", " ", "  ", "\t", "\n", "black\nwhite",
    "black\twhite", "black white", "black,\nwhite", "black ,\twhite", "no\r",
    "강아지", "강아지.", "강아지 두 마리", "두 개", "2개", "예, 맞아요",
    "예", "아니요", "없음", "３,０００", "３.５", "٣,٤", "caf\u00e9", "ΣΑΣ", "\u0130stanbul", "stra\u00dfe",
    "a\u00a0dog", "\u3000dog",
    "x-y- z", "mother-in- law", "two , three,four", "unanswerable", "unsuitable",
    "0", "00", "01", "nan", "null", "true", "1e5", "½", "²", "1²,3",
)  # fmt: skip
_CHANGES: tuple[Callable[[str], str], ...] = (
    str, str, str, str.upper, str.lower, str.title, lambda text: f"{text}.", lambda text: f" {text}",
    lambda text: f"{text} ", lambda text: f"\n{text}\t", lambda text: f"the {text}", lambda text: f"a {text}",
    lambda text: f"{text}, {text}",
    lambda text: f"{text},{text}", lambda text: f"{text}-{text}", lambda text: f"{text}!", lambda text: f"{text} ?",
    lambda text: text.replace(" ", "\n"), lambda text: text.replace(" ", "\t"), lambda text: text.replace(" ", "  "),
    lambda text: text.replace("'", ""), lambda text: text.replace("'", "’"),
    lambda text: text.replace(".", ""), lambda text: text.replace(",", ""), lambda text: unicodedata.normalize("NFD", text),
    lambda text: f'"{text}"', lambda text: f"{text}/", lambda text: f"{text};",
)  # fmt: skip
_QUESTION_TYPES = ("how many", "what color is the", "is this a", "none of the above")
_ANSWER_TYPES = ("yes/no", "number", "other")


@dataclass(frozen=True)
class OfficialRow:
    """A question with its annotators' answers, letter by letter, and the answer to be scored."""

    number: int
    annotations: list[str]
    answer: str
    question_type: str
    answer_type: str


def generate_rows() -> list[OfficialRow]:
    """All rows: `TEN_ROWS`, then `OTHER_ROWS`."""
    rng = random.Random(SEED)
    others = [n for n in range(1, 15) if n != 10]
    return [
        _generate_row(rng, number, 10 if number < TEN_ROWS else others[number % len(others)])
        for number in range(TEN_ROWS + OTHER_ROWS)
    ]


def _generate_row(rng: random.Random, number: int, annotators: int) -> OfficialRow:
    base = rng.choice(_TEXTS)
    variants = [rng.choice(_CHANGES)(base) for _ in range(4)] + [rng.choice(_TEXTS)]
    match rng.randrange(5):
        case 0:  # unanimous
            annotations = [rng.choice(variants)] * annotators
        case 1:  # unanimous but for blanks and line ends, which both programs or one of them do not see
            text = rng.choice(variants)
            annotations = [rng.choice(("", " ", "\n", "\t")) + text for _ in range(annotators)]
        case 2:  # few answers: ties, and two, three or four who agree
            annotations = [rng.choice(variants[:2]) for _ in range(annotators)]
        case _:
            annotations = [rng.choice(variants) for _ in range(annotators)]
    answer = rng.choice((rng.choice(annotations), rng.choice(_CHANGES)(base), base, rng.choice(variants)))
    return OfficialRow(number, annotations, answer, rng.choice(_QUESTION_TYPES), rng.choice(_ANSWER_TYPES))


def hash_rows(rows: list[OfficialRow]) -> str:
    """SHA-256 of the rows: recorded scores hold for these and no others."""
    return hashlib.sha256(json.dumps([asdict(row) for row in rows]).encode()).hexdigest()

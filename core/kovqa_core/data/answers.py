"""Answer texts: normal forms, the list of classes, soft labels."""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from kovqa_core.errors import DataError
from kovqa_core.files import read_text, to_nfc, write_text

# ------------------------------------------------------------------------------ normal forms


def normalise_answer(answer: str) -> str:
    """kovqa's normal form: NFC, no blanks around, single blanks inside, Latin in lower case.

    KoBEiT3 kept raw texts: 639 of its 15,324 classes have blanks around them, 1,547 groups
    differ in nothing but blanks or case.
    """
    return " ".join(to_nfc(answer).split()).lower()


_VQA_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_WORDS = dict(
    zip(["none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"],
        ["0", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"], strict=True)
)  # fmt: skip
_PERIOD_PATTERN = re.compile(r"(?!<=\d)(\.)(?!\d)")  # the official pattern: its look-behind is malformed
_DIGIT_COMMA = re.compile(r"\d,\d")


@functools.cache
def _load_contractions() -> dict[str, str]:
    return json.loads(read_text(Path(__file__).with_name("contractions.json")))


def normalise_vqav2(answer: str) -> str:
    """The VQAv2 challenge's normal form, its oddities included (docs/sources/beit3.md, B28)."""
    text = answer
    for mark in _VQA_PUNCTUATION:
        beside_blank = f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if beside_blank or _DIGIT_COMMA.search(answer) else " ")
    text = _PERIOD_PATTERN.sub("", text, count=32)  # a flag in the place of the count: at most 32
    words = (_NUMBER_WORDS.get(word, word) for word in text.lower().split())
    kept = (_load_contractions().get(word, word) for word in words if word not in ("a", "an", "the"))
    return " ".join(kept).replace(",", "")


# ----------------------------------------------------------------------------- list of classes


def choose_answer_classes(counts: Counter[str], min_count: int) -> list[str]:
    """Answers seen often enough, most frequent first, ties in code point order."""
    kept = (answer for answer, n in counts.items() if n >= min_count)
    return sorted(kept, key=lambda answer: (-counts[answer], answer))


def default_min_count(rows: int) -> int:
    """How often an answer must be seen: 5 as in KoBEiT3 from 10,000 training rows on, else once."""
    return 5 if rows >= 10_000 else 1


def write_answers(path: Path, answers: Sequence[str]) -> None:
    """Write a list of classes, one a line: the line number (from 0) is the label.

    Where a line could not hold one (raw answers of VQA_NIA have line breaks), as `answer2label.txt`.
    """
    plain = all(answer.splitlines() == [answer] and not answer.startswith("{") for answer in answers)
    lines = answers if plain else [_answer2label_line(answer, label) for label, answer in enumerate(answers)]
    write_text(path, "".join(f"{line}\n" for line in lines))


def _answer2label_line(answer: str, label: int) -> str:
    """A line of `answer2label.txt`; escaped where JSON alone would leave a line break in it."""
    line = json.dumps({"answer": answer, "label": label}, ensure_ascii=False)
    return line if line.splitlines() == [line] else json.dumps({"answer": answer, "label": label})


def read_answers(path: Path) -> list[str]:
    """Read a list of classes: one a line, or the original's `answer2label.txt`.

    Raises:
        DataError: an empty list, a class twice, labels that are not 0, 1, 2, …
    """
    lines = read_text(path).splitlines()
    answers = _parse_answer2label(lines, path) if lines and lines[0].startswith("{") else lines
    if not answers:
        raise DataError(f"{path} lists no answers", "write the index again: kovqa index")
    twice = next((answer for answer, n in Counter(answers).items() if n > 1), None)
    if twice is not None:
        raise DataError(f"{path}: answer '{twice}' appears twice", "write the index again: kovqa index")
    return answers


def _parse_answer2label(lines: Iterable[str], path: Path) -> list[str]:
    answers = []
    for number, line in enumerate(lines):
        try:
            row = json.loads(line)
            in_order = row["label"] == number
            answers.append(str(row["answer"]))
        except (ValueError, KeyError, TypeError):
            in_order = False
        if not in_order:
            raise DataError(f'{path}:{number + 1}: expected {{"answer": …, "label": {number}}}')
    return answers


# --------------------------------------------------------------------------------- soft labels


def soft_score(annotators: int) -> float:
    """Score of an answer that so many of ten annotators gave: 0.3, 0.6, 0.9, 1 (VQAv2)."""
    return (0.0, 0.3, 0.6, 0.9)[annotators] if annotators < 4 else 1.0


def soft_labels(given: Iterable[str], normal: Callable[[str], str] = normalise_answer) -> dict[str, float]:
    """Answers of one question -> scores, the most given first; a single annotator's counts fully.

    Args:
        given: one text an annotator.
        normal: the data set's normal form.
    """
    counts = Counter(filter(None, map(normal, given)))
    if counts.total() <= 1:
        return dict.fromkeys(counts, 1.0)
    return {answer: soft_score(n) for answer, n in counts.most_common()}

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
from kovqa_core.messages import message

# ------------------------------------------------------------------------------ normal forms


def normalise_answer(answer: str) -> str:
    """kovqa's normal form: NFC, no spaces around it, single spaces inside, Latin in lower case.

    KoBEiT3 kept raw texts: 639 of its 15,324 classes have spaces around them, and 1,547 groups of
    classes differ only in spaces or case.
    """
    return " ".join(to_nfc(answer).split()).lower()


_VQA_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_WORDS = dict(
    zip(["none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"],
        ["0", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"], strict=True)
)  # fmt: skip
# The official pattern. `(?!<=` was meant to be the look-behind `(?<!`; as it is, it says nothing about the
# digit before a period, so "5." loses its period and only "3.5" keeps it.
_PERIOD_PATTERN = re.compile(r"(?!<=\d)(\.)(?!\d)")
_DIGIT_COMMA = re.compile(r"\d,\d")


@functools.cache
def _load_contractions() -> dict[str, str]:
    return json.loads(read_text(Path(__file__).with_name("contractions.json")))


def normalise_vqav2(answer: str) -> str:
    """The VQAv2 challenge's normal form, its oddities included (docs/sources/beit3.md, B28)."""
    text = answer
    for mark in _VQA_PUNCTUATION:
        # Looked up in the answer as it came, not in `text`: the official code does so too.
        beside_blank = f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if beside_blank or _DIGIT_COMMA.search(answer) else " ")
    # The official code passes re.UNICODE, which is 32, where `sub` expects the count: 32 periods at most.
    text = _PERIOD_PATTERN.sub("", text, count=32)
    words = (_NUMBER_WORDS.get(word, word) for word in text.lower().split())
    spelled = (_load_contractions().get(word, word) for word in words if word not in ("a", "an", "the"))
    return " ".join(spelled).replace(",", "")


# ----------------------------------------------------------------------------- list of classes


def choose_answer_classes(counts: Counter[str], min_count: int) -> list[str]:
    """Answers seen often enough, most frequent first, ties in code point order."""
    frequent = (answer for answer, n in counts.items() if n >= min_count)
    return sorted(frequent, key=lambda answer: (-counts[answer], answer))


def default_min_count(rows: int) -> int:
    """How often an answer must be seen: 5 times as in KoBEiT3 from 10,000 training rows on, else once."""
    return 5 if rows >= 10_000 else 1


def write_answers(path: Path, answers: Sequence[str]) -> None:
    """Write a list of classes, one a line: the line number (from 0) is the label.

    A class that does not fit on a line (raw answers of VQA_NIA have line breaks) makes the whole list one
    of JSON lines, as in `answer2label.txt`.
    """
    # `splitlines` as the reader below does: U+2028 is a line end to it too. A first `{` would look like JSON lines.
    one_line_each = all(answer.splitlines() == [answer] and not answer.startswith("{") for answer in answers)
    lines = (
        answers
        if one_line_each
        else [_answer2label_line(answer, label) for label, answer in enumerate(answers)]
    )
    write_text(path, "".join(f"{line}\n" for line in lines))


def _answer2label_line(answer: str, label: int) -> str:
    """A line of `answer2label.txt`; escaped where JSON alone would leave a line break in it."""
    # JSON escapes line feeds, but leaves U+2028 as it is.
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
        raise DataError(
            message("data.no-answers", "{file} lists no answers", file=path),
            message("data.no-answers.hint", "write the index again: kovqa index"),
        )
    twice = next((answer for answer, n in Counter(answers).items() if n > 1), None)
    if twice is not None:
        raise DataError(
            message("data.answer-twice", "{file}: answer '{answer}' appears twice", file=path, answer=twice),
            message("data.answer-twice.hint", "write the index again: kovqa index"),
        )
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
            raise DataError(
                message(
                    "data.label-out-of-order",
                    '{file}:{line}: expected {{"answer": …, "label": {label}}}',
                    file=path,
                    line=number + 1,
                    label=number,
                )
            )
    return answers


# --------------------------------------------------------------------------------- soft labels


def soft_score(annotators: int) -> float:
    """Score of an answer that so many of ten annotators gave: 0.3, 0.6, 0.9, 1 (VQAv2)."""
    return (0.0, 0.3, 0.6, 0.9)[annotators] if annotators < 4 else 1.0


def soft_labels(
    annotations: Iterable[str], normalise: Callable[[str], str] = normalise_answer
) -> dict[str, float]:
    """Answers of one question -> scores, the most frequent first; a single annotator's counts fully.

    Args:
        annotations: one text per annotator.
        normalise: gives the data set's normal form.
    """
    # An annotator who wrote nothing is not counted: the others' scores stay as they are.
    counts = Counter(filter(None, map(normalise, annotations)))
    if counts.total() <= 1:
        return dict.fromkeys(counts, 1.0)
    return {answer: soft_score(n) for answer, n in counts.most_common()}

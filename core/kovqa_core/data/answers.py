"""Answer texts: normal forms, the list of classes, soft labels."""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from kovqa_core.bounded_json import parse_json
from kovqa_core.errors import DataError
from kovqa_core.files import read_text, to_nfc, write_text
from kovqa_core.messages import message

# ------------------------------------------------------------------------------ normal forms


def tidy_answer(answer: str) -> str:
    """An answer as it is stored and shown: NFC, no spaces around it, single spaces inside, its letters kept."""
    return " ".join(to_nfc(answer).split())


def normalise_answer(answer: str) -> str:
    """kovqa's normal form, for comparing answers and for classes: the tidy answer with Latin in lower case.

    KoBEiT3 kept raw texts: 639 of its 15,324 classes have spaces around them, and 1,547 groups of
    classes differ only in spaces or case.
    """
    return tidy_answer(answer).lower()


_VQA_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_WORDS = dict(
    zip(["none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"],
        ["0", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"], strict=True)
)  # fmt: skip
# The official pattern. `(?!<=` was meant to be the look-behind `(?<!`; as it is, it says nothing about the
# digit before a period, so "5." loses its period and only "3.5" keeps it.
_PERIOD_PATTERN = re.compile(r"(?!<=\d)(\.)(?!\d)")
_DIGIT_COMMA = re.compile(r"\d,\d")
# BEiT-3's program runs in Python 3, where `\d` is any digit; VQAv2's own in Python 2, where it is one of 0…9.
_PERIOD_PATTERN_ASCII = re.compile(_PERIOD_PATTERN.pattern, re.ASCII)
_DIGIT_COMMA_ASCII = re.compile(_DIGIT_COMMA.pattern, re.ASCII)


@functools.cache
def load_contractions() -> dict[str, str]:
    """Words without their apostrophe -> with it, by the VQAv2 challenge; to be read only."""
    return parse_json(read_text(Path(__file__).with_name("contractions.json")))


def normalise_vqav2(answer: str) -> str:
    """The VQAv2 challenge's normal form as BEiT-3 has it, its oddities included (docs/sources/beit3.md, B28).

    Classes and training labels are in it. Scores are in that of the challenge's own program, which differs in
    rare letters only: `evaluate/protocols.py`.
    """
    return tidy_vqav2(answer).lower()


def tidy_vqav2(
    answer: str, contractions: Mapping[str, str] | None = None, *, ascii_digits: bool = False
) -> str:
    """An answer by the VQAv2 challenge's rules, but with its letters kept: in lower case it is the normal form.

    Args:
        answer: as it was written.
        contractions: words without their apostrophe -> with it; None: the challenge's.
        ascii_digits: only 0…9 are digits, as in Python 2.
    """
    if contractions is None:
        contractions = load_contractions()
    digit_comma = (_DIGIT_COMMA_ASCII if ascii_digits else _DIGIT_COMMA).search(answer)
    text = answer
    for mark in _VQA_PUNCTUATION:
        # Looked up in the answer as it came, not in `text`: the official code does so too.
        beside_blank = f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if beside_blank or digit_comma else " ")
    # The official code passes re.UNICODE, which is 32, where `sub` expects the count: 32 periods at most.
    text = (_PERIOD_PATTERN_ASCII if ascii_digits else _PERIOD_PATTERN).sub("", text, count=32)
    words = (_NUMBER_WORDS.get(word.lower(), word) for word in text.split())
    spelled = (
        contractions.get(word.lower(), word) for word in words if word.lower() not in ("a", "an", "the")
    )
    return " ".join(spelled).replace(",", "")


# What programs write where nothing is known, in normal form; a table's own text all the same.
MISSING_WORDS = frozenset(("nan", "null", "none", "n/a", "#n/a", "<na>", "undefined"))


# ----------------------------------------------------------------------------- list of classes


def choose_answer_classes(counts: Counter[str], min_count: int) -> list[str]:
    """Answers seen often enough, most frequent first, ties in code point order."""
    frequent = (answer for answer, n in counts.items() if n >= min_count)
    return sorted(frequent, key=lambda answer: (-counts[answer], answer))


def number_classes(classes: Sequence[str]) -> dict[str, int]:
    """Class -> its label, also under its normal form, where several classes share one that of the first."""
    label_of: dict[str, int] = {}
    for label, answer in enumerate(classes):
        label_of.setdefault(normalise_answer(answer), label)
    # Lists of other projects tell "Yes" from "yes": an answer that is a class as it stands is that one.
    return label_of | {answer: label for label, answer in enumerate(classes)}


def find_class(label_of: Mapping[str, int], answer: str) -> int | None:
    """The label of an answer as it is written, else of its normal form; None: it is not a class.

    Args:
        label_of: what `number_classes` returns.
        answer: with or without its letters.
    """
    label = label_of.get(answer)
    return label_of.get(normalise_answer(answer)) if label is None else label


def class_scores(label_of: Mapping[str, int], answers: Mapping[str, float]) -> dict[int, float]:
    """Label -> score of the answers that are classes; scores of one class add up to at most 1."""
    scores: dict[int, float] = {}
    for answer, score in answers.items():
        label = find_class(label_of, answer)
        if label is not None:
            scores[label] = min(1.0, _exact_sum(scores[label] + score)) if label in scores else score
    return scores


def default_min_count(rows: int) -> int:
    """How often an answer must be seen: 5 times as in KoBEiT3 from 10,000 training rows on, else once."""
    return 5 if rows >= 10_000 else 1


def write_answers(path: Path, answers: Sequence[str]) -> None:
    """Write a list of classes, one a line: the line number (from 0) is the label.

    A class that is not in the form of an index's answers (lists of other projects have blanks around some, raw answers
    of VQA_NIA line breaks) makes the whole list one of JSON lines, as in `answer2label.txt`.
    """
    # A tidy answer has no line end: U+2028 is a blank too. A first `{` would look like JSON lines.
    one_line_each = all(answer and answer == tidy_answer(answer) and answer[0] != "{" for answer in answers)
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
    # Older versions wrote raw classes one a line, blank ones too: only JSON lines may have blank lines between them.
    is_json = next(filter(str.strip, lines), "").startswith("{")
    answers = _parse_answer2label(lines, path) if is_json else lines
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
    answers: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        label = len(answers)
        try:
            row = parse_json(line)
            in_order = row["label"] == label
            answers.append(str(row["answer"]))
        except (ValueError, KeyError, TypeError):
            in_order = False
        if not in_order:
            raise DataError(
                message(
                    "data.label-out-of-order",
                    '{file}:{line}: expected {{"answer": …, "label": {label}}}',
                    file=path,
                    line=number,
                    label=label,
                )
            )
    return answers


# --------------------------------------------------------------------------------- soft labels


OFFICIAL_ANNOTATORS = 10  # whom VQAv2, VizWiz and KVQA asked each question


def soft_score(annotators: int) -> float:
    """Score of an answer that so many of ten annotators gave: 0.3, 0.6, 0.9, 1 (VQAv2)."""
    return (0.0, 0.3, 0.6, 0.9)[annotators] if annotators < 4 else 1.0


def annotator_score(agreeing: int, annotators: int) -> float:
    """Score in 0…1 of an answer that some of a question's annotators gave.

    Of ten it is VQAv2's. Of any other number n it is kovqa's own rule, min(1, k / min(3, n)): three who agree are
    enough, as in VQAv2, and where there are fewer, all of them. VQAv2's own arithmetic, which leaves one annotator
    out, would give 60 % at most where three of three agree, and nothing at all to the answer of a single one.

    Args:
        agreeing: annotators who gave the answer.
        annotators: all who gave one; at least one.
    """
    if annotators == OFFICIAL_ANNOTATORS:
        return soft_score(agreeing)
    return min(1.0, agreeing / min(3, annotators))


def count_annotators(annotations: Sequence[str]) -> int:
    """How many annotators a question has: those who wrote something; ten stay ten, as VQAv2's rule has it."""
    if len(annotations) == OFFICIAL_ANNOTATORS:
        return OFFICIAL_ANNOTATORS
    return sum(1 for text in annotations if text.strip())


def soft_labels(annotations: Iterable[str]) -> dict[str, float]:
    """Answers of one question -> scores (`annotator_score`), the most frequent first.

    Annotations of one normal form are one answer; it has the letters that most of them are written with.

    Args:
        annotations: one text per annotator.
    """
    texts = list(annotations)
    if len(texts) == 1:  # most data sets: nothing to count
        answer = tidy_answer(texts[0])
        return {answer: annotator_score(1, 1)} if answer else {}
    # An annotator who wrote nothing is not counted: unanimity of the others stays unanimity.
    spellings = Counter(filter(None, map(tidy_answer, texts)))
    counts: Counter[str] = Counter()
    for spelling, n in spellings.items():
        counts[normalise_answer(spelling)] += n
    written, annotators = most_frequent_spellings(spellings), count_annotators(texts)
    return {written[form]: annotator_score(n, annotators) for form, n in counts.most_common()}


def raw_annotations(texts: Sequence[str]) -> Sequence[str]:
    """What an example keeps of its annotators' texts: all of them, letter by letter; of one annotator nothing."""
    return texts if len(texts) > 1 else ()


def most_frequent_spellings(spellings: Counter[str]) -> dict[str, str]:
    """Normal form -> the spelling that most annotators wrote, the first of equals."""
    written: dict[str, str] = {}
    for spelling, _ in spellings.most_common():
        written.setdefault(normalise_answer(spelling), spelling)
    return written


def merge_normal_forms(
    answers: Mapping[str, float], form: Callable[[str], str] = normalise_answer
) -> dict[str, float]:
    """True answers in a normal form; the scores of those that fall together add up to at most 1.

    With the scores of `annotator_score` the sum is exactly what the annotators together would have given.
    """
    merged: dict[str, float] = {}
    for answer, score in answers.items():
        key = form(answer)
        merged[key] = min(1.0, _exact_sum(merged[key] + score)) if key in merged else score
    return merged


def _exact_sum(score: float) -> float:
    """A sum of scores as the fraction it is: equal scores must be seen to be equal."""
    # 0.3 + 0.6 is 0.8999999999999999. The scores of `annotator_score` are tenths, thirds and halves.
    thirtieths = round(score * 30) / 30
    return thirtieths if abs(thirtieths - score) < 1e-9 else score

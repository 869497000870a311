"""Which choice a model's text names: by kovqa's own reading, or by the rule of a set's own program.

A text that is one of the choices is that choice for all of them: so kovqa's predictions are written. Otherwise:

| protocol | what is read | whose rule |
|---|---|---|
| `choice`, `circular` | a letter, a circled number, the text of a choice, in a sentence too: `read_choice` | kovqa's |
| `choice-first-letter` | the first letter of the text, nothing else | K-SEED, K-DTCBench |
| `choice-bare-letter` | a text that is one capital letter | K-Viscuit |
| `choice-answer-line` | what follows the last `Answer:`, else letters in parentheses, … | KRETA |

What names no choice, or several, is wrong and counted: nothing is drawn at random and no other model is asked.
(docs/sources/benchmarks.md, K16 to K19)
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from enum import Enum

from kovqa_core.data.answers import normalise_answer
from kovqa_core.data.decoding import CHOICE_LETTERS, FULL_WIDTH_TO_ASCII, find_choice


class Unread(Enum):
    """Why a text names not one choice of a question."""

    NONE = "none"  # it names no choice
    SEVERAL = "several"  # it names more than one


ChoiceReader = Callable[[str, Sequence[str]], "int | Unread"]

# What may follow a letter or a choice in a Korean sentence: nothing else makes it a word of its own (B형 is none).
_LAST_ENDING = r"(?:다|인|네요|요)(?![가-힣])"
_ENDING = (
    rf"(?:번|은|는|이|가|을|를|로|으로|과|와|도|의|라|만|입니|이다|예요|이에요|임|이며|이고|{_LAST_ENDING})"
)
# A가 아니라 B names B alone.
_NOT_DENIED = r"(?!(?:은|는|이|가)?\s*아[니닌닙님])"
_LETTER_END = rf"(?:(?![A-Za-z0-9가-힣])|(?={_ENDING})){_NOT_DENIED}"
# A capital by itself; A and I before a small letter are English words. In parentheses a small one counts too.
_LETTER = re.compile(
    rf"\(([A-Za-z])\)|(?<![A-Za-z0-9가-힣])(?<![A-Za-z]['’])(?![AI]\s+(?!or\b|and\b|is\b)[a-z])([A-Z]){_LETTER_END}(?!['’][a-z])"
)
_CIRCLED = re.compile("[①-⑳]")
# A number counts where an answer is announced, or is all there is.
_NUMBER = re.compile(
    rf"(?<![\w.])\(?(\d{{1,2}})(?:번|\)|\.?(?=\s|$)|(?=입니|이다|예요|이에요|다(?![가-힣]))){_NOT_DENIED}"
)
_NUMBERED_ANSWER = re.compile(r"(?<![\w.])(\d{1,2})번[이을은]?\s*(?:정답|답)(?!이?\s*아[니닌닙님])")
_WHOLE_LABEL = re.compile(r"[\s\"'*`(\[<]*([A-Za-z]|\d{1,2}|[①-⑳])(?:번)?[\s\"'*`)\]>.:,]*")
_FINAL = r"최종\s*|final\s+"
_ANNOUNCEMENT = re.compile(
    rf"(?P<final>{_FINAL})?(?:(?:정답|답변|답안|답)(?:은|는|이|:|\s|\*)|"
    r"\b(?:answer|option|choice)(?:\s+is\b|\s*[:])|answer\*\*\s*[:])[\s:*]*",
    re.IGNORECASE,
)
_REASON = re.compile(r"\bbecause\b|\bsince\b|왜냐하면", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\n|[.。!?](?=\s|$)(?<!\b[A-Z]\.)")


def read_choice(text: str, choices: Sequence[str]) -> int | Unread:
    """kovqa's own reading of an answer in a model's words.

    In this order: the text of a choice; a letter or number alone (`b`, `(B)`, `②`, `2번`) in the first or the last line;
    what follows the last announcement of an answer (정답은, Answer:, 최종 답 before all others) up to the end of the
    sentence; the one letter that stands anywhere; the one choice whose text stands anywhere.

    Args:
        text: what the model wrote.
        choices: of the question, in the order of their letters.

    Returns:
        The number of the choice, from 0.
    """
    found = find_choice(choices, text)
    if found is not None:
        return found
    text = text.translate(FULL_WIDTH_TO_ASCII)
    lines = [line for line in text.splitlines() if line.strip()]
    labels = (_lone_label(line, choices) for line in (*lines[:1], *lines[-1:]))
    if alone := {label for label in labels if label is not None}:
        return alone.pop() if len(alone) == 1 else Unread.SEVERAL
    announced = [*_ANNOUNCEMENT.finditer(text)]
    announced = [match for match in announced if match["final"]] or announced
    for match in reversed(announced):
        reading = _read_sentence(text[match.end() :], choices, with_numbers=True)
        if reading is not Unread.NONE:
            return reading
    numbers = {match[1] for match in _NUMBERED_ANSWER.finditer(text)}  # 2번이 정답입니다
    if len(numbers) == 1 and not _have_numbers(choices):
        number = _label_number(numbers.pop(), choices)
        return Unread.NONE if number is None else number
    # B, because A is wrong: what follows is no answer.
    reading = _read_part(_REASON.split(text, maxsplit=1)[0], choices, with_numbers=False)
    return _read_part(text, choices, with_numbers=False) if reading is Unread.NONE else reading


def _read_sentence(text: str, choices: Sequence[str], *, with_numbers: bool) -> int | Unread:
    """What the first sentence names; the line after an announcement that ends its own line."""
    text = text.lstrip()
    # A full stop behind a letter ends no sentence: B. 고양이.
    rest = re.match(r"\(?[A-Za-z0-9①-⑳]{1,2}\)?[.:]\s*", text)
    end = _SENTENCE_END.search(text, rest.end() if rest else 0)
    sentence = _REASON.split(text[: end.start()] if end else text, maxsplit=1)[0]
    return _read_part(sentence, choices, with_numbers=with_numbers)


def _read_part(text: str, choices: Sequence[str], *, with_numbers: bool) -> int | Unread:
    """What a text names: by labels, which a text of another choice beside them contradicts, else by texts."""
    labels = _find_labels(text, choices, with_numbers=with_numbers)
    texts = _find_texts(text, choices)
    named = labels or texts
    if not named:
        return Unread.NONE
    if len(named) > 1 or (texts and not named <= texts):
        return Unread.SEVERAL
    return named.pop()


def _lone_label(line: str, choices: Sequence[str]) -> int | None:
    """The choice of a line that is a letter or a number alone."""
    match = _WHOLE_LABEL.fullmatch(line)
    if match is None or (match[1].isdecimal() and _have_numbers(choices)):
        return None
    return _label_number(match[1].upper(), choices)


def _have_numbers(choices: Sequence[str]) -> bool:
    """Is a number the text of a choice, or part of one? Then it does not count choices."""
    return any(re.search(r"\d", choice) for choice in choices)


def _label_number(label: str, choices: Sequence[str]) -> int | None:
    """The choice that a capital, a circled number or a number from 1 stands for."""
    if label.isalpha():
        number = CHOICE_LETTERS.find(label)
    else:
        number = int(label if label.isdecimal() else unicodedata.numeric(label)) - 1
    return number if 0 <= number < len(choices) else None


def _find_labels(text: str, choices: Sequence[str], *, with_numbers: bool) -> set[int]:
    labels = [(match[1] or match[2]).upper() for match in _LETTER.finditer(text)]
    labels += _CIRCLED.findall(text)
    if with_numbers and not _have_numbers(choices):
        labels += [match[1] for match in _NUMBER.finditer(text)]
    numbers = (_label_number(label, choices) for label in labels)
    return {number for number in numbers if number is not None}


def _find_texts(text: str, choices: Sequence[str]) -> set[int]:
    """The choices whose texts stand in a text as words; one inside a longer one that stands there is not meant."""
    text = normalise_answer(text)
    forms = [normalise_answer(choice) for choice in choices]
    # The longest first, and what was found is taken out: 검은 고양이 does not name 고양이.
    found = set[int]()
    for number in sorted(range(len(forms)), key=lambda number: -len(forms[number])):
        word = re.compile(
            rf"(?<![a-z0-9가-힣]){re.escape(forms[number])}(?:(?![a-z0-9가-힣])|(?={_ENDING})){_NOT_DENIED}"
        )
        text, times = word.subn("\n", text)
        if times:
            found.add(number)
    return found


# ------------------------------------------------------------------------ rules of the sets' own programs


def read_first_letter(text: str, choices: Sequence[str]) -> int | Unread:
    """The first letter of the text, in either case: lmms-eval's rule for K-SEED and K-DTCBench."""
    found = find_choice(choices, text)
    if found is not None:
        return found
    number = CHOICE_LETTERS.find(text.strip()[:1].upper() or " ")
    return number if 0 <= number < len(choices) else Unread.NONE


def read_bare_letter(text: str, choices: Sequence[str]) -> int | Unread:
    """A text that is a capital letter and nothing else: K-Viscuit's own rule."""
    found = find_choice(choices, text)
    if found is not None:
        return found
    letter = text.strip()
    number = CHOICE_LETTERS.find(letter) if len(letter) == 1 else -1
    return number if 0 <= number < len(choices) else Unread.NONE


def read_answer_line(text: str, choices: Sequence[str]) -> int | Unread:
    """KRETA's own rule; where it would draw a choice at random, none is named.

    The one letter behind the last `Answer:`; else letters in parentheses, before a blank, before a full stop; else, in
    a text of more than five words, choices' texts. Of several the last one counts.
    """
    found = find_choice(choices, text)
    if found is not None:
        return found
    letters = CHOICE_LETTERS[: len(choices)]
    _, announced, line = text.rpartition("Answer:")
    behind = [letter for letter in letters if letter in line]
    if announced and len(behind) == 1:
        return letters.index(behind[0])
    for mark in ",.!?;:'":
        text = text.strip(mark)
    text = f" {text} "
    # What is looked for, and by what the last of several is found: not the same, so that B at the very end of a
    # word (`XB `) counts among several as the first that is nowhere.
    for sign, place in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        named = [letter for letter in letters if sign.format(letter) in text]
        if named:
            places = [text.rfind(place.format(letter)) for letter in named]
            return letters.index(named[places.index(max(places))])
    if len(text.split()) > 5:
        places = [text.lower().rfind(choice.lower()) for choice in choices]
        if max(places) >= 0:
            return places.index(max(places))
    return Unread.NONE


CHOICE_READERS: dict[str, ChoiceReader] = {
    "choice": read_choice,
    "circular": read_choice,
    "choice-first-letter": read_first_letter,
    "choice-bare-letter": read_bare_letter,
    "choice-answer-line": read_answer_line,
}

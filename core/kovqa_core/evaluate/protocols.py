"""Protocols: what an answer scores, by what annotators wrote, by the choice it names, or by a judge.

| protocol | score of an answer that k of n annotators gave | normal form |
|---|---|---|
| `official` | VQAv2's program: mean of min(1, k / 3) over the n sets that leave one out | VQAv2's, if not unanimous |
| `official-arithmetic` | the same of ten annotators, min(1, 0.3 k) | another, which the user chose |
| `vizwiz` | VizWiz's program: min(1, k / 3), nobody is left out | VizWiz's, of the answer alone |
| `kovqa` | kovqa's own, for any number but ten: min(1, k / min(3, n)) | any |
| `exact` | one true answer: right or wrong | any |
| `index` | what an index of an earlier version stores, which has no annotations | any |
| `choice`, `choice-…` | of a question with choices: right or wrong by the one it names (`choice_readers.py`) | its own |
| `circular` | the same, once for each turn of a question: right if all are (`circular_scores.py`) | its own |
| `criteria-judge`, `reference-judge` | points that a judge gives, of so many | none |

By default a question with ten annotators is scored by `official` and any other by `kovqa` or `exact`; in the index
of a published benchmark by that set's own protocol (`evaluation.py`).
(docs/sources/datasets.md, D27 and D33; docs/sources/beit3.md, B28)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, partial
from typing import NamedTuple

from kovqa_core.data.answers import (
    OFFICIAL_ANNOTATORS,
    load_contractions,
    merge_normal_forms,
    normalise_answer,
    normalise_vqav2,
    tidy_vqav2,
)
from kovqa_core.data.example import Example
from kovqa_core.errors import DataError, SettingsError, unknown_name_error
from kovqa_core.evaluate.choice_readers import CHOICE_READERS, ChoiceReader, Unread
from kovqa_core.evaluate.normalise_korean import normalise_korean
from kovqa_core.messages import Message, message

# Name of a normal form -> answers with the same result are the same answer.
COMPARISON_RULES: dict[str, Callable[[str], str]] = {
    "plain": normalise_answer,
    "korean": normalise_korean,
    "korean-particles": partial(normalise_korean, particles=True),
    "vqav2": normalise_vqav2,
}
AUTO = "auto"  # each question by the number of its annotators
EXACT, CIRCULAR = "exact", "circular"
ANNOTATOR_PROTOCOLS = (AUTO, EXACT, "official", "vizwiz")  # need no more than true answers
JUDGED_PROTOCOLS = ("criteria-judge", "reference-judge")
PROTOCOLS = (*ANNOTATOR_PROTOCOLS, *CHOICE_READERS, *JUDGED_PROTOCOLS)  # that a user may ask for


class RowScore(NamedTuple):
    """The score of one answer; a named tuple, which is made in half the time of a frozen dataclass.

    Attributes:
        true_scores: true answer, in the form it is compared in -> the score it would have, the most frequent first.
        answer_form: the answer in that form.
        score: of the answer, 0…1.
        protocol: by which it was scored; "" where there is no true answer.
        rule: name of the normal form.
        unread: why an answer to a question with choices is none of them; None: it is one, or there are no choices.
        weight: of the row in a mean; with a judge, how many points there were to get.
    """

    true_scores: Mapping[str, float]
    answer_form: str
    score: float
    protocol: str
    rule: str
    unread: Unread | None = None
    weight: float = 1.0


class RowPoints(NamedTuple):
    """What a judge gives for one answer.

    Attributes:
        points: that it got; more than there were to get where it is better than what it is compared with.
        out_of: above 0. A score of several rows is the sum of their points by the sum of these.
    """

    points: float
    out_of: float


RowScorer = Callable[[Example, str], RowScore]


def choose_row_scorer(
    protocol: str = AUTO, rule: str | None = None, points: Mapping[str, RowPoints] | None = None
) -> RowScorer:
    """The function that scores an answer to an example; it remembers normal forms.

    Args:
        protocol: a name of `PROTOCOLS`. `circular` scores one turn of a question like `choice`.
        rule: normal form (`COMPARISON_RULES`); None: the protocol's own, or "plain" where it has none.
        points: a judge's, by id; for a protocol of `JUDGED_PROTOCOLS` alone.

    Raises:
        SettingsError: an unknown name; a normal form for a protocol that has its own; no points for a judged one.
        DataError: later, by the function itself: an example lacks annotations, choices or points, and the protocol
            needs them.
    """
    if rule is not None and rule not in COMPARISON_RULES:
        raise unknown_name_error(
            message("evaluate.unknown-rule", "unknown normal form '{name}'", name=rule),
            rule,
            COMPARISON_RULES,
        )
    if protocol not in PROTOCOLS:
        raise unknown_name_error(
            message("evaluate.unknown-protocol", "unknown protocol '{name}'", name=protocol),
            protocol,
            PROTOCOLS,
        )
    if protocol not in (AUTO, EXACT) and rule is not None and (protocol, rule) != ("official", "vqav2"):
        raise SettingsError(
            message(
                "evaluate.protocol-has-a-form",
                "the protocol {protocol} has a normal form of its own, and --normalise {rule} was given",
                protocol=protocol,
                rule=rule,
            ),
            message("evaluate.protocol-has-a-form.hint", "leave one of the two out"),
        )
    if protocol in JUDGED_PROTOCOLS:
        return partial(_score_by_points, protocol, _require_points(protocol, points))
    if protocol in CHOICE_READERS:
        return partial(_score_by_choice, CHOICE_READERS[protocol], protocol)
    # Cached: the same few answers come again and again, and the forms are many replacements.
    if protocol == "vizwiz":
        return partial(_score_by_vizwiz, cache(vizwiz_form))
    official = partial(_score_officially, cache(official_form))
    if protocol == "official":
        return official
    by_labels = partial(_score_by_labels, cache(COMPARISON_RULES[rule or "plain"]), rule or "plain")
    if protocol == EXACT:
        return lambda example, answer: _right_or_wrong(by_labels(example, answer))
    if rule not in (None, "vqav2"):
        return by_labels

    def by_number_of_annotators(example: Example, answer: str) -> RowScore:
        is_official = len(example.annotations) == OFFICIAL_ANNOTATORS
        return official(example, answer) if is_official else by_labels(example, answer)

    return by_number_of_annotators


def describe_protocol(name: str) -> Message:
    """A protocol in a few words, to stand beside a score."""
    match name:
        case "official":
            return message("evaluate.protocol-official", "VQAv2's official rule")
        case "official-arithmetic":
            return message(
                "evaluate.protocol-arithmetic", "VQAv2's arithmetic for ten annotators, not its normal form"
            )
        case "vizwiz":
            return message("evaluate.protocol-vizwiz", "VizWiz's official rule")
        case "kovqa":
            return message(
                "evaluate.protocol-kovqa", "kovqa's own rule, min(1, k / min(3, n)) of n annotators"
            )
        case "exact":
            return message("evaluate.protocol-exact", "right or wrong by the one true answer")
        case "circular":
            return message(
                "evaluate.protocol-circular", "right where all turns of the choices are (circular)"
            )
        case "choice":
            return message("evaluate.protocol-choice", "right or wrong by the choice that the answer names")
        case "choice-first-letter":
            return message("evaluate.protocol-first-letter", "the choice, by the first letter of the answer")
        case "choice-bare-letter":
            return message("evaluate.protocol-bare-letter", "the choice, by an answer of one letter alone")
        case "choice-answer-line":
            return message("evaluate.protocol-answer-line", "the choice, by the line Answer: (KRETA's rule)")
        case "criteria-judge":
            return message("evaluate.protocol-criteria-judge", "a judge's points by each question's criteria")
        case "reference-judge":
            return message(
                "evaluate.protocol-reference-judge", "a judge's points beside the reference answer's"
            )
        case _:
            return message("evaluate.protocol-index", "the scores that the index stores")


# ------------------------------------------------------------------------------ published programs


def official_score(agreeing: int, annotators: int) -> float:
    """VQAv2's score of an answer, 0…1: the mean of min(1, k / 3) over the sets that leave one annotator out.

    Of ten annotators it is min(1, 0.3 k). Of three who agree it is 2/3, and of a single one 0.

    Args:
        agreeing: annotators who gave it.
        annotators: all of them.
    """
    # Times 3, in whole numbers: the mean is then one division, and exact.
    left_out_agrees = agreeing * min(3, agreeing - 1)
    left_out_differs = (annotators - agreeing) * min(3, agreeing)
    return (left_out_agrees + left_out_differs) / (3 * annotators)


def official_form(answer: str) -> str:
    """VQAv2's normal form as its own program has it, for a text that is already stripped (B28)."""
    return _lower_letters(tidy_vqav2(answer, ascii_digits=True))


def vizwiz_form(answer: str) -> str:
    """VizWiz's normal form, for a text that is already stripped (D33)."""
    return tidy_vqav2(answer, _vizwiz_contractions()).lower()


def _lower_letters(text: str) -> str:
    # Python 2, for which VQAv2's program is written, has one small letter for each, wherever it stands: Σ is σ, İ is i.
    return text.lower() if text.isascii() else "".join(letter.lower()[0] for letter in text)


# VizWiz's program has VQAv2's contractions, typed with the quotation mark ’ but for these: words that are written
# with an apostrophe in the list, and words that get one.
_VIZWIZ_STRAIGHT_KEYS = frozenset({"couldn'tve", "hadn'tve"})
_VIZWIZ_STRAIGHT_VALUES = frozenset(
    {"ain't", "aren't", "can't", "could've", "couldn't", "we've", "where's", "who've"}
)


@cache
def _vizwiz_contractions() -> Mapping[str, str]:
    return {
        key if key in _VIZWIZ_STRAIGHT_KEYS else key.replace("'", "’"): (
            word if word in _VIZWIZ_STRAIGHT_VALUES else word.replace("'", "’")
        )
        for key, word in load_contractions().items()
    }


@cache
def _official_scores(annotators: int) -> Sequence[float]:
    """`official_score` of 0, 1, 2, … of so many annotators."""
    return [0.0, *(official_score(agreeing, annotators) for agreeing in range(1, annotators + 1))]


@lru_cache(maxsize=1 << 16)
def _strip_blanks(text: str) -> str:
    """An answer as both programs take it: on one line, without blanks around it."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def _count_texts(texts: Sequence[str]) -> dict[str, int]:
    """How often each text occurs, in the order of their first occurrence."""
    # Ten equal ones are frequent, and found at once; for ten others a loop is faster than a Counter.
    if texts and texts.count(texts[0]) == len(texts):
        return {texts[0]: len(texts)}
    counts: dict[str, int] = {}
    for text in texts:
        counts[text] = counts.get(text, 0) + 1
    return counts


def _add_up_forms(counts: Mapping[str, int], form: Callable[[str], str]) -> dict[str, int]:
    """Counts of texts as counts of their forms."""
    forms: dict[str, int] = {}
    for text, n in counts.items():
        key = form(text)
        forms[key] = forms.get(key, 0) + n
    return forms


def _most_frequent_first(counts: dict[str, int]) -> dict[str, int]:
    return counts if len(counts) == 1 else dict(sorted(counts.items(), key=_negative_count))


def _negative_count(item: tuple[str, int]) -> int:
    return -item[1]


def _score_officially(form: Callable[[str], str], example: Example, answer: str) -> RowScore:
    annotations = _require_annotations(example, "official")
    # Normalised once for each different text, not for each annotator.
    counts, answer = _add_up_forms(_count_texts(annotations), _strip_blanks), _strip_blanks(answer)
    # Where all annotators wrote the same, the program normalises neither them nor the answer.
    if len(counts) > 1:
        counts, answer = _add_up_forms(counts, form), form(answer)
    scores = _official_scores(len(annotations))
    true_scores = {text: scores[n] for text, n in _most_frequent_first(counts).items()}
    return RowScore(true_scores, answer, true_scores.get(answer, 0.0), "official", "vqav2")


def _score_by_vizwiz(form: Callable[[str], str], example: Example, answer: str) -> RowScore:
    counts = _most_frequent_first(_count_texts(_require_annotations(example, "vizwiz")))
    true_scores = {text: min(1.0, n / 3) for text, n in counts.items()}
    answer = form(_strip_blanks(answer))
    return RowScore(true_scores, answer, true_scores.get(answer, 0.0), "vizwiz", "vizwiz")


def _require_annotations(example: Example, protocol: str) -> Sequence[str]:
    # A question that nobody answered has none either: it scores 0, and is counted as unanswered.
    if not example.annotations and example.answers:
        raise DataError(
            message(
                "evaluate.no-annotations",
                "question {id}: the index has no annotators' answers, which --protocol {protocol} needs",
                id=example.id,
                protocol=protocol,
            ),
            message(
                "evaluate.no-annotations.hint",
                "several people answered it: write the index again (kovqa index); one did: leave out --protocol",
            ),
        )
    return example.annotations


# ---------------------------------------------------------------------------- by an index's scores


def _score_by_labels(form: Callable[[str], str], rule: str, example: Example, answer: str) -> RowScore:
    true_scores = merge_normal_forms(example.answers, form)
    answer = form(answer)
    return RowScore(true_scores, answer, true_scores.get(answer, 0.0), _labels_protocol(example), rule)


def _labels_protocol(example: Example) -> str:
    """By which protocol the scores in an index were given."""
    if not example.answers:
        return ""
    if example.annotations:
        is_official = len(example.annotations) == OFFICIAL_ANNOTATORS
        return "official-arithmetic" if is_official else "kovqa"
    return "exact" if list(example.answers.values()) == [1.0] else "index"


def _right_or_wrong(row: RowScore) -> RowScore:
    """A score of 1 for the best true answer or an equal of it, else 0."""
    best = max(row.true_scores.values(), default=0.0)
    return row._replace(score=float(best > 0 and row.score == best), protocol=EXACT if row.protocol else "")


# ------------------------------------------------------------------------- by choices, by a judge


def _score_by_choice(reader: ChoiceReader, protocol: str, example: Example, answer: str) -> RowScore:
    if not example.choices:
        raise DataError(
            message(
                "evaluate.no-choices",
                "question {id}: no choices in the index, which --protocol {protocol} needs",
                id=example.id,
                protocol=protocol,
            ),
            message(
                "evaluate.no-choices.hint",
                "write the index from a table with a column choices, or leave out --protocol",
            ),
        )
    true_scores = merge_normal_forms(example.answers, normalise_answer)
    named = reader(answer, example.choices)
    protocol = protocol if true_scores else ""
    if isinstance(named, Unread):
        return RowScore(true_scores, normalise_answer(answer), 0.0, protocol, "plain", named)
    choice = example.choices[named]
    form = normalise_answer(choice)
    # Published sets have choices that differ in case alone (10 m, 10 M): their letters tell these apart.
    is_one_of_equals = sum(normalise_answer(each) == form for each in example.choices) > 1
    score = example.answers.get(choice, 0.0) if is_one_of_equals else true_scores.get(form, 0.0)
    return RowScore(true_scores, form, score, protocol, "plain")


def _require_points(protocol: str, points: Mapping[str, RowPoints] | None) -> Mapping[str, RowPoints]:
    if points is None:
        raise SettingsError(
            message(
                "evaluate.needs-a-judge", "{protocol} is the points of a judge, and none was asked", protocol=protocol
            ),
            message("evaluate.needs-a-judge.hint", "name a server whose model judges: --judge URL"),
        )  # fmt: skip
    return points


def _score_by_points(
    protocol: str, points: Mapping[str, RowPoints], example: Example, answer: str
) -> RowScore:
    true_scores, form = merge_normal_forms(example.answers, normalise_answer), normalise_answer(answer)
    if example.id not in points:
        raise DataError(
            message("evaluate.no-verdict", "question {id}: the judge gave no points", id=example.id),
            message("evaluate.no-verdict.hint", "run the same command again: the points so far are kept"),
        )
    given = points[example.id]
    return RowScore(true_scores, form, given.points / given.out_of, protocol, "plain", weight=given.out_of)

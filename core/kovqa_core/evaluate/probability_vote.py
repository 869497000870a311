"""One answer out of several models' likeliest ones: that of the highest mean probability.

A file lists so many answers a question (`kovqa predict --top-k`). What it does not list has an unknown probability,
0 at least and at most that of the last it lists. It counts as 0; where another answer could have won if it were
more, the question counts as undecided, so that nobody takes a short list for the whole truth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kovqa_core.data.answers import normalise_answer
from kovqa_core.data.example import Answer
from kovqa_core.evaluate.likeliest_column import Likeliest


@dataclass(frozen=True)
class ProbabilityVote:
    """What won.

    Attributes:
        answer: the winner with its mean probability; behind it the others, with theirs.
        is_undecided: an answer that some file does not list could have won.
    """

    answer: Answer
    is_undecided: bool


def vote_by_probability(lists: Sequence[Likeliest]) -> ProbabilityVote:
    """The answer of the highest mean probability; among equals that which the first file lists first.

    Answers of one normal form are one answer, written as the first file that lists it; where a file lists several,
    its highest probability counts.

    Args:
        lists: of each file its likeliest answers, not empty.
    """
    written: dict[str, str] = {}
    of_files: list[Mapping[str, float]] = []
    for likeliest in lists:
        of_file: dict[str, float] = {}
        for text, probability in likeliest:
            form = normalise_answer(text)
            written.setdefault(form, text)
            of_file[form] = max(probability, of_file.get(form, 0.0))
        of_files.append(of_file)
    at_least = {form: _mean(of_file.get(form, 0.0) for of_file in of_files) for form in written}
    ranked = sorted(written, key=lambda form: -at_least[form])  # stable: among equals the first written
    winner = ranked[0]
    # What an unlisted answer has at most; of one that no file lists, in all of them.
    last = [min(of_file.values()) for of_file in of_files]
    at_most = [
        _mean(of_file.get(form, most) for of_file, most in zip(of_files, last, strict=True))
        for form in written
        if form != winner
    ]
    could_win = max([_mean(last), *at_most]) > at_least[winner]
    likeliest = tuple((written[form], at_least[form]) for form in ranked)
    return ProbabilityVote(Answer(*likeliest[0], likeliest), could_win)


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)

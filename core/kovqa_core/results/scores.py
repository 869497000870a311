"""Scores of predictions, by kind of question, beside the majority baseline. No torch."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.data.answers import normalise
from kovqa_core.data.example import Example
from kovqa_core.data.index import Split
from kovqa_core.errors import DataError
from kovqa_core.files import read_text


@dataclass(frozen=True)
class Score:
    """Scores of one kind of question; shares of 1.

    Attributes:
        kind: the kind; "" for all together.
        rows: questions of that kind.
        score: mean soft score of the answers given.
        majority: what always giving the kind's most frequent answer would score.
    """

    kind: str
    rows: int
    score: float
    majority: float


def soft_score(answer: str, truth: Mapping[str, float]) -> float:
    """Score of one answer: the soft label of its normal form, 0 for an answer nobody gave."""
    return truth.get(normalise(answer), 0.0)


def by_kind(pairs: Iterable[tuple[Example, str]]) -> list[Score]:
    """Scores of (example, answer given), kind by kind in code point order, all together last."""
    kinds: dict[str, list[tuple[Example, str]]] = defaultdict(list)
    for example, answer in pairs:
        kinds[example.kind].append((example, answer))
    found = [_score(kind, kinds[kind]) for kind in sorted(kinds)]
    everything = [pair for kind in sorted(kinds) for pair in kinds[kind]]
    # The majority of all kinds together knows the kind: it is the baseline to beat.
    majority = sum(s.majority * s.rows for s in found) / max(1, len(everything))
    return [*found, Score("", len(everything), _mean(everything), majority)]


def _score(kind: str, pairs: Sequence[tuple[Example, str]]) -> Score:
    weights: Counter[str] = Counter()
    for example, _ in pairs:
        weights.update(example.answers)  # sums of soft scores
    best = max(weights.values(), default=0) / len(pairs)
    return Score(kind, len(pairs), _mean(pairs), best)


def _mean(pairs: Sequence[tuple[Example, str]]) -> float:
    return sum(soft_score(answer, example.answers) for example, answer in pairs) / max(1, len(pairs))


def score_file(predictions: Path, index: Path) -> list[Score]:
    """Scores of a predictions file against an index split; every id must be there once.

    Raises:
        DataError: a line that is no prediction; ids missing, foreign or double (the first ten named).
    """
    given: dict[str, str] = {}
    for number, line in enumerate(read_text(predictions).splitlines(), 1):
        try:
            row = json.loads(line)
            id, answer = str(row["id"]), str(row["answer"])
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{predictions}:{number}: no prediction", "write it with kovqa predict") from None
        if id in given:
            raise DataError(
                f"{predictions}:{number}: id {id} appears twice", "write it again with kovqa predict"
            )
        given[id] = answer
    split = Split(index)
    wanted = {example.id for example in split}
    for what, ids in (("no prediction for", wanted - given.keys()), ("unknown", given.keys() - wanted)):
        if ids:
            shown = ", ".join(sorted(ids)[:10])
            raise DataError(
                f"{predictions}: {what} {len(ids)} ids of {index}: {shown}", "predict that split again"
            )
    return by_kind((example, given[example.id]) for example in split)

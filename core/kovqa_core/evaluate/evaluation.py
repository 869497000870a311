"""A predictions file scored against the index it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.data.example import Example
from kovqa_core.data.question_types import ALL_TYPES, read_type_groups
from kovqa_core.evaluate.answer_scores import AnswerScores, score_answers
from kovqa_core.evaluate.caption_scores import CaptionScores, score_captions
from kovqa_core.evaluate.predictions_file import Predictions, match_predictions, read_predictions

EvaluationProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class EvaluationResult:
    """Predictions, what they answer, and their scores."""

    predictions: Path
    index: Path
    given: Predictions
    split: Sequence[Example]
    scores: AnswerScores | CaptionScores


def evaluate_file(
    predictions: Path,
    index: Path,
    rule: str = "plain",
    tokens: str = "auto",
    progress: EvaluationProgress | None = None,
    kinds: Sequence[str] = (),
) -> EvaluationResult:
    """Score a predictions file against an index split; every id must be there once.

    Groups of kinds that the index defines have their own scores; one of which rows are left out has none.

    Args:
        predictions: lines of answers or of captions; which of them, the file says.
        index: a split's `.jsonl`.
        rule: normal form in which answers are compared (`scores.RULES`).
        tokens: what captions are cut into (`caption_tokens`).
        progress: called with (rows read, rows in total).
        kinds: only questions of these kinds; none or "all": every one.

    Raises:
        DataError: a line that is no prediction; ids missing, foreign or double; an empty reference.
        SettingsError: an unknown rule or kind.
    """
    given = read_predictions(predictions)
    split = match_predictions(given, predictions, index, kinds)

    if given.task == "caption":
        examples = list(_with_progress(split, progress))
        ids = [example.id for example in examples]
        references = [example.captions for example in examples]
        scores: AnswerScores | CaptionScores = score_captions(
            ids, references, [given.texts[id] for id in ids], tokens
        )
    else:
        some = kinds and ALL_TYPES not in kinds
        groups = {n: of for n, of in read_type_groups(index).items() if not some or set(of) <= set(kinds)}
        pairs = ((example, given.texts[example.id]) for example in _with_progress(split, progress))
        scores = score_answers(pairs, rule, groups)
    return EvaluationResult(predictions, index, given, split, scores)


def _with_progress(split: Sequence[Example], progress: EvaluationProgress | None) -> Iterator[Example]:
    for number, example in enumerate(split, 1):
        if progress:
            progress(number, len(split))
        yield example

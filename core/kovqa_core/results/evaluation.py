"""A predictions file scored against the index it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.data.example import Example
from kovqa_core.data.index import Split
from kovqa_core.results.caption_scores import CaptionScores, score_captions
from kovqa_core.results.predictions import Predictions, match, read_predictions
from kovqa_core.results.scores import AnswerScores, score_answers

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Evaluation:
    """Predictions, what they answer, and their scores."""

    predictions: Path
    index: Path
    given: Predictions
    split: Split
    scores: AnswerScores | CaptionScores


def evaluate_file(
    predictions: Path,
    index: Path,
    rule: str = "plain",
    tokens: str = "auto",
    progress: Progress | None = None,
) -> Evaluation:
    """Score a predictions file against an index split; every id must be there once.

    Args:
        predictions: lines of answers or of captions; which of them, the file says.
        index: a split's `.jsonl`.
        rule: normal form in which answers are compared (`scores.RULES`).
        tokens: what captions are cut into (`caption_tokens`).
        progress: called with (rows read, rows in total).

    Raises:
        DataError: a line that is no prediction; ids missing, foreign or double; an empty reference.
        SettingsError: an unknown rule.
    """
    given = read_predictions(predictions)
    split = match(given, predictions, index)

    if given.task == "caption":
        examples = list(_told(split, progress))
        ids = [example.id for example in examples]
        references = [example.captions for example in examples]
        scores: AnswerScores | CaptionScores = score_captions(
            ids, references, [given.texts[id] for id in ids], tokens
        )
    else:
        scores = score_answers(
            ((example, given.texts[example.id]) for example in _told(split, progress)), rule
        )
    return Evaluation(predictions, index, given, split, scores)


def _told(split: Split, progress: Progress | None) -> Iterator[Example]:
    for number, example in enumerate(split, 1):
        if progress:
            progress(number, len(split))
        yield example

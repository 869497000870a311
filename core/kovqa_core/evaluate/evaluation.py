"""A predictions file scored against the index it answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kovqa_core.data.benchmark_sets import BENCHMARK_SETS, BenchmarkSet
from kovqa_core.data.example import Example
from kovqa_core.data.question_types import ALL_TYPES
from kovqa_core.errors import SettingsError
from kovqa_core.evaluate.abstention import AbstentionScores, score_abstention
from kovqa_core.evaluate.answer_scores import AnswerScores, score_answers
from kovqa_core.evaluate.caption_scores import CaptionScores, score_captions
from kovqa_core.evaluate.predictions import Predictions
from kovqa_core.evaluate.predictions_file import match_predictions, read_predictions
from kovqa_core.evaluate.protocols import AUTO, JUDGED_PROTOCOLS, RowPoints
from kovqa_core.index.reader import is_index_file, read_type_groups
from kovqa_core.index.report import read_report
from kovqa_core.messages import Message, message
from kovqa_core.progress import OnProgress, Progress, ignore_progress

_SCORING = message("evaluate.scoring", "scoring")


@dataclass(frozen=True)
class EvaluationResult:
    """Predictions, the examples they answer, their scores, and the rule and protocol by which they are scored.

    Attributes:
        examples: in circular evaluation the first turns of the questions that are scored.
        benchmark: the published set whose protocol was taken, because none was named; None: no such set.
        judge: name of the model whose points these are; "" where there was no judge.
        abstention: of questions one choice of which means "unknown"; None: there are no such questions.
    """

    predictions_path: Path
    index_path: Path
    predictions: Predictions
    examples: Sequence[Example]
    scores: AnswerScores | CaptionScores
    rule: str | None = None
    protocol: str = AUTO
    benchmark: BenchmarkSet | None = field(default=None, kw_only=True)
    judge: str = field(default="", kw_only=True)
    abstention: AbstentionScores | None = field(default=None, kw_only=True)


def evaluate_file(
    predictions_path: Path,
    index_path: Path,
    rule: str | None = None,
    tokens: str = "auto",
    on_progress: OnProgress = ignore_progress,
    question_types: Sequence[str] = (),
    protocol: str = AUTO,
    *,
    points: Mapping[str, RowPoints] | None = None,
) -> EvaluationResult:
    """Score a predictions file against an index split; every id must be there once.

    Groups of question types that the index defines have scores of their own; a group some of whose types are
    left out has none.

    Args:
        predictions_path: lines of answers or of captions; which of them, the file says.
        index_path: a split's `.jsonl`.
        rule: normal form in which answers are compared (`protocols.COMPARISON_RULES`); None: the protocol's own.
        tokens: what captions are cut into (`caption_tokens`).
        question_types: only questions of these types; none or "all": every one.
        protocol: what an answer scores (`protocols.PROTOCOLS`); "auto": in the index of a published benchmark by its
            own protocol, elsewhere by what annotators wrote.
        points: what a judge gave the answers, by id, for a protocol that is judged (`protocols.JUDGED_PROTOCOLS`).

    Raises:
        DataError: a line that is not a prediction; ids missing, foreign or double; an empty reference; an index
            without annotations, choices or turns, or an answer without points, where the protocol needs them.
        SettingsError: an unknown rule, protocol or question type; an option that says nothing about such a file; a
            judged protocol without points.
    """
    predictions = read_predictions(predictions_path)
    of_captions = predictions.task == "caption"
    _refuse_unused(predictions_path, rule, tokens, protocol, of_captions=of_captions)
    benchmark = find_benchmark(index_path)
    # Whoever names a normal form or a protocol wants that one.
    takes_own = not of_captions and protocol == AUTO and rule is None
    own_protocol = benchmark if takes_own else None
    protocol = own_protocol.protocol if own_protocol else protocol
    needs_truth = protocol not in JUDGED_PROTOCOLS  # a judge has something else to go by
    predictions, examples = match_predictions(
        predictions, predictions_path, index_path, question_types, needs_truth=needs_truth
    )
    if points is not None:  # who judged has said which ones have none
        examples = [example for example in examples if example.id in points]
    abstention = None
    if of_captions:
        scores: AnswerScores | CaptionScores = _score_captions(predictions, examples, tokens, on_progress)
    else:
        groups = _whole_groups(index_path, question_types)
        columns = benchmark.score_columns if benchmark else ()
        with_unknown: list[Example] = []  # kept: reading a split twice takes as long as scoring it
        pairs = _answered_pairs(predictions, examples, with_unknown, on_progress)
        scores = score_answers(pairs, rule, groups, protocol=protocol, points=points, columns=columns)
        abstention = score_abstention(
            with_unknown, predictions.texts, predictions.confidence, predictions.abstained_from
        )
        examples = scores.examples if scores.examples is not None else examples
    return EvaluationResult(
        predictions_path, index_path, predictions, examples, scores, rule, protocol, benchmark=own_protocol,
        abstention=abstention,
    )  # fmt: skip


def find_benchmark(index_path: Path) -> BenchmarkSet | None:
    """The published benchmark that a split is of, as the `index.json` beside it says; None: of none."""
    return BENCHMARK_SETS.get(read_report(index_path.parent).source) if is_index_file(index_path) else None


def _score_captions(
    predictions: Predictions, examples: Sequence[Example], tokens: str, on_progress: OnProgress
) -> CaptionScores:
    captioned = list(report_rows(examples, _SCORING, on_progress))
    ids = [example.id for example in captioned]
    references = [example.captions for example in captioned]
    return score_captions(ids, references, [predictions.texts[id] for id in ids], tokens)


def _answered_pairs(
    predictions: Predictions,
    examples: Sequence[Example],
    with_unknown: list[Example],
    on_progress: OnProgress,
) -> Iterator[tuple[Example, str]]:
    """Examples and their answers; those that have a choice that means "unknown" are put into the list."""
    for example in report_rows(examples, _SCORING, on_progress):
        if example.unknown:
            with_unknown.append(example)
        yield example, predictions.texts[example.id]


def _whole_groups(index_path: Path, question_types: Sequence[str]) -> dict[str, Sequence[str]]:
    """The index's groups of question types of which none is left out."""
    some = question_types and ALL_TYPES not in question_types
    # A group's score is that of all its types: with some left out it would be another number under the same name.
    return {
        name: members
        for name, members in read_type_groups(index_path).items()
        if not some or set(members) <= set(question_types)
    }


def _refuse_unused(path: Path, rule: str | None, tokens: str, protocol: str, *, of_captions: bool) -> None:
    """Options that would be ignored are an error: somebody expects another number."""
    if of_captions:
        unused = {"--normalise": rule is not None, "--protocol": protocol != AUTO}
        contents = message("evaluate.captions", "captions")
    else:
        unused = {"--tokens": tokens != "auto"}
        contents = message("evaluate.answers", "answers")
    options = [option for option, is_given in unused.items() if is_given]
    if options:
        raise SettingsError(
            message(
                "evaluate.unused-options", "{file} holds {contents}, and {options} is not for them",
                file=path, contents=contents, options=", ".join(options),
            ),
            message("evaluate.unused-options.hint", "leave out {options}", options=", ".join(options)),
        )  # fmt: skip


def report_rows(examples: Sequence[Example], stage: Message, on_progress: OnProgress) -> Iterator[Example]:
    """The examples, whose reading is reported under this name."""
    for number, example in enumerate(examples, 1):
        on_progress(Progress(stage, number, len(examples)))
        yield example

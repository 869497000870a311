"""`kovqa evaluate --judge`: a predictions file, judged against the index that it answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kovqa_core.errors import SettingsError
from kovqa_core.evaluate.evaluation import find_benchmark
from kovqa_core.evaluate.predictions_file import match_predictions, read_predictions
from kovqa_core.evaluate.protocols import AUTO
from kovqa_core.index.reader import table_image_folder
from kovqa_core.judge.judge_answers import JudgedAnswers, JudgeOptions, judge_answers
from kovqa_core.judge.judge_prompts import JUDGE_FORMS
from kovqa_core.judge.verdict_file import default_verdict_file
from kovqa_core.messages import message
from kovqa_core.progress import OnProgress, ignore_progress


def judge_predictions(
    predictions_path: Path,
    index_path: Path,
    options: JudgeOptions,
    protocol: str = AUTO,
    question_types: Sequence[str] = (),
    on_progress: OnProgress = ignore_progress,
) -> JudgedAnswers:
    """What a judge says of a predictions file; every id must be there once. Its verdicts are kept beside that file.

    Args:
        predictions_path: lines of answers.
        index_path: a split's `.jsonl`, whose rows have the columns that the judge reads.
        options: who judges.
        protocol: a name of `JUDGE_FORMS`, or auto: that of the published set the index was made of.
        question_types: only questions of these types; none or "all": every one.
        on_progress: see `judge_answers`.

    Raises:
        SettingsError: the index is of no set that is judged; see `judge_answers`.
        DataError: see `match_predictions` and `judge_answers`.
        AssetError: the server fails.
    """
    protocol = find_judge_protocol(index_path) if protocol == AUTO else protocol
    predictions = read_predictions(predictions_path)
    predictions, examples = match_predictions(
        predictions, predictions_path, index_path, question_types, needs_truth=False
    )
    pairs = [(example, predictions.texts[example.id]) for example in examples]
    file = default_verdict_file(predictions_path)
    return judge_answers(pairs, protocol, options, file, table_image_folder(index_path), on_progress)


def find_judge_protocol(index_path: Path) -> str:
    """The protocol by which a published set is judged.

    Raises:
        SettingsError: the index is of another set.
    """
    benchmark = find_benchmark(index_path)
    if benchmark is None or benchmark.protocol not in JUDGE_FORMS:
        raise SettingsError(
            message(
                "judge.set-not-judged",
                "{index} is not of a set that a judge scores",
                index=index_path,
            ),
            message(
                "judge.set-not-judged.hint",
                "leave out --judge, or say how it is asked: --protocol {protocols}",
                protocols=" | ".join(JUDGE_FORMS),
            ),
        )
    return benchmark.protocol

"""One answer out of several models' (or runs') answers to the same question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.data.answers import normalise_answer
from kovqa_core.data.example import Answer
from kovqa_core.data.json_values import JsonRecord
from kovqa_core.data.table_columns import json_value
from kovqa_core.data.tables import read_table
from kovqa_core.data.write_tables import require_table_format
from kovqa_core.errors import DataError, SettingsError, list_ids
from kovqa_core.evaluate.answers_record import read_answers_record
from kovqa_core.evaluate.join_ids import is_numbered, without_number
from kovqa_core.evaluate.predictions import Predictions, renumber_ids
from kovqa_core.evaluate.predictions_file import (
    prediction_columns,
    read_predictions,
)
from kovqa_core.evaluate.probability_vote import ProbabilityVote, vote_by_probability
from kovqa_core.evaluate.write_predictions import PredictionRow, encode_predictions
from kovqa_core.files import atomic_file, require_other_output
from kovqa_core.messages import message
from kovqa_core.output_lock import output_lock


def vote_answers(model_answers: Sequence[Sequence[Answer]]) -> list[Answer]:
    """The answer most models give to each question; among equals the one whose scores are highest in sum,
    then the first model's. Answers of one normal form are one answer, written as the first model that gives it.
    An empty answer has no vote where another model says something.

    Args:
        model_answers: one list of answers a model, all for the same questions in the same order.

    Returns:
        one answer a question; its score is the mean score over all models, 0 for those that disagree.
    """
    return [_winning_answer(answers) for answers in zip(*model_answers, strict=True)]


def _winning_answer(answers: Sequence[Answer]) -> Answer:
    votes: dict[str, list[Answer]] = {}  # in order of first appearance: max() takes the first of equals
    for answer in [each for each in answers if each.text.strip()] or answers:
        votes.setdefault(normalise_answer(answer.text), []).append(answer)
    winners = max(votes.values(), key=lambda same: (len(same), sum(answer.score for answer in same)))
    return Answer(winners[0].text, sum(answer.score for answer in winners) / len(answers))


@dataclass(frozen=True)
class VoteResult:
    """What a vote rests on.

    Attributes:
        rows: of the file that was written.
        unscored: the files that lack the score of some answer, so that every vote counts as 1 and the other
            scores are ignored; none where no file has scores.
        unusable_scores: by file, where there are any: ids whose score is not in 0…1, which counts as missing.
        undecided: rows in which an answer that some file does not list could have won; None: no vote by probability.
    """

    rows: int
    unscored: tuple[Path, ...]
    unusable_scores: dict[Path, tuple[str, ...]]
    undecided: int | None = None


def vote_on_files(paths: Sequence[Path], output: Path, *, by_probability: bool = False) -> VoteResult:
    """Write the predictions that several files vote for, joined by id.

    Order and further columns are those of the first file. Where a score is missing in one of them,
    every vote counts as 1.

    Args:
        paths: predictions files for the same questions.
        output: where to write, whole or not at all.
        by_probability: the answer of the highest mean probability wins (`probability_vote.py`), not that of the most
            files: all files list their likeliest answers.

    Raises:
        SettingsError: fewer than two files; an output of an unknown format, or that is one of them, or holds a
            model's answers; another process writes it.
        MachineError: the library that writes the output's format is not installed.
        DataError: a file that cannot be read, captions, ids that are not in all files (the first ten named), a file
            that does not list its likeliest answers.
    """
    if len(paths) < 2:
        raise SettingsError(
            message(
                "evaluate.single-vote",
                "a vote needs two predictions files or more, not {path} alone",
                path=paths[0],
            ),
            message("evaluate.single-vote.hint", "kovqa vote A B -o C"),
        )
    require_table_format(output)
    require_other_output(output, paths)
    with output_lock(output):
        return _vote_into(paths, output, by_probability=by_probability)


def _vote_into(paths: Sequence[Path], output: Path, *, by_probability: bool) -> VoteResult:
    """As `vote_on_files`; the output is locked."""
    if output.exists() and read_answers_record(output) is not None:
        raise SettingsError(
            message("evaluate.output-has-answers", "{output} holds the answers of a model", output=output),
            message("evaluate.output-has-answers.hint", "choose another file with -o"),
        )
    files = _read_same_questions(paths)
    if by_probability:
        votes = _vote_by_probability(paths, files)
        _write_votes(paths[0], output, list(files[0].texts), [vote.answer for vote in votes])
        return VoteResult(len(votes), (), {}, sum(vote.is_undecided for vote in votes))
    ids = list(files[0].texts)
    # Scores in some files only cannot be summed: one model's silence would count as doubt.
    unscored = tuple(
        path for path, predictions in zip(paths, files, strict=True) if len(predictions.confidence) < len(ids)
    )
    model_answers = [
        [Answer(predictions.texts[id], 1.0 if unscored else predictions.confidence[id]) for id in ids]
        for predictions in files
    ]
    _write_votes(paths[0], output, ids, vote_answers(model_answers))
    unusable = {
        path: predictions.unusable_scores
        for path, predictions in zip(paths, files, strict=True)
        if predictions.unusable_scores
    }
    # Files without any score lose nothing: then there is nothing to say.
    is_score_ignored = any(predictions.confidence for predictions in files)
    return VoteResult(len(ids), unscored if is_score_ignored else (), unusable)


def _vote_by_probability(paths: Sequence[Path], files: Sequence[Predictions]) -> list[ProbabilityVote]:
    """The votes of all questions, in the first file's order.

    Raises:
        DataError: a file does not list the likeliest answers to each of them.
    """
    for path, predictions in zip(paths, files, strict=True):
        if missing := [id for id in predictions.texts if id not in predictions.likeliest]:
            raise DataError(
                message(
                    "evaluate.no-likeliest", "{path}: the likeliest answers are missing for {ids}",
                    path=path, ids=list_ids(missing),
                ),
                message(
                    "evaluate.no-likeliest.hint",
                    "write them with kovqa predict --top-k 5, or vote without --by probability",
                ),
            )  # fmt: skip
    return [
        vote_by_probability([predictions.likeliest[id] for predictions in files]) for id in files[0].texts
    ]


def _write_votes(first: Path, output: Path, ids: Sequence[str], answers: Sequence[Answer]) -> None:
    """Write the predictions that won, with the other columns of the first file."""
    # Read a second time for them: they are not kept for all files at once.
    voted = [
        _prediction_row(id, answer, row)
        for id, answer, (_, row) in zip(ids, answers, read_table(first), strict=True)
    ]
    contents = encode_predictions(output, voted)
    with atomic_file(output) as stream:
        stream.write(contents)


def _read_same_questions(paths: Sequence[Path]) -> list[Predictions]:
    """Answers to the same questions, each file's by the first one's ids; raises as `vote_on_files`."""
    files = [read_predictions(path) for path in paths]
    for place, path in enumerate(paths):
        predictions = files[place] = _with_ids_of_first(files[0], files[place], paths[0], path)
        if predictions.task != "vqa":
            raise DataError(
                message("evaluate.vote-on-captions", "{path} holds captions", path=path),
                message("evaluate.vote-on-captions.hint", "vote on answers: no two captions are alike"),
            )
        _check_same_questions(files[0], predictions, paths[0], path)
    return files


def _prediction_row(id: str, answer: Answer, row: JsonRecord) -> PredictionRow:
    id_column, *own_columns = prediction_columns(row, "vqa")
    columns = {
        "id" if name == id_column else name: json_value(value)
        for name, value in row.items()
        if name not in own_columns
    }
    return PredictionRow(id, answer, columns, columns)


def _with_ids_of_first(first: Predictions, other: Predictions, first_path: Path, path: Path) -> Predictions:
    """Predictions by the first file's ids, where ids repeat under one image and only the questions tell them apart."""
    groups = set(map(without_number, first.numbered | other.numbered))
    ids = [id for id in other.texts if is_numbered(id) and without_number(id) in groups] if groups else []
    return other if first is other else renumber_ids(other, ids, path, first.questions, first_path)


def _check_same_questions(first: Predictions, other: Predictions, first_path: Path, other_path: Path) -> None:
    missing = [id for id in first.texts if id not in other.texts]
    foreign = [id for id in other.texts if id not in first.texts]
    hint = message("evaluate.other-questions.hint", "vote with predictions for the same table")
    if missing:
        raise DataError(
            message(
                "evaluate.vote-lacks-ids",
                "{other}: no prediction for {ids}",
                other=other_path,
                ids=list_ids(missing),
            ),
            hint,
        )
    if foreign:
        raise DataError(
            message(
                "evaluate.vote-foreign-ids",
                "{other}: not in {first}: {ids}",
                other=other_path,
                first=first_path,
                ids=list_ids(foreign),
            ),
            hint,
        )

"""One answer out of several runs' or models' answers to the same question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kovqa_core.data.example import Answer, prediction_line
from kovqa_core.data.tables import read_table
from kovqa_core.errors import DataError, SettingsError, list_ids
from kovqa_core.evaluate.predictions_file import PREDICTION_COLUMNS, Predictions, read_predictions
from kovqa_core.files import atomic_file
from kovqa_core.messages import message


def vote_answers(ballots: Sequence[Sequence[Answer]]) -> list[Answer]:
    """The answer most runs give to each question; among equals, the one they are surest of in sum, then
    the first run's.

    Args:
        ballots: one list of answers a run, all over the same questions in the same order.

    Returns:
        one answer a question; its score is the mean score over all runs, 0 for those that disagree.
    """
    return [_winning_answer(answers) for answers in zip(*ballots, strict=True)]


def _winning_answer(answers: Sequence[Answer]) -> Answer:
    sure: dict[str, list[float]] = {}
    for answer in answers:
        sure.setdefault(answer.text, []).append(answer.score)
    best = max(sure, key=lambda text: (len(sure[text]), sum(sure[text])))
    return Answer(best, sum(sure[best]) / len(answers))


def vote_on_files(paths: Sequence[Path], output: Path) -> int:
    """Write the predictions that several files vote for, joined by id; the number of rows.

    Order and further columns are those of the first file. Where a score is missing in one of them,
    every vote counts as 1.

    Args:
        paths: predictions files for the same questions.
        output: where to write, whole or not at all.

    Raises:
        SettingsError: fewer than two files.
        DataError: a file that cannot be read, captions, ids that are not in all files (the first ten named).
    """
    if len(paths) < 2:
        raise SettingsError(f"{paths[0]} alone is no vote", "give --vote for every predictions file")
    given = [read_predictions(path) for path in paths]
    for path, predictions in zip(paths, given, strict=True):
        if predictions.task != "vqa":
            raise DataError(f"{path} holds captions", "a vote is between answers: no two captions are alike")
        _check_same_questions(given[0], predictions, paths[0], path)
    ids = list(given[0].texts)
    scored = all(len(predictions.confidence) == len(ids) for predictions in given)
    ballots = [[Answer(p.texts[id], p.confidence[id] if scored else 1.0) for id in ids] for p in given]
    with atomic_file(output) as stream:
        rows = read_table(paths[0], as_text=False)
        for id, answer, (_, row) in zip(ids, vote_answers(ballots), rows, strict=True):
            carried = {name: value for name, value in row.items() if name not in PREDICTION_COLUMNS}
            stream.write(f"{prediction_line(id, answer, carried)}\n".encode())
    return len(ids)


def _check_same_questions(first: Predictions, other: Predictions, path: Path, its_path: Path) -> None:
    missing = [id for id in first.texts if id not in other.texts]
    foreign = [id for id in other.texts if id not in first.texts]
    hint = message("evaluate.other-questions.hint", "vote with predictions of the same table")
    if missing:
        raise DataError(
            message(
                "evaluate.vote-lacks-ids",
                "{other}: no prediction for {ids}",
                other=its_path,
                ids=list_ids(missing),
            ),
            hint,
        )
    if foreign:
        raise DataError(
            message(
                "evaluate.vote-foreign-ids",
                "{other}: not in {first}: {ids}",
                other=its_path,
                first=path,
                ids=list_ids(foreign),
            ),
            hint,
        )

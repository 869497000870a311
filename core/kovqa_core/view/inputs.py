"""What `kovqa view` is to show: the splits of an index and up to two predictions files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from kovqa_core.bounded_json import MAX_LINE_CHARS, parse_json
from kovqa_core.data.tables import read_table
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.evaluate.predictions_file import find_column, prediction_columns
from kovqa_core.evaluate.protocols import (
    ANNOTATOR_PROTOCOLS,
    AUTO,
    PROTOCOLS,
    RowScorer,
    choose_row_scorer,
)
from kovqa_core.files import open_file
from kovqa_core.index.reader import SPLIT_NAMES, IndexSplit, is_index_file, open_index
from kovqa_core.messages import message, shell_quote

MAX_PREDICTIONS = 2
_SAMPLE_IDS = 500  # of a predictions file, by which its split is found
_LIKELY_SPLITS = ("test", "val", "train")  # of those that fit equally well


@dataclass(frozen=True)
class ScoringRules:
    """How answers are scored, as `kovqa evaluate` is told it.

    Attributes:
        rule: normal form; None: the protocol's own.
        protocol: a name of `protocols.PROTOCOLS`.
        question_types: only questions of these types; none: every one.
    """

    rule: str | None = None
    protocol: str = AUTO
    question_types: Sequence[str] = ()

    def scorer(self) -> RowScorer:
        """The function that scores an answer.

        Raises:
            SettingsError: as `choose_row_scorer`; a protocol that needs more than true answers.
        """
        if self.protocol in PROTOCOLS and self.protocol not in ANNOTATOR_PROTOCOLS:
            raise SettingsError(
                message(
                    "view.other-protocol", "kovqa view does not score by {protocol}", protocol=self.protocol
                ),
                message("view.other-protocol.hint", "kovqa evaluate … --report FILE does"),
            )
        return choose_row_scorer(self.protocol, self.rule)


@dataclass(frozen=True)
class ViewInputs:
    """What is shown.

    Attributes:
        name: of the index, as the page's heading has it.
        splits: name -> examples, those with rows; a split's number is its place here.
        images: the folder that no image may lead out of.
        task: "vqa" or "caption".
        named_split: the split that the user named; "": the whole index.
        first_split: the one that is shown first.
        predictions: none, A, or A and B.
        rules: how answers are scored.
    """

    name: str
    splits: dict[str, IndexSplit]
    images: Path
    task: str
    named_split: str
    first_split: str
    predictions: Sequence[Path]
    rules: ScoringRules


def open_inputs(
    index: Path,
    predictions: Sequence[Path] = (),
    images: Path | None = None,
    rules: ScoringRules | None = None,
) -> ViewInputs:
    """Look at what is to be shown; reads the first rows of each file alone.

    Args:
        index: an index folder, or a split's `.jsonl`.
        predictions: up to two files of answers to one split.
        images: the image folder; None: as the index says.
        rules: how answers are scored; None: as `kovqa evaluate` does without options.

    Raises:
        DataError: no index, no rows; predictions in place of an index.
        SettingsError: too many predictions files, or the same one twice; an unknown rule or protocol.
    """
    rules = rules or ScoringRules()
    rules.scorer()  # an unknown name is an error now, not in a minute
    _require_two_files(predictions)
    splits, images_folder, named_split = _open_splits(index, images)
    task = _find_task(splits[named_split or next(iter(splits))])
    first_split = named_split or _likely_split(predictions, splits)
    return ViewInputs(
        f"{index.resolve().parent.name}/{index.name}" if index.is_file() else index.resolve().name,
        splits, images_folder, task, named_split, first_split, tuple(predictions), rules,
    )  # fmt: skip


def _require_two_files(predictions: Sequence[Path]) -> None:
    if len(predictions) > MAX_PREDICTIONS:
        raise SettingsError(
            message(
                "view.too-many-predictions", "--predictions was given {count} times, and two can be compared",
                count=len(predictions),
            ),
            message("view.too-many-predictions.hint", "name one or two files"),
        )  # fmt: skip
    if len(predictions) == MAX_PREDICTIONS and all(path.exists() for path in predictions):
        first, second = predictions
        if first.samefile(second):
            raise SettingsError(
                message("view.same-predictions", "--predictions names {file} twice", file=first),
                message("view.same-predictions.hint", "name the other model's file, or only one"),
            )


def _open_splits(index: Path, images: Path | None) -> tuple[dict[str, IndexSplit], Path, str]:
    """The splits with rows, the image folder, and the split that was named ("" of a folder)."""
    if index.is_dir():
        opened = open_index(index, images)
        splits = _with_rows({name: index / f"{name}.jsonl" for name in SPLIT_NAMES})
        if not splits:
            raise _no_rows_error(index)
        return splits, opened.images, ""
    split = IndexSplit(index)
    if not len(split):
        raise _no_rows_error(index)
    _require_index_row(split, index)
    if not is_index_file(index):
        folder = images or index.parent
        return {index.stem: split}, folder, index.stem
    # Its siblings as well: how often training saw an answer is counted in train.jsonl.
    opened = open_index(index.parent, images)
    paths = {name: index.parent / f"{name}.jsonl" for name in SPLIT_NAMES} | {index.stem: index}
    return _with_rows(paths), opened.images, index.stem


def _with_rows(paths: dict[str, Path]) -> dict[str, IndexSplit]:
    """The splits that are there and not empty; whether an image lies outside is asked where it is opened."""
    splits = {name: IndexSplit(path) for name, path in paths.items() if path.is_file()}
    return {name: split for name, split in splits.items() if len(split)}


def _no_rows_error(index: Path) -> DataError:
    return DataError(
        message("view.no-rows", "{index} has no rows", index=index),
        message("view.no-rows.hint", "write the index again: kovqa index"),
    )


def _require_index_row(split: IndexSplit, path: Path) -> None:
    """See that a file is one of an index; whoever named predictions alone is told how to look at them."""
    try:
        _ = split[0]
    except DataError as error:
        if _is_predictions(path):
            raise DataError(
                message("view.only-predictions", "{file} holds predictions, not an index", file=path),
                message(
                    "view.only-predictions.hint", "name the index they answer: kovqa view INDEX --predictions {file}",
                    file=shell_quote(path),
                ),
            ) from None  # fmt: skip
        raise error


def _is_predictions(path: Path) -> bool:
    with open_file(path) as stream:
        line = stream.readline(MAX_LINE_CHARS)
    try:
        row = parse_json(line)
        return isinstance(row, dict) and any(_has_columns(row, task) for task in ("vqa", "caption"))
    except ValueError:
        return False


def _has_columns(row: dict[str, object], task: str) -> bool:
    try:
        prediction_columns(row, task)
    except ValueError:
        return False
    return True


def _find_task(split: IndexSplit) -> str:
    """By the first rows: those of captions ask nothing."""
    rows = list(islice(split, 20))
    return "caption" if any(row.captions for row in rows) and not any(row.question for row in rows) else "vqa"


def _likely_split(predictions: Sequence[Path], splits: dict[str, IndexSplit]) -> str:
    """The split to show while predictions are still being read: they mostly begin with a split's first row."""
    order = split_order(splits)
    if not predictions:
        return next(iter(splits))
    ids = set(sample_ids(predictions[0]))
    return next((name for name in order if splits[name][0].id in ids), order[0])


def split_order(splits: dict[str, IndexSplit]) -> list[str]:
    """The splits, those that are likely to be answered first."""
    return list(dict.fromkeys([*(name for name in _LIKELY_SPLITS if name in splits), *splits]))


def sample_ids(path: Path) -> list[str]:
    """The first ids of a predictions file; none of one that cannot be read, whose error comes when it is matched."""
    names = ("id", "question_id", "qid", "image_id")
    try:
        rows = [
            row for _, row in islice(read_table(path, as_text=False), _SAMPLE_IDS) if isinstance(row, dict)
        ]
    except DataError:
        return []
    columns = [(row, find_column(row, names)) for row in rows]
    return [str(row[column]) for row, column in columns if column is not None]

"""A predictions file beside the index it answers."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from kovqa_core.data.choice_columns import row_choices
from kovqa_core.data.example import Example
from kovqa_core.data.question_types import choose_question_types
from kovqa_core.data.row_ids import ID_MARK, TableRow, unique_row_ids
from kovqa_core.data.tables import COLUMN_ALIASES, cell_text, read_table
from kovqa_core.errors import DataError, list_ids, list_lines
from kovqa_core.evaluate.join_ids import is_numbered, join_by_image
from kovqa_core.evaluate.likeliest_column import LIKELIEST, Likeliest, parse_likeliest
from kovqa_core.evaluate.predictions import Predictions, rename_ids, renumber_ids
from kovqa_core.evaluate.write_predictions import ABSTAINED_FROM
from kovqa_core.index.reader import IndexSplit, filter_question_types
from kovqa_core.messages import Message, message, shell_quote

# Names of the columns, in lower case; ours first, then LLaVA's and the challenges'.
_ID_COLUMNS = {"caption": ("id", "question_id", "qid", "image_id"), "vqa": ("id", "question_id", "qid")}
IMAGE_COLUMNS = tuple(name.lower() for name in COLUMN_ALIASES["image"])
_QUESTION_COLUMNS = COLUMN_ALIASES["question"]
_TEXT_COLUMNS = {"caption": ("caption", "captions"), "vqa": ("answer", "text", "answers")}


def read_predictions(path: Path) -> Predictions:
    """Read what `kovqa predict` or `kovqa caption` wrote, the answers of LLaVA's own script, or a challenge's file.

    Columns may be written in any case (`ID`). A list of one text is that text, as some programs write an answer.

    Raises:
        DataError: no predictions, a line that is not a prediction (named), an id that is empty or there twice.
    """
    rows: list[TableRow] = []
    texts: list[str] = []
    scores: list[float | None] = []
    likeliest: list[Likeliest] = []
    abstained_from: list[str] = []
    choices: list[Sequence[str]] = []
    empty: list[str] = []
    task = ""
    for number, row in read_table(path, as_text=False):
        # The first line decides for the file.
        task = task or ("caption" if find_column(row, _TEXT_COLUMNS["caption"]) else "vqa")
        try:
            columns = _find_row_columns(tuple(row), task)
            id, text = _prediction_text(row, columns.id), _prediction_text(row, columns.text)
            scores.append(_confidence(row.get(columns.score)))
            likeliest.append(parse_likeliest(row.get(LIKELIEST)))
            abstained_from.append(_optional_text(row, ABSTAINED_FROM))
            choices.append(row_choices(row))
            image = "" if task == "caption" else _optional_text(row, columns.image)
            rows.append(TableRow(id, image, _optional_text(row, columns.question) if image else ""))
        except ValueError as error:
            raise _not_a_prediction_error(path, number, error) from None
        # Collected, not raised at once: one message names the first ten, so that one look mends them all.
        if not id.strip():
            empty.append(str(number))
        texts.append(text)
    ids, repeated = _distinct_ids(rows)
    _require_usable_ids(path, ids, empty, repeated)
    scored = [(id, score) for id, score in zip(ids, scores, strict=True) if score is not None]
    return Predictions(
        task,
        dict(zip(ids, texts, strict=True)),
        {id: score for id, score in scored if 0 <= score <= 1},
        tuple(id for id, score in scored if not 0 <= score <= 1),
        {id: row.image for id, row in zip(ids, rows, strict=True) if row.image},
        {id: row.question for id, row in zip(ids, rows, strict=True) if row.question and is_numbered(id)},
        frozenset(id for id, row in zip(ids, rows, strict=True) if id != row.id and is_numbered(id)),
        {id: answers for id, answers in zip(ids, likeliest, strict=True) if answers},
        {id: text for id, text in zip(ids, abstained_from, strict=True) if text},
        {id: offered for id, offered in zip(ids, choices, strict=True) if offered},
    )


def _distinct_ids(rows: Sequence[TableRow]) -> tuple[list[str], list[str]]:
    """The ids of predictions, qualified where they repeat under several images; and those that nothing tells apart."""
    own_ids = [row.id for row in rows]
    if len(set(own_ids)) == len(rows):
        return own_ids, []
    ids = unique_row_ids(rows)
    times = Counter(own_ids)
    repeated = [
        row.id
        for id, row in zip(ids, rows, strict=True)
        if id is None or (times[row.id] > 1 and not row.image)
    ]
    return [row.id if id is None else id for id, row in zip(ids, rows, strict=True)], repeated


def find_column(columns: Collection[str], names: Sequence[str]) -> str | None:
    """The column that has the first of these names, as it is written or else in another case; None: no such column.

    Args:
        columns: of a table.
        names: in lower case, the likeliest first.
    """
    if exact := next((name for name in names if name in columns), None):
        return exact
    lower = {column.strip().lower(): column for column in columns}
    return next((lower[name] for name in names if name in lower), None)


def prediction_columns(columns: Collection[str], task: str) -> tuple[str, str, str]:
    """The columns of a predictions file that hold id, text and score; all others are carried along.

    Args:
        columns: of one of its lines.
        task: "vqa" or "caption".

    Raises:
        ValueError: no id, or no text; it says which.
    """
    id_column = find_column(columns, _ID_COLUMNS[task])
    text_column = find_column(columns, _TEXT_COLUMNS[task])
    if id_column is None or text_column is None:
        name = "id" if id_column is None else _TEXT_COLUMNS[task][0]
        raise ValueError(message("evaluate.prediction-lacks-column", "no '{column}'", column=name))
    return id_column, text_column, find_column(columns, ("score",)) or "score"


class _RowColumns(NamedTuple):
    """Names of the columns that a line of predictions has; "" for an image or a question that it lacks."""

    id: str
    text: str
    score: str
    image: str
    question: str


@lru_cache(maxsize=1000)  # the lines of a file have the same columns, or a few combinations of them
def _find_row_columns(columns: tuple[str, ...], task: str) -> _RowColumns:
    image, question = find_column(columns, IMAGE_COLUMNS), find_column(columns, _QUESTION_COLUMNS)
    return _RowColumns(*prediction_columns(columns, task), image or "", question or "")


def _optional_text(row: Mapping[str, Any], column: str) -> str:
    """The text of a column that a predictions file may have; a list there says nothing."""
    value = row.get(column)
    return "" if isinstance(value, list | dict) else cell_text(value)


def _prediction_text(row: Mapping[str, Any], column: str) -> str:
    """A cell's text, null as none.

    Raises:
        ValueError: it is not a text or a number; it says what it is.
    """
    value = row[column]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list | dict):
        kind = (
            message("evaluate.a-list", "list")
            if isinstance(value, list)
            else message("evaluate.a-json-object", "JSON object")
        )
        raise ValueError(
            message(
                "evaluate.prediction-not-a-text", "'{column}' is a {type}, not one text",
                column=column, type=kind,
            )
        )  # fmt: skip
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(
            message("evaluate.prediction-not-finite", "'{column}' is {value}", column=column, value=value)
        )
    return cell_text(value)


def _confidence(value: object) -> float | None:
    """A score as a number, whatever its size; None where there is none.

    Raises:
        ValueError: it is not a number.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        if isinstance(value, bool | list | dict):
            raise TypeError
        return float(value)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        text = json.dumps(value, ensure_ascii=False)
        raise ValueError(
            message("evaluate.score-not-a-number", "'score' is {value}, not a number", value=text)
        ) from None
    except OverflowError:  # an integer of more than 308 digits
        return math.inf


def _not_a_prediction_error(path: Path, line: int, problem: ValueError) -> DataError:
    return DataError(
        message(
            "evaluate.not-a-prediction", "{path}:{number}: not a prediction ({problem})",
            path=path, number=line, problem=problem,
        ),
        message(
            "evaluate.not-a-prediction.hint",
            'a line is {{"id": …, "answer": …}} or {{"id": …, "caption": …}}, the same in the whole file',
        ),
    )  # fmt: skip


def _require_usable_ids(
    path: Path, ids: Sequence[str], empty: Sequence[str], repeated: Sequence[str]
) -> None:
    """See that a file has predictions, each with an id of its own.

    Args:
        path: the file.
        ids: of its lines.
        empty: numbers of the lines without an id.
        repeated: ids of more than one line.
    """
    if not ids:
        raise DataError(
            message("evaluate.no-predictions", "{path} holds no predictions", path=path),
            message("evaluate.no-predictions.hint", "write them with kovqa predict or kovqa caption"),
        )
    if empty:
        raise DataError(
            message("evaluate.no-id", "{path}: no id in {lines}", path=path, lines=list_lines(empty)),
            message("evaluate.bad-ids.hint", "write it again with kovqa predict"),
        )
    if repeated:
        raise DataError(
            message(
                "evaluate.id-repeated",
                "{path}: more than once: {ids}",
                path=path,
                ids=list_ids(list(dict.fromkeys(repeated))),
            ),
            message(
                "evaluate.id-repeated.hint",
                "write it again with kovqa predict; or add a column image, if the ids repeat under several images",
            ),
        )


def match_predictions(
    predictions: Predictions,
    path: Path,
    index_path: Path,
    question_types: Sequence[str] = (),
    *,
    needs_truth: bool = True,
) -> tuple[Predictions, Sequence[Example]]:
    """The examples that a predictions file answers; every id of their question types must be there once.

    Ids that the index does not know are looked for by their images.

    Args:
        predictions: those for the split's other question types do not count.
        path: the file they come from.
        index_path: a split's `.jsonl`.
        question_types: only questions of these types; none or "all": every one.
        needs_truth: are they compared with the index's answers? A judge may have something else to go by.

    Raises:
        DataError: ids missing or foreign (the first ten named); an index without what is to be compared.
        SettingsError: a question type the split does not have.

    Returns:
        the predictions by the index's ids, and the examples.
    """
    split = IndexSplit(index_path)
    type_of = {example.id: example.question_type for example in split}
    if foreign := [id for id in predictions.texts if id not in type_of]:
        joined = join_by_image(
            foreign, predictions.images, ((e.id, e.image) for e in split if e.id not in predictions.texts)
        )
        predictions = rename_ids(predictions, joined)
    if predictions.numbered:
        questions = {example.id: example.question for example in split if is_numbered(example.id)}
        predictions = renumber_ids(predictions, predictions.numbered, path, questions, index_path)
    chosen = choose_question_types(question_types, type_of.values())
    _require_same_ids(predictions, path, index_path, type_of, chosen)
    # Without a choice the split itself is returned: it reads rows when they are wanted.
    examples = filter_question_types(split, () if chosen.issuperset(type_of.values()) else chosen)
    if needs_truth:
        _require_truth(predictions.task, examples, index_path)
    return predictions, examples


def _require_same_ids(
    predictions: Predictions,
    path: Path,
    index_path: Path,
    type_of: Mapping[str, str],
    chosen: Collection[str],
) -> None:
    """See that every id of the chosen question types has a prediction, and that no prediction is of another split.

    Args:
        predictions: those of the file `path`.
        path, index_path: the two files, for errors.
        type_of: id -> question type, of the whole split.
        chosen: question types that are scored.
    """
    missing = [id for id, name in type_of.items() if name in chosen and id not in predictions.texts]
    # Compared with the whole split: predictions of other question types are no error, they just do not count.
    foreign = [id for id in predictions.texts if id not in type_of]
    other_split = message("evaluate.other-split.hint", "predict that split again")
    if missing and foreign and len(foreign) == len(predictions.texts):
        raise DataError(
            message(
                "evaluate.other-rows", "{path} answers other rows: none of its ids is in {index}",
                path=path, index=index_path,
            ),
            message(
                "evaluate.other-rows.hint",
                "name the file that was predicted: --index INDEX/val.jsonl, or test.jsonl, train.jsonl",
            ),
        )  # fmt: skip
    if missing:
        raise DataError(
            message(
                "evaluate.no-prediction", "{path}, {index}: no prediction for {ids}",
                path=path, index=index_path, ids=list_ids(missing),
            ),
            _missing_ids_hint(
                missing, foreign, _complete_types_options(predictions, type_of), index_path
            ),
        )  # fmt: skip
    if foreign:
        raise DataError(
            message(
                "evaluate.foreign-id", "{path}, {index}: not in the index: {ids}",
                path=path, index=index_path, ids=list_ids(foreign),
            ),
            other_split,
        )  # fmt: skip


def _missing_ids_hint(
    missing: Sequence[str], foreign: Sequence[str], options: str, index_path: Path
) -> Message:
    """What to do where predictions are missing.

    Args:
        missing: ids of the split without a prediction.
        foreign: ids of predictions that the split does not have.
        options: that would score what is answered; "" where none would.
        index_path: the split.
    """
    if not {id.rpartition(ID_MARK)[2] for id in missing if ID_MARK in id}.isdisjoint(foreign):
        return message(
            "evaluate.no-prediction.qualified-hint",
            "ids of the index that repeat are told apart by their images: predict {index}, or add a column image",
            index=index_path,
        )
    if options:
        return message(
            "evaluate.no-prediction.hint",
            "score only the question types that are answered: {options}",
            options=options,
        )
    return message(
        "evaluate.no-prediction.again-hint",
        "predict that split again; rows that kovqa predict leaves out stay out until their images can be "
        "read: mend them, or score by a copy of {index} without those rows",
        index=index_path,
    )


def _require_truth(task: str, examples: Sequence[Example], index_path: Path) -> None:
    """See that an index has something to compare with: the test split of some data sets has not."""
    if task == "caption" and not any(example.captions for example in examples):
        raise DataError(
            message("evaluate.no-captions", "{index} has no captions to compare with", index=index_path),
            message("evaluate.no-truth.hint", "choose a split that has them: val.jsonl"),
        )
    if task != "caption" and not any(example.answers for example in examples):
        raise DataError(
            message("evaluate.no-answers", "{index} has no answers to compare with", index=index_path),
            message("evaluate.no-truth.hint", "choose a split that has them: val.jsonl"),
        )


def _complete_types_options(predictions: Predictions, type_of: Mapping[str, str]) -> str:
    """The options that score what was answered, if that is all questions of some types and no others; or ""."""
    answered = {name for id, name in type_of.items() if id in predictions.texts}
    complete = all(id in predictions.texts for id, name in type_of.items() if name in answered)
    if not complete or "" in answered:
        return ""
    return " ".join(f"--kind {shell_quote(name)}" for name in sorted(answered))

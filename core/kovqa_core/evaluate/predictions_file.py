"""A predictions file beside the index it answers."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kovqa_core.data.example import Example
from kovqa_core.data.question_types import choose_question_types
from kovqa_core.data.tables import read_table
from kovqa_core.errors import DataError, list_ids, list_lines
from kovqa_core.files import read_json, write_json
from kovqa_core.index.reader import IndexSplit, filter_question_types
from kovqa_core.messages import message

_ID_COLUMNS = ("id", "question_id")  # ours, LLaVA's
_TEXT_COLUMNS = {"caption": ("caption",), "vqa": ("answer", "text")}  # ours first
PREDICTION_COLUMNS = frozenset(
    (*_ID_COLUMNS, *_TEXT_COLUMNS["vqa"], "score")
)  # columns of answers; all others are carried along


@dataclass(frozen=True)
class Predictions:
    """A model's answers or captions, by id.

    Attributes:
        task: "vqa" (lines have an "answer") or "caption" (they have a "caption").
        texts: id -> answer or caption.
        confidence: id -> how sure the model was, 0…1; ids whose line says nothing are missing.
    """

    task: str
    texts: dict[str, str]
    confidence: dict[str, float]


def read_predictions(path: Path) -> Predictions:
    """Read what `kovqa predict` or `kovqa caption` wrote, or the answers of LLaVA's own script.

    Raises:
        DataError: no predictions, a line that is not a prediction (named), an id that is empty or there twice.
    """
    texts: dict[str, str] = {}
    confidence: dict[str, float] = {}
    repeated: list[str] = []
    empty: list[str] = []
    task = ""
    for number, row in read_table(path, as_text=False):
        task = task or ("caption" if "caption" in row else "vqa")  # the first line decides for the file
        try:
            id, text = _first_column_text(row, _ID_COLUMNS), _first_column_text(row, _TEXT_COLUMNS[task])
            if row.get("score") is not None:
                confidence[id] = float(row["score"])
        except (ValueError, KeyError, TypeError):
            raise _not_a_prediction_error(path, number) from None
        # Collected, not raised at once: one message names the first ten, so that one look mends them all.
        if not id.strip():
            empty.append(str(number))
        if id in texts:
            repeated.append(id)
        texts[id] = text
    _require_usable_ids(path, texts, empty, repeated)
    return Predictions(task, texts, confidence)


def _not_a_prediction_error(path: Path, line: int) -> DataError:
    return DataError(
        message("evaluate.not-a-prediction", "{path}:{number}: not a prediction", path=path, number=line),
        message(
            "evaluate.not-a-prediction.hint",
            'a line is {{"id": …, "answer": …}} or {{"id": …, "caption": …}}, the same in the whole file',
        ),
    )


def _require_usable_ids(
    path: Path, texts: Mapping[str, str], empty: Sequence[str], repeated: Sequence[str]
) -> None:
    """See that a file has predictions, each with an id of its own.

    Args:
        path: the file.
        texts: id -> answer or caption.
        empty: numbers of the lines without an id.
        repeated: ids of more than one line.
    """
    if not texts:
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
                "evaluate.id-repeated", "{path}: more than once: {ids}", path=path, ids=list_ids(repeated)
            ),
            message("evaluate.bad-ids.hint", "write it again with kovqa predict"),
        )


def match_predictions(
    predictions: Predictions, path: Path, index_path: Path, question_types: Sequence[str] = ()
) -> Sequence[Example]:
    """The examples that a predictions file answers; every id of their question types must be there once.

    Args:
        predictions: those for the split's other question types do not count.
        path: the file they come from.
        index_path: a split's `.jsonl`.
        question_types: only questions of these types; none or "all": every one.

    Raises:
        DataError: ids missing or foreign (the first ten named); an index without what is to be compared.
        SettingsError: a question type the split does not have.
    """
    split = IndexSplit(index_path)
    type_of = {example.id: example.question_type for example in split}
    chosen = choose_question_types(question_types, type_of.values())
    _require_same_ids(predictions, path, index_path, type_of, chosen)
    # Without a choice the split itself is returned: it reads rows when they are wanted.
    examples = filter_question_types(split, () if chosen.issuperset(type_of.values()) else chosen)
    _require_truth(predictions.task, examples, index_path)
    return examples


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
    if missing:
        options = _complete_types_options(predictions, type_of)
        raise DataError(
            message(
                "evaluate.no-prediction", "{path}, {index}: no prediction for {ids}",
                path=path, index=index_path, ids=list_ids(missing),
            ),
            message(
                "evaluate.no-prediction.hint",
                "score only the question types that are answered: {options}",
                options=options,
            )
            if options
            else message(
                "evaluate.no-prediction.again-hint",
                "predict that split again; rows that kovqa predict leaves out stay out until their images can be "
                "read: mend them, or score by a copy of {index} without those rows",
                index=index_path,
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
    return " ".join(f"--kind {shlex.quote(name)}" for name in sorted(answered))


def _first_column_text(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """The text under the first name a row has, null as none; a KeyError when it has no such name."""
    value = row[next((name for name in names if name in row), names[0])]
    return "" if value is None else str(value)


# ------------------------------------------------------------------- what gave a file's answers


def answers_record_path(predictions: Path) -> Path:
    """Where it is written down what gave the answers of a predictions file: beside it, hidden."""
    return predictions.with_name(f".{predictions.name}.json")


def write_answers_record(predictions: Path, contents: bytes, fingerprint: Mapping[str, object]) -> None:
    """Write down what gave the answers of a predictions file that is about to be written.

    Args:
        predictions: the file.
        contents: that it will have.
        fingerprint: all that they depend on; JSON values.
    """
    record = {"schema": 1, "sha256": hashlib.sha256(contents).hexdigest(), "fingerprint": fingerprint}
    write_json(answers_record_path(predictions), record)


def read_answers_record(predictions: Path) -> Mapping[str, object] | None:
    """What gave the answers of a predictions file; None: not written down, or the file was changed since."""
    path = answers_record_path(predictions)
    record = read_json(path) if path.is_file() else None
    with predictions.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if not isinstance(record, dict) or record.get("sha256") != digest:
        return None
    fingerprint = record.get("fingerprint")
    return fingerprint if isinstance(fingerprint, dict) else None

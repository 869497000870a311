"""A predictions file beside the index it answers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kovqa_core.data.example import Example
from kovqa_core.data.question_types import choose_question_types
from kovqa_core.data.tables import read_table
from kovqa_core.errors import DataError, list_ids, list_lines
from kovqa_core.index.reader import IndexSplit, filter_question_types
from kovqa_core.messages import message

_ID_COLUMNS = ("id", "question_id")  # ours, LLaVA's
_TEXT_COLUMNS = {"caption": ("caption",), "vqa": ("answer", "text")}  # ours first
PREDICTION_COLUMNS = frozenset(
    (*_ID_COLUMNS, *_TEXT_COLUMNS["vqa"], "score")
)  # columns of answers; all others are carried along


@dataclass(frozen=True)
class Predictions:
    """What was said, by id.

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
        DataError: no predictions, a line that is no prediction (named), an id that is empty or there twice.
    """
    texts: dict[str, str] = {}
    confidence: dict[str, float] = {}
    twice: list[str] = []
    empty: list[str] = []
    task = ""
    for number, row in read_table(path, as_text=False):
        task = task or ("caption" if "caption" in row else "vqa")
        try:
            id, said = _first_column_text(row, _ID_COLUMNS), _first_column_text(row, _TEXT_COLUMNS[task])
            if row.get("score") is not None:
                confidence[id] = float(row["score"])
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{path}:{number}: no prediction",
                'a line is {"id": …, "answer": …} or {"id": …, "caption": …}, all of one kind',
            ) from None
        if not id.strip():
            empty.append(str(number))
        if id in texts:
            twice.append(id)
        texts[id] = said
    if not texts:
        raise DataError(f"{path} holds no predictions", "write it with kovqa predict or kovqa caption")
    if empty:
        raise DataError(
            message("evaluate.no-id", "{path}: no id in {lines}", path=path, lines=list_lines(empty)),
            message("evaluate.bad-ids.hint", "write it again with kovqa predict"),
        )
    if twice:
        raise DataError(
            message("evaluate.id-twice", "{path}: twice {ids}", path=path, ids=list_ids(twice)),
            message("evaluate.bad-ids.hint", "write it again with kovqa predict"),
        )
    return Predictions(task, texts, confidence)


def match_predictions(
    given: Predictions, path: Path, index: Path, kinds: Sequence[str] = ()
) -> Sequence[Example]:
    """The examples that a predictions file answers; every id of their kinds must be there once.

    Args:
        given: what was said; predictions for the split's other kinds do not count.
        path: where it was said.
        index: a split's `.jsonl`.
        kinds: only questions of these kinds; none or "all": every one.

    Raises:
        DataError: ids missing or foreign (the first ten named); an index without what is to be compared.
        SettingsError: a kind the split does not have.
    """
    split = IndexSplit(index)
    kind_of = {example.id: example.question_type for example in split}
    chosen = choose_question_types(kinds, kind_of.values())
    missing = [id for id, kind in kind_of.items() if kind in chosen and id not in given.texts]
    foreign = [id for id in given.texts if id not in kind_of]
    hint = message("evaluate.other-split.hint", "predict that split again")
    if missing:
        alone = _complete_types_hint(given, kind_of)
        raise DataError(
            message(
                "evaluate.no-prediction",
                "{path}, {index}: no prediction for {ids}",
                path=path,
                index=index,
                ids=list_ids(missing),
            ),
            message(
                "evaluate.no-prediction.hint",
                "score only the kinds that are answered: {options}",
                options=alone,
            )
            if alone
            else hint,
        )
    if foreign:
        raise DataError(
            message(
                "evaluate.foreign-ids",
                "{path}, {index}: not in the index: {ids}",
                path=path,
                index=index,
                ids=list_ids(foreign),
            ),
            hint,
        )
    examples = filter_question_types(split, () if chosen.issuperset(kind_of.values()) else chosen)
    if not any(example.captions if given.task == "caption" else example.answers for example in examples):
        what = "captions" if given.task == "caption" else "answers"
        raise DataError(f"{index} has no {what} to compare with", "choose a split that has them: val.jsonl")
    return examples


def _complete_types_hint(given: Predictions, kind_of: Mapping[str, str]) -> str:
    """The options that score what was said, if it is all questions of some kinds and no others; or ""."""
    said = {kind for id, kind in kind_of.items() if id in given.texts}
    whole = all(id in given.texts for id, kind in kind_of.items() if kind in said)
    return (
        " ".join(f"--kind {shlex.quote(kind)}" for kind in sorted(said)) if whole and "" not in said else ""
    )


def _first_column_text(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """The text under the first name a row has, null as none; a KeyError when it has no such name."""
    found = row[next((name for name in names if name in row), names[0])]
    return "" if found is None else str(found)

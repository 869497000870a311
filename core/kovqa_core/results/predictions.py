"""A predictions file beside the index it answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.data.index import Split
from kovqa_core.data.tables import read_table
from kovqa_core.errors import DataError

_NAMED = 10  # ids in a message


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
    """Read what `kovqa predict` or `kovqa caption` wrote.

    Raises:
        DataError: no predictions, a line that is no prediction (named), an id twice.
    """
    texts: dict[str, str] = {}
    confidence: dict[str, float] = {}
    twice: list[str] = []
    task = ""
    for number, row in read_table(path, as_text=False):
        task = task or ("caption" if "caption" in row else "vqa")
        try:
            id, said = str(row["id"]), str(row["caption" if task == "caption" else "answer"])
            if row.get("score") is not None:
                confidence[id] = float(row["score"])
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{path}:{number}: no prediction",
                'a line is {"id": …, "answer": …} or {"id": …, "caption": …}, all of one kind',
            ) from None
        if id in texts:
            twice.append(id)
        texts[id] = said
    if not texts:
        raise DataError(f"{path} holds no predictions", "write it with kovqa predict or kovqa caption")
    if twice:
        raise DataError(f"{path}: {named('twice', twice)}", "write it again with kovqa predict")
    return Predictions(task, texts, confidence)


def match(given: Predictions, path: Path, index: Path) -> Split:
    """The split that a predictions file answers; every id must be there once.

    Raises:
        DataError: ids missing or foreign (the first ten named); an index without what is to be compared.
    """
    split = Split(index)
    wanted: dict[str, bool] = {}
    for example in split:
        wanted[example.id] = bool(example.captions if given.task == "caption" else example.answers)
    missing = [id for id in wanted if id not in given.texts]
    foreign = [id for id in given.texts if id not in wanted]
    for what, ids in (("no prediction for", missing), ("not in the index:", foreign)):
        if ids:
            raise DataError(f"{path}, {index}: {named(what, ids)}", "predict that split again")
    if not any(wanted.values()):
        what = "captions" if given.task == "caption" else "answers"
        raise DataError(f"{index} has no {what} to compare with", "choose a split that has them: val.jsonl")
    return split


def named(what: str, ids: Iterable[str]) -> str:
    """ "no prediction for 12 ids: a, b, … (10 named)"."""
    ids = list(ids)
    shown = ", ".join(ids[:_NAMED]) + (", …" if len(ids) > _NAMED else "")
    return f"{what} {len(ids)} id{'s' if len(ids) > 1 else ''}: {shown}"

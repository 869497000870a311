"""Predictions -> the file a challenge takes, joined by id and checked before anybody sends it.

| | file | row |
|---|---|---|
| vqav2 | JSON list | `{"question_id": 262148000, "answer": "yes"}`, every question of the split once |
| coco | JSON list | `{"image_id": 42, "caption": "…"}`, every picture of the split once |

The wanted ids come from the challenge's own file (VQAv2: the questions; COCO: a file of `images`) or
from a split of an index.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.data.index import Split
from kovqa_core.data.records import records
from kovqa_core.errors import DataError, unknown
from kovqa_core.files import write_text
from kovqa_core.results.predictions import named, read_predictions


@dataclass(frozen=True)
class Challenge:
    """What a challenge wants.

    Attributes:
        task: of the predictions.
        id, text: names of the two fields of a row.
        records: list of the challenge's own file that has the ids, and their name there.
    """

    task: str
    id: str
    text: str
    records: tuple[str, str]


CHALLENGES = {
    "vqav2": Challenge("vqa", "question_id", "answer", ("questions", "question_id")),
    "coco": Challenge("caption", "image_id", "caption", ("images", "id")),
}


@dataclass(frozen=True)
class Submission:
    """A written file: its rows, and what was said most often, with how often."""

    path: Path
    rows: int
    frequent: list[tuple[str, int]]


def submit(challenge: str, predictions: Path, sample: Path, output: Path) -> Submission:
    """Write a submission file.

    Args:
        challenge: a name of CHALLENGES.
        predictions: what `kovqa predict` or `kovqa caption` wrote.
        sample: the challenge's own file with the ids, or an index split (`.jsonl`).
        output: the file to write, whole or not at all.

    Raises:
        SettingsError: an unknown challenge.
        DataError: predictions of another task; ids missing, foreign, double or no numbers; an empty
            text. The first ten ids are named.
    """
    if challenge not in CHALLENGES:
        raise unknown("challenge", challenge, CHALLENGES)
    about = CHALLENGES[challenge]
    given = read_predictions(predictions)
    if given.task != about.task:
        raise DataError(f"{predictions} holds {given.task} predictions, {challenge} wants {about.task}")
    wanted = _wanted(sample, about)
    known = set(wanted)
    problems = {
        "no prediction for": [id for id in wanted if id not in given.texts],
        f"not in {sample}:": [id for id in given.texts if id not in known],
        "no number:": [id for id in wanted if not id.isdecimal()],
        "an empty text for": [id for id in wanted if not given.texts.get(id, "-").strip()],
    }
    for what, ids in problems.items():
        if ids:
            raise DataError(f"{predictions}: {named(what, ids)}", f"predict all rows of {sample} again")
    rows = [{about.id: int(id), about.text: given.texts[id]} for id in wanted]
    write_text(output, json.dumps(rows, ensure_ascii=False) + "\n")
    return Submission(output, len(rows), Counter(given.texts.values()).most_common(5))


def _wanted(sample: Path, about: Challenge) -> list[str]:
    """The ids, in the sample's order, each once."""
    if sample.suffix == ".jsonl":
        ids = [example.id for example in Split(sample)]
    else:
        name, key = about.records
        ids = [str(row[key]) for row in records(sample, name, (key,))]
    if not ids:
        raise DataError(f"{sample} asks for nothing", "choose the split to submit")
    return list(dict.fromkeys(ids))

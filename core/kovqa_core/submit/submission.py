"""Predictions -> the file a challenge takes, joined by id and checked before anybody sends it.

| | file | row |
|---|---|---|
| vqav2 | JSON list | `{"question_id": 262148000, "answer": "yes"}`, every question of the split once |
| coco | JSON list | `{"image_id": 42, "caption": "…"}`, every image of the split once |
| dacon | CSV like its sample | `TEST_00000,no`, in the sample's order, answers stripped |

The wanted ids come from the challenge's own file (VQAv2: the questions; COCO: a file of `images`;
Dacon: `sample_submission.csv`) or, for the JSON lists, from a split of an index. Dacon's file is what
pandas would write: UTF-8, marked only if the sample is, line feeds, quotation marks where needed
(docs/sources/llava.md, L5; docs/sources/datasets.md, D17 to D19).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.data.json_stream import iter_json_records
from kovqa_core.data.tables import check_unique_id, read_table
from kovqa_core.errors import DataError, list_ids, unknown_name_error
from kovqa_core.evaluate.predictions_file import Predictions, read_predictions
from kovqa_core.files import read_bytes, require_other_output, write_text
from kovqa_core.index.reader import IndexSplit
from kovqa_core.messages import message

# Its own client refuses what is larger before it sends it (docs/sources/datasets.md, D17).
DACON_MAX_BYTES = 104_857_601  # bytes Dacon's own client sends
_BROKEN_CHARACTER = re.compile("[\0\ud800-\udfff]")  # NUL, half a character


@dataclass(frozen=True)
class ChallengeFormat:
    """What a challenge wants.

    Attributes:
        task: of the predictions.
        id, text: names of the two fields of a row.
        records: list of the challenge's own JSON file that has the ids, and their name there; None:
            its own file is a CSV of these two columns, and so is the submission.
    """

    task: str
    id: str
    text: str
    records: tuple[str, str] | None


CHALLENGE_FORMATS = {
    "vqav2": ChallengeFormat("vqa", "question_id", "answer", ("questions", "question_id")),
    "coco": ChallengeFormat("caption", "image_id", "caption", ("images", "id")),
    "dacon": ChallengeFormat("vqa", "ID", "answer", None),
}


@dataclass(frozen=True)
class WrittenSubmission:
    """A written file, and what its texts are like.

    Attributes:
        rows: of the file.
        filled: how many of them had no prediction and were filled.
        distinct: how many different texts there are.
        frequent: the most frequent texts with their counts.
        longest: the longest text.
    """

    path: Path
    rows: int
    filled: int
    distinct: int
    frequent: list[tuple[str, int]]
    longest: str


def write_submission(
    challenge: str, predictions: Path, sample: Path, output: Path, fill: str = ""
) -> WrittenSubmission:
    """Write a submission file.

    Args:
        challenge: a name of CHALLENGE_FORMATS.
        predictions: what `kovqa predict` or `kovqa caption` wrote.
        sample: the challenge's own file with the ids, or an index split (`.jsonl`).
        output: the file to write, whole or not at all.
        fill: the text where a prediction is missing; empty: that is an error.

    Raises:
        SettingsError: an unknown challenge; an output that is one of the inputs.
        DataError: predictions of another task; ids missing, foreign, empty, duplicate or not numbers; an
            empty or broken text; a sample of other columns; a file too large. The first ten ids are named.
    """
    if challenge not in CHALLENGE_FORMATS:
        raise unknown_name_error(
            message("submit.unknown-challenge", "unknown challenge '{challenge}'", challenge=challenge),
            challenge,
            CHALLENGE_FORMATS,
        )
    form = CHALLENGE_FORMATS[challenge]
    require_other_output(output, (predictions, sample))
    predicted = _read_task_predictions(predictions, challenge)
    wanted = _read_json_ids(sample, form.records) if form.records else _read_sample_ids(sample, form)
    # Predictions overwrite the filling; without `fill` a missing one is an error below.
    text_of = {**dict.fromkeys(wanted, fill), **predicted.texts} if fill else predicted.texts
    _check_submission(wanted, text_of, form, predictions, sample)
    if form.records:
        texts = [text_of[id] for id in wanted]
        content = _submission_json(wanted, texts, form)
    else:
        texts = [text_of[id].strip() for id in wanted]
        content = _submission_csv(wanted, texts, form, sample)
    write_text(output, content)
    counts = Counter(texts)
    filled = sum(id not in predicted.texts for id in wanted)
    return WrittenSubmission(
        output, len(texts), filled, len(counts), counts.most_common(5), max(texts, key=len)
    )


def _read_task_predictions(path: Path, challenge: str) -> Predictions:
    """Predictions of the challenge's task."""
    predicted, wanted = read_predictions(path), CHALLENGE_FORMATS[challenge].task
    if predicted.task != wanted:
        raise DataError(
            message(
                "submit.wrong-task",
                "{predictions} holds {task} predictions, {challenge} wants {wanted}",
                predictions=path,
                task=predicted.task,
                challenge=challenge,
                wanted=wanted,
            )
        )
    return predicted


def _check_submission(
    wanted: Sequence[str], texts: Mapping[str, str], form: ChallengeFormat, predictions: Path, sample: Path
) -> None:
    """Every id once, with a text that says something."""
    _check_ids(wanted, texts, form, predictions, sample)
    _check_texts(wanted, texts, predictions, sample)


def _check_ids(
    wanted: Sequence[str], texts: Mapping[str, str], form: ChallengeFormat, predictions: Path, sample: Path
) -> None:
    """Every wanted id has a text, no other id has one, and all are numbers where the challenge has numbers."""
    known = set(wanted)
    hint = message("submit.bad-ids.hint", "predict all rows of {sample} again", sample=sample)
    if ids := [id for id in wanted if id not in texts]:
        raise DataError(
            message(
                "submit.no-prediction",
                "{predictions}: no prediction for {ids}",
                predictions=predictions,
                ids=list_ids(ids),
            ),
            message(
                "submit.no-prediction.hint",
                "predict all rows of {sample} again, or name the answer they get: --fill TEXT",
                sample=sample,
            ),
        )
    if ids := [id for id in texts if id not in known]:
        raise DataError(
            message(
                "submit.foreign-ids",
                "{predictions}: not in {sample}: {ids}",
                predictions=predictions,
                sample=sample,
                ids=list_ids(ids),
            ),
            hint,
        )
    if ids := [id for id in wanted if form.records and not id.isdecimal()]:
        raise DataError(
            message(
                "submit.ids-not-numbers",
                "{predictions}: not a number: {ids}",
                predictions=predictions,
                ids=list_ids(ids),
            ),
            hint,
        )


def _check_texts(wanted: Sequence[str], texts: Mapping[str, str], predictions: Path, sample: Path) -> None:
    """Every wanted text says something, and can be written."""
    hint = message("submit.bad-ids.hint", "predict all rows of {sample} again", sample=sample)
    if ids := [id for id in wanted if not texts[id].strip()]:
        raise DataError(
            message(
                "submit.empty-text",
                "{predictions}: an empty text for {ids}",
                predictions=predictions,
                ids=list_ids(ids),
            ),
            hint,
        )
    if ids := [id for id in wanted if _BROKEN_CHARACTER.search(texts[id])]:
        raise DataError(
            message(
                "submit.broken-character",
                "{predictions}: a broken character in {ids}",
                predictions=predictions,
                ids=list_ids(ids),
            ),
            hint,
        )


# ---------------------------------------------------------------------------- the sample's ids


def _read_json_ids(sample: Path, records: tuple[str, str]) -> list[str]:
    """The ids of a JSON file or an index split, in its order, each once."""
    if sample.suffix == ".jsonl":
        ids = [example.id for example in IndexSplit(sample)]
    else:
        name, key = records
        ids = [str(row[key]) for row in iter_json_records(sample, name, (key,))]
    if not ids:
        raise DataError(
            message("submit.sample-empty", "{sample} has no rows", sample=sample),
            message("submit.split-empty.hint", "choose the split to submit"),
        )
    return list(dict.fromkeys(ids))


def _read_sample_ids(sample: Path, form: ChallengeFormat) -> list[str]:
    """The ids of a CSV like the submission, in its order."""
    hint = message("submit.sample.hint", "take the sample that the challenge hands out")
    columns = [form.id, form.text]
    line_of_id: dict[str, int] = {}
    for line, row in read_table(sample, {name: (name,) for name in columns}, hint):
        if list(row) != columns:
            raise DataError(
                message(
                    "submit.sample-columns",
                    "{sample}: its columns are {columns}, not {wanted}",
                    sample=sample,
                    columns=", ".join(row),
                    wanted=", ".join(columns),
                ),
                hint,
            )
        if not row[form.id].strip():
            raise DataError(
                message("submit.sample-no-id", "{sample}:{line}: no id", sample=sample, line=line), hint
            )
        check_unique_id(row[form.id], line, line_of_id, sample)
    if not line_of_id:
        raise DataError(message("submit.sample-empty", "{sample} has no rows", sample=sample), hint)
    return list(line_of_id)


# ------------------------------------------------------------------------------ the two formats


def _submission_json(ids: Iterable[str], texts: Iterable[str], form: ChallengeFormat) -> str:
    # Numbers, as in the challenges' own files: "42" as a text would match no question.
    rows = [{form.id: int(id), form.text: text} for id, text in zip(ids, texts, strict=True)]
    return json.dumps(rows, ensure_ascii=False) + "\n"


def _submission_csv(ids: Iterable[str], texts: Iterable[str], form: ChallengeFormat, sample: Path) -> str:
    rows = [(form.id, form.text), *zip(ids, texts, strict=True)]
    byte_order_mark = "\ufeff" if read_bytes(sample).startswith(b"\xef\xbb\xbf") else ""
    content = byte_order_mark + "".join(f"{_csv_cell(id)},{_csv_cell(text)}\n" for id, text in rows)
    if (size := len(content.encode())) > DACON_MAX_BYTES:
        raise DataError(
            message(
                "submit.too-large",
                "the submission has {size:,} bytes, Dacon takes {limit:,}",
                size=size,
                limit=DACON_MAX_BYTES,
            ),
            message("submit.too-large.hint", "shorten the answers"),
        )
    return content


def _csv_cell(text: str) -> str:
    """A cell as pandas writes it; a lone carriage return is quoted too, which Python 3.11's csv forgets."""
    return '"' + text.replace('"', '""') + '"' if re.search('[,"\r\n]', text) else text

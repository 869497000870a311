"""Predictions -> the file a challenge takes, joined by id and checked before anybody sends it.

| | file | row |
|---|---|---|
| vqav2 | JSON list | `{"question_id": 262148000, "answer": "yes"}`, every question of the split once |
| coco | JSON list | `{"image_id": 42, "caption": "…"}`, every image of the split once |
| csv | as its sample (`sample_file.py`) | in the sample's order, all other columns as they are, answers stripped |
| dacon | the same: columns ID and answer | `TEST_00000,no` |

The wanted ids come from the challenge's own file (VQAv2: the questions; COCO: a file of `images`; else the sample) or,
for the JSON lists, from a split of an index. Dacon's file is what
pandas would write: UTF-8, marked only if the sample is, line feeds, quotation marks where needed
(docs/sources/llava.md, L5; docs/sources/datasets.md, D17 to D19).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.data.answers import MISSING_WORDS
from kovqa_core.data.row_ids import ID_MARK
from kovqa_core.data.tables import read_table, table_notes
from kovqa_core.errors import DataError, SettingsError, list_ids, unknown_name_error
from kovqa_core.evaluate.join_ids import join_by_image
from kovqa_core.evaluate.predictions import Predictions
from kovqa_core.evaluate.predictions_file import read_predictions
from kovqa_core.files import atomic_file, require_other_output
from kovqa_core.messages import Message, message
from kovqa_core.output_lock import output_lock
from kovqa_core.submit.choice_form import AUTO, answers_in_form
from kovqa_core.submit.sample_file import (
    SampleFile,
    encode_submission,
    pandas_layout,
    read_json_ids,
    read_sample,
    require_csv_output,
    sample_hint,
)

# Its own client refuses what is larger before it sends it (docs/sources/datasets.md, D17).
DACON_MAX_BYTES = 104_857_601  # bytes Dacon's own client sends
_BROKEN_CHARACTER = re.compile("[\0\ud800-\udfff]")  # NUL, half a character
# An id that a submission of integers can hold and keep: 007 would become 7. Of any length that is exact everywhere.
_JSON_NUMBER = re.compile("0|[1-9][0-9]{0,17}")


# Besides: what readers of tables (pandas) take for a missing cell.
_MISSING_WORDS = MISSING_WORDS | {"-nan", "na", "#na"}


@dataclass(frozen=True)
class ChallengeFormat:
    """What a challenge wants.

    Attributes:
        task: of the predictions; "": answers or captions.
        id, text: names of the two fields of a row; "": those of its sample.
        records: list of the challenge's own JSON file that has the ids, and their name there; None:
            its own file is a table like the submission.
    """

    task: str
    id: str
    text: str
    records: tuple[str, str] | None


CHALLENGE_FORMATS = {
    "vqav2": ChallengeFormat("vqa", "question_id", "answer", ("questions", "question_id")),
    "coco": ChallengeFormat("caption", "image_id", "caption", ("images", "id")),
    "dacon": ChallengeFormat("vqa", "ID", "answer", None),
    "csv": ChallengeFormat("", "", "", None),
}


@dataclass(frozen=True)
class WrittenSubmission:
    """A written file, and what its texts are like.

    Attributes:
        rows: of the file.
        columns: of ids and of answers, in a file like its sample; None where the challenge names them.
        filled: how many of them had no prediction and were filled.
        filled_empty: how many had an empty one and were filled.
        distinct: how many different texts there are.
        frequent: the most frequent texts with their counts.
        longest: the longest text.
        missing_words: how many texts are a word that says that nothing is known (nan, null, None, n/a).
        first_missing_word: the id of the first of them; "" if there is none.
        notes: how the sample was read, where its name does not say it.
    """

    path: Path
    rows: int
    columns: tuple[str, str] | None
    filled: int
    filled_empty: int
    distinct: int
    frequent: list[tuple[str, int]]
    longest: str
    missing_words: int
    first_missing_word: str
    notes: tuple[str, ...]


def write_submission(
    challenge: str,
    predictions: Path,
    sample: Path,
    output: Path,
    fill: str = "",
    columns: Mapping[str, str] | None = None,
    answers_as: str = AUTO,
) -> WrittenSubmission:
    """Write a submission file.

    Args:
        challenge: a name of CHALLENGE_FORMATS.
        predictions: what `kovqa predict` or `kovqa caption` wrote.
        sample: the challenge's own file with the ids, or an index split (`.jsonl`).
        output: the file to write, whole or not at all.
        fill: the text where a prediction is missing or empty; "": that is an error.
        columns: of csv: see `read_sample`.
        answers_as: of csv: how answers to questions with choices are written (`choice_form.choose_choice_form`).

    Raises:
        SettingsError: an unknown challenge or form, or one that names its columns itself; an output that is one of the
            inputs, or that another process writes.
        DataError: predictions of another task; ids missing, foreign, empty, duplicate or not numbers; an
            empty or broken text; a sample of other columns; a file too large. The first ten ids are named.
    """
    form = _find_format(challenge, columns)
    require_other_output(output, (predictions, sample))
    if challenge == "csv":
        require_csv_output(output)
    predicted = _read_task_predictions(predictions, challenge)
    template = None if form.records else _read_challenge_sample(sample, form, columns)
    wanted = template.ids if template else read_json_ids(sample, form.records or ("", ""))
    # A sample's cells may have blanks around their ids; predictions have none.
    text_of, notes = dict(predicted.texts), [*(table_notes(sample) if template else ())]
    if template and challenge == "csv":
        place = template.columns.index(template.answer_column)
        cells = [row[place] for row in template.rows]
        text_of, note = answers_in_form(predicted, cells, answers_as, predictions)
        notes += [note] if note else []
    elif answers_as != AUTO:
        raise SettingsError(
            message("submit.answers-as-of-csv", "{challenge} takes texts alone", challenge=challenge),
            message("submit.answers-as-of-csv.hint", "leave out --answers-as, or use kovqa submit csv"),
        )
    for id in wanted:
        if id not in text_of and id.strip() in text_of:
            text_of[id] = text_of.pop(id.strip())
    if template and any(template.images):
        text_of = _join_by_image(text_of, predicted.images, template)
    missing = [id for id in wanted if id not in text_of]
    empty = [id for id in wanted if id in text_of and not text_of[id].strip()]
    if fill:
        text_of |= dict.fromkeys([*missing, *empty], fill)
    _check_submission(wanted, text_of, form, predictions, sample)
    if template:
        text_of = {id: text.strip() for id, text in text_of.items()}
        content = encode_submission(template, text_of)
    else:
        content = _submission_json(wanted, [text_of[id] for id in wanted], form).encode()
    if challenge == "dacon":
        _check_dacon_size(content)
    with output_lock(output), atomic_file(output) as stream:
        stream.write(content)
    names = (template.id_column, template.answer_column) if template and not form.id else None
    filled = (len(missing), len(empty)) if fill else (0, 0)
    return _describe_submission(output, names, {id: text_of[id] for id in wanted}, filled, tuple(notes))


def _join_by_image(
    text_of: Mapping[str, str], image_of: Mapping[str, str], sample: SampleFile
) -> dict[str, str]:
    """The texts by the sample's ids, where only image and id together say which row is meant."""
    wanted = set(sample.ids)
    rows = ((id, image) for id, image in zip(sample.ids, sample.images, strict=True) if id not in text_of)
    joined = join_by_image([id for id in text_of if id not in wanted], image_of, rows)
    return {joined.get(id, id): text for id, text in text_of.items()}


def _describe_submission(
    path: Path,
    columns: tuple[str, str] | None,
    text_of: Mapping[str, str],
    filled: tuple[int, int],
    notes: tuple[str, ...],
) -> WrittenSubmission:
    """What a written file's texts are like; `filled`: how many were missing and how many empty; `notes`: on the sample."""
    counts = Counter(text_of.values())
    unknown = [id for id, text in text_of.items() if text.strip().lower() in _MISSING_WORDS]
    return WrittenSubmission(
        path, len(text_of), columns, *filled, len(counts), counts.most_common(5), max(text_of.values(), key=len),
        len(unknown), unknown[0] if unknown else "", notes,
    )  # fmt: skip


def _find_format(challenge: str, columns: Mapping[str, str] | None) -> ChallengeFormat:
    """The format of a challenge, whose columns can be named only where its sample names them."""
    if challenge not in CHALLENGE_FORMATS:
        raise unknown_name_error(
            message("submit.unknown-challenge", "unknown challenge '{challenge}'", challenge=challenge),
            challenge,
            CHALLENGE_FORMATS,
        )
    if columns and challenge != "csv":
        raise SettingsError(
            message("submit.columns-are-fixed", "{challenge} has columns of its own", challenge=challenge),
            message("submit.columns-are-fixed.hint", "leave out --column, or use kovqa submit csv"),
        )
    return CHALLENGE_FORMATS[challenge]


def _read_challenge_sample(
    sample: Path, form: ChallengeFormat, columns: Mapping[str, str] | None
) -> SampleFile:
    """A sample; one whose challenge names the columns has these two and no others."""
    if not form.id:
        return read_sample(sample, columns)
    hint = sample_hint()
    names = [form.id, form.text]
    # Here first: it knows a column that is spelled almost so.
    for _, row in read_table(sample, {name: (name,) for name in names}, hint):
        if list(row) != names:
            raise DataError(
                message(
                    "submit.sample-columns", "{sample}: its columns are {columns}, not {wanted}",
                    sample=sample, columns=", ".join(row), wanted=", ".join(names),
                ),
                hint,
            )  # fmt: skip
        break
    return pandas_layout(read_sample(sample, {"id": form.id, "answer": form.text}))


def _read_task_predictions(path: Path, challenge: str) -> Predictions:
    """Predictions of the challenge's task."""
    predicted, wanted = read_predictions(path), CHALLENGE_FORMATS[challenge].task
    if wanted and predicted.task != wanted:
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
    if ids := [id for id in texts if id not in known and _unqualified(id, known)]:
        raise DataError(
            message(
                "submit.qualified-ids",
                "{predictions}: ids that the questions have under several images, but {sample} has once: {ids}",
                predictions=predictions, sample=sample, ids=list_ids(ids),
            ),
            message(
                "submit.qualified-ids.hint",
                "a submission needs one answer per id: give each question an id of its own, and predict again",
            ),
        )  # fmt: skip
    if ids := [id for id in wanted if id not in texts]:
        raise DataError(
            message(
                "submit.no-prediction",
                "{predictions}: no prediction for {ids}",
                predictions=predictions,
                ids=list_ids(ids),
            ),
            _fill_hint(sample),
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
    if form.records:
        _check_numbers(wanted, predictions, sample, hint)


def _unqualified(id: str, known: Collection[str]) -> bool:
    """Is it a known id with an image in front of it, and maybe a number behind it (`data/row_ids.py`)?"""
    parts = id.split(ID_MARK)
    return len(parts) > 1 and (parts[-1] in known or (len(parts) > 2 and parts[-2] in known))


def _check_numbers(wanted: Sequence[str], predictions: Path, sample: Path, hint: Message) -> None:
    """Every wanted id is a number as JSON writes it, and no two are one."""
    ids_of: dict[str, list[str]] = {}
    for id in wanted:
        # By its digits, not by its value: an id of any length is compared.
        ids_of.setdefault(id.lstrip("0") or "0", []).append(id)
    if same := [ids for number, ids in ids_of.items() if len(ids) > 1 and number.isdecimal()]:
        raise DataError(
            message(
                "submit.ids-one-number",
                "{sample}: ids that are one number, which is all that the submission has: {ids}",
                sample=sample, ids=list_ids([" = ".join(ids) for ids in same]),
            ),
            message("submit.ids-one-number.hint", "give the questions ids that differ as numbers"),
        )  # fmt: skip
    if ids := [id for id in wanted if not _JSON_NUMBER.fullmatch(id)]:
        raise DataError(
            message(
                "submit.ids-not-numbers", "{predictions}: not a number: {ids}",
                predictions=predictions, ids=list_ids(ids),
            ),
            hint,
        )  # fmt: skip


def _fill_hint(sample: Path) -> Message:
    return message(
        "submit.no-prediction.hint",
        "predict all rows of {sample} again, or name the answer they get: --fill TEXT",
        sample=sample,
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
            _fill_hint(sample),
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


# ------------------------------------------------------------------------------ JSON and size


def _submission_json(ids: Iterable[str], texts: Iterable[str], form: ChallengeFormat) -> str:
    # Numbers, as in the challenges' own files: "42" as a text would match no question.
    rows = [{form.id: int(id), form.text: text} for id, text in zip(ids, texts, strict=True)]
    return json.dumps(rows, ensure_ascii=False) + "\n"


def _check_dacon_size(content: bytes) -> None:
    if len(content) > DACON_MAX_BYTES:
        raise DataError(
            message(
                "submit.too-large",
                "the submission has {size:,} bytes, Dacon takes {limit:,}",
                size=len(content),
                limit=DACON_MAX_BYTES,
            ),
            message("submit.too-large.hint", "shorten the answers"),
        )

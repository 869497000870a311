"""A predictions file while it is written.

    OUTPUT.part          one line per answered row, in the order they came: its prediction and its digest
    OUTPUT.part.json     fingerprint: all that these answers depend on (model, table, decoding)
    OUTPUT.parts/        where several processes answer: rank-N.jsonl, each process's own lines
    .OUTPUT.json         of the finished file: fingerprint and digests, so that no other answers take its place

Whatever kills a process, at most its last line is torn; that one is cut off and answered again. Earlier versions
wrote lines without a digest: those answer the table as a whole, and count as long as it is unchanged.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.answer.abstain import abstain
from kovqa_core.answer.fingerprint_differences import ROW_KEYS, describe_differences, name_differences
from kovqa_core.answer.partial_line import FAULT_KEY, FILLED, PartialLine, parse_lines
from kovqa_core.answer.question_rows import QuestionRow
from kovqa_core.answer.row_digest import digest_row
from kovqa_core.data.example import Answer
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.evaluate.answers_record import AnswersRecord, read_answers_record, write_answers_record
from kovqa_core.evaluate.predictions_file import read_predictions
from kovqa_core.evaluate.write_predictions import PredictionRow, encode_predictions, prediction_fields
from kovqa_core.files import atomic_file, read_bytes, read_json, write_json
from kovqa_core.messages import Message, message

PARTIAL_SUFFIX = ".part"
JOB_FILE = "job.json"  # in the folder of several processes: what they are to answer
_RANK_FILES = "rank-*.jsonl"


@dataclass(frozen=True)
class RowFault:
    """Why a row has no answer, and what to do about it where that is known."""

    problem: str
    hint: str = ""

    @classmethod
    def of_error(cls, error: DataError) -> RowFault:
        """Of what was raised for a row."""
        return cls(error.message, error.hint)


def partial_file_path(output: Path) -> Path:
    """Where the lines of an unfinished predictions file are."""
    return output.with_name(output.name + PARTIAL_SUFFIX)


def fingerprint_path(partial_file: Path) -> Path:
    """Where the fingerprint of its answers is."""
    return partial_file.with_name(partial_file.name + ".json")


def rank_files_folder(partial_file: Path) -> Path:
    """The folder of several processes' lines."""
    return partial_file.with_name(partial_file.name + "s")


def rank_file_path(partial_file: Path, rank: int) -> Path:
    """One process's lines."""
    return rank_files_folder(partial_file) / _RANK_FILES.replace("*", str(rank))


@dataclass(frozen=True)
class ResumedAnswers:
    """What an earlier start of the same job left.

    Attributes:
        ids: of the rows that are answered.
        dropped: answers to rows that are not in the table any more, or have changed.
    """

    ids: set[str]
    dropped: int = 0


def resume_partial_file(
    output: Path,
    fingerprint: Mapping[str, object],
    digests: Callable[[], Mapping[str, str]],
    *,
    force: bool = False,
) -> ResumedAnswers:
    """What is answered already; afterwards all its lines are in one file, torn ones and those of other rows gone.

    An answer counts where model and decoding are the same, and its row is: rows may have been added, left
    out or mended. A table that has fewer than half of the rows that are answered is another one.

    Args:
        output: the predictions file; its partial file is begun anew if there is none.
        fingerprint: all that answers depend on; JSON values.
        digests: makes id -> `digest_row` of the rows to answer.
        force: whatever is there with another fingerprint may go, and finished answers are given anew.

    Raises:
        SettingsError: there are answers with another fingerprint, unfinished or finished.
    """
    partial_file = partial_file_path(output)
    if partial_file.exists() and fingerprint_path(partial_file).exists():
        recorded = _read_fingerprint(partial_file)
        merge_rank_files(partial_file)
        lines = [line for line in _read_lines(partial_file) if not line.is_fault]
        resumed = _keep_same_rows(partial_file, lines, recorded, fingerprint, digests)
        if resumed is not None:
            return resumed
        if lines and not force:
            raise SettingsError(
                message(
                    "answer.other-partial-file",
                    "{partial_file} holds answers {differences}",
                    partial_file=partial_file,
                    differences=describe_differences(recorded, fingerprint),
                ),
                _other_output_hint(),
            )
    if output.exists() and not force:
        return _resume_finished_file(output, fingerprint, digests)
    begin_partial_file(partial_file, [], fingerprint)
    return ResumedAnswers(set())


def begin_partial_file(
    partial_file: Path, lines: Iterable[PartialLine], fingerprint: Mapping[str, object]
) -> None:
    """A partial file with these lines and no others."""
    partial_file.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(rank_files_folder(partial_file), ignore_errors=True)
    # The fingerprint first: lines without one would be taken for nobody's, and be begun anew. Killed between the
    # two, older lines stand under the new fingerprint; each still says by its digest which row it answers.
    write_json(fingerprint_path(partial_file), fingerprint)
    with atomic_file(partial_file) as stream:
        stream.writelines(line.encode() for line in lines)


def _resume_finished_file(
    output: Path, fingerprint: Mapping[str, object], digests: Callable[[], Mapping[str, str]]
) -> ResumedAnswers:
    """Go on from what stands under the final name, if it is answers of the same model to the same questions.

    Raises:
        SettingsError: they are of another one, or nobody knows (an earlier version, another program).
    """
    record = read_answers_record(output)
    if record is None:
        raise SettingsError(
            message(
                "answer.unknown-output",
                "{output} is there already, and what wrote it is not known",
                output=output,
            ),
            _other_output_hint(),
        )
    predictions = read_predictions(output)
    ids = list(predictions.texts)
    row_digests = record.row_digests or [""] * len(ids)
    lines = [
        PartialLine(
            digest,
            prediction_fields(
                id,
                Answer(  # the model's own: whether it abstains is decided anew
                    predictions.abstained_from.get(id, predictions.texts[id]),
                    predictions.confidence.get(id, math.nan),
                    predictions.likeliest.get(id, ()),
                ),
                predictions.task,
            ),
        )
        for digest, id in zip(row_digests, ids, strict=True)
        if digest != FILLED
    ]
    resumed = _keep_same_rows(partial_file_path(output), lines, record.fingerprint, fingerprint, digests)
    if resumed is None:
        raise SettingsError(
            message(
                "answer.other-output",
                "{output} holds answers {differences}",
                output=output,
                differences=describe_differences(record.fingerprint, fingerprint),
            ),
            _other_output_hint(),
        )
    return resumed


def _keep_same_rows(
    partial_file: Path,
    lines: Sequence[PartialLine],
    recorded: Mapping[str, object],
    fingerprint: Mapping[str, object],
    digests: Callable[[], Mapping[str, str]],
) -> ResumedAnswers | None:
    """Bring the answers that still hold into a partial file; None, and nothing is changed: they are other answers."""
    then = {**recorded, **{key: fingerprint.get(key) for key in ROW_KEYS}}
    if name_differences(then, fingerprint):
        return None
    lines = [line for line in lines if line.digest != FILLED]
    is_same_table = not name_differences(recorded, fingerprint)
    # Without an answer nothing says that rows of other kinds are what is left of the same table.
    if not lines and recorded.get("kinds") != fingerprint.get("kinds"):
        return None
    digest_of = digests() if lines else {}

    def holds(line: PartialLine) -> bool:
        now = digest_of.get(line.id)
        return now == line.digest or (now is not None and not line.digest and is_same_table)

    kept = [line for line in lines if holds(line)]
    if not is_same_table and 2 * len(kept) < len(lines):
        return None
    begin_partial_file(partial_file, kept, fingerprint)
    return ResumedAnswers({line.id for line in kept}, len(lines) - len(kept))


def _other_output_hint() -> Message:
    return message("answer.other-output.hint", "choose another -o, or replace it with --force")


def append_answers(
    path: Path,
    answers: Iterable[tuple[QuestionRow, Answer | RowFault]],
    task: str,
    answered_ids: set[str],
    image_folder: Path,
) -> Iterator[None]:
    """Write answers as they come; a step of the iterator for every line that the system has taken.

    Args:
        path: the lines so far.
        answers: rows and their answers, or why they have none.
        task: "vqa" or "caption".
        answered_ids: gets the id of every line.
        image_folder: folder that the rows' image paths start from.
    """
    with path.open("ab") as stream:
        for row, answer in answers:
            id = row.example.id
            fields: Mapping[str, object] = (
                {"id": id, FAULT_KEY: answer.problem}
                if isinstance(answer, RowFault)
                else prediction_fields(id, answer, task)
            )
            stream.write(PartialLine(digest_row(row.example, image_folder), fields).encode())
            stream.flush()  # a line that is only in our buffer dies with us
            answered_ids.add(id)
            yield


def read_faults(partial_file: Path) -> dict[str, str]:
    """What is wrong with the rows that have no answer, by id."""
    return {line.id: str(line.fields[FAULT_KEY]) for line in _read_lines(partial_file) if line.is_fault}


def merge_rank_files(partial_file: Path) -> set[str]:
    """Bring the lines of all processes together; the ids in them."""
    read_answered_ids(partial_file)  # cuts a torn line off, or the next one would be glued to it
    for rank_file in sorted(rank_files_folder(partial_file).glob(_RANK_FILES)):
        read_answered_ids(rank_file)
        # Killed between the two, lines are in both files: ids make them one again.
        with partial_file.open("ab") as stream:
            stream.write(read_bytes(rank_file))
        rank_file.unlink()
    return read_answered_ids(partial_file)


def read_answered_ids(path: Path) -> set[str]:
    """Ids of a file's lines; a torn last line is cut off."""
    data = read_bytes(path) if path.exists() else b""
    whole_lines = data[: data.rfind(b"\n") + 1]
    if len(whole_lines) < len(data):
        os.truncate(path, len(whole_lines))  # in place: killed on the way, no whole line is lost
    return {line.id for line in parse_lines(whole_lines, path)}


def _read_lines(path: Path) -> Iterator[PartialLine]:
    return parse_lines(read_bytes(path), path)


def _read_fingerprint(partial_file: Path) -> dict[str, object]:
    path = fingerprint_path(partial_file)
    fingerprint = read_json(path)
    if not isinstance(fingerprint, dict):
        raise DataError(
            message("answer.damaged-fingerprint", "{path}: not a JSON object", path=path),
            message(
                "answer.damaged-fingerprint.hint",
                "remove it: the unfinished answers beside it are given anew",
            ),
        )
    return fingerprint


def finish_partial_file(
    partial_file: Path,
    output: Path,
    rows: Iterable[QuestionRow],
    task: str,
    fill: str = "",
    unknown_below: float | None = None,
) -> int:
    """The answers under their final name and in its format, in the order of these rows.

    Args:
        partial_file: has a line of each of them, with the model's own answer.
        output: the file.
        rows: what is written.
        task: "vqa" or "caption".
        fill: the answer of those that have none.
        unknown_below: an answer of a lower score becomes the row's choice that means "unknown", if it has one.

    Returns:
        How many answers became "unknown".
    """
    lines = {line.id: line for line in _read_lines(partial_file)}
    no_answer = Answer(fill, math.nan)
    for id, line in lines.items():
        if line.is_fault:
            lines[id] = PartialLine(FILLED, prediction_fields(id, no_answer, task))
    answered = [(row, lines[row.example.id]) for row in rows]
    answers = [abstain(row, line.answer, unknown_below) for row, line in answered]
    contents = encode_predictions(
        output,
        [
            PredictionRow(row.example.id, answer, row.extra_columns, row.all_columns)
            for (row, _), answer in zip(answered, answers, strict=True)
        ],
        task,
    )
    # An answer of an earlier version has none: it counts as long as the table stays as it is.
    row_digests = [line.digest for _, line in answered]
    record = AnswersRecord(_read_fingerprint(partial_file), row_digests if all(row_digests) else ())
    # Before the file: killed between the two, the partial file is still there, and is finished again.
    write_answers_record(output, contents, record)
    with atomic_file(output) as stream:
        stream.write(contents)
    partial_file.unlink()
    fingerprint_path(partial_file).unlink(missing_ok=True)
    shutil.rmtree(rank_files_folder(partial_file), ignore_errors=True)
    return sum(bool(answer.abstained_from) for answer in answers)

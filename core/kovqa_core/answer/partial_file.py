"""A predictions file while it is written.

    OUTPUT.part          one line per answered row, in the order they came
    OUTPUT.part.json     fingerprint: all that these answers depend on (model, table, decoding)
    OUTPUT.parts/        where several processes answer: rank-N.jsonl, each process's own lines
    .OUTPUT.json         of the finished file: its fingerprint, so that no other answers take its place

Whatever kills a process, at most its last line is torn; that one is cut off and answered again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.answer.question_rows import QuestionRow
from kovqa_core.data.example import Answer, prediction_line
from kovqa_core.errors import SettingsError
from kovqa_core.evaluate.answers_record import read_answers_record, write_answers_record
from kovqa_core.files import atomic_file, read_json, write_json
from kovqa_core.messages import Message, message

PARTIAL_SUFFIX = ".part"
JOB_FILE = "job.json"  # in the folder of several processes: what they are to answer
_RANK_FILES = "rank-*.jsonl"


# What a key of a fingerprint belongs to; all others are the model's.
_PART_OF_KEY = {
    "table": "table",
    "kinds": "kinds",
    "beams": "decoding",
    "decoding": "decoding",
    "instruction": "decoding",
    "max_tokens": "decoding",
}
_FAULT_KEY = "left_out"  # of a line: what is wrong with a row that has no answer


@dataclass(frozen=True)
class RowFault:
    """Why a row has no answer."""

    problem: str


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


def resume_partial_file(output: Path, fingerprint: Mapping[str, object], *, force: bool = False) -> set[str]:
    """Ids already answered under the same fingerprint; afterwards all lines are in one file, torn ones cut off.

    Args:
        output: the predictions file; its partial file is begun anew if there is none.
        fingerprint: all that answers depend on; JSON values.
        force: whatever is there with another fingerprint may go.

    Raises:
        SettingsError: there are answers with another fingerprint, unfinished or finished.
    """
    partial_file = partial_file_path(output)
    if partial_file.exists() and fingerprint_path(partial_file).exists():
        differences = name_differences(read_json(fingerprint_path(partial_file)), fingerprint)
        if not differences:
            merge_rank_files(partial_file)
            return _drop_faults(partial_file)
        if not force:
            raise SettingsError(
                message(
                    "answer.other-partial-file",
                    "{partial_file} holds answers {differences}",
                    partial_file=partial_file,
                    differences=" and ".join(differences),
                ),
                _other_output_hint(),
            )
    if not force:
        _require_same_answers(output, fingerprint)
    partial_file.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(rank_files_folder(partial_file), ignore_errors=True)
    # The fingerprint first: lines without one would be taken for nobody's, and be begun anew.
    write_json(fingerprint_path(partial_file), fingerprint)
    partial_file.write_bytes(b"")
    return set()


def _require_same_answers(output: Path, fingerprint: Mapping[str, object]) -> None:
    """See that what stands under the final name may be replaced: answers of the same model to the same questions.

    Raises:
        SettingsError: they are of another one, or nobody knows (an earlier version, another program).
    """
    if not output.exists():
        return
    recorded = read_answers_record(output)
    if recorded is None:
        problem = message(
            "answer.unknown-output",
            "{output} is there already, and what wrote it is not known",
            output=output,
        )
    elif differences := name_differences(recorded, fingerprint):
        problem = message(
            "answer.other-output",
            "{output} holds answers {differences}",
            output=output,
            differences=" and ".join(differences),
        )
    else:
        return
    raise SettingsError(problem, _other_output_hint())


def name_differences(recorded: Mapping[str, object], fingerprint: Mapping[str, object]) -> list[Message]:
    """In what two fingerprints differ, in words; empty: answers under one are answers under the other.

    Args:
        recorded: of the answers that are there; earlier versions knew a model by its path.
        fingerprint: of now.
    """
    then, now = dict(recorded), dict(fingerprint)
    other_model = _other_model(then, now)
    if "weights" in then and "weights" in now:  # then a path says nothing: the folder may have been moved
        then["model"] = now["model"]
    elif "weights" in now:
        del now["weights"]
    changed = {key for key in then.keys() | now.keys() if then.get(key) != now.get(key)}
    parts = {
        "model": other_model,
        "table": message("answer.other-table", "to another table"),
        "kinds": message("answer.other-kinds", "for other kinds of questions"),
        "decoding": message("answer.other-decoding", "decoded in another way"),
    }
    found = {_PART_OF_KEY.get(key, "model") for key in changed}
    return [text for part, text in parts.items() if part in found]


def _other_model(then: Mapping[str, object], now: Mapping[str, object]) -> Message:
    before, after = (each.get("model") or each.get("served") for each in (then, now))
    if before is None:
        return message("answer.unknown-model", "of another model")
    if before == after:
        return message("answer.changed-model", "of {model} as it was before its files changed", model=before)
    return message("answer.other-model", "of another model ({then}, not {now})", then=before, now=after)


def _other_output_hint() -> Message:
    return message("answer.other-output.hint", "choose another -o, or replace it with --force")


def append_answers(
    path: Path, answers: Iterable[tuple[QuestionRow, Answer | RowFault]], task: str, answered_ids: set[str]
) -> Iterator[None]:
    """Write answers as they come; a step of the iterator for every line that the system has taken.

    Args:
        path: the lines so far.
        answers: rows and their answers, or why they have none.
        task: "vqa" or "caption".
        answered_ids: gets the id of every line.
    """
    with path.open("a", encoding="utf-8") as stream:
        for row, answer in answers:
            stream.write(_partial_line(row, answer, task) + "\n")
            stream.flush()  # a line that is only in our buffer dies with us
            answered_ids.add(row.example.id)
            yield


def _partial_line(row: QuestionRow, answer: Answer | RowFault, task: str) -> str:
    if isinstance(answer, RowFault):
        return json.dumps({"id": row.example.id, _FAULT_KEY: answer.problem}, ensure_ascii=False)
    return prediction_line(row.example.id, answer, row.extra_columns, task)


def read_faults(partial_file: Path) -> dict[str, str]:
    """What is wrong with the rows that have no answer, by id."""
    # A column of the input may have the same name; but then the line has a score as well.
    rows = map(json.loads, _split_lines(partial_file.read_bytes()))
    return {row["id"]: row[_FAULT_KEY] for row in rows if row.keys() == {"id", _FAULT_KEY}}


def _drop_faults(partial_file: Path) -> set[str]:
    """Rows without an answer are tried again: their images may have been mended. The ids of the others."""
    faults = read_faults(partial_file)
    if faults:
        lines = _split_lines(partial_file.read_bytes())
        with atomic_file(partial_file) as stream:
            stream.writelines(line + b"\n" for line in lines if json.loads(line)["id"] not in faults)
    return read_answered_ids(partial_file)


def merge_rank_files(partial_file: Path) -> set[str]:
    """Bring the lines of all processes together; the ids in them."""
    read_answered_ids(partial_file)  # cuts a torn line off, or the next one would be glued to it
    for rank_file in sorted(rank_files_folder(partial_file).glob(_RANK_FILES)):
        read_answered_ids(rank_file)
        # Killed between the two, lines are in both files: ids make them one again.
        with partial_file.open("ab") as stream:
            stream.write(rank_file.read_bytes())
        rank_file.unlink()
    return read_answered_ids(partial_file)


def read_answered_ids(path: Path) -> set[str]:
    """Ids of a file's lines; a torn last line is cut off."""
    data = path.read_bytes() if path.exists() else b""
    whole_lines = data[: data.rfind(b"\n") + 1]
    if len(whole_lines) < len(data):
        path.write_bytes(whole_lines)
    return {json.loads(line)["id"] for line in _split_lines(whole_lines)}


def _split_lines(data: bytes) -> list[bytes]:
    # Not splitlines(): it would split at a bare carriage return, too.
    return [line for line in data.split(b"\n") if line]


def finish_partial_file(partial_file: Path, output: Path, ids: Iterable[str]) -> None:
    """The lines under their final name, in this order of ids; each id was answered."""
    lines = {json.loads(line)["id"]: line for line in _split_lines(partial_file.read_bytes())}
    ordered = [lines[id] + b"\n" for id in ids]
    # Before the file: killed between the two, the partial file is still there, and is finished again.
    write_answers_record(output, b"".join(ordered), read_json(fingerprint_path(partial_file)))
    with atomic_file(output) as stream:
        stream.writelines(ordered)
    partial_file.unlink()
    fingerprint_path(partial_file).unlink(missing_ok=True)
    shutil.rmtree(rank_files_folder(partial_file), ignore_errors=True)

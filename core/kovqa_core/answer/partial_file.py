"""A predictions file while it is written: lines in `OUTPUT.part`, and beside it whose answers they are.

Where several processes answer, each has lines of its own in the folder `OUTPUT.parts`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kovqa_core.answer.question_rows import QuestionRow
from kovqa_core.data.decoding import DecodingOptions
from kovqa_core.errors import SettingsError
from kovqa_core.files import atomic_file, read_json, write_json

JOB_FILE = "job.json"  # in the folder of several processes: what they are to answer
_RANK_FILES = "rank-*.jsonl"


def partial_file_path(output: Path) -> Path:
    """Where the lines of an unfinished predictions file are."""
    return output.with_name(output.name + ".part")


def stamp_path(part: Path) -> Path:
    """Where it is written whose answers they are."""
    return part.with_name(part.name + ".json")


def rank_files_folder(part: Path) -> Path:
    """The folder of several processes' lines."""
    return part.with_name(part.name + "s")


def rank_file_path(part: Path, rank: int) -> Path:
    """One process's lines."""
    return rank_files_folder(part) / _RANK_FILES.replace("*", str(rank))


def begin_partial_file(
    part: Path,
    folder: Path,
    table: Path,
    rows: list[QuestionRow],
    beams: int | None,
    decoding: DecodingOptions,
) -> set[str]:
    """Ids already answered by this model for these rows in this way."""
    part.parent.mkdir(parents=True, exist_ok=True)
    about = next(path for name in ("kovqa.json", "config.json") if (path := folder / name).is_file())
    stamp = {
        "model": str(folder.resolve()),
        about.name: hashlib.sha256(about.read_bytes()).hexdigest(),
        "table": hashlib.sha256(
            "\n".join(row.example.line() for row in rows).encode() if table.is_dir() else table.read_bytes()
        ).hexdigest(),
        "beams": beams,
        "kinds": sorted({row.kind for row in rows}),
        "decoding": decoding.json_fields(),
    }
    return resume_partial_file(part, stamp)


def resume_partial_file(part: Path, stamp: Mapping[str, Any]) -> set[str]:
    """Ids already answered under the same stamp; all lines are in one file then, torn ones cut off.

    Args:
        part: the lines so far; begun anew if there are none.
        stamp: all that answers depend on.

    Raises:
        SettingsError: a part with another stamp lies there.
    """
    if part.exists() and stamp_path(part).exists():
        if read_json(stamp_path(part)) != stamp:
            raise SettingsError(
                f"{part} holds answers of another model or table, for other kinds, or found in another way",
                f"remove it, or choose another -o: rm '{part}'",
            )
        return merge_rank_files(part)
    shutil.rmtree(rank_files_folder(part), ignore_errors=True)
    write_json(stamp_path(part), stamp)
    part.write_bytes(b"")
    return set()


def merge_rank_files(part: Path) -> set[str]:
    """Bring the lines of all processes together; the ids in them."""
    read_answered_ids(part)
    for share in sorted(rank_files_folder(part).glob(_RANK_FILES)):
        read_answered_ids(share)
        with part.open("ab") as stream:
            stream.write(share.read_bytes())
        share.unlink()
    return read_answered_ids(part)


def read_answered_ids(part: Path) -> set[str]:
    """Ids of a file's lines; a torn last line is cut off."""
    data = part.read_bytes() if part.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        part.write_bytes(whole)
    return {json.loads(line)["id"] for line in whole.split(b"\n") if line}  # U+2028 ends no line


def finish_partial_file(part: Path, output: Path, ids: Iterable[str]) -> None:
    """The lines under their final name, in this order of ids; each id was answered."""
    lines = {json.loads(line)["id"]: line for line in part.read_bytes().split(b"\n") if line}
    with atomic_file(output) as stream:
        stream.writelines(lines[id] + b"\n" for id in ids)
    part.unlink()
    stamp_path(part).unlink(missing_ok=True)
    shutil.rmtree(rank_files_folder(part), ignore_errors=True)

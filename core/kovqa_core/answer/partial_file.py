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

from kovqa_core.answer.question_rows import Row
from kovqa_core.data.decoding import Decoding
from kovqa_core.errors import SettingsError
from kovqa_core.files import read_json, whole_file, write_json

JOB = "job.json"  # in the folder of several processes: what they are to answer
_SHARES = "rank-*.jsonl"


def part_of(output: Path) -> Path:
    """Where the lines of an unfinished predictions file are."""
    return output.with_name(output.name + ".part")


def stamp_of(part: Path) -> Path:
    """Where it is written whose answers they are."""
    return part.with_name(part.name + ".json")


def shares_of(part: Path) -> Path:
    """The folder of several processes' lines."""
    return part.with_name(part.name + "s")


def share_of(part: Path, rank: int) -> Path:
    """One process's lines."""
    return shares_of(part) / _SHARES.replace("*", str(rank))


def begin(
    part: Path, folder: Path, table: Path, rows: list[Row], beams: int | None, decoding: Decoding
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
        "decoding": decoding.stamp(),
    }
    return take_up(part, stamp)


def take_up(part: Path, stamp: Mapping[str, Any]) -> set[str]:
    """Ids already answered under the same stamp; all lines are in one file then, torn ones cut off.

    Args:
        part: the lines so far; begun anew if there are none.
        stamp: all that answers depend on.

    Raises:
        SettingsError: a part with another stamp lies there.
    """
    if part.exists() and stamp_of(part).exists():
        if read_json(stamp_of(part)) != stamp:
            raise SettingsError(
                f"{part} holds answers of another model or table, for other kinds, or found in another way",
                f"remove it, or choose another -o: rm '{part}'",
            )
        return gather(part)
    shutil.rmtree(shares_of(part), ignore_errors=True)
    write_json(stamp_of(part), stamp)
    part.write_bytes(b"")
    return set()


def gather(part: Path) -> set[str]:
    """Bring the lines of all processes together; the ids in them."""
    answered(part)
    for share in sorted(shares_of(part).glob(_SHARES)):
        answered(share)
        with part.open("ab") as stream:
            stream.write(share.read_bytes())
        share.unlink()
    return answered(part)


def answered(part: Path) -> set[str]:
    """Ids of a file's lines; a torn last line is cut off."""
    data = part.read_bytes() if part.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        part.write_bytes(whole)
    return {json.loads(line)["id"] for line in whole.split(b"\n") if line}  # U+2028 ends no line


def finish(part: Path, output: Path, ids: Iterable[str]) -> None:
    """The lines under their final name, in this order of ids; each id was answered."""
    lines = {json.loads(line)["id"]: line for line in part.read_bytes().split(b"\n") if line}
    with whole_file(output) as stream:
        stream.writelines(lines[id] + b"\n" for id in ids)
    part.unlink()
    stamp_of(part).unlink(missing_ok=True)
    shutil.rmtree(shares_of(part), ignore_errors=True)

"""A predictions file while it is written: lines in `OUTPUT.part`, and beside it whose answers they are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kovqa_core.errors import SettingsError
from kovqa_core.files import read_json, whole_file, write_json


def part_of(output: Path) -> Path:
    """Where the lines of an unfinished predictions file are."""
    return output.with_name(output.name + ".part")


def stamp_of(part: Path) -> Path:
    """Where it is written whose answers they are."""
    return part.with_name(part.name + ".json")


def take_up(part: Path, stamp: Mapping[str, Any]) -> set[str]:
    """Ids already answered under the same stamp; a torn last line is cut off.

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
        data = part.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            part.write_bytes(whole)
        return {json.loads(line)["id"] for line in whole.decode().splitlines()}
    part.unlink(missing_ok=True)
    write_json(stamp_of(part), stamp)
    return set()


def finish(part: Path, output: Path, ids: Iterable[str]) -> None:
    """The lines under their final name, in this order of ids; each id was answered."""
    lines = {json.loads(line)["id"]: line for line in part.read_bytes().split(b"\n") if line}
    with whole_file(output) as stream:
        stream.writelines(lines[id] + b"\n" for id in ids)
    part.unlink()
    stamp_of(part).unlink(missing_ok=True)

"""One question, or a whole table with ids, written as it goes and taken up where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kovqa_core.data import tables
from kovqa_core.data.example import Answer, Example, prediction_line
from kovqa_core.data.index import default_images
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.files import disk_errors, nfc, read_json, write_json
from kovqa_core.models import family
from kovqa_core.runs import find_model
from kovqa_core.train.evaluate import answer_all
from kovqa_core.train.ranks import Rank

_ALONE = Rank(0, 0, 1)
Progress = Callable[[int, int], None]


def answer_one(image: Path, question: str, model: Path | None) -> tuple[Answer, Path]:
    """Answer one question; the answer, and the step folder that gave it."""
    folder = find_model(model, "vqa")
    if not question.strip():
        raise SettingsError("the question is empty", "kovqa predict -i x.png --question '무엇인가요?'")
    rows = [Example("1", str(image.resolve()), nfc(question))]
    (_, answer), *_ = _answers(folder, rows, Path("/"), 1, None)
    return answer, folder


def answer_table(
    table: Path, images: Path | None, output: Path, model: Path | None, batch: int, progress: Progress | None
) -> tuple[int, Path]:
    """Answer every row of a table; (number of rows, step folder that answered).

    Rows are appended to `OUTPUT.part` as they are answered; run again, the rest is done. The file
    takes its name when the last row is there. Unknown columns are carried over.

    Raises:
        DataError: a row without id, picture or question, an id twice; a picture that cannot be read.
        SettingsError: a part of another model's or table's answers lies there.
    """
    folder = find_model(model, "vqa")
    rows = read_table(table)
    root = images or default_images(table)
    part = output.with_name(output.name + ".part")
    with disk_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        done = _take_up(part, folder, table)
        left = [row for row in rows if row.example.id not in done]
        examples = [row.example for row in left]
        told = (lambda n, _: progress(len(done) + n, len(rows))) if progress else None
        with part.open("a", encoding="utf-8") as stream:
            for number, answer in _answers(folder, examples, root, batch, told):
                row = left[number]
                stream.write(prediction_line(row.example.id, answer, row.carried) + "\n")
                stream.flush()
        part.replace(output)
        _stamp(part).unlink(missing_ok=True)
    return len(rows), folder


def _answers(
    folder: Path, rows: list[Example], images: Path, batch: int, progress: Progress | None
) -> Iterator[tuple[int, Answer]]:
    if not rows:
        return
    model, processor = family.load(folder, "vqa")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    yield from answer_all(model, processor, rows, images, _ALONE, device, batch, progress=progress)


# --------------------------------------------------------------------------- taking up work


def _stamp(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _take_up(part: Path, folder: Path, table: Path) -> set[str]:
    """Ids already answered by this model for this table; a torn last line is cut off."""
    stamp = {
        "model": str(folder.resolve()),
        "kovqa.json": hashlib.sha256((folder / "kovqa.json").read_bytes()).hexdigest(),
        "table": hashlib.sha256(table.read_bytes()).hexdigest(),
    }
    if part.exists() and _stamp(part).exists():
        if read_json(_stamp(part)) != stamp:
            raise SettingsError(
                f"{part} holds answers of another model or table",
                f"remove it, or choose another -o: rm '{part}'",
            )
        data = part.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            part.write_bytes(whole)
        return {json.loads(line)["id"] for line in whole.decode().splitlines()}
    part.unlink(missing_ok=True)
    write_json(_stamp(part), stamp)
    return set()


# ---------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class Row:
    """One row to answer, and its columns that are none of ours."""

    example: Example
    carried: dict[str, Any]


_NAMES = {ours: tables.NAMES[ours] for ours in ("id", "image", "question")}


def read_table(path: Path) -> list[Row]:
    """Rows of an index split, a JSON-lines file, a JSON list, a CSV or a TSV.

    Raises:
        DataError: names file, line and what is missing or double.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder", "name one of its .jsonl files")
    rows: list[Row] = []
    seen: dict[str, int] = {}
    for number, record in tables.read_table(path, as_text=False):
        names = {
            ours: next((n for n in known if record.get(n) not in (None, "")), None)
            for ours, known in _NAMES.items()
        }
        lacking = [ours for ours, found in names.items() if found is None]
        if lacking:
            raise DataError(f"{path}:{number}: no {' and no '.join(lacking)}", "columns: id, image, question")
        id, image, question = (str(record[str(names[ours])]) for ours in _NAMES)
        tables.once(id, number, seen, path)
        carried = {k: v for k, v in record.items() if k not in (*names.values(), "answers")}
        rows.append(Row(Example(id, image, nfc(question)), carried))
    if not rows:
        raise DataError(f"{path} has no rows", "columns: id, image, question")
    return rows

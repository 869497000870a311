"""Small raw data sets of every source, written from literals, and what may happen to them on the way to an index."""

from __future__ import annotations

import functools
import json
import random
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

ROWS = 6  # that may be damaged; some sources have a few more beside them
FIELDS = ("id", "image", "question", "answer")
LONG_NUMBER = "9" * 5000
DEEP = "[" * 100_000 + "]" * 100_000


@dataclass(frozen=True)
class RawRow:
    """A row by the JSON literals of its fields; None: the key is missing."""

    id: str | None
    image: str | None
    question: str | None
    answer: str | None
    more: str = ""  # literal key and value pairs


def _object(row: RawRow, **keys: str | None) -> str:
    """A JSON object of those keys that have a literal, and the row's further pairs."""
    pairs = [f'"{key}": {literal}' for key, literal in keys.items() if literal is not None]
    return "{" + ", ".join([*pairs, *([row.more] if row.more else [])]) + "}"


def _file(name: str, objects: Sequence[str]) -> str:
    return f'{{"{name}": [\n' + ",\n".join(objects) + "\n]}\n"


# --------------------------------------------------------------------------- the sources' own files


def _aihub(rows: Sequence[RawRow]) -> dict[str, str]:
    folder, plain = "labels/train/교통/상_train_교통", [replace(row, more="") for row in rows]
    answers = [
        _object(r, question_id=r.id, image_id=str(n), multiple_choice_answer=r.answer)
        for n, r in enumerate(rows)
    ]
    questions = [
        _object(r, question_id=r.id, image_id=str(n), question=r.question) for n, r in enumerate(plain)
    ]
    images = [_object(r, image_id=str(n), image=r.image) for n, r in enumerate(plain)]
    return {
        f"{folder}/annotation.json": _file("annotations", answers),
        f"{folder}/question.json": _file("questions", questions),
        f"{folder}/images.json": _file("images", images),
    }


def _aihub101(rows: Sequence[RawRow]) -> dict[str, str]:
    questions = [
        _object(r, question_id=r.id, image_id=str(n), question=r.question, answer=r.answer)
        for n, r in enumerate(rows)
    ]
    images = [_object(replace(r, more=""), image_id=str(n), image=r.image) for n, r in enumerate(rows)]
    content = _file("images", images).rstrip()[:-1] + "," + _file("question", questions)[1:]
    return {"Training/교통.json": content}


def _nia(rows: Sequence[RawRow]) -> dict[str, str]:
    def record(r: RawRow) -> str:
        question = _object(r, question_id=r.id, question_ko=r.question, answer_ko=r.answer)
        return _object(replace(r, more=""), IMAGE_NAME=r.image, questions=f"[{question}]")

    whole = _file("annotations", [record(RawRow('"v"', '"사진0.png"', '"뭐?"', '"예"'))])
    return {
        "train.json": _file("annotations", list(map(record, rows))),
        "valid.json": whole,
        "test.json": whole,
    }


def _vqav2(rows: Sequence[RawRow]) -> dict[str, str]:
    def annotation(r: RawRow) -> str:
        answers = f"[{_object(replace(r, more=''), answer=r.answer)}]"
        return _object(r, question_id=r.id, multiple_choice_answer=r.answer, answers=answers)

    def files(part: str, rows: Sequence[RawRow]) -> dict[str, str]:
        questions = [
            _object(replace(r, more=""), question_id=r.id, image_id=r.image, question=r.question)
            for r in rows
        ]
        return {
            f"v2_mscoco_{part}_annotations.json": _file("annotations", list(map(annotation, rows))),
            f"v2_OpenEnded_mscoco_{part}_questions.json": _file("questions", questions),
        }

    return files("train2014", rows) | files("val2014", [RawRow("90", "0", '"뭐?"', '"예"')])


def _coco(rows: Sequence[RawRow]) -> dict[str, str]:
    images = [
        _object(r, filepath='"images"', filename=r.image, split='"train"', cocoid=r.id,
                sentences=f'[{_object(replace(r, more=""), raw=r.answer)}]')
        for r in rows
    ]  # fmt: skip
    return {"dataset_coco.json": _file("images", images)}


def _kvqa(rows: Sequence[RawRow]) -> dict[str, str]:
    def record(r: RawRow) -> str:
        answers = f"[{_object(replace(r, more=''), answer=r.answer)}]"
        return _object(r, question_id=r.id, image=r.image, question=r.question, answers=answers)

    return {"kvqa_annotations.json": "[\n" + ",\n".join(map(record, rows)) + "\n]\n"}


def _records(rows: Sequence[RawRow]) -> list[str]:
    return [
        _object(r, id=r.id, image=r.image, question=r.question, answer=r.answer, split='"train"')
        for r in rows
    ]


def _cell(literal: str) -> str:
    """What a CSV has for a literal: a text without its quotes; nothing for null."""
    text = json.loads(literal) if literal.startswith('"') else {"null": ""}.get(literal, literal)
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\t\n') else text


def _csv(rows: Sequence[RawRow], mark: str, names: Sequence[str], fixed: Sequence[str] = ()) -> str:
    """A table; a column that one row lacks is missing in all."""
    present = [field for field in FIELDS if all(getattr(row, field) is not None for row in rows)]
    header = [names[FIELDS.index(field)] for field in present] + [name.partition("=")[0] for name in fixed]
    # A doubled key is a doubled column.
    header += header[:1] if any(row.more for row in rows) else []
    lines = [header]
    for row in rows:
        cells = [_cell(getattr(row, field)) for field in present] + [name.partition("=")[2] for name in fixed]
        lines.append(cells + cells[:1] * (len(header) - len(cells)))
    return "".join(mark.join(line) + "\n" for line in lines)


def _dacon(rows: Sequence[RawRow]) -> dict[str, str]:
    return {
        "train.csv": _csv(rows, ",", ("ID", "image_id", "question", "answer")),
        "test.csv": "ID,image_id,question\nT,사진0,Why?\n",
    }


@dataclass(frozen=True)
class Source:
    """A source, or the table of one format.

    Attributes:
        name: for people.
        kind: the source's name.
        files: from the rows to the contents of its files; the first is the one that is damaged as a whole.
        image_folder: where its images lie.
        image: from a row's number to the literal that names its image.
        is_json: has its values as JSON.
    """

    name: str
    kind: str
    files: Callable[[Sequence[RawRow]], dict[str, str]]
    image_folder: str = "images"
    image: Callable[[int], str] = lambda n: f'"사진{n}.png"'
    is_json: bool = True

    def image_path(self, root: Path, number: int) -> Path:
        """Where the image of a row lies."""
        if self.kind == "vqav2":
            return root / f"train2014/COCO_train2014_{number:012}.jpg"
        return root / self.image_folder / f"사진{number}.png"

    def rows(self) -> list[RawRow]:
        """Rows without a fault."""
        return [
            RawRow(str(n + 1), self.image(n), f'"이것은 뭐예요 {n}?"', f'"답{n % 2}"') for n in range(ROWS)
        ]


_TABLE = ("id", "image", "question", "answer")
SOURCES = [
    Source("aihub", "aihub", _aihub),
    Source("aihub101", "aihub101", _aihub101),
    Source("nia", "nia", _nia, "image"),
    Source("vqav2", "vqav2", _vqav2, "train2014", str),
    Source("coco", "coco", _coco),
    Source("kvqa", "kvqa", _kvqa),
    Source("dacon", "dacon", _dacon, "image/train", lambda n: f'"사진{n}"', is_json=False),
    Source(
        "csv", "table", lambda rows: {"표.csv": _csv(rows, ",", _TABLE, ["split=train"])}, "", is_json=False
    ),
    Source(
        "tsv", "table", lambda rows: {"표.tsv": _csv(rows, "\t", _TABLE, ["split=train"])}, "", is_json=False
    ),
    Source("jsonl", "table", lambda rows: {"표.jsonl": "\n".join(_records(rows)) + "\n"}, ""),
    Source("json", "table", lambda rows: {"표.json": "[" + ",\n".join(_records(rows)) + "]\n"}, ""),
]


@functools.cache
def _png() -> bytes:
    import io

    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (200, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def write_source(source: Source, root: Path, rows: Sequence[RawRow]) -> Path:
    """Write a source and its images; returns the file that is damaged as a whole."""
    for number in range(ROWS):
        path = source.image_path(root, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_png())
    if source.kind == "vqav2":
        path = root / "val2014/COCO_val2014_000000000000.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(_png())
    if source.kind == "dacon":
        path = root / "image/test/사진0.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(_png())
    files = source.files(rows)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode("utf-8", "surrogatepass"))
    return root / next(iter(files))


# ------------------------------------------------------------------------------------ the damages

RowDamage = Callable[[list[RawRow], random.Random], list[RawRow]]
FileDamage = Callable[[Source, Path, Path, random.Random], None]


def _put(literal: str | None) -> RowDamage:
    """One field of one row has this literal."""

    def damage(rows: list[RawRow], draw: random.Random) -> list[RawRow]:
        field, number = draw.choice(FIELDS), draw.randrange(len(rows))
        rows[number] = replace(rows[number], **{field: literal})
        return rows

    return damage


def _put_everywhere(literal: str) -> RowDamage:
    def damage(rows: list[RawRow], draw: random.Random) -> list[RawRow]:
        field = draw.choice(FIELDS)
        return [replace(row, **{field: literal}) for row in rows]

    return damage


def _doubled_key(rows: list[RawRow], draw: random.Random) -> list[RawRow]:
    number = draw.randrange(len(rows))
    rows[number] = replace(rows[number], more='"x": 1, "x": 2')
    return rows


def _doubled_row(rows: list[RawRow], draw: random.Random) -> list[RawRow]:
    return [*rows, draw.choice(rows)]


def _doubled_with_other_answer(rows: list[RawRow], draw: random.Random) -> list[RawRow]:
    return [*rows, replace(draw.choice(rows), answer='"다른 답"')]


def _one_id(rows: list[RawRow], draw: random.Random) -> list[RawRow]:
    return [replace(row, id="1") for row in rows]


def _decomposed_names(rows: list[RawRow], draw: random.Random) -> list[RawRow]:
    return [replace(row, image=row.image and unicodedata.normalize("NFD", row.image)) for row in rows]


ROW_DAMAGES: dict[str, RowDamage] = {
    "NaN": _put("NaN"), "Infinity": _put("-Infinity"), "null": _put("null"), "the text nan": _put('"nan"'),
    "a list": _put('["답0"]'), "a list of two": _put('["답0", "답1"]'), "an object": _put('{"a": "답0"}'),
    "a missing key": _put(None), "true": _put("true"), "a fraction": _put("1.50"), "an empty text": _put('""'),
    "blanks": _put('"  "'), "5,000 digits": _put(LONG_NUMBER), "1e999": _put("1e999"), "deep nesting": _put(DEEP),
    "half a surrogate pair": _put('"\\ud83d"'), "an escaped NUL": _put('"a\\u0000b"'),
    "a path out of the folder": _put('"../../etc/passwd"'), "NaN everywhere": _put_everywhere("NaN"),
    "null everywhere": _put_everywhere("null"), "a doubled key": _doubled_key, "a doubled row": _doubled_row,
    "a doubled row with another answer": _doubled_with_other_answer, "one id for all": _one_id,
    "names in NFD": _decomposed_names,
}  # fmt: skip


def _rewrite(change: Callable[[bytes, random.Random], bytes]) -> FileDamage:
    def damage(source: Source, root: Path, file: Path, draw: random.Random) -> None:
        file.write_bytes(change(file.read_bytes(), draw))

    return damage


def _cut_letter(data: bytes, draw: random.Random) -> bytes:
    """One byte of a Hangul letter is missing."""
    places = [place for place, byte in enumerate(data) if byte >= 0xE0]
    place = draw.choice(places)
    return data[: place + 2] + data[place + 3 :]


def _insert_nul(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + b"\0" + data[place:]


def _remove_image(source: Source, root: Path, file: Path, draw: random.Random) -> None:
    source.image_path(root, draw.randrange(1, ROWS)).unlink()


def _truncate_image(source: Source, root: Path, file: Path, draw: random.Random) -> None:
    path = source.image_path(root, draw.randrange(1, ROWS))
    path.write_bytes(path.read_bytes()[: draw.randrange(40)])


def _rename_images(source: Source, root: Path, file: Path, draw: random.Random) -> None:
    for number in range(ROWS):
        path = source.image_path(root, number)
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))


def _add_junk(source: Source, root: Path, file: Path, draw: random.Random) -> None:
    for folder in {file.parent, source.image_path(root, 0).parent}:
        for name in (f"._{file.name}", ".DS_Store", "Thumbs.db", "dataset_info.json", "._사진1.png"):
            (folder / name).write_bytes(b"\0\5\26\7" if name.startswith("._") else b"{}")


FILE_DAMAGES: dict[str, FileDamage] = {
    "a truncated file": _rewrite(lambda data, draw: data[: draw.randrange(1, len(data) - 2)]),
    "an empty file": _rewrite(lambda data, draw: b""),
    "blanks only": _rewrite(lambda data, draw: b" \n\n"),
    "CP949": _rewrite(lambda data, draw: data.decode("utf-8", "replace").encode("cp949", "replace")),
    "a byte-order mark": _rewrite(lambda data, draw: b"\xef\xbb\xbf" + data),
    "CRLF": _rewrite(lambda data, draw: data.replace(b"\n", b"\r\n")),
    "bare CR": _rewrite(lambda data, draw: data.replace(b"\n", b"\r")),
    "UTF-16": _rewrite(lambda data, draw: data.decode("utf-8", "replace").encode("utf-16")),
    "a NUL byte": _rewrite(_insert_nul),
    "a cut letter": _rewrite(_cut_letter),
    "HTML": _rewrite(lambda data, draw: b"<!DOCTYPE html><html>404</html>"),
    "an LFS pointer": _rewrite(lambda data, draw: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    "a missing image": _remove_image,
    "a truncated image": _truncate_image,
    "image files in NFD": _rename_images,
    "junk files": _add_junk,
}  # fmt: skip

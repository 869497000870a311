"""Small files of published Korean benchmarks, in the layouts that docs/sources/benchmarks.md writes down.

The questions and pictures are ours: squares of a colour each, so that anybody knows the right answers.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet
from PIL import Image

Record = dict[str, object]
LETTERS = "ABCD"
TURN = 1_000_000  # between the indexes of a question's turns in MMBench's files


class Square(NamedTuple):
    """A picture of one colour, and a question about it.

    Attributes:
        colour: as Pillow knows it.
        choices: in Korean.
        answer: number of the right one.
        category: of the question.
    """

    colour: str
    choices: tuple[str, ...]
    answer: int
    category: str

    @property
    def letter(self) -> str:
        return LETTERS[self.answer]


SQUARES = (
    Square("red", ("빨강", "파랑", "초록", "노랑"), 0, "attribute"),
    Square("blue", ("빨강", "파랑", "초록", "노랑"), 1, "relation"),
    Square("green", ("하양", "검정", "초록", "노랑"), 2, "attribute"),
    Square("yellow", ("회색", "보라", "분홍", "노랑"), 3, "relation"),
    Square("black", ("하양", "검정", "갈색", "주황"), 1, "attribute"),
)
QUESTION = "이 사각형은 무슨 색입니까?"


def write_benchmark(name: str, folder: Path, squares: Sequence[Square] = SQUARES) -> Path:
    """Write a benchmark as its authors publish it.

    Args:
        name: as `kovqa index` calls it; `k-viscuit-github` for the JSON lines and images of its repository.
        folder: where it is written, as `kovqa download` lays it down.
        squares: its questions, one each.

    Returns:
        what `--root` names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _WRITERS[name](folder, squares)
    return folder


def picture(colour: str, kind: str = "PNG") -> bytes:
    """A square of 32 pixels as a file."""
    with io.BytesIO() as stream:
        Image.new("RGB", (32, 32), colour).save(stream, kind)
        return stream.getvalue()


def _embedded(square: Square) -> Record:
    return {"bytes": picture(square.colour), "path": None}


def _write_parquet(path: Path, rows: Sequence[Record]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist(list(rows)), path)


def _write_tsv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """As pandas writes one: tabs, quotation marks where a cell needs them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_k_mmbench(folder: Path, squares: Sequence[Square]) -> None:
    """With the turns of circular evaluation as rows of their own; the last question has two choices."""
    rows: list[Record] = []
    for number, square in enumerate(squares, 241):
        is_last = number == 240 + len(squares)
        offered = square.choices[: 2 if is_last else 4]
        for turn in range(len(offered)):
            turned = (*offered[turn:], *offered[:turn])
            letters: Record = dict(zip(LETTERS, (*turned, *[None] * (4 - len(turned))), strict=True))
            rows.append(
                {
                    "index": number + turn * TURN,
                    "question": QUESTION,
                    "hint": None if number % 2 else "사각형은 하나입니다.",
                    **letters,
                    "answer": LETTERS[turned.index(square.choices[square.answer])],
                    "category": square.category,
                    "image": _embedded(square),
                    "source": "own",
                    "l2-category": "finegrained_perception",
                    "comment": None,
                    "split": "dev",
                }
            )
    # As published: all questions once, then their turns.
    rows.sort(key=lambda row: str(row["index"]).zfill(9))
    _write_parquet(folder / "data" / "dev-00000-of-00001.parquet", rows)


def _choice_columns(square: Square) -> Record:
    return {f"choice_{letter.lower()}": text for letter, text in zip(LETTERS, square.choices, strict=True)}


def _write_k_seed(folder: Path, squares: Sequence[Square]) -> None:
    rows: list[Record] = [
        {
            "answer": square.letter,
            **_choice_columns(square),
            "data_id": f"{number}_1",
            "data_type": "image",
            "image": _embedded(square),
            "question": QUESTION,
            "question_id": str(101669 + number),
            "question_type_id": 1 + number % 2,
        }
        for number, square in enumerate(squares)
    ]
    _write_parquet(folder / "data" / "test-00000-of-00001.parquet", rows)


def _write_k_mmstar(folder: Path, squares: Sequence[Square]) -> None:
    """The choices are part of the question's text."""
    rows: list[Record] = [
        {
            "index": number,
            "question": f"{QUESTION}\nOptions: "
            + ", ".join(f"{letter}: {text}" for letter, text in zip(LETTERS, square.choices, strict=True)),
            "image": _embedded(square),
            "answer": square.letter,
            "category": "coarse perception",
            "l2_category": square.category,
            "meta_info": {"source": "own", "split": "val", "image_path": f"images/{number}.jpg"},
        }
        for number, square in enumerate(squares)
    ]
    _write_parquet(folder / "data" / "val-00000-of-00001.parquet", rows)


def _write_k_dtcbench(folder: Path, squares: Sequence[Square]) -> None:
    kinds = ("document", "table", "chart")
    rows: list[Record] = [
        {
            "index": f"{kinds[number % 3]}_{number}",
            "image": _embedded(square),
            "question": QUESTION,
            **_choice_columns(square),
            "answer": square.letter,
            "category": kinds[number % 3],
        }
        for number, square in enumerate(squares)
    ]
    _write_parquet(folder / "data" / "test-00000-of-00001.parquet", rows)


def _write_k_llava_w(folder: Path, squares: Sequence[Square]) -> None:
    kinds = ("conv", "detail", "complex")
    rows: list[Record] = [
        {
            "question_id": number,
            "question": "이 그림을 설명해 주세요.",
            "image": _embedded(square),
            "caption": f"{square.choices[square.answer]} 사각형 하나가 있다.",
            "gpt_answer": f"그림에는 {square.choices[square.answer]} 사각형이 하나 있습니다.",
            "category": kinds[number % 3],
        }
        for number, square in enumerate(squares)
    ]
    _write_parquet(folder / "data" / "test-00000-of-00001.parquet", rows)


def _write_koffvqa(folder: Path, squares: Sequence[Square]) -> None:
    rows = [
        {
            "index": number,
            "question": "사각형의 색과 개수를 말해 주세요.",
            "answer": f"- 색이 {square.choices[square.answer]}이라고 답하면 5점\n- 하나라고 답하면 5점",
            "category": square.category,
            "image": base64.b64encode(picture(square.colour, "JPEG")).decode(),
        }
        for number, square in enumerate(squares)
    ]
    _write_tsv(folder / "data" / "KOFFVQA.tsv", rows)


def _write_kreta(folder: Path, squares: Sequence[Square]) -> None:
    rows = [
        {
            "id": f"test_{square.category}_{number}",
            "question": QUESTION,
            **dict(zip(LETTERS, square.choices, strict=True)),
            "answer": square.letter,
            "category": square.category,
            "topic_difficulty": f"System{1 + number % 2}",
            "image_type": "Poster",
            "image": base64.b64encode(picture(square.colour, "JPEG")).decode(),
        }
        for number, square in enumerate(squares)
    ]
    _write_tsv(folder / "test.tsv", rows)


def _viscuit_rows(squares: Sequence[Square]) -> list[Record]:
    """Ids repeat, as in the published file: the image tells them apart."""
    return [
        {
            "question": "What colour is this square?",
            "options": list(square.choices),
            "answer": square.answer,
            "category": square.category,
            "id_": f"Food.{number // 2}.0",
            "question_type": 1 + number % 2,
            "image_url": f"https://example.org/{number}.jpg",
        }
        for number, square in enumerate(squares)
    ]


def _write_k_viscuit(folder: Path, squares: Sequence[Square]) -> None:
    rows = [
        {**row, "image": _embedded(square)}
        for row, square in zip(_viscuit_rows(squares), squares, strict=True)
    ]
    _write_parquet(folder / "data" / "test-00000-of-00001.parquet", rows)


def _write_k_viscuit_github(folder: Path, squares: Sequence[Square]) -> None:
    (folder / "dataset" / "images").mkdir(parents=True)
    lines = []
    for number, (row, square) in enumerate(zip(_viscuit_rows(squares), squares, strict=True)):
        (folder / "dataset" / "images" / f"{number}.jpg").write_bytes(picture(square.colour, "JPEG"))
        lines.append(json.dumps({**row, "image_path": f"{number}.jpg"}) + "\n")
    (folder / "dataset" / "annotations.jsonl").write_text("".join(lines), encoding="utf-8")


def _write_bok_vqa(folder: Path, squares: Sequence[Square]) -> None:
    """Tests of both languages, and three training rows of which one has the fold that validates."""
    (folder / "data" / "image").mkdir(parents=True)
    header = ",img_name,question,h,r,t,answer"
    tests, trained = [header], [f"{header},fold"]
    for number, square in enumerate(squares):
        name = f"1211002202207071401{number:02}.jpg"
        (folder / "data" / "image" / name).write_bytes(picture(square.colour, "JPEG"))
        row = f"{number},{name},{QUESTION},{square.colour.title()},subject,Colour,{square.colour}"
        tests.append(row)
        trained += [f"{row},{number}.0"] if number < 3 else []
    for stem, lines in (("data_test", tests), ("data", trained)):
        for language in ("ko", "en"):
            text = "\n".join([*lines, ""])
            text = text if language == "ko" else text.replace(QUESTION, "What colour is this square?")
            (folder / "data" / f"BOKVQA_{stem}_{language}.csv").write_text(text, encoding="utf-8")


_WRITERS: dict[str, Callable[[Path, Sequence[Square]], None]] = {
    "k-mmbench": _write_k_mmbench,
    "k-seed": _write_k_seed,
    "k-mmstar": _write_k_mmstar,
    "k-dtcbench": _write_k_dtcbench,
    "k-llava-w": _write_k_llava_w,
    "koffvqa": _write_koffvqa,
    "kreta": _write_kreta,
    "k-viscuit": _write_k_viscuit,
    "k-viscuit-github": _write_k_viscuit_github,
    "bok-vqa": _write_bok_vqa,
}

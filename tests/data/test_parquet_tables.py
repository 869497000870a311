"""Parquet files as people have them: lists, labels, numbers with gaps, and images inside."""

from __future__ import annotations

import datetime
import io
import json
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from kovqa_core.data.tables import holds_images, read_table
from kovqa_core.data.tables.embedded_images import ImageNames, image_writer
from kovqa_core.errors import DataError
from PIL import Image


def image_bytes(red: int = 0, format: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (red, 0, 0)).save(stream, format)
    return stream.getvalue()


def parquet(path: Path, rows: Sequence[dict[str, Any]], **options: Any) -> Path:
    pa.parquet.write_table(pa.Table.from_pylist(list(rows), **options), path)
    return path


@pytest.mark.parametrize(
    ("value", "text", "carried"),
    [
        (1, "1", 1), (1.0, "1", 1), (2.5, "2.5", 2.5), (float("nan"), None, None), (None, None, None),
        ("007", "007", "007"), ([1, 2], ["1", "2"], [1, 2]), (["예", None], ["예", None], ["예", None]),
        (True, True, True), (Decimal("1.50"), "1.50", "1.50"), ({"a": 1}, {"a": "1"}, {"a": 1}),
        (datetime.date(2024, 5, 1), "2024-05-01", "2024-05-01"),
    ],
)  # fmt: skip
def test_a_value_is_one_that_json_has(tmp_path: Path, value: Any, text: Any, carried: Any) -> None:
    path = parquet(tmp_path / "t.parquet", [{"v": value, "w": 1}])
    assert list(read_table(path)) == [(1, {"v": text, "w": "1"})]
    assert list(read_table(path, as_text=False)) == [(1, {"v": carried, "w": 1})]


def test_numbers_of_labels_are_their_names(tmp_path: Path) -> None:
    features = {"answer": {"names": ["아니요", "예"], "_type": "ClassLabel"}, "id": {"dtype": "int64"}}
    schema = pa.schema(
        [("id", pa.int64()), ("answer", pa.int64())],
        {"huggingface": json.dumps({"info": {"features": features}})},
    )
    path = parquet(tmp_path / "t.parquet", [{"id": 1, "answer": 1}, {"id": 2, "answer": -1}], schema=schema)
    assert [row["answer"] for _, row in read_table(path)] == ["예", "-1"]


PNG, RED, JPEG = image_bytes(), image_bytes(200), image_bytes(9, "JPEG")
IMAGES: dict[str, tuple[Any, str]] = {
    "a name": ({"bytes": PNG, "path": "a.png"}, "a.png"),
    "a path": ({"bytes": PNG, "path": "val/a.png"}, "val/a.png"),
    "a path of another machine": ({"bytes": PNG, "path": "/home/x/a.png"}, "a.png"),
    "a path of Windows": ({"bytes": PNG, "path": "C:\\x\\a.png"}, "a.png"),
    "a path that leads out": ({"bytes": PNG, "path": "../a.png"}, "*.png"),
    "a hidden name": ({"bytes": PNG, "path": ".a.png"}, "*.png"),
    "a name too long": ({"bytes": PNG, "path": "가" * 90 + ".png"}, "*.png"),
    "a wrong suffix": ({"bytes": JPEG, "path": "a.png"}, "a.jpg"),
    "a suffix of the same kind": ({"bytes": JPEG, "path": "a.JPEG"}, "a.JPEG"),
    "no suffix": ({"bytes": JPEG, "path": "COCO_val.1"}, "COCO_val.1.jpg"),
    "no name": ({"bytes": PNG, "path": None}, "*.png"),
    "bytes alone": (RED, "*.png"),
    "a list of one": ([{"bytes": PNG, "path": "a.png"}], "a.png"),
    "no image": ({"bytes": b"<html>", "path": None}, "*.bin"),
}


@pytest.mark.parametrize("case", IMAGES)
def test_an_image_becomes_a_file_under_a_usable_name(tmp_path: Path, case: str) -> None:
    value, expected = IMAGES[case]
    column = "images" if isinstance(value, list) else "image"
    path = parquet(tmp_path / "t.parquet", [{"id": 1, column: value}])
    folder = tmp_path / "images"
    [(_, row)] = read_table(path, save_image=image_writer(folder))
    data = value if isinstance(value, bytes) else (value[0] if isinstance(value, list) else value)["bytes"]
    assert holds_images(path)
    assert [file for file in folder.rglob("*") if file.is_file()] == [folder / row["image"]]
    assert (folder / row["image"]).read_bytes() == data
    assert row["image"] == expected or (expected[0] == "*" and Path(row["image"]).suffix == expected[1:])
    # Without writing, the names are the same: processes of a profile read the table again.
    assert [again["image"] for _, again in read_table(path)] == [row["image"]]


def test_one_name_for_one_image_and_one_image_for_one_name(tmp_path: Path) -> None:
    """Rows about one image keep one name, or a split by image would have it on both sides."""
    values = [
        (PNG, None),
        (PNG, None),
        (RED, None),
        (PNG, "a.png"),
        (PNG, "a.png"),
        (RED, "a.png"),
        (RED, "A.PNG"),
    ]
    rows = [{"id": n, "image": {"bytes": data, "path": path}} for n, (data, path) in enumerate(values)]
    folder = tmp_path / "images"
    path = parquet(tmp_path / "t.parquet", rows)
    names = [row["image"] for _, row in read_table(path, save_image=image_writer(folder))]
    assert names[0] == names[1] != names[2]
    assert names[3] == names[4] == "a.png" and names[5].startswith("a-") and names[6].startswith("A-")
    assert [(folder / name).read_bytes() for name in names] == [data for data, _ in values]
    shared = ImageNames()
    two_files = [[row["image"] for _, row in read_table(path, image_names=shared)] for _ in range(2)]
    assert two_files == [names, names]


def test_images_that_are_paths_and_other_bytes_are_no_images(tmp_path: Path) -> None:
    rows = [{"id": 1, "image": "a.png", "embedding": b"\0\1"}, {"id": 2, "image": "b.png", "embedding": b""}]
    path = parquet(tmp_path / "t.parquet", rows)
    assert not holds_images(path)
    assert [row for _, row in read_table(path)] == [
        {"id": "1", "image": "a.png"},
        {"id": "2", "image": "b.png"},
    ]
    mixed = [
        {"image": {"bytes": None, "path": "a.png"}},
        {"image": None},
        {"image": {"bytes": PNG, "path": None}},
    ]
    names = [row["image"] for _, row in read_table(parquet(tmp_path / "m.parquet", mixed))]
    assert names[:2] == ["a.png", None] and names[2].endswith(".png")


def test_a_table_of_many_images_is_read_in_batches(tmp_path: Path) -> None:
    rows = [{"id": n, "image": {"bytes": image_bytes(n % 256), "path": f"{n}.png"}} for n in range(300)]
    path, saved = parquet(tmp_path / "t.parquet", rows), list[str]()
    table = read_table(path, save_image=lambda name, data: saved.append(name))
    next(table)
    assert saved == ["0.png"]  # nothing is read ahead of the row that is asked for
    assert [row["id"] for _, row in table] == [str(n) for n in range(1, 300)]


def test_a_conversation_in_parquet(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<image>뭐?"}, {"from": "gpt", "value": "개"}]
    path = parquet(
        tmp_path / "t.parquet",
        [{"id": "7", "images": [{"bytes": PNG, "path": None}], "conversations": turns}],
    )
    [(line, row)] = read_table(path, {"image": ("image",), "question": ("question",)})
    assert (line, row["question"], row["answer"]) == (1, "뭐?", "개") and row["image"].endswith(".png")


def test_a_damaged_file_and_a_missing_library_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = parquet(tmp_path / "t.parquet", [{"id": n} for n in range(1000)])
    with pytest.raises(DataError, match=r"t\.parquet:1: no column 'image'; it has id"):
        list(read_table(path, {"image": ("image",)}))
    for data in (
        path.read_bytes()[:-9],
        b"PAR1",
        path.read_bytes()[:200] + bytes(300) + path.read_bytes()[500:],
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"t\.parquet is a damaged parquet file \("):
            list(read_table(path))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"t\.parquet needs pyarrow") as caught:
        list(read_table(path))
    assert "pip install 'kovqa[tables]'" in str(caught.value.hint)

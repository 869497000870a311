"""Webdataset tars: their samples as rows, their images read where they lie, and what is no sample."""

from __future__ import annotations

import gzip
import io
import json
import multiprocessing
import os
import tarfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pytest
from kovqa_core.data import tar_images
from kovqa_core.data.image_io import open_image
from kovqa_core.data.image_source import has_image_file, image_bytes_count, read_image_bytes
from kovqa_core.data.table_columns import TableRecord, known_columns, read_table_records
from kovqa_core.data.tables import holds_images, read_table, table_notes
from kovqa_core.data.tar_images import find_in_tar
from kovqa_core.errors import DataError
from kovqa_core.index.find_image import find_table_image
from PIL import Image

COLOURS = [(n * 37 % 256, n * 91 % 256, n * 13 % 256) for n in range(64)]
Files = Iterable[tuple[str, bytes] | tuple[str, bytes, bytes]]  # name, contents, type where it is no file


def picture(number: int, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (6, 4), COLOURS[number]).save(stream, kind)
    return stream.getvalue()


def said(**values: object) -> bytes:
    return json.dumps(values, ensure_ascii=False).encode()


QA = said(question="무엇?", answer="별")


def write_tar(path: Path, files: Files, *, mode: str = "w", form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=form) as tar:  # type: ignore[call-overload]
        for name, data, *kind in files:
            info = tarfile.TarInfo(name)
            info.size = 0 if kind else len(data)
            if kind:
                [info.type], info.linkname = kind, "/etc/passwd"
            tar.addfile(info, io.BytesIO(data))
    return path


def records(path: Path, **columns: str) -> list[TableRecord]:
    known = known_columns(columns)
    required = {name: known[name] for name in ("image", "question")}
    return list(read_table_records(path, known, required, columns))


def problems(path: Path) -> dict[str, str]:
    return {row.own_id: row.problem for row in records(path) if row.problem}


LONG = f"사진/{'가' * 70}/v1.0"  # longer than the 100 bytes of a header's own field


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_samples_are_rows_and_images_stay_where_they_are(tmp_path: Path, form: int) -> None:
    """Folders with dots, Hangul names longer than a header's field, a Mac's Unicode, and dots behind the key's first."""
    mac = unicodedata.normalize("NFD", "맥")
    tar = write_tar(
        tmp_path / "shard-000.tar",
        [
            *((f"./{LONG}/{n:04d}{end}", data) for n in range(3) for end, data in ((".png", picture(n)), (".json", QA))),
            (f"{mac}.PNG", picture(10)), (f"{mac}.question.txt", "맥?\n".encode()), (f"{mac}.answer", b"yes"),
            ("a.b.c.jpg", picture(11, "JPEG")), ("a.json", said(id="q1", question="점?", answer=7)),
        ],
        form=form,
    )  # fmt: skip
    rows = records(tar)
    assert [row.id for row in rows] == [*(f"{LONG}/{n:04d}" for n in range(3)), "맥", "q1"]
    assert [row.text("question") for row in rows] == [*["무엇?"] * 3, "맥?", "점?"]
    assert [row.text("answer") for row in rows] == [*["별"] * 3, "yes", "7"]
    assert rows[0].place.endswith(f"shard-000.tar:{LONG}/0000")
    for row, number in zip(rows[:4], (0, 1, 2, 10), strict=True):
        path = tmp_path / row.text("image")
        assert open_image(path).getpixel((0, 0)) == COLOURS[number]
        assert read_image_bytes(path) == picture(number)
        assert image_bytes_count(path) == len(picture(number))
        assert has_image_file(path)
    assert rows[4].text("image") == "shard-000.tar/a.b.c.jpg"
    assert [path.name for path in tmp_path.iterdir()] == ["shard-000.tar"], "nothing is unpacked"


def test_a_gzip_file_is_read_from_its_beginning_and_its_images_are_unpacked(tmp_path: Path) -> None:
    files = [(f"{n}{end}", data) for n in range(3) for end, data in ((".png", picture(n)), (".json", QA))]
    tar = write_tar(tmp_path / "t.tar.gz", files, mode="w:gz")
    assert holds_images(tar)
    assert not holds_images(write_tar(tmp_path / "t.tar", files))
    saved: dict[str, bytes] = {}
    rows = list(read_table(tar, save_image=saved.__setitem__))
    assert [row["image"] for _, row in rows] == ["0.png", "1.png", "2.png"] == list(saved)
    assert saved["2.png"] == picture(2)
    assert [row["image"] for _, row in read_table(tar)] == list(saved), "the same names without saving"


def test_what_is_no_sample_is_left_out_with_its_reason(tmp_path: Path) -> None:
    tar = write_tar(
        tmp_path / "t.tar",
        [
            ("good.png", picture(0)), ("good.json", QA), ("good.npy", b"1"), ("folder/.hidden.json", b"{"),
            ("no-image.json", QA), ("no-text.png", picture(1)),
            ("several.png", picture(1)), ("several.jpg", picture(2, "JPEG")), ("several.json", QA),
            ("seg.png", picture(3)), ("seg.mask.png", picture(4)), ("seg.json", QA),
            ("twice.png", picture(1)), ("twice.png", picture(2)), ("twice.json", QA),
            ("link.png", b"", tarfile.SYMTYPE), ("link.json", QA), ("hard.png", b"", tarfile.LNKTYPE), ("hard.json", QA),
            ("pipe.png", b"", tarfile.FIFOTYPE), ("pipe.json", QA),
            ("device.png", b"", tarfile.CHRTYPE), ("device.json", QA),
            ("../up.png", picture(1)), ("../up.json", QA), ("/abs.png", picture(1)), ("/abs.json", QA),
            ("C:\\win.png", picture(1)), ("C:\\win.json", QA), ("bell\a.png", picture(1)), ("bell\a.json", QA),
            ("number.png", picture(1)), ("number.json", b"7"),
            ("elsewhere.json", said(question="?", image="x.png")),
            ("good.txt", b"again"),
        ],
    )  # fmt: skip
    found = problems(tar)
    assert set(found) == {
        "no-image", "no-text", "several", "twice", "link", "hard", "pipe", "device", "../up", "/abs", "C:\\win", "bell\a",
        "number", "good",
    }  # fmt: skip
    assert "no image" in found["no-image"]
    assert "no text" in found["no-text"]
    assert "several images: png, jpg" in found["several"]
    assert "twice" in found["twice"]
    assert "a symbolic link" in found["link"]
    assert "leads elsewhere" in found["../up"]
    assert "side by side" in found["good"]
    images = {row.own_id: row.text("image") for row in records(tar) if not row.problem}
    assert images == {"good": "t.tar/good.png", "seg": "t.tar/seg.png", "elsewhere": "x.png"}
    chosen = {row.own_id: row.text("image") for row in records(tar, image="mask.png") if not row.problem}
    assert chosen == {"seg": "t.tar/seg.mask.png"}
    notes = " ".join(table_notes(tar))
    assert ".npy" in notes
    assert "mask.png" in notes


def test_conversations_lists_and_captions(tmp_path: Path) -> None:
    talk = [
        {"from": "human", "value": "<image>\n뭐?"},
        {"from": "gpt", "value": "별"},
        {"from": "human", "value": "색?"},
    ]
    tar = write_tar(
        tmp_path / "t.tar",
        [
            ("talk.png", picture(0)), ("talk.json", said(conversations=talk)),
            ("list.png", picture(1)), ("list.json", json.dumps([{"question": "하나?"}, {"question": "둘?"}]).encode()),
        ],
    )  # fmt: skip
    assert [(row.id, row.text("question")) for row in records(tar)] == [
        ("talk/1", "뭐?"), ("talk/2", "색?"), ("list/1", "하나?"), ("list/2", "둘?"),
    ]  # fmt: skip
    captions = write_tar(
        tmp_path / "c.tar", [("0.jpg", picture(0, "JPEG")), ("0.txt", b"star"), ("0.json", b'{"url": "u"}')]
    )
    [(_, row)] = read_table(captions)
    assert row == {"url": "u", "__key__": "0", "caption": "star", "image": "c.tar/0.jpg"}
    assert ".txt files" in table_notes(captions)[0]
    [asked] = records(captions, question="txt")
    assert (asked.text("question"), asked.texts("caption")) == ("star", [""])


def damaged(tmp_path: Path) -> dict[str, bytes]:
    whole = write_tar(tmp_path / "whole.tar", [("0.png", picture(0)), ("0.json", QA)]).read_bytes()
    packed = gzip.compress(whole)
    broken = bytearray(whole)
    broken[0] ^= 1
    bomb = write_tar(
        tmp_path / "b.tar.gz", [("0.png", bytes(64 << 20)), ("0.json", QA)], mode="w:gz"
    ).read_bytes()
    return {
        "cut.tar": whole[:1200], "no-end.tar": whole[: 4 * 512 + 512], "cut.tar.gz": packed[:-40],
        "checksum.tar.gz": packed[:-8] + bytes(8), "header.tar": bytes(whole[:1024] + broken[:512] + whole[1536:]),
        "json.tar": write_tar(tmp_path / "j.tar", [("0.png", picture(0)), ("0.json", b"{")]).read_bytes(),
        "others.tar": write_tar(tmp_path / "o.tar", [("Makefile", b"all:")]).read_bytes(),
        "name.bin": whole, "bomb.tar.gz": bomb,
    }  # fmt: skip


def test_a_damaged_tar_is_one_error(tmp_path: Path) -> None:
    for name, data in damaged(tmp_path / "parts").items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError) as caught:
            records(tmp_path / name)
        assert name.split(".")[0] in caught.value.message, name
        assert caught.value.hint, name
        assert "\n" not in caught.value.message


def test_sparse_members_and_huge_headers_are_refused(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "s.tar", [("0.json", QA)])
    with tarfile.open(tar, "a") as more:
        info = tarfile.TarInfo("1.png")
        info.pax_headers = {"GNU.sparse.major": "1"}
        more.addfile(info)
    with pytest.raises(DataError, match="pax record of an unknown kind"):
        records(tar)
    with tarfile.open(tmp_path / "h.tar", "w") as huge:
        info = tarfile.TarInfo("0.png")
        info.size = 1 << 40
        huge.fileobj.write(info.tobuf())  # type: ignore[union-attr]
    with pytest.raises(DataError, match="cut short"):
        records(tmp_path / "h.tar")


def _colour(path: Path) -> tuple[int, ...]:
    return open_image(path).getpixel((0, 0))  # type: ignore[return-value]


def test_a_tar_is_listed_once_and_its_forks_read_it_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar = write_tar(tmp_path / "t.tar", [(f"{n}.png", picture(n)) for n in range(64)])
    tar_images._list_tar.cache_clear()
    assert [_colour(tar / f"{n}.png") for n in range(64)] == COLOURS
    assert tar_images._list_tar.cache_info().misses == 1
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(_colour, [tar / f"{n}.png" for n in range(64)] * 4, chunksize=1) == COLOURS * 4
    write_tar(tar, [("0.png", picture(9)), ("0.png", picture(8))])
    os.utime(tar, ns=(1, 1))
    assert _colour(tar / "0.png") == COLOURS[8], "another tar, of which the last file of a name counts"
    assert find_in_tar(tar / "1.png") is None
    with pytest.raises(DataError, match=r"t\.tar/1\.png is missing"):
        open_image(tar / "1.png")
    monkeypatch.setenv("KOVQA_IMAGE_MEMORY", "1K")
    with pytest.raises(DataError, match=r"0\.png"):
        open_image(write_tar(tmp_path / "l.tar", [("0.png", bytes(2000))]) / "0.png")


def test_a_tar_that_is_cut_later_is_listed_once_and_says_so(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "İ.TAR", [(f"{n}.png", picture(n)) for n in range(3)])
    assert open_image(tar / "0.png").size == (6, 4)
    tar.write_bytes(tar.read_bytes()[:1500])
    tar_images._list_tar.cache_clear()
    for number in range(3):
        with pytest.raises(DataError, match="cut short"):
            open_image(tar / f"{number}.png")
    assert tar_images._list_tar.cache_info().misses == 1


def test_an_image_in_a_tar_that_is_none_is_named_by_its_path(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "t.tar", [("0.png", b"no image"), ("1.png", picture(1)[:-30]), ("2.png", b"")])
    for number in range(3):
        with pytest.raises(DataError, match=rf"t\.tar/{number}\.png"):
            open_image(tar / f"{number}.png")
    (tmp_path / "file.txt").write_text("x")
    for path in (tmp_path / "file.txt/0.png", tmp_path / "no.tar/0.png", tmp_path / "t.tar/0.png/1.png"):
        with pytest.raises(DataError):
            open_image(path)


def test_of_two_samples_of_one_name_neither_gets_the_other_s_image(tmp_path: Path) -> None:
    files = [
        (f"{key}{end}", data)
        for n, key in enumerate("aba")
        for end, data in ((".png", picture(n)), (".json", QA))
    ]
    tar = write_tar(tmp_path / "t.tar", files)  # as `tar -r` adds to one
    assert [row.own_id for row in records(tar) if not row.problem] == ["b"]
    assert set(problems(tar)) == {"a"}


def test_one_broken_row_of_a_list_takes_no_other_with_it(tmp_path: Path) -> None:
    rows = b'[{"question": "1?"}, "broken", {"question": "3?"}]'
    assert list(problems(write_tar(tmp_path / "t.tar", [("a.png", picture(0)), ("a.json", rows)]))) == ["a/2"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_tar_s_own_name_may_be_spelled_as_a_mac_does(tmp_path: Path, form: Literal["NFC", "NFD"]) -> None:
    name = unicodedata.normalize(form, "사진/모음.tar")
    tar = write_tar(tmp_path / name, [("하나.png", picture(0)), ("하나.json", QA)])
    (row,) = read_table_records(tar, known_columns({}), {}, {}, image_folder=tmp_path)
    found = find_table_image(tar, tmp_path, row.text("image"))
    assert found.path == f"{name}/하나.png"

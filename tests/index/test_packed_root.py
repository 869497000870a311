"""Raw data still packed: one line that says so, and the command that unpacks them."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from kovqa_core.errors import DataError
from kovqa_core.index.build import build_index, build_upstream_files
from kovqa_core.index.packed_root import require_unpacked
from kovqa_core.index.shards import SourceOptions
from kovqa_core.index.sources import DATA_SOURCES

from tests.index.raw_data import Row, write_images, write_labels, write_table


def zipped(*names: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"{}")
    return stream.getvalue()


def tarred(name: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return stream.getvalue()


@pytest.mark.parametrize("source", DATA_SOURCES)
def test_a_zip_as_root_is_named_as_what_it_is(tmp_path: Path, source: str) -> None:
    (tmp_path / "받은 것.zip").write_bytes(zipped("a.json"))
    with pytest.raises(DataError, match=r"받은 것\.zip is a ZIP archive") as caught:
        build_index(source, tmp_path / "받은 것.zip", None, tmp_path / "index")
    assert f"kovqa download --from '{tmp_path}/받은 것.zip'" in caught.value.hint
    assert f"--root '{tmp_path}/받은 것'" in caught.value.hint
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.tar", tarred("a"), "a tar archive"),
        ("a.tar.gz", gzip.compress(tarred("a")), "a tar archive"),
        ("named_wrongly.csv", zipped("a.csv"), "a ZIP archive"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(600), "is an archive: 7z"),
        ("a.egg", b"EGGA" + bytes(600), "is an archive: EGG"),
    ],
    ids=["tar", "tar.gz", "zip", "7z", "egg"],  # bytes hold the time, and processes must agree
)
def test_every_other_archive_too(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=says) as caught:
        build_upstream_files("aihub", tmp_path / name, None, tmp_path / "out", lambda text: [])
    assert ("by hand" in caught.value.hint) == (name in ("a.7z", "a.egg"))


def test_a_folder_of_nothing_but_archives_says_how_many(tmp_path: Path) -> None:
    for name in ("TL_동물.zip", "TS_동물.zip", "VS.tar"):
        (tmp_path / "Training").mkdir(exist_ok=True)
        (tmp_path / "Training" / name).write_bytes(zipped("a"))
    (tmp_path / "안내서.pdf").write_bytes(b"%PDF")
    (tmp_path / ".DS_Store").write_bytes(b"")
    with pytest.raises(DataError, match="holds 3 archives and nothing unpacked") as caught:
        build_index("aihub", tmp_path, None, tmp_path.parent / "index")
    assert f"kovqa download --from {tmp_path}" in caught.value.hint
    (tmp_path / "Training" / "label.json").write_text("{}")
    require_unpacked(tmp_path)


def test_tables_that_are_packed_are_tables(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"id,image,question\n"))
    (tmp_path / "book").write_bytes(zipped("[Content_Types].xml", "xl/workbook.xml"))
    (tmp_path / "sheet.ods").write_bytes(zipped("mimetype", "content.xml"))
    (tmp_path / "t.csv.xz").write_bytes(b"\xfd7zXZ\0" + bytes(600))
    (tmp_path / "t.xlsx").write_bytes(b"PK\3\4\0\0")
    (tmp_path / "t.csv").write_text("id\n")
    for path in tmp_path.iterdir():
        require_unpacked(path)
    require_unpacked(tmp_path)
    require_unpacked(tmp_path / "nowhere")


def test_data_in_a_linked_folder_are_unpacked(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "TS.zip").write_bytes(zipped("a"))
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "1.json").write_text("{}")
    (tmp_path / "raw" / "라벨").symlink_to(tmp_path / "disk")
    require_unpacked(tmp_path / "raw")


@pytest.mark.parametrize("source", ["aihub", "aihub101"])
def test_archives_among_unpacked_data_are_said_unless_their_folder_is_there(
    tmp_path: Path, source: str
) -> None:
    write_labels(tmp_path, [Row("1", "p", "예")])
    record = {"image_id": 1, "question_id": 1, "image": "1.jpg", "question": "뭐?", "answer": "예"}
    write_table(tmp_path / "labels/train_labels/101.json", {"images": [record], "question": [record]})
    if source == "aihub101":
        shutil.rmtree(tmp_path / "labels/train_labels/교통")
    images, archives = write_images(tmp_path, ["1.jpg"]), tmp_path / "2.검증"
    (archives / "VS_동물").mkdir(parents=True)
    (archives / "VS_동물.zip").touch()  # unpacked beside itself
    write_labels(tmp_path, [Row("2", "p", "예")], "val")
    shutil.copytree(tmp_path / "labels/train_labels", tmp_path / "labels/valid_labels", dirs_exist_ok=True)
    notes = DATA_SOURCES[source].dataset_shards(tmp_path, images, SourceOptions())[0].notes
    assert not notes
    for name in ("VL_동물.zip", "VL.7z", "a.zip.part0", "b.tar.gz", "표.xlsx", "설명.pdf"):
        (archives / name).touch()
    (note,) = DATA_SOURCES[source].dataset_shards(tmp_path, images, SourceOptions())[0].notes
    assert f"4 archives below {tmp_path} are not read (first: 2.검증/VL.7z)" in note
    assert f"kovqa download --from {tmp_path}" in note

"""`kovqa download --from` without a name: archives as AI-Hub gives them become folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kovqa_core.download.unpack_local import unpack_local_archives
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.progress import Progress
from typer.testing import CliRunner

from kovqa_cli.main import app
from tests.download.sources import tarred, zipped


def files(folder: Path) -> set[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if path.name != ".unpacked.json"}


def test_an_archive_becomes_a_folder_beside_it_with_those_inside_it(tmp_path: Path) -> None:
    inner = zipped({"동물/1.json": b"[]", "더.tar.gz": tarred({"2.json": b"{}"})})
    (tmp_path / "라벨.zip").write_bytes(zipped({"TL.zip": inner, "읽기.txt": b"1"}))
    [folder] = unpack_local_archives(tmp_path / "라벨.zip")
    assert folder == tmp_path / "라벨"
    assert files(folder) == {"TL/동물/1.json", "TL/더/2.json", "읽기.txt"}
    shown: list[Progress] = []
    assert unpack_local_archives(tmp_path / "라벨.zip", None, shown.append) == [folder]
    assert shown == [], "what is unpacked is not unpacked again"
    (folder / "TL" / "mine.txt").write_text("일")
    with pytest.raises(SettingsError, match="was changed since it was unpacked"):
        unpack_local_archives(tmp_path / "라벨.zip")


def test_a_folder_of_archives_is_unpacked_each_beside_itself_or_elsewhere(tmp_path: Path) -> None:
    raw = tmp_path / "104"
    (raw / "Training").mkdir(parents=True)
    (raw / "Training" / "TL_동물.zip").write_bytes(zipped({"a.json": b"[]"}))
    data = zipped({"b.jpg": bytes(range(256)) * 9})
    for number, start in enumerate(range(0, len(data), 1000)):
        (raw / f"TS.zip.part{number}").write_bytes(data[start : start + 1000])
    (raw / "안내.pdf").write_bytes(b"%PDF")
    assert unpack_local_archives(raw, tmp_path / "out") == [
        tmp_path / "out/TS",
        tmp_path / "out/Training/TL_동물",
    ]
    assert files(tmp_path / "out") == {"TS/b.jpg", "Training/TL_동물/a.json", "안내.pdf"}
    for _ in range(2):
        assert unpack_local_archives(raw) == [raw / "TS", raw / "Training" / "TL_동물"]
    assert (raw / "Training" / "TL_동물" / "a.json").read_bytes() == b"[]"
    assert (raw / "TS.zip.part0").exists(), "the archives stay"


def test_a_broken_archive_inside_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"ok.txt": b"1", "b.zip": zipped({"x": b"1" * 999})[:-30]}))
    with pytest.raises(DataError, match=r"a\.zip: b\.zip is damaged"):
        unpack_local_archives(tmp_path / "a.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("글")
    with pytest.raises(SettingsError, match="holds no archive"):
        unpack_local_archives(tmp_path)
    with pytest.raises(DataError, match=r"a\.txt is neither zip, tar"):
        unpack_local_archives(tmp_path / "a.txt")
    with pytest.raises(DataError, match="no such file"):
        unpack_local_archives(tmp_path / "b.zip")
    assert files(tmp_path) == {"a.txt"}


def test_the_command_prints_the_folders(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({"1.txt": b"1"}))
    done = CliRunner().invoke(app, ["download", "--from", str(tmp_path / "a.zip"), "--json"])
    assert json.loads(done.stdout)["assets"] == [{"name": "a.zip", "paths": [str(tmp_path / "a")]}]

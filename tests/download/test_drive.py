"""Google Drive, played by a local server: the file comes, or the page in its place is understood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO

import gdown
import pytest
import requests
from kovqa_core.download.drive import drive_file_id, fetch_drive_file, resolve_drive_file
from kovqa_core.download.part_file import part_file_path
from kovqa_core.errors import AssetError, DataError, SettingsError
from kovqa_core.progress import Progress

from tests.download.drive_server import Drive
from tests.download.server import Answer, File, Server, checksums_of, contents, sha256

ID = "1E4JBTFGuGiGVjjcBDU9091Ahg480StjT"
DATA = contents(300_000, b"PK\3\4")
HALF = 131_072  # bytes, some blocks


@pytest.fixture
def drive(server: Server, monkeypatch: pytest.MonkeyPatch) -> Drive:
    monkeypatch.setenv("KOVQA_DRIVE_ENDPOINT", server.url)
    return Drive(server, File(DATA), ID)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "자산" / "image.zip"


def bytes_served(drive: Drive) -> int:
    """Bytes of the file that left, pages not counted."""
    return drive.server.served["/download"] + drive.server.served["/uc"] + drive.server.served["/legacy"]


def starts(drive: Drive) -> list[int]:
    """Where the requests for the file itself began."""
    return [start for path in ("/download", "/legacy") for start in drive.server.starts(path)]


# ------------------------------------------------------------------------------------- links


@pytest.mark.parametrize(
    "link",
    [
        ID, f"https://drive.google.com/file/d/{ID}/view?usp=sharing", f"https://drive.google.com/open?id={ID}",
        f"https://drive.google.com/uc?export=download&id={ID}&confirm=t", f" https://drive.google.com/file/d/{ID} \n",
        f"https://drive.google.com/file/u/1/d/{ID}/edit", f"https://drive.usercontent.google.com/download?id={ID}",
    ],
)  # fmt: skip
def test_the_id_is_found_in_every_link(link: str) -> None:
    assert drive_file_id(link) == ID


@pytest.mark.parametrize(
    ("link", "says"),
    [
        (f"https://drive.google.com/drive/folders/{ID}", "is a folder"),
        ("https://example.com/a.zip", "no Google Drive file"),
        ("", "no Google Drive file"),
        (f"https://drive.google.com/uc?id={ID}/../x", "no Google Drive file"),
    ],
)
def test_other_links_are_refused(link: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        drive_file_id(link)


# ------------------------------------------------------------------------------------- to the file


@pytest.mark.parametrize("warning", ["none", "form", "legacy link", "json"])
def test_the_file_is_fetched_through_every_page(drive: Drive, target: Path, warning: str) -> None:
    drive.warning = warning  # type: ignore[assignment]
    assert fetch_drive_file(f"https://drive.google.com/file/d/{ID}/view", target, magic="zip") == target
    assert target.read_bytes() == DATA
    assert checksums_of(target)["sha256"] == sha256(DATA)
    before = len(drive.server.requests)
    assert fetch_drive_file(ID, target) == target  # here already: nothing is asked
    assert len(drive.server.requests) == before
    assert all("Mozilla/5.0" in request.headers["user-agent"] for request in drive.server.requests)


def test_name_and_size_are_known_before(drive: Drive, target: Path) -> None:
    announced = resolve_drive_file(ID)
    assert (announced.name, announced.size) == ("이미지 1.zip", len(DATA))
    target.parent.mkdir()
    assert fetch_drive_file(ID, target.parent) == target.with_name("이미지 1.zip")


def test_a_hostile_name_stays_in_the_folder(drive: Drive, tmp_path: Path) -> None:
    drive.file.headers["Content-Disposition"] = 'attachment; filename="a/b.zip"'
    assert fetch_drive_file(ID, tmp_path) == tmp_path / "a_b.zip"
    drive.file.headers["Content-Disposition"] = 'attachment; filename="../../b.zip"'
    with pytest.raises(DataError, match="leaves the folder"):
        fetch_drive_file(ID, tmp_path)


def test_a_warning_that_comes_back_is_given_up(drive: Drive, target: Path) -> None:
    drive.warning = "form without end"
    with pytest.raises(AssetError, match=r"virus warning for image\.zip again and again") as caught:
        fetch_drive_file(ID, target)
    assert caught.value.exit_code == 5


# ------------------------------------------------------------------------------------- refusals


def test_a_used_up_quota_says_what_to_do(drive: Drive, target: Path) -> None:
    drive.quota_after = 0
    for warning in ("none", "form"):
        drive.warning = warning  # type: ignore[assignment]
        with pytest.raises(AssetError, match=r"quota for image\.zip is used up.*24 hours") as caught:
            fetch_drive_file(ID, target, asset="nia-images")
        assert caught.value.exit_code == 5
        assert f"https://drive.google.com/file/d/{ID}/view" in caught.value.hint
        assert "kovqa download nia-images --from image.zip" in caught.value.hint
    assert not target.exists()
    assert drive.server.count("/uc") == 2  # asking again at once would not help


@pytest.mark.parametrize("warning", ["none", "form"])
def test_a_quota_that_ends_in_the_middle_keeps_what_has_arrived(
    drive: Drive, target: Path, warning: str
) -> None:
    drive.warning, drive.quota_after, drive.file.cut = warning, HALF, [HALF]  # type: ignore[assignment]
    with pytest.raises(AssetError, match="quota") as caught:
        fetch_drive_file(ID, target)
    assert "what is here is kept" in caught.value.hint
    assert part_file_path(target).read_bytes() == DATA[:HALF]
    drive.quota_after = None
    fetch_drive_file(ID, target)
    assert target.read_bytes() == DATA
    assert starts(drive)[-1] == HALF
    assert not part_file_path(target).exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"private": "login"}, "is private"), ({"private": "403"}, "is private"),
        ({"deleted": True}, "deleted, or a wrong id"), ({"folder": True}, "is a folder"),
    ],
)  # fmt: skip
def test_other_pages_are_understood(drive: Drive, target: Path, change: dict[str, object], says: str) -> None:
    Drive(**{**vars(replace(drive)), **change})  # type: ignore[arg-type]
    with pytest.raises(AssetError, match=says) as caught:
        fetch_drive_file(ID, target)
    assert ID in str(caught.value)
    assert drive.server.count("/uc") == 1
    assert not target.exists()


# ------------------------------------------------------------------------------------- gdown


class Gdown:
    """Stands in for gdown's `download`: its own talks to drive.google.com and to no other host."""

    def __init__(self, data: bytes = DATA, error: Exception | None = None) -> None:
        self.data, self.error, self.ids = data, error, list[str]()

    def __call__(
        self, *, id: str, output: IO[bytes], progress: Callable[[int, int], None], **_: object
    ) -> None:
        self.ids.append(id)
        output.write(self.data)
        progress(len(self.data), len(self.data))
        if self.error:
            raise self.error


@pytest.fixture
def unknown_page(drive: Drive) -> Drive:
    """A page of a kind that we have never seen."""
    drive.server.routes["/uc"] = Answer(
        200, b"<html><p>Drive is new!</p></html>", {"Content-Type": "text/html"}
    )
    return drive


def test_gdown_takes_over_at_an_unknown_page(
    unknown_page: Drive, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gdown.download", stand_in := Gdown())
    shown: list[Progress] = []
    assert fetch_drive_file(ID, target, shown.append, magic="zip") == target
    assert stand_in.ids == [ID]
    assert target.read_bytes() == DATA and checksums_of(target)["sha256"] == sha256(DATA)
    assert any("Drive is new!; trying gdown" in progress.stage for progress in shown)
    assert {path.name for path in target.parent.iterdir()} == {"image.zip", ".image.zip.json"}


def test_what_gdown_brings_is_checked(
    unknown_page: Drive, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for data in (b"<!DOCTYPE html>no", b"something else", b""):
        monkeypatch.setattr("gdown.download", Gdown(data))
        with pytest.raises(AssetError, match="what gdown brought is not the file either") as caught:
            fetch_drive_file(ID, target, magic="zip")
        assert "with a browser" in caught.value.hint or "in a browser" in caught.value.hint
        assert list(target.parent.iterdir()) == []
    monkeypatch.setattr("gdown.download", Gdown())
    fetch_drive_file(ID, target)
    target.unlink()
    monkeypatch.setattr("gdown.download", Gdown(b"PK\3\4 another"))
    with pytest.raises(AssetError, match="is not the file fetched on 20"):
        fetch_drive_file(ID, target)
    assert not target.exists()


@pytest.mark.parametrize(
    "error", [gdown.exceptions.FileURLRetrievalError("many accesses"), requests.ConnectionError("refused")]
)
def test_gdown_may_fail_too_and_what_came_before_is_kept(
    drive: Drive, target: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    drive.quota_after, drive.file.cut = HALF, [HALF]
    with pytest.raises(AssetError, match="quota"):
        fetch_drive_file(ID, target)
    drive.server.routes["/uc"] = Answer(200, b"<html>new</html>", {"Content-Type": "text/html"})
    monkeypatch.setattr("gdown.download", Gdown(b"half", error))
    with pytest.raises(AssetError, match=f"instead of image.zip: new; nor can gdown: {error}"):
        fetch_drive_file(ID, target)
    assert part_file_path(target).read_bytes() == DATA[:HALF]
    assert not target.with_name("image.zip.gdown").exists()


def test_without_gdown_the_hint_names_it(
    unknown_page: Drive, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(AssetError, match="Drive is new!") as caught:
        fetch_drive_file(ID, target)
    assert "in a browser" in caught.value.hint and "pip install 'kovqa[gdown]'" in caught.value.hint


def test_gdown_is_not_asked_where_the_refusal_is_clear(
    drive: Drive, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gdown.download", stand_in := Gdown())
    drive.quota_after = 0
    with pytest.raises(AssetError, match="quota"):
        fetch_drive_file(ID, target)
    assert stand_in.ids == []


# ------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("warning", ["none", "form", "legacy link", "json"])
def test_a_cut_is_resumed_at_the_byte(drive: Drive, target: Path, warning: str) -> None:
    drive.warning, drive.file.cut = warning, [HALF, 50_000]  # type: ignore[assignment]
    fetch_drive_file(ID, target)
    assert target.read_bytes() == DATA
    pages = sum(answer.path == "/download" for answer in drive.server.requests) * 2_000
    assert bytes_served(drive) <= len(DATA) + pages


@pytest.mark.parametrize(
    ("ranges", "data"),
    [
        ("ignored", b"PK\3\4" + DATA[::-1]),
        ("honoured", b"PK\3\4" + DATA[::-1]),
        ("without If-Range", b"PK\3\4" + DATA[::-1]),
        ("without If-Range", b"PK\3\4 short"),  # 416
        ("wrong offset", b"PK\3\4" + DATA[::-1]),
    ],
)
def test_a_file_that_changed_after_the_cut_begins_again(
    drive: Drive, target: Path, ranges: str, data: bytes
) -> None:
    changed = File(data, '"two"', ranges, headers=drive.file.headers)  # type: ignore[arg-type]
    drive.file.cut, give = [HALF], drive.give

    def give_then_change() -> File | Answer:
        answer, drive.file = give(), changed
        return answer

    drive.give = give_then_change  # type: ignore[method-assign]
    fetch_drive_file(ID, target)
    assert target.read_bytes() == data


def test_a_file_without_length_is_whole_or_not_there(drive: Drive, target: Path) -> None:
    drive.file.chunked, drive.file.cut = True, [HALF]
    fetch_drive_file(ID, target)
    assert target.read_bytes() == DATA
    assert starts(drive) == [0, 0]  # what has no length is not resumed


def test_a_file_that_changed_since_the_first_download_is_named(drive: Drive, target: Path) -> None:
    fetch_drive_file(ID, target)
    target.unlink()
    fetch_drive_file(ID, target)
    target.unlink()
    drive.file.data = b"PK\3\4 another"
    with pytest.raises(
        AssetError, match=r"Google Drive's image\.zip is not the file fetched on 20"
    ) as caught:
        fetch_drive_file(ID, target)
    assert "--allow-hash-mismatch" in caught.value.hint
    assert not target.exists()
    fetch_drive_file(ID, target, allow_mismatch=True)
    assert target.read_bytes() == b"PK\3\4 another"

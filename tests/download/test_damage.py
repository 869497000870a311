"""Archives that cannot be unpacked are not finished; lengths are believed only of the bytes that are the file."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest
from kovqa_core.download.archive import unpack_archive
from kovqa_core.download.fetch import FetchOptions, asset_folder, asset_state, fetch_asset
from kovqa_core.download.local_file import adopt_local_file
from kovqa_core.download.part_file import part_file_path
from kovqa_core.download.resumable import fetch_file
from kovqa_core.download.table import find_asset_entry
from kovqa_core.errors import AssetError, DataError
from kovqa_core.net.request import Interrupted, RemoteFile

from tests.download.aihub_server import KEY, AIHub, serving, tar_of
from tests.download.drive_server import Drive
from tests.download.server import Answer, File, ReceivedRequest, Server, contents, sha256
from tests.download.sources import COMMIT, Hub, tarred, zipped

pytestmark = pytest.mark.usefixtures("endpoints")
ZIP = zipped({"dataset_coco.json": contents(3000)})
PATH = "/people/karpathy/deepimagesent/caption_datasets.zip"
DATA = contents(100_000)


def fetch(name: str, **options: object) -> list[Path]:
    return fetch_asset(find_asset_entry(name), FetchOptions(**options))  # type: ignore[arg-type]


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def with_flag(data: bytes, flag: int, method: int | None = None) -> bytes:
    """A zip of one member whose headers have another flag or compression method."""
    changed = bytearray(data)
    for at in (6, data.index(b"PK\1\2") + 8):
        changed[at] |= flag
        if method is not None:
            changed[at + 2] = method
    return bytes(changed)


def with_wrong_crc(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len("dataset_coco.json") + 30 + 5] ^= 0xFF  # a byte of the contents
    return bytes(changed)


# --------------------------------------------------------------- archives that cannot be unpacked


@pytest.mark.parametrize("damage", ["crc", "cut", "no archive"])
def test_a_damaged_archive_is_fetched_again_by_the_next_run(server: Server, damage: str) -> None:
    bad = {"crc": with_wrong_crc(ZIP), "cut": ZIP[:-30], "no archive": b"PK\3\4" + contents(500)}[damage]
    server.routes[PATH] = File(bad)
    with pytest.raises(AssetError, match=r"kept aside as .*caption_datasets\.zip\.damaged") as caught:
        fetch("karpathy")
    assert "run the same command again" in caught.value.hint
    folder = asset_folder(find_asset_entry("karpathy"))
    assert left(folder) == {"caption_datasets.zip.damaged"}, "nothing half unpacked is left, and no receipt"
    assert asset_state(find_asset_entry("karpathy")) == ""
    server.routes[PATH] = File(ZIP)
    [unpacked] = fetch("karpathy")
    assert (unpacked / "dataset_coco.json").read_bytes() == contents(3000)
    assert not (folder / "caption_datasets.zip.damaged").exists()
    assert asset_state(find_asset_entry("karpathy")) == "here"


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (with_flag(ZIP, 1), "is encrypted"),
        (with_flag(ZIP, 0, method=97), "cannot be read"),
        (zipped({"../evil.json": b"{}"}), "leaves the folder"),
    ],
    ids=["encrypted", "unknown method", "leaves the folder"],  # bytes hold the time, and processes must agree
)
def test_an_archive_nobody_here_can_unpack_is_kept_and_not_called_finished(
    server: Server, bad: bytes, says: str
) -> None:
    server.routes[PATH] = File(bad)
    for _ in range(2):
        with pytest.raises(DataError, match=says) as caught:
            fetch("karpathy")
        assert "by hand" in caught.value.hint
        assert asset_state(find_asset_entry("karpathy")).endswith("so far")
    assert server.count(PATH) == 1, "fetching it again would not help"
    folder = asset_folder(find_asset_entry("karpathy"))
    assert left(folder) == {"caption_datasets.zip", ".caption_datasets.zip.json"}
    assert not (folder.parent / "evil.json").exists()


def test_an_archive_that_was_published_damaged_is_not_fetched_in_a_circle(
    server: Server, cdn: Server
) -> None:
    hub = Hub(server, cdn, "skt/KVQA", dataset=True)
    hub.large("data/kvqa_images_0.tar.gz", bad := tarred({"a.jpg": contents(50_000)})[:-9], good_for=9)
    for _ in range(2):
        with pytest.raises(DataError, match="so it was published"):
            fetch("kvqa")
    assert cdn.served["/cdn/data/kvqa_images_0.tar.gz"] == len(bad)


def test_a_damaged_archive_of_google_drive_is_fetched_again(server: Server) -> None:
    drive_id = "1a9XB3r83ZCFWLOHBp8ooz3zQFl9rEIei"
    Drive(server, File(zipped({"train.csv": b"ID\n"})[:-5]), drive_id, warning="form")
    with pytest.raises(AssetError, match="damaged"):
        fetch("dacon-236118")
    Drive(server, File(zipped({"train.csv": b"ID\n"})), drive_id, warning="form")
    [folder] = fetch("dacon-236118")
    assert (folder / "train.csv").read_bytes() == b"ID\n"


def test_a_damaged_archive_of_aihub_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = "├─ 동물.zip | 1 KB | 7\n"
    for number, zip in enumerate((zipped({"q.json": b"[]"})[:-5], zipped({"q.json": b"[]"}))):
        with serving(AIHub(tree, {7: tar_of([("동물.zip", zip)])})) as hub:
            monkeypatch.setenv("KOVQA_AIHUB_ENDPOINT", hub.endpoint)
            monkeypatch.setenv("AIHUB_APIKEY", KEY)
            if number == 0:
                with pytest.raises(AssetError, match="damaged"):
                    fetch("aihub-104")
            else:
                [folder] = fetch("aihub-104")
                assert (folder / "동물" / "q.json").read_bytes() == b"[]"
            assert hub.downloads[7] == 1


def test_a_damaged_file_given_by_hand_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "caption_datasets.zip"
    file.write_bytes(ZIP[:-30])
    with pytest.raises(DataError, match="damaged or cut short"):
        adopt_local_file(find_asset_entry("karpathy"), file, FetchOptions())
    assert left(asset_folder(find_asset_entry("karpathy"))) == set()
    assert file.read_bytes() == ZIP[:-30]


# --------------------------------------------------------------------------- names of Bandizip


def unicode_path(stored: bytes, name: bytes, version: int = 1, crc: int | None = None) -> bytes:
    """An Info-ZIP Unicode Path field (0x7075)."""
    data = bytes([version]) + (zlib.crc32(stored) if crc is None else crc).to_bytes(4, "little") + name
    return b"\x75\x70" + len(data).to_bytes(2, "little") + data


def zip_with_extra(stored: bytes, extra: bytes) -> bytes:
    """A zip of one empty member whose name is these bytes, without the flag that says UTF-8."""
    sizes = bytes(20) + len(stored).to_bytes(2, "little") + len(extra).to_bytes(2, "little")
    local = b"PK\3\4" + b"\x14\0" + sizes + stored + extra
    place = b"\0" * 2 + b"\0" * 8 + b"\0" * 4  # comment, disk, attributes, offset
    central = b"PK\1\2" + b"\x14\0" * 2 + sizes + place + stored + extra
    end = (
        (1).to_bytes(2, "little") * 2 + len(central).to_bytes(4, "little") + len(local).to_bytes(4, "little")
    )
    return local + central + b"PK\5\6" + bytes(4) + end + b"\0\0"


NFD = "한.txt"  # three code points for the syllable
CP949 = "똠방.txt".encode("cp949")


@pytest.mark.parametrize(
    ("stored", "extra", "name"),
    [
        (CP949, b"", "똠방.txt"),
        (b"?.txt", unicode_path(b"?.txt", "😀힣.txt".encode()), "😀힣.txt"),
        (b"?.txt", unicode_path(b"?.txt", NFD.encode()), "한.txt"),
        (b"?.txt", b"\x55\x54\x05\0\1abcd" + unicode_path(b"?.txt", "둘째.txt".encode()), "둘째.txt"),
        (CP949, unicode_path(CP949, "옛날.txt".encode(), crc=1), "똠방.txt"),
        (CP949, unicode_path(CP949, "옛날.txt".encode(), version=2), "똠방.txt"),
    ],
)  # fmt: skip
def test_a_unicode_path_field_names_a_member_where_it_is_its_own(
    tmp_path: Path, stored: bytes, extra: bytes, name: str
) -> None:
    (tmp_path / "a.zip").write_bytes(zip_with_extra(stored, extra))
    assert [file.name for file in unpack_archive(tmp_path / "a.zip", tmp_path / "out")] == [name]


def test_a_unicode_path_field_leads_nowhere_outside(tmp_path: Path) -> None:
    extra = unicode_path(b"a.txt", b"../evil.txt")
    (tmp_path / "a.zip").write_bytes(zip_with_extra(b"a.txt", extra))
    with pytest.raises(DataError, match="leaves the folder"):
        unpack_archive(tmp_path / "a.zip", tmp_path / "out")
    assert left(tmp_path) == {"a.zip"}


# ---------------------------------------------------------------------------- sizes and HEAD


def packed(data: bytes, **headers: str) -> Answer:
    return Answer(200, gzip.compress(data), {"Content-Encoding": "gzip", **headers})


def head_says(length: int, **headers: str) -> Answer:
    """An answer to HEAD; the test server takes the length from the header."""
    return Answer(200, b"", {"Content-Length": str(length), **headers})


@pytest.mark.parametrize(
    "head",
    [
        head_says(0),
        head_says(77, **{"Content-Encoding": "gzip"}),
        Answer(405),
        Answer(501),
        Answer(302, b"", {"Location": "/elsewhere", "Content-Length": "12"}),
    ],
)
def test_what_a_head_says_of_other_bytes_is_not_the_size(server: Server, cdn: Server, head: Answer) -> None:
    hub = Hub(server, cdn, "SeanForHim/KoBEiT3")
    hub.lists_blobs = False
    hub.small("smp.model", DATA)
    give = server.routes[hub.path("smp.model")]
    assert callable(give)

    def route(request: ReceivedRequest) -> File | Answer:
        return head if request.method == "HEAD" else give(request)

    server.routes[hub.path("smp.model")] = route
    [folder] = fetch("kobeit3")
    assert (folder / "smp.model").read_bytes() == DATA


def test_a_body_packed_unasked_is_unpacked_and_its_length_is_not_the_files(
    server: Server, tmp_path: Path
) -> None:
    server.routes["/file.bin"] = packed(DATA, ETag='"packed"')
    remote = RemoteFile(f"{server.url}/file.bin", len(DATA), {"sha256": sha256(DATA)})
    assert fetch_file(remote, tmp_path / "file.bin").read_bytes() == DATA
    # Apache calls a .gz file itself encoded: there, what comes is the file.
    server.routes["/a.tar.gz"] = packed(b"tar")
    came = fetch_file(RemoteFile(f"{server.url}/a.tar.gz", magic="gzip"), tmp_path / "a.tar.gz")
    assert gzip.decompress(came.read_bytes()) == b"tar"
    server.routes["/b.bin"] = Answer(200, b"?", {"Content-Encoding": "br"})
    with pytest.raises(AssetError, match="compressed although not asked for"):
        fetch_file(RemoteFile(f"{server.url}/b.bin"), tmp_path / "b.bin")


def test_a_rest_that_is_packed_or_too_long_is_not_appended(server: Server, tmp_path: Path) -> None:
    file, target = File(DATA, cut=[40_000, 0, 0, 0, 0]), tmp_path / "file.bin"
    server.routes["/file.bin"] = file
    remote = RemoteFile(f"{server.url}/file.bin")
    for header, rest in (("gzip", gzip.compress(DATA[40_000:])), ("identity", DATA[40_000:] + b"more")):
        file.cut = [40_000, 0, 0, 0, 0]
        with pytest.raises(Interrupted):
            fetch_file(remote, target)
        assert part_file_path(target).stat().st_size == 40_000
        span = f"bytes 40000-{len(DATA) - 1}/{len(DATA)}"
        file.first = [Answer(206, rest, {"Content-Range": span, "Content-Encoding": header, "ETag": '"one"'})]
        assert fetch_file(remote, target).read_bytes() == DATA
        target.unlink()


def test_an_empty_answer_is_no_file_where_nothing_says_so(server: Server, tmp_path: Path) -> None:
    server.routes["/file.bin"] = Answer(200, b"")
    with pytest.raises(Interrupted, match="an empty answer"):
        fetch_file(RemoteFile(f"{server.url}/file.bin"), tmp_path / "file.bin")
    assert fetch_file(RemoteFile(f"{server.url}/file.bin", 0), tmp_path / "empty").read_bytes() == b""


def test_a_commit_is_named(server: Server, cdn: Server) -> None:
    hub = Hub(server, cdn, "SeanForHim/KoBEiT3")
    hub.large("smp.model", DATA)
    fetch("kobeit3@" + COMMIT)
    assert server.count(f"/api/models/SeanForHim/KoBEiT3/revision/{COMMIT}") == 1

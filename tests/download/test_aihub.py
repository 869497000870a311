"""AI-Hub, spoken with through a local server that has the real one's habits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from kovqa_core.download import members
from kovqa_core.download.aihub import (
    AihubFile,
    fetch_aihub_files,
    list_aihub_files,
    parse_file_tree,
)
from kovqa_core.download.aihub_refusals import classify_aihub_answer
from kovqa_core.download.archive import UNPACK_RECEIPT, unpack_archive
from kovqa_core.errors import AssetError, DataError, MachineError, SettingsError
from kovqa_core.progress import Progress

from tests.conftest import clean_env
from tests.download.aihub_server import BANNER, HTML, KEY, TEXTS, AIHub, serving, tar_of
from tests.download.test_archive import contents, cp949_zip, tar_info

PIECE = 1 << 16  # bytes; AI-Hub cuts at 1 GiB
FOLDER = "104.시각정보_기반_질의응답/라벨링데이터"
LABELS = cp949_zip({"상_train_동물/annotation.json": '\ufeff{"질문": 1}'.encode()})
SOURCE = random.Random(0).randbytes(4 * PIECE + 1000)
TREE = (
    BANNER
    + """└─104.시각정보 기반 질의응답
    ├─라벨링데이터
    │   ├─[라벨]동물 | 상.zip | 0 KB | 101
    │   └─README.txt | 12 B | 103
    └─원천데이터
        └─[원천]동물.zip | 257 KB | 102
"""
)


def offsets(data: bytes, name: str = f"{FOLDER}/[원천]동물.zip") -> list[tuple[str, bytes]]:
    """A big file as AI-Hub sends it: volumes named by their byte offset."""
    return [(f"{name}.part{at}", data[at : at + PIECE]) for at in range(0, len(data), PIECE)]


def counted(data: bytes, first: int = 0) -> list[tuple[str, bytes]]:
    """... as some old sets send it: volumes that are counted."""
    return [(f"{FOLDER}/[원천]동물.zip.part{n}", piece) for n, (_, piece) in enumerate(offsets(data), first)]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[AIHub]:
    long = f"{FOLDER}/{'긴 이름의 폴더/' * 8}README.txt"  # more than 100 bytes: a @LongLink record
    tars = {
        101: tar_of([(f"{FOLDER}/[라벨]동물 | 상.zip", LABELS)]),
        102: tar_of(offsets(SOURCE)),
        103: tar_of([(long, b"hello, kovqa")]),
    }
    with serving(AIHub(TREE, tars)) as hub:
        monkeypatch.setenv("KOVQA_AIHUB_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("AIHUB_APIKEY", KEY)
        yield hub


def sent(folder: Path) -> dict[str, bytes]:
    """What was fetched, by bare name."""
    return {path.rsplit("/", 1)[-1]: data for path, data in contents(folder).items() if path[0] != "."}


WHOLE = {"[라벨]동물 | 상.zip": LABELS, "README.txt": b"hello, kovqa", "[원천]동물.zip": SOURCE}


# ------------------------------------------------------------------------------------ the tree


def test_the_tree_is_read_by_the_column_of_the_branch() -> None:
    nfd = unicodedata.normalize("NFD", "한글")
    text = (
        BANNER
        + f"""├─── 01.데이터 (2023)
│   ├─ 1.Training | 학습
│   │   ├─ 이름 [원천] a | b.zip | 47 GB | 507715
│   │   └─{nfd}.zip | 999 B | 2
│   └─   앞에 빈칸
│           └─c.z01 | 1 TB | 3
└─ d.zip | 3 MB | 4
"""
    )
    assert parse_file_tree(text) == [
        AihubFile(507715, "01.데이터 (2023)/1.Training | 학습/이름 [원천] a | b.zip", 47 << 30),
        AihubFile(2, "01.데이터 (2023)/1.Training | 학습/한글.zip", 999),
        AihubFile(3, "01.데이터 (2023)/앞에 빈칸/c.z01", 1 << 40),
        AihubFile(4, "d.zip", 3 << 20),
    ]


@pytest.mark.parametrize("status", [200, 502])
def test_the_tree_needs_no_key_and_no_good_status(
    hub: AIHub, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.delenv("AIHUB_APIKEY")
    hub.status = status
    assert [entry.number for entry in list_aihub_files(104)] == [101, 103, 102]


def test_a_set_that_is_not_open_says_so(hub: AIHub) -> None:
    hub.status = 403
    for hub.tree in ("", "접근할 수 없습니다."):
        with pytest.raises(AssetError, match=r"AI-Hub 999: withdrawn, not open") as caught:
            list_aihub_files(999)
        assert "dataSetSn=999" in caught.value.hint
        assert caught.value.exit_code == 5
    assert len(hub.paths) == 2  # asking again would not help


# ------------------------------------------------------------------------------------ what works


@pytest.mark.parametrize("status", [200, 502])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("ranges", ["ignored", "206", "302"])
def test_files_are_fetched_whole_and_once(
    hub: AIHub, tmp_path: Path, status: int, chunked: bool, ranges: str
) -> None:
    hub.status, hub.no_content_length, hub.ranges = status, chunked, ranges
    shown: list[Progress] = []
    files = fetch_aihub_files(104, tmp_path / "받은 것", None, shown.append)
    assert sent(tmp_path / "받은 것") == WHOLE
    assert {file.name for file in files} == set(WHOLE)
    assert all(progress.done <= (progress.total or 0) for progress in shown)
    assert fetch_aihub_files(104, tmp_path / "받은 것") == files
    assert hub.downloads == {101: 1, 102: 1, 103: 1}
    assert [path.name for path in (tmp_path / "받은 것").iterdir() if path.name.startswith(".")] == [
        ".aihub-104.json"
    ]
    unpack_archive(next(file for file in files if file.name.startswith("[라벨]")), tmp_path / "라벨")
    assert set(contents(tmp_path / "라벨")) == {"상_train_동물/annotation.json"}
    assert (tmp_path / "라벨" / UNPACK_RECEIPT).exists()


def test_single_files_are_fetched_and_lost_ones_again(hub: AIHub, tmp_path: Path) -> None:
    (file,) = fetch_aihub_files(104, tmp_path / "a", [103])
    assert set(hub.downloads) == {103}
    fetch_aihub_files(104, tmp_path / "a", [101, 103])
    file.unlink()
    fetch_aihub_files(104, tmp_path / "a", [103, 103])
    assert hub.downloads == {101: 1, 103: 2}
    with pytest.raises(SettingsError, match="unknown file key '777'"):
        fetch_aihub_files(104, tmp_path / "a", [777])


def test_names_become_nfc_and_the_original_is_kept(hub: AIHub, tmp_path: Path) -> None:
    nfd = unicodedata.normalize("NFD", f"{FOLDER}/한글.zip")
    hub.tars[101] = tar_of([(f"{nfd}.part0", b"1"), (f"{nfd}.part1", b"2")])
    (file,) = fetch_aihub_files(104, tmp_path / "a", [101])
    assert file == tmp_path / "a" / FOLDER / "한글.zip"
    record = json.loads((tmp_path / "a" / ".aihub-104.json").read_text("utf-8"))
    assert record["renamed"] == {f"{FOLDER}/한글.zip": nfd}


shuffled = random.Random(1).sample


@pytest.mark.parametrize(
    "volumes",
    [
        shuffled(offsets(SOURCE), 5),
        offsets(SOURCE) * 2,
        [*shuffled(offsets(SOURCE), 5), *shuffled(offsets(SOURCE), 5)],
        counted(SOURCE),
        counted(SOURCE, first=1),
        shuffled(counted(SOURCE), 5) * 2,
        [(f"{FOLDER}/[원천]동물.zip.part{at}", SOURCE[at : at + 900]) for at in range(0, len(SOURCE), 900)][
            ::-1
        ],
    ],
    ids=["unordered", "twice", "twice and unordered", "counted", "from 1", "counted badly", "small"],
)
def test_pieces_in_every_order_and_numbering(
    hub: AIHub, tmp_path: Path, volumes: list[tuple[str, bytes]]
) -> None:
    hub.tars[102] = tar_of(volumes)
    (file,) = fetch_aihub_files(104, tmp_path / "a", [102])
    assert file.read_bytes() == SOURCE
    assert file.relative_to(tmp_path / "a").as_posix() == f"{FOLDER}/[원천]동물.zip"


def test_a_key_may_lie_in_a_file_that_nobody_else_reads(
    hub: AIHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIHUB_APIKEY")
    with pytest.raises(SettingsError, match=r"AI-Hub needs your API key\n.*export AIHUB_APIKEY=…"):
        fetch_aihub_files(104, tmp_path / "a", [103])
    (tmp_path / "home").mkdir()
    path = tmp_path / "home" / "aihub.key"
    path.write_text(KEY + "\n")
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="others can read"):
        fetch_aihub_files(104, tmp_path / "a", [103])
    path.chmod(0o600)
    fetch_aihub_files(104, tmp_path / "a", [103])
    assert hub.keys_seen == [KEY]


# ------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("status", [200, 502])
@pytest.mark.parametrize("kind", [*TEXTS, "html", "empty"])
def test_every_refusal_is_one_clear_error(hub: AIHub, tmp_path: Path, kind: str, status: int) -> None:
    hub.body, hub.body_status = {**TEXTS, "html": HTML, "empty": ""}[kind], status
    with pytest.raises(AssetError, match=rf"\({kind}, status {status}\)") as caught:
        fetch_aihub_files(104, tmp_path / "a")
    assert "dataSetSn=104" in str(caught.value) or "KOVQA_AIHUB_VERSION" in caught.value.hint
    assert KEY not in str(caught.value)
    assert caught.value.exit_code == 5
    assert sent(tmp_path / "a") == {}


@pytest.mark.parametrize("kind", TEXTS)
def test_refusals_in_cp949_are_understood(kind: str) -> None:
    assert classify_aihub_answer(502, TEXTS[kind].encode("cp949")) == kind


def test_the_service_itself_refuses(hub: AIHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.approved = False
    with pytest.raises(AssetError, match="not approved"):
        fetch_aihub_files(104, tmp_path / "a")
    hub.approved, hub.expired = True, True
    with pytest.raises(AssetError, match="run out"):
        fetch_aihub_files(104, tmp_path / "a")
    monkeypatch.setenv("KOVQA_AIHUB_VERSION", "0.5")
    with pytest.raises(AssetError, match=r"newer protocol than 0\.5"):
        fetch_aihub_files(104, tmp_path / "a")
    monkeypatch.setenv("KOVQA_AIHUB_VERSION", "0.6")
    monkeypatch.setenv("AIHUB_APIKEY", "wrong-key")
    with pytest.raises(AssetError, match="API key was refused"):
        fetch_aihub_files(104, tmp_path / "a")
    assert len(hub.keys_seen) == 4  # none of these was tried twice
    monkeypatch.setenv("AIHUB_APIKEY", "열쇠")
    with pytest.raises(SettingsError, match="holds no AI-Hub key") as caught:
        fetch_aihub_files(104, tmp_path / "a")
    assert "열쇠" not in str(caught.value)


def test_an_empty_answer_is_asked_for_again(hub: AIHub, tmp_path: Path) -> None:
    hub.empty_body = 2
    fetch_aihub_files(104, tmp_path / "a")
    assert sent(tmp_path / "a") == WHOLE


# ------------------------------------------------------------------------------------ cut and hostile


@pytest.mark.parametrize("left", [0, 511, 512, 1023])
def test_both_closing_blocks_must_come(hub: AIHub, tmp_path: Path, left: int) -> None:
    end = len(hub.tars[101].rstrip(b"\0"))
    end += -end % 512 + left
    hub.tars[101] = hub.tars[101][:end]  # and the server says that this is all
    with pytest.raises(AssetError, match="cut short"):
        fetch_aihub_files(104, tmp_path / "a", [101])


@pytest.mark.parametrize("silent", [True, False])
def test_a_cut_tar_begins_again_and_at_last_can_be_resumed(hub: AIHub, tmp_path: Path, silent: bool) -> None:
    """`silent`: the connection ends as if all had come, here just before the closing blocks."""
    hub.no_content_length, hub.truncate_key = silent, 102
    hub.truncate_after = hub.tars[102].index(SOURCE[-1000:]) + 1024
    hub.truncate_times = 2
    fetch_aihub_files(104, tmp_path / "a")
    assert sent(tmp_path / "a") == WHOLE
    assert hub.downloads == {101: 1, 102: 3, 103: 1}
    hub.truncate_times = 1000
    with pytest.raises(AssetError, match="2 of 3 files are here") as caught:
        fetch_aihub_files(104, tmp_path / "b")
    assert caught.value.exit_code == 5
    assert "same command again" in caught.value.hint
    assert set(sent(tmp_path / "b")) == {"[라벨]동물 | 상.zip", "README.txt"}
    assert not list((tmp_path / "b").glob("*.part"))
    before, hub.truncate_times = hub.downloads.copy(), 0
    fetch_aihub_files(104, tmp_path / "b")
    assert sent(tmp_path / "b") == WHOLE
    assert hub.downloads - before == {102: 1}


@pytest.mark.parametrize(
    "volumes", [offsets(SOURCE)[:2] + offsets(SOURCE)[3:], counted(SOURCE)[1:3] + counted(SOURCE)[4:]]
)
def test_a_missing_volume_is_an_error(hub: AIHub, tmp_path: Path, volumes: list[tuple[str, bytes]]) -> None:
    hub.tars[102] = tar_of(volumes)
    with pytest.raises(AssetError, match="do not join"):
        fetch_aihub_files(104, tmp_path / "a", [102])
    assert sent(tmp_path / "a") == {}


@pytest.mark.parametrize("twin", [b"x" * PIECE, b"x" * (PIECE - 1), SOURCE[: PIECE - 1]])
def test_a_piece_that_comes_twice_must_be_the_same(hub: AIHub, tmp_path: Path, twin: bytes) -> None:
    hub.tars[102] = tar_of([*offsets(SOURCE), (offsets(SOURCE)[0][0], twin)])
    with pytest.raises(DataError, match="came twice, and differs"):
        fetch_aihub_files(104, tmp_path / "a", [102])
    assert sent(tmp_path / "a") == {}


@pytest.mark.parametrize(
    "name",
    [
        "../evil.zip",
        "/evil.zip",
        "a/../../evil.zip.part0",
        "C:\\evil",
        ".aihub-104.json",
        ".aihub-104.part/0",
    ],
)
def test_hostile_names_are_refused(hub: AIHub, tmp_path: Path, name: str) -> None:
    hub.tars[102] = tar_of([("good.zip", b"good"), (name, b"evil")])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=r"member .* has"):
        fetch_aihub_files(104, tmp_path / "a", [102])
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "a", *before]


def test_links_and_names_of_other_files_are_refused(hub: AIHub, tmp_path: Path) -> None:
    hub.tars[101] = tar_info("link", b"2", "/etc").tobuf() + bytes(1024)
    with pytest.raises(DataError, match="a symbolic link"):
        fetch_aihub_files(104, tmp_path / "a", [101])
    hub.tars[101] = tar_of([(f"{FOLDER}/[원천]동물.ZIP", b"other")])
    with pytest.raises(DataError, match="only in case"):
        fetch_aihub_files(104, tmp_path / "a", [102, 101])


def test_a_small_disk_is_noticed_before(hub: AIHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 200_000}))
    with pytest.raises(MachineError, match=r"needs 263\.2 kB, its disk has 200\.0 kB"):
        fetch_aihub_files(104, tmp_path / "a")
    assert not hub.downloads


# ------------------------------------------------------------------------------------ as a user has it


def run(hub: AIHub, folder: Path, **env: str) -> subprocess.Popen[str]:
    """The download as its own process."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom kovqa_core.download.aihub import fetch_aihub_files\n"
        "fetch_aihub_files(104, Path(sys.argv[1]), None, lambda progress: print(progress, flush=True))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        env=clean_env(**{
            "KOVQA_AIHUB_ENDPOINT": hub.endpoint, "AIHUB_APIKEY": KEY, "KOVQA_RETRY_SECONDS": "0.01", **env
        }),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_killed_in_the_middle_finished_files_are_not_asked_for_again(hub: AIHub, tmp_path: Path) -> None:
    names = [f"{number}.zip" for number in range(1, 9)]
    hub.tree = BANNER + "".join(f"├─{name} | 256 KB | {n}\n" for n, name in enumerate(names, 1))
    hub.tars = {n: tar_of(offsets(SOURCE, f"d/{name}")) for n, name in enumerate(names, 1)}
    hub.slow = 0.02
    rng, kills = random.Random(2), 0
    record = tmp_path / "a" / ".aihub-104.json"
    while kills < 4:
        process = run(hub, tmp_path / "a")
        while process.poll() is None and len(finished(record)) < kills:  # a file more each time
            time.sleep(0.005)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.12))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        kills += 1
        for name, data in sent(tmp_path / "a").items():
            assert data == SOURCE, f"{name} is not whole"
    before, done = hub.downloads.copy(), finished(record)
    assert 0 < len(done) < 8
    output, _ = run(hub, tmp_path / "a").communicate(timeout=60)
    assert sent(tmp_path / "a") == dict.fromkeys(names, SOURCE), output
    assert set(hub.downloads - before) == set(hub.tars) - done
    assert sum(hub.sent.values()) <= (8 + kills) * max(map(len, hub.tars.values()))
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [".aihub-104.json", "d"]


def finished(record: Path) -> set[int]:
    return set(map(int, json.loads(record.read_text("utf-8"))["finished"])) if record.exists() else set()


def test_the_key_goes_to_no_other_host(hub: AIHub, tmp_path: Path) -> None:
    with serving(AIHub("", hub.tars)) as other:
        hub.ranges, hub.moved_to = "302", other.endpoint
        with pytest.raises(AssetError, match="API key was refused"):
            fetch_aihub_files(104, tmp_path / "a", [101])
        assert (hub.keys_seen, other.keys_seen) == ([KEY], [None])


@pytest.mark.parametrize("body", [TEXTS["bad_key"], HTML.replace("점검 중", KEY), f"key {KEY.upper()}", None])
def test_no_key_in_any_output_address_or_file(hub: AIHub, tmp_path: Path, body: str | None) -> None:
    hub.body = body
    output, _ = run(hub, tmp_path / "a", KOVQA_DEBUG="1").communicate(timeout=60)
    assert output
    on_disk = "".join(path.read_text("utf-8", "replace") for path in tmp_path.rglob("*") if path.is_file())
    for text in (output, " ".join(hub.paths), on_disk):
        assert KEY.lower() not in text.lower()
    assert set(hub.keys_seen) == {KEY}

"""One file over a bad network: what is resumed, what is refused, what is kept."""

from __future__ import annotations

import email.utils
import json
import multiprocessing
import time
from collections import namedtuple
from pathlib import Path

import pytest
from kovqa_core.download import resumable
from kovqa_core.download.part_file import mismatch_path, part_file_path, receipt_path
from kovqa_core.download.resumable import fetch_file
from kovqa_core.errors import AssetError, MachineError
from kovqa_core.net.request import Interrupted, Refused, RemoteFile
from kovqa_core.progress import Progress

from tests.download.server import Answer, File, Server, contents, running, sha256

SIZE = 200_000
DATA = contents(SIZE)
OTHER = contents(SIZE, seed=1)
PATH = "/a/file.bin"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "받은 파일" / "file.bin"


def remote(server: Server, **known: object) -> RemoteFile:
    return RemoteFile(server.url + PATH, **known)  # type: ignore[arg-type]


def left(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir()}


def interrupted(server: Server, target: Path, file: File, size: int) -> None:
    """Let a download die after so many bytes."""
    server.routes[PATH] = file
    file.cut = [size, 0, 0, 0, 0]
    with pytest.raises(Interrupted):
        fetch_file(remote(server), target)
    assert part_file_path(target).stat().st_size == size
    server.requests.clear()


# ------------------------------------------------------------------------------ what is resumed


def test_a_file_is_whole_and_has_a_receipt(server: Server, target: Path) -> None:
    server.routes[PATH] = File(DATA)
    assert fetch_file(remote(server, size=SIZE, checksums={"sha256": sha256(DATA)}), target) == target
    assert target.read_bytes() == DATA
    assert left(target) == {"file.bin", ".file.bin.json"}
    fetch_file(remote(server), target)
    assert server.count(PATH) == 1, "a finished file is not fetched again"


def test_a_file_without_receipt_is_compared_by_its_checksum(server: Server, target: Path) -> None:
    server.routes[PATH] = File(DATA)
    target.parent.mkdir()
    target.write_bytes(DATA)
    fetch_file(remote(server, checksums={"sha256": sha256(DATA)}), target)
    assert server.requests == []
    target.write_bytes(OTHER)
    fetch_file(remote(server, checksums={"sha256": sha256(DATA)}), target)
    assert target.read_bytes() == DATA


def test_a_file_damaged_after_its_receipt_is_fetched_again(server: Server, target: Path) -> None:
    server.routes[PATH] = File(DATA)
    fetch_file(remote(server), target)
    target.write_bytes(DATA[:-1] + b"x")
    fetch_file(remote(server), target)
    assert target.read_bytes() == DATA


def test_the_receipts_of_earlier_versions_are_read(server: Server, target: Path) -> None:
    """Every version writes this; a file that has it is neither fetched nor read again."""
    target.parent.mkdir()
    target.write_bytes(DATA)
    receipt = {
        "url": "https://example.com/file.bin", "size": SIZE, "mtime_ns": target.stat().st_mtime_ns,
        "checksums": {"md5": "0" * 32, "sha256": "1" * 64}, "accepted_mismatch": False,
        "fetched": "2026-10-01T12:00:00+0900",
    }  # fmt: skip
    receipt_path(target).write_text(json.dumps(receipt))
    fetch_file(remote(server, checksums={"sha256": "1" * 64}), target)
    assert server.requests == [] and json.loads(receipt_path(target).read_text()) == receipt


def test_what_a_kill_left_of_notes_and_receipt_goes(server: Server, target: Path) -> None:
    server.routes[PATH] = File(DATA)
    target.parent.mkdir()
    for name in (".file.bin.part.json.123.part", "..file.bin.json.123.part"):
        (target.parent / name).write_text("{")
    fetch_file(remote(server), target)
    assert left(target) == {"file.bin", ".file.bin.json"}


def test_a_cut_connection_is_resumed_where_it_ended(server: Server, target: Path) -> None:
    server.routes[PATH] = File(DATA, cut=[70_000, 1, 0, 50_000])
    fetch_file(remote(server), target)
    assert target.read_bytes() == DATA
    assert server.starts(PATH) == [0, 70_000, 70_001, 70_001, 120_001]
    assert server.served[PATH] == SIZE


def test_a_later_command_goes_on(server: Server, target: Path) -> None:
    interrupted(server, target, File(DATA), 70_000)
    fetch_file(remote(server), target)
    assert target.read_bytes() == DATA
    assert server.starts(PATH) == [70_000]
    assert server.requests[0].headers["if-range"] == '"one"'


@pytest.mark.parametrize("ranges", ["ignored", "wrong offset", "wrong total", "416"])
def test_a_range_answered_wrongly_begins_again(server: Server, target: Path, ranges: str) -> None:
    file = File(DATA)
    interrupted(server, target, file, 70_000)
    file.ranges = ranges  # type: ignore[assignment]
    fetch_file(remote(server), target)
    assert target.read_bytes() == DATA
    assert server.starts(PATH) == ([70_000] if ranges == "ignored" else [70_000, 0])


@pytest.mark.parametrize("ranges", ["honoured", "without If-Range"])
def test_a_changed_file_begins_again(server: Server, target: Path, ranges: str) -> None:
    interrupted(server, target, File(DATA), 70_000)
    server.routes[PATH] = File(OTHER, etag='"two"', ranges=ranges)  # type: ignore[arg-type]
    fetch_file(remote(server), target)
    assert target.read_bytes() == OTHER


def test_a_part_that_is_complete_asks_nothing(server: Server, target: Path) -> None:
    interrupted(server, target, File(DATA), 70_000)
    part_file_path(target).write_bytes(DATA)
    fetch_file(remote(server), target)
    assert server.requests == []
    assert target.read_bytes() == DATA


def test_a_part_without_its_notes_is_not_trusted(server: Server, target: Path) -> None:
    interrupted(server, target, File(DATA), 70_000)
    (target.parent / "file.bin.part.json").write_text("{")
    fetch_file(remote(server), target)
    assert server.starts(PATH) == [0]
    assert target.read_bytes() == DATA


def test_chunks_without_a_length(server: Server, target: Path) -> None:
    server.routes[PATH] = File(DATA, chunked=True, cut=[70_000])
    fetch_file(remote(server), target)
    assert target.read_bytes() == DATA
    assert server.starts(PATH) == [0, 0], "without a known length nothing proves that a rest fits"


def test_chunks_of_a_known_length_are_resumed(server: Server, target: Path) -> None:
    server.routes[PATH] = File(DATA, chunked=True, cut=[70_000])
    fetch_file(remote(server, size=SIZE), target)
    assert target.read_bytes() == DATA
    assert server.starts(PATH) == [0, 70_000]


def test_two_at_once_fetch_once(server: Server, target: Path) -> None:
    server.routes[PATH] = File(DATA, rate=400_000)
    spawn = multiprocessing.get_context("fork")
    both = [spawn.Process(target=fetch_file, args=(remote(server), target)) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join(30)
    assert [each.exitcode for each in both] == [0, 0]
    assert target.read_bytes() == DATA
    assert server.count(PATH) == 1
    assert left(target) == {"file.bin", ".file.bin.json"}


# ---------------------------------------------------------------------------- patience and limits


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again(server: Server, target: Path, status: int) -> None:
    server.routes[PATH] = File(DATA, first=[Answer(status), Answer(status)])
    fetch_file(remote(server), target)
    assert target.read_bytes() == DATA
    assert server.count(PATH) == 3


@pytest.mark.parametrize("as_date", [False, True])
def test_the_server_says_how_long_to_wait(server: Server, target: Path, as_date: bool) -> None:
    # A date has whole seconds: two seconds from now lie between one and two.
    wait = email.utils.formatdate(time.time() + 2, usegmt=True) if as_date else "1"
    server.routes[PATH] = File(DATA, first=[Answer(429, headers={"Retry-After": wait})])
    shown: list[Progress] = []
    began = time.monotonic()
    fetch_file(remote(server), target, shown.append)
    assert time.monotonic() - began > 0.95
    assert any("429" in progress.stage and "trying again" in progress.stage for progress in shown)


def test_a_server_that_wants_hours_is_not_waited_for(server: Server, target: Path) -> None:
    server.routes[PATH] = Answer(503, headers={"Retry-After": "7200"})
    with pytest.raises(Interrupted, match="503"):
        fetch_file(remote(server), target)


def test_patience_ends(server: Server, target: Path) -> None:
    server.routes[PATH] = Answer(503)
    with pytest.raises(Interrupted, match="503") as caught:
        fetch_file(remote(server), target)
    assert server.count(PATH) == 5
    assert "run the same command again" in caught.value.hint
    assert left(target) == set(), "nothing came, nothing is left behind"


def test_a_server_that_falls_silent(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_once(_: object) -> File:
        if server.count(PATH) == 1:
            time.sleep(0.6)
        return File(DATA)

    server.routes[PATH] = slow_once
    monkeypatch.setenv("KOVQA_TIMEOUT_SECONDS", "0.3")
    fetch_file(remote(server), target)
    assert target.read_bytes() == DATA
    assert server.count(PATH) == 2


def test_nobody_listens(target: Path) -> None:
    with running() as gone:
        pass
    with pytest.raises(Interrupted, match="onnect"):
        fetch_file(remote(gone), target)


def test_no_other_host_can_be_reached(target: Path) -> None:
    """The guard of these tests: a test that forgot to set an endpoint fails."""
    with pytest.raises(Interrupted, match=r"example\.com.*refused"):
        fetch_file(RemoteFile("http://example.com/a"), target)


def test_a_redirect_loop_ends(server: Server, target: Path) -> None:
    server.routes[PATH] = Answer(302, headers={"Location": PATH})
    with pytest.raises(AssetError, match="redirected 10 times"):
        fetch_file(remote(server), target)


def test_a_redirect_never_leaves_the_web(server: Server, target: Path) -> None:
    server.routes[PATH] = Answer(302, headers={"Location": "file:///etc/passwd"})
    with pytest.raises(AssetError, match="not an address"):
        fetch_file(remote(server), target)


def test_a_mirror_takes_over_in_the_middle(server: Server, target: Path) -> None:
    server.routes[PATH] = File(DATA, cut=[70_000, 0, 0, 0, 0])
    server.routes["/mirror"] = File(DATA, etag='"mirror"')
    sums = {"sha256": sha256(DATA)}
    fetch_file(remote(server, checksums=sums, mirrors=(f"{server.url}/mirror",)), target)
    assert target.read_bytes() == DATA
    assert server.starts("/mirror") == [70_000]


def test_without_a_checksum_a_mirror_begins_again(server: Server, target: Path) -> None:
    server.routes[PATH] = File(DATA, cut=[70_000, 0, 0, 0, 0])
    server.routes["/mirror"] = File(OTHER, etag='"mirror"')
    fetch_file(remote(server, mirrors=(f"{server.url}/mirror",)), target)
    assert target.read_bytes() == OTHER


# ---------------------------------------------------------------------------- what is refused


def test_s3_says_what_is_wrong(server: Server, target: Path) -> None:
    with pytest.raises(
        Refused, match=r"404 Not Found \(NoSuchKey: The specified key does not exist\)"
    ) as caught:
        fetch_file(remote(server), target)
    assert caught.value.status == 404
    assert server.count(PATH) == 1


def test_a_page_with_status_200_is_no_file(server: Server, target: Path) -> None:
    interrupted(server, target, File(DATA), 70_000)
    page = "<!DOCTYPE html><title>로그인</title><script>x()</script><p>먼저 로그인하세요\x1b[2J"
    server.routes[PATH] = Answer(200, page.encode(), {"Content-Type": "text/html"})
    with pytest.raises(AssetError, match=r"a page: 로그인\. 먼저 로그인하세요 \[2J"):
        fetch_file(remote(server), target)
    assert part_file_path(target).stat().st_size == 70_000, "what was here before is kept"


@pytest.mark.parametrize(
    ("kind", "start"), [("zip", b"PK\x03\x04"), ("bzip2", b"BZh9"), ("gzip", b"\x1f\x8b")]
)
def test_the_first_bytes_must_show_the_kind(server: Server, target: Path, kind: str, start: bytes) -> None:
    server.routes[PATH] = File(DATA)
    with pytest.raises(AssetError, match=f"no {kind} file"):
        fetch_file(remote(server, magic=kind), target)
    server.routes[PATH] = File(contents(SIZE, start))
    fetch_file(remote(server, magic=kind), target)


def test_a_wrong_length_is_found_before_the_bytes_come(server: Server, target: Path) -> None:
    server.routes[PATH] = File(DATA)
    with pytest.raises(AssetError, match="200,000 bytes, published are 300,000"):
        fetch_file(remote(server, size=300_000), target)
    assert server.served[PATH] < SIZE or left(target) == set()


def test_a_wrong_checksum_keeps_the_file_aside(server: Server, target: Path) -> None:
    server.routes[PATH] = File(DATA)
    wrong = remote(server, checksums={"md5": "0" * 32})
    with pytest.raises(AssetError, match=r"md5 is .*published is 0000.*mismatch") as caught:
        fetch_file(wrong, target)
    assert "--allow-hash-mismatch" in caught.value.hint
    assert mismatch_path(target).read_bytes() == DATA
    assert left(target) == {"file.bin.mismatch"}
    for _ in range(2):
        fetch_file(wrong, target, allow_mismatch=True)
    assert target.read_bytes() == DATA
    assert server.count(PATH) == 1, "the file kept aside is taken, not fetched again"


# --------------------------------------------------------------------------------- disk, secrets


def test_a_disk_that_is_too_small_is_noticed_before(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(resumable.shutil, "disk_usage", lambda _: usage(50_000))
    server.routes[PATH] = File(DATA)
    with pytest.raises(MachineError, match=r"150.0 kB missing for file.bin \(200.0 kB\)"):
        fetch_file(remote(server), target)
    assert left(target) == set()


SECRET = "hf_verysecrettoken"


def test_a_secret_header_stays_with_its_host(server: Server, target: Path) -> None:
    with running() as elsewhere:
        elsewhere.routes["/cdn"] = File(DATA, cut=[70_000])
        server.routes[PATH] = Answer(302, headers={"Location": f"{elsewhere.url}/cdn?sig=signature"})
        secret = remote(server, headers={"Authorization": f"Bearer {SECRET}", "User-Agent": "browser"})
        fetch_file(secret, target)
        assert [request.headers.get("authorization") for request in elsewhere.requests] == [None, None]
        assert {request.headers["user-agent"] for request in elsewhere.requests} == {"browser"}
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {SECRET}"}
    assert SECRET not in repr(secret)
    receipt = receipt_path(target).read_text()
    assert SECRET not in receipt and "signature" not in receipt


def test_a_secret_the_server_repeats_is_not_shown(server: Server, target: Path) -> None:
    server.routes[PATH] = Answer(403, f"bad token {SECRET}".encode())
    with pytest.raises(Refused) as caught:
        fetch_file(remote(server, headers={"Authorization": f"Bearer {SECRET}"}), target)
    assert "bad token ***" in str(caught.value)

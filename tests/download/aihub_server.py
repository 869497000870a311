"""A local AI-Hub that behaves as docs/sources/datasets.md, D6 to D10, says of the real one, bad habits included."""

from __future__ import annotations

import io
import re
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
TEXTS = {
    "not_approved": "해당 데이터는 신청 및 승인 후 이용 가능합니다.",
    "expired": "승인 유효기간 만료되었습니다. 다시 신청해 주세요.",
    "old_version": "새로운 버전의 aihubshell 이 필요합니다. 최신 버전을 내려받아 주세요.",
    "bad_key": f"API 키 인증에 실패했습니다: {KEY}",
    "no_such_file": "페이지가 존재하지 않습니다.",
    "unknown": "잠시 후 다시 시도해 주세요.",
}
HTML = "<!DOCTYPE html><html><title>점검 중</title><body>시스템 점검 중입니다.</body></html>"
BANNER = "UTF-8 로 보아 주세요.\nUTF-8\nUTF-8\n=====공지사항=====\n├─ 알림 | 1 KB | 9\n=====\n"


def tar_of(members: Sequence[tuple[str, bytes]]) -> bytes:
    """A GNU tar of members in this order; long names become @LongLink records."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@dataclass
class AIHub:
    """One data set, its answers, and what was asked."""

    tree: str
    tars: dict[int, bytes]
    status: int = 502  # of good bodies
    approved: bool = True
    expired: bool = False
    version: str = "0.6"
    body: str | None = None  # instead of any tar
    body_status: int = 502
    truncate_after: int = 0  # bytes, for the next `truncate_times` answers
    truncate_times: int = 1_000
    truncate_key: int = 0  # 0: any
    empty_body: int = 0  # times
    ranges: str = "ignored"  # or 206, or 302: to a place that answers 206
    moved_to: str = ""  # that place, when it is another server
    no_content_length: bool = False  # chunked, or neither and the connection closed when truncated
    slow: float = 0.0  # seconds before each 64 KiB
    downloads: Counter[int] = field(default_factory=Counter)  # file key -> whole answers begun
    sent: Counter[int] = field(default_factory=Counter)  # file key -> bytes
    paths: list[str] = field(default_factory=list)
    keys_seen: list[str | None] = field(default_factory=list)
    endpoint: str = ""

    def refusal(self, version: str, key: str | None) -> tuple[int, str] | None:
        """The text instead of a download, if there is one."""
        if version != self.version:
            return 502, TEXTS["old_version"]
        if key != KEY:
            return 401, TEXTS["bad_key"]
        if not self.approved:
            return 502, TEXTS["not_approved"]
        if self.expired:
            return 502, TEXTS["expired"]
        return (self.body_status, self.body) if self.body is not None else None


@contextmanager
def serving(hub: AIHub) -> Iterator[AIHub]:
    """The hub, answering on a port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(hub: AIHub) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            hub.paths.append(self.path)
            if self.path.startswith("/info/"):
                return self.text(hub.status, hub.tree)
            download = re.fullmatch(r"(?:/moved)?/down/([^/]+)/(\d+)\.do\?fileSn=(\d+)", self.path)
            if not download:
                return self.text(404, TEXTS["no_such_file"])
            hub.keys_seen.append(self.headers["apikey"])
            refusal = hub.refusal(download[1], self.headers["apikey"])
            if refusal:
                return self.text(*refusal)
            number = int(download[3])
            if number not in hub.tars:
                return self.text(502, TEXTS["no_such_file"])
            if hub.ranges == "302" and not self.path.startswith("/moved"):
                return self.answer(302, b"", Location=f"{hub.moved_to or hub.endpoint}/moved{self.path}")
            if hub.empty_body:
                hub.empty_body -= 1
                return self.text(200, "")
            return self.download(number)

        def text(self, status: int, text: str) -> None:
            self.answer(status, text.encode(), **{"Content-Type": "text/plain;charset=UTF-8"})

        def answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def download(self, number: int) -> None:
            body, status, begin = hub.tars[number], hub.status, 0
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
            if asked and hub.ranges != "ignored":
                status, begin = 206, int(asked[1])
            hub.downloads[number] += not begin
            self.send_response(status)
            self.send_header("Content-Type", "application/octet-stream")
            if status == 206:
                self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
            if hub.no_content_length:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", str(len(body) - begin))
            self.end_headers()
            self.send_body(number, body[begin:])

        def send_body(self, number: int, body: bytes) -> None:
            cut = hub.truncate_after if hub.truncate_key in (0, number) and hub.truncate_times else 0
            hub.truncate_times -= bool(cut)
            if cut and hub.no_content_length:  # ends early, and says it is the end
                body = body[:cut]
            for at in range(0, len(body), 1 << 16):
                time.sleep(hub.slow)
                piece = body[at : min(at + (1 << 16), cut or len(body))]
                hub.sent[number] += len(piece)
                try:
                    self.wfile.write(
                        b"%x\r\n%b\r\n" % (len(piece), piece) if hub.no_content_length else piece
                    )
                except OSError:  # the client went away
                    self.close_connection = True
                    return
                if cut and at + len(piece) >= cut:
                    break
            if hub.no_content_length:
                self.wfile.write(b"0\r\n\r\n")
            elif cut:
                self.close_connection = True

    return Handler

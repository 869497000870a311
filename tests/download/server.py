"""A local file server that can misbehave as real ones do, and counts what it gave out.

Sources build on it with routes of their own (`sources.py`): a route is a `File` or a function.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from kovqa_core.download.part_file import read_receipt

BLOCK = 1 << 14


@dataclass
class Answer:
    """One answer with a body that is not resumable."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class File:
    """A static file, and how the server treats it. What is `first` or `cut` happens once per entry."""

    data: bytes
    etag: str = '"one"'
    ranges: Literal["honoured", "ignored", "wrong offset", "wrong total", "416", "without If-Range"] = (
        "honoured"
    )
    first: list[Answer] = field(default_factory=list)  # answers before the file is given
    cut: list[int] = field(default_factory=list)  # the connection is cut after so many bytes
    chunked: bool = False
    rate: float = 0  # bytes per second; 0: at once
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ReceivedRequest:
    """One request, as it arrived."""

    method: str
    path: str  # without query
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    concurrent: int  # requests being answered at that moment, this one included


Route = File | Answer | Callable[[ReceivedRequest], File | Answer]


class Server:
    """Routes, what was request, and how many bytes of bodies left for each path."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.routes: dict[str, Route] = {}
        self.requests: list[ReceivedRequest] = []
        self.served: Counter[str] = Counter()
        self.open = 0
        self.lock = threading.Lock()
        self.http = ThreadingHTTPServer((host, 0), _handler(self))
        self.http.daemon_threads = True
        self.url = f"http://{host}:{self.http.server_port}"

    def count(self, path: str) -> int:
        """Requests for a path."""
        return sum(request.path == path for request in self.requests)

    def starts(self, path: str) -> list[int]:
        """Where each GET of a path began, by its Range header; 0 without one."""
        spans = [
            a.headers.get("range", "bytes=0-") for a in self.requests if a.path == path and a.method == "GET"
        ]
        return [int(span.removeprefix("bytes=").rstrip("-")) for span in spans]

    def answer(self, request: ReceivedRequest) -> File | Answer:
        """What a request gets; unknown paths get S3's error."""
        missing = Answer(
            404, b"<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>"
        )
        route = self.routes.get(request.path, missing)
        return route(request) if callable(route) else route


@contextlib.contextmanager
def running(host: str = "127.0.0.1") -> Iterator[Server]:
    """A server on a free port of 127.0.0.1."""
    server = Server(host)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()


def contents(size: int, start: bytes = b"", seed: int = 0) -> bytes:
    """Bytes that cannot be mistaken for other bytes; the same for the same size and seed."""
    blocks = (hashlib.sha256(b"%d %d" % (seed, i)).digest() for i in range(size // 32 + 1))
    return (start + b"".join(blocks))[:size]


def checksums_of(file: Path) -> Mapping[str, str]:
    """What a file's receipt says."""
    receipt = read_receipt(file)
    assert receipt is not None
    return receipt.checksums


def sha256(data: bytes) -> str:
    """A checksum in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with server.lock:
                server.open += 1
                request = self._received_request()
                server.requests.append(request)
            try:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self._send_answer(request, server.answer(request))
            finally:
                with server.lock:
                    server.open -= 1

        do_HEAD = do_POST = do_GET

        def _received_request(self) -> ReceivedRequest:
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            return ReceivedRequest(
                self.command, parts.path, dict(parse_qsl(parts.query)), headers, server.open
            )

        def _send_answer(self, request: ReceivedRequest, answer: File | Answer) -> None:
            if isinstance(answer, File) and answer.first:
                answer = answer.first.pop(0)
            if isinstance(answer, Answer):
                self._head(answer.status, {"Content-Length": str(len(answer.body)), **answer.headers})
                self._body(request, answer.body)
                return
            start, status = self._range(request, answer)
            size = len(answer.data)
            headers = {"ETag": answer.etag, "Accept-Ranges": "bytes", **answer.headers}
            if status == 416:
                headers["Content-Range"] = f"bytes */{size}"
            if status == 206:
                first = start + (answer.ranges == "wrong offset")
                total = size + (answer.ranges == "wrong total")
                headers["Content-Range"] = f"bytes {first}-{size - 1}/{total}"
            if answer.chunked:
                headers["Transfer-Encoding"] = "chunked"
            else:
                headers["Content-Length"] = "0" if status == 416 else str(size - start)
            self._head(status, headers)
            if status != 416:
                self._body(request, answer.data[start:], answer)

        def _range(self, request: ReceivedRequest, file: File) -> tuple[int, int]:
            span = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
            condition = request.headers.get("if-range", file.etag)
            if not span or file.ranges == "ignored":
                return 0, 200
            if condition != file.etag and file.ranges != "without If-Range":
                return 0, 200
            if file.ranges == "416" or int(span[1]) >= len(file.data):
                return 0, 416
            return int(span[1]), 206

        def _head(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def _body(self, request: ReceivedRequest, body: bytes, file: File | None = None) -> None:
            if request.method == "HEAD":
                return
            cut = file.cut.pop(0) if file and file.cut else None
            for at in range(0, len(body[:cut]), BLOCK):
                block = body[at : at + BLOCK] if cut is None else body[at : min(at + BLOCK, cut)]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block) if file and file.chunked else block)
                with server.lock:
                    server.served[request.path] += len(block)
                if file and file.rate:
                    time.sleep(len(block) / file.rate)
            if cut is not None:
                self.close_connection = True
            elif file and file.chunked:
                self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    return Handler

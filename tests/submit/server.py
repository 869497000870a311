"""Dacon's submission service (docs/sources/datasets.md, D17 to D19): real HTTP, and it counts what it received."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "a3f1c0de-5ec2e7-70cb1e-9d8f77"
TEAM = "얼룩말 팀"  # composed letters
COMPETITION = "236118"
KST = timezone(timedelta(hours=9))


@dataclass(frozen=True)
class Received:
    """A whole request that arrived."""

    fields: dict[str, str]
    file_name: str
    content: bytes


class Dacon:
    """Known token, team and competition; quotas; and what it does instead of answering properly.

    Attributes:
        mode: hang (receives, counts, never answers), cut (counts, closes the connection), 500, html,
            invalid_json, unknown_message, missing_data, redirect, or a number: refused with that code.
        now: its clock.
        accepted: what it counted, with the day in Korea.
    """

    def __init__(self) -> None:
        self.mode: str | int = ""
        self.per_day, self.in_all = 3, 100
        self.now: Callable[[], datetime] = lambda: datetime.now(KST)
        self.received: list[Received] = []
        self.accepted: list[str] = []
        self.arrived, self.leave = threading.Event(), threading.Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, received: Received) -> tuple[int, bytes]:
        """Status and body for a request."""
        answers = {
            "500": (500, b'{"message": "ok", "data": null}'),
            "html": (200, f"<html><title>Login</title>{TOKEN}</html>".encode()),
            "invalid_json": (200, b'{"message": "ok"'),
            "unknown_message": (200, _json({"message": f"no such thing for {TOKEN}", "data": None})),
            "missing_data": (200, _json({"message": "wrong"})),
            "redirect": (307, b""),
        }
        if self.mode in answers:
            return answers[str(self.mode)]
        if isinstance(self.mode, int):
            return 200, _json({"message": "wrong", "data": self.mode})
        return 200, _json({"message": self._count(received.fields), "data": None})

    def _count(self, fields: dict[str, str]) -> str:
        known = {"api_token": TOKEN, "team_name": TEAM, "cpt_id": COMPETITION, "api_version": "2.0"}
        if any(fields.get(name) != value for name, value in known.items()):
            return "unknown token, team or competition"
        day = self.now().astimezone(KST).date().isoformat()
        if len(self.accepted) >= self.in_all:
            return "over_max_count"
        if self.accepted.count(day) >= self.per_day:
            return "day_max_count"
        self.accepted.append(day)
        return "ok"


@contextlib.contextmanager
def running() -> Iterator[Dacon]:
    """The service on a free port of 127.0.0.1."""
    service = Dacon()
    thread = threading.Thread(target=service.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.leave.set()
        service.http.shutdown()
        service.http.server_close()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _parsed(content_type: str, body: bytes) -> Received:
    """The parts of a multipart body."""
    message = BytesParser(policy=HTTP).parsebytes(
        b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body
    )
    fields, name, content = {}, "", b""
    for part in message.iter_parts():
        about = part["Content-Disposition"].params
        data = part.get_payload(decode=True)
        if about["name"] == "file":
            name, content = about["filename"], data
        else:
            fields[about["name"]] = data.decode()
    return Received(fields, name, content)


def _handler(service: Dacon) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received = _parsed(self.headers["Content-Type"], body)
            status, said = (404, b"") if self.path != "/submission" else service.answer(received)
            service.received.append(received)
            service.arrived.set()
            if service.mode == "hang":
                service.leave.wait()
            if service.mode in ("hang", "cut"):
                self.close_connection = True
                return
            self.send_response(status)
            if status == 307:
                self.send_header("Location", f"{service.url}/submission")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the client may be gone: it was killed
                self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    return Handler

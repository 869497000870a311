"""A server that answers chat completions as vLLM does: real HTTP, and it records what it was asked."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL, KEY = "Qwen/작은-VL", "k3y-0f-4-s3rv3r-9d8f77"
Reply = tuple[int, dict[str, str], Any]  # status, headers, JSON


def answer_to(question: str) -> str:
    """What this model says, in kovqa's normal form."""
    return f"답 {sum(question.encode()) % 1000}"


class Vllm:
    """Models it serves, the key it wants, and how it misbehaves.

    Attributes:
        faults: question -> replies it gets first, one a request: a status, "cut" (no answer, connection closed),
            "half" (an answer cut off), "silent" (none until the client gives up).
        refused: question -> the message of a 400.
        texts: question -> its answer and why that ends, where they are not the usual ones.
        seconds: question -> how long an answer takes.
        gives_logprobs: does it give log-probabilities?
        requested: questions in the order they arrived; bodies and headers beside them.
        most: requests that were being answered at once.
    """

    def __init__(self) -> None:
        self.models, self.key, self.gives_logprobs = [MODEL], "", True
        self.faults: dict[str, list[int | str]] = {}
        self.refused: dict[str, str] = {}
        self.texts: dict[str, tuple[str, str]] = {}
        self.seconds: Callable[[str], float] = lambda question: 0.0
        self.requested: list[str] = []
        self.answered: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.busy = self.most = 0
        self.lock, self.leave = threading.Lock(), threading.Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # a client that was killed is no error here
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def answer(self, body: dict[str, Any]) -> Reply | str:
        """What a request gets: status, headers and JSON, or how the connection ends."""
        if body["model"] not in self.models:
            message = f"The model `{body['model']}` does not exist."
            return 404, {}, {"error": {"message": message, "type": "NotFoundError", "code": 404}}
        question = question_of(body)
        if self.faults.get(question):
            reply = self.faults[question].pop(0)
            if isinstance(reply, str):
                return reply
            return reply, {"Retry-After": "1"} if reply == 429 else {}, {"error": {"message": "later"}}
        if question in self.refused:
            return 400, {}, {"error": {"message": self.refused[question], "type": "BadRequestError"}}
        time.sleep(self.seconds(question))
        logprobs = {"content": [{"token": "답", "logprob": math.log(p)} for p in (0.5, 0.9)]}
        text, reason = self.texts.get(question, (f"\n {answer_to(question)} ", "stop"))
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return 200, {}, {"choices": [{**choice, "logprobs": logprobs if self.gives_logprobs else None}]}


def question_of(body: dict[str, Any]) -> str:
    """The question of a request, without the instruction."""
    return body["messages"][0]["content"][1]["text"].split("\n")[0]


def image_of(body: dict[str, Any]) -> tuple[str, bytes]:
    """Media type and bytes of a request's image."""
    head, data = body["messages"][0]["content"][0]["image_url"]["url"].split(";base64,")
    return head.removeprefix("data:"), base64.b64decode(data)


@contextlib.contextmanager
def running() -> Iterator[Vllm]:
    """The server on a free port of 127.0.0.1."""
    server = Vllm()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.leave.set()
        server.http.shutdown()
        server.http.server_close()


def _handler(server: Vllm) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.paths.append(self.path)
            listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in server.models]}
            self._send(*self._authorise((200, {}, listed)))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                server.busy += 1
                server.most = max(server.most, server.busy)
                server.paths.append(self.path)
                server.requested.append(question_of(body))
                server.bodies.append(body)
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
            try:
                reply = server.answer(body)
            finally:
                with server.lock:
                    server.busy -= 1
            if isinstance(reply, str):
                self._end(reply)
                return
            reply = self._authorise(reply)
            if reply[0] == 200:
                server.answered.append(question_of(body))
            self._send(*reply)

        def _authorise(self, reply: Reply) -> Reply:
            if server.key and self.headers.get("Authorization") != f"Bearer {server.key}":
                return 401, {}, {"error": f"Unauthorized: {self.headers.get('Authorization')}"}
            return reply

        def _end(self, how: str) -> None:
            self.close_connection = True
            if how == "half":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b'{"choices": [')
            elif how == "silent":
                server.leave.wait(30)

        def _send(self, status: int, headers: dict[str, str], reply: Any) -> None:
            data = json.dumps(reply).encode()
            with contextlib.suppress(ConnectionError):  # the client may be gone: it was killed
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    return Handler

"""Sockets, the guard before an app, and the end of a server."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import httpx2
import pytest
from kovqa_core.errors import MachineError, SettingsError
from kovqa_core.web import http_server
from kovqa_core.web.http_errors import ERROR_HANDLERS
from kovqa_core.web.http_server import LOCAL_HOSTS, bind_socket, guard_app, server_url
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from kovqa_cli.output.serve import print_reply
from tests.web.servers import serving

TOKEN = "key-1234"
LOG: list[tuple[str, str, int]] = []


async def page(request: Request) -> Response:
    return HTMLResponse("<p>")


async def size(request: Request) -> Response:
    return JSONResponse(len(await request.body()))


async def fault(request: Request) -> Response:
    raise ZeroDivisionError("비밀")


APP = Starlette(
    routes=[
        Route("/", page),
        Route("/size", size, methods=["POST"]),
        Route("/fault", fault),
    ],
    exception_handlers=ERROR_HANDLERS,
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_server, "_HEAD_SECONDS", 0.3)
        app = guard_app(
            APP, token=TOKEN, allowed_hosts=LOCAL_HOSTS, max_body_bytes=1000, body_seconds=0.3,
            on_reply=lambda method, path, status, seconds: LOG.append((method, path, status)),
        )  # fmt: skip
        with serving(app) as address:
            yield address


BEARER = {"Authorization": f"Bearer {TOKEN}"}


def wait_until(is_so: Callable[[], bool]) -> None:
    """What happens beside or after a reply."""
    deadline = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def code_of(response: httpx2.Response) -> str:
    return str(response.json()["error"]["code"])


def test_a_port_that_is_taken_and_a_host_that_is_not_ours_are_one_error() -> None:
    with bind_socket("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert server_url(listening) == f"http://127.0.0.1:{port}"
        with pytest.raises(MachineError, match=f"port {port} of 127.0.0.1") as taken:
            bind_socket("127.0.0.1", port)
        assert "--port" in taken.value.hint
    for host in ("192.0.2.1", "가.invalid", "a" * 70):
        with pytest.raises(SettingsError, match=re.escape(host)):
            bind_socket(host, 0)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "web.wrong-token"),
        ({"Authorization": "Bearer wrong"}, 401, "web.wrong-token"),
        ({"Authorization": f"Basic {TOKEN}"}, 401, "web.wrong-token"),
        (BEARER, 200, ""),
        ({**BEARER, "Origin": "http://evil.example"}, 403, "web.foreign-page"),
        ({**BEARER, "Origin": "null"}, 403, "web.foreign-page"),
        ({**BEARER, "Sec-Fetch-Site": "cross-site"}, 403, "web.foreign-page"),
        ({**BEARER, "Sec-Fetch-Site": "same-site"}, 403, "web.foreign-page"),  # another port of this machine
        ({**BEARER, "Host": "evil.example"}, 403, "web.wrong-host"),
        ({**BEARER, "Host": "127.0.0.1.evil.example:8000"}, 403, "web.wrong-host"),
        ({**BEARER, "Host": "LOCALHOST.:1"}, 200, ""),
        ({**BEARER, "Host": "[::1]:8000", "Origin": "http://[::1]:8000"}, 200, ""),
    ],
)
def test_who_may_ask(url: str, headers: dict[str, str], status: int, code: str) -> None:
    response = httpx2.post(f"{url}/size", headers=headers, content=b"abc")
    assert response.status_code == status
    assert response.json() == 3 if status == 200 else code_of(response) == code
    assert ("www-authenticate" in response.headers) == (status == 401)
    assert "access-control-allow-origin" not in response.headers


def test_a_page_is_open_and_may_do_nothing_beyond_itself(url: str) -> None:
    page = httpx2.get(f"{url}/", headers={"Sec-Fetch-Site": "cross-site"})  # a link to it
    assert page.status_code == 200
    assert page.headers["content-security-policy"] == "frame-ancestors 'none'"
    data = httpx2.post(f"{url}/size", headers=BEARER)
    assert data.headers["content-security-policy"].startswith("default-src 'none'")
    for reply in (page, data, httpx2.get(f"{url}/none")):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert "server" not in reply.headers
        assert "set-cookie" not in reply.headers


def test_errors_are_json(url: str, caplog: pytest.LogCaptureFixture) -> None:
    for method, path, status, code in (
        ("GET", "/none", 404, "web.no-such-path"),
        ("GET", "/size", 405, "web.wrong-method"),
        ("GET", "/fault?q=x", 500, "web.server-fault"),
    ):
        response = httpx2.request(method, url + path, headers=BEARER)
        assert (response.status_code, code_of(response)) == (status, code)
        assert "비밀" not in response.text
    # Korean to a page of our own that asks so; to a program English, whatever its locale.
    asked = {**BEARER, "Accept-Language": "ko"}
    english, korean = (
        httpx2.get(f"{url}/none", headers=headers).json()["error"]
        for headers in (asked, {**asked, "Kovqa-Page": "1"})
    )
    assert korean["message"] == "/none 경로가 없습니다" == korean["messages"]["ko"]
    assert english["message"] == "there is no /none here" == korean["messages"]["en"]
    assert "messages" not in english
    # Without what was asked, which may be private.
    wait_until(lambda: {("GET", "/none", 404), ("GET", "/size", 405), ("GET", "/fault", 500)} <= set(LOG))
    wait_until(lambda: "ZeroDivisionError" in caplog.text)  # the traceback of our bug is in the log


def test_a_body_is_bounded_however_it_is_sent(url: str) -> None:
    large = b"x" * 30_000_000
    with httpx2.Client(headers=BEARER) as client:
        for content in (large, iter([large]), iter([b"x" * 600] * 2)):
            response = client.post(f"{url}/size", content=content)
            assert (response.status_code, code_of(response)) == (413, "web.body-too-large")
        assert client.post(f"{url}/size", content=b"x" * 1000).json() == 1000
    # Those that close the connection afterwards see the reply, too.
    assert httpx2.post(f"{url}/size", content=large, headers={"Connection": "close"}).status_code == 401


def exchange(url: str, *parts: bytes) -> bytes:
    """What comes back until the server closes; and nothing is sent after the parts."""
    parsed = httpx2.URL(url)
    with socket.create_connection((parsed.host, parsed.port or 0), timeout=5) as connection:
        for part in parts:
            connection.sendall(part)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_client_that_is_too_slow_is_not_waited_for(url: str) -> None:
    began = time.monotonic()
    assert exchange(url) == b""
    assert exchange(url, b"POST /size HTTP/1.1\r\nHost: localhost\r\nX-A: ") == b""
    head = (
        b"POST /size HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nAuthorization: Bearer "
        + TOKEN.encode()
    )
    reply = exchange(url, head + b"\r\n\r\nabc")
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert b"web.slow-body" in reply
    assert time.monotonic() - began < 4


def test_a_client_that_goes_away_leaves_no_traceback(url: str, caplog: pytest.LogCaptureFixture) -> None:
    parsed = httpx2.URL(url)
    before = len(LOG)
    with socket.create_connection((parsed.host, parsed.port or 0), timeout=5) as connection:
        head = (
            b"POST /size HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nAuthorization: Bearer "
            + TOKEN.encode()
        )
        connection.sendall(head + b"\r\n\r\nabc")
    wait_until(lambda: len(LOG) > before)
    assert not caplog.records


# An app whose only reply takes half a second; it says where it is, and when a request has come.
SLOW = """
import asyncio, sys
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from kovqa_core.web.http_server import bind_socket, run_app, server_url

async def slow(request):
    print("accepted", flush=True)
    await asyncio.sleep(float(sys.argv[1]))
    return PlainTextResponse("whole")

listening = bind_socket("127.0.0.1", 0)
url = server_url(listening)
run_app(Starlette(routes=[Route("/", slow)]), listening, on_ready=lambda: print(url, flush=True), grace_seconds=9)
"""


def test_an_accepted_request_is_answered_after_the_signal_and_no_other() -> None:
    with subprocess.Popen([sys.executable, "-c", SLOW, "0.5"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        replies: list[str] = []
        asking = threading.Thread(target=lambda: replies.append(httpx2.get(url).text))
        asking.start()
        assert process.stdout.readline() == "accepted\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(url)
        asking.join()
        assert replies == ["whole"]
        assert process.wait(5) == -signal.SIGTERM  # raised again, for whoever started it


def test_a_second_signal_ends_at_once() -> None:
    with subprocess.Popen([sys.executable, "-c", SLOW, "30"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()

        def ask() -> None:
            with pytest.raises(httpx2.RemoteProtocolError):
                httpx2.get(url, timeout=20)

        asking = threading.Thread(target=ask)
        asking.start()
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(3) == 128 + signal.SIGTERM
        asking.join()


def test_large_requests_at_once_have_one_bound_and_leave_their_room() -> None:
    """A body that is still on its way has its room taken; once it is gone, the next one fits."""
    app = guard_app(APP, token="", allowed_hosts=LOCAL_HOSTS, max_body_bytes=1000)
    with serving(app) as url, contextlib.ExitStack() as held:
        parsed = httpx2.URL(url)
        for _ in range(http_server._BODIES_AT_ONCE):
            connection = held.enter_context(socket.create_connection((parsed.host, parsed.port or 0)))
            connection.sendall(
                b"POST /size HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n" + b"x" * 999
            )

        def ask() -> httpx2.Response:
            return httpx2.post(f"{url}/size", content=b"x" * 900)

        wait_until(lambda: ask().status_code == 503)
        refused = ask()
        assert (code_of(refused), refused.headers["retry-after"]) == ("web.too-many-bodies", "1")
        held.close()
        wait_until(lambda: ask().status_code == 200)


def test_a_server_goes_on_when_nobody_reads_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """`kovqa serve | head -1`, `kovqa serve 2>&1 | head -1`: its clients are others than its reader."""
    ready = threading.Event()

    def say_ready() -> None:
        ready.set()
        raise SystemExit(0)  # what every command does whose stdout is closed

    app = Starlette(routes=[Route("/", lambda request: JSONResponse({}))])
    with bind_socket("127.0.0.1", 0) as listening:
        url = server_url(listening)
        server = http_server.new_server(app, on_ready=say_ready, grace_seconds=1)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            assert ready.wait(10)
            assert httpx2.get(url, trust_env=False).status_code == 200
        finally:
            server.should_exit = True
            thread.join(10)
    reading, writing = os.pipe()
    os.close(reading)
    with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "w") as closed:
        monkeypatch.setattr(sys, "stderr", closed)
        print_reply("GET", "/", 200, 0.1)

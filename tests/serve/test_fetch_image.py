"""Images by address: from hosts that are allowed, and from no other place behind them."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from kovqa_core.errors import SettingsError
from kovqa_core.serve import fetch_image
from kovqa_core.serve.fetch_image import image_fetcher, require_host_names
from kovqa_core.web.http_errors import RefusedRequest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from tests.serve.conftest import png
from tests.web.servers import serving

ASKED: list[str] = []


async def image(request: Request) -> Response:
    ASKED.append(request.headers["host"])
    return Response(png(), media_type="image/png")


async def elsewhere(request: Request) -> Response:
    return RedirectResponse("http://169.254.169.254/")


APP = Starlette(routes=[Route("/a.png", image), Route("/away", elsewhere)])


def refusal(hosts: list[str], url: str, max_bytes: int = 10_000) -> tuple[int, str]:
    with pytest.raises(RefusedRequest) as refused:
        asyncio.run(image_fetcher(hosts, max_bytes)(url))  # type: ignore[arg-type]
    return refused.value.status, refused.value.text.key


def test_a_host_that_would_never_be_found_is_refused() -> None:
    require_host_names(["images.example.com", "10.0.0.1", "::1", "localhost."])
    for host in ("", "*", "http://example.com", "example.com:80", "example.com/", "[::1]", "a b"):
        with pytest.raises(SettingsError, match="not the name of a host"):
            require_host_names([host])


def test_an_allowed_address_is_fetched_and_nothing_beyond_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(APP) as server:
        url = f"{server}/a.png"
        assert asyncio.run(image_fetcher(["127.0.0.1"], 10_000)(url)) == png()  # type: ignore[arg-type]
        assert refusal([], url) == (400, "serve.no-addresses")
        assert refusal(["example.com"], url) == (400, "serve.host-not-allowed")
        assert refusal(["127.0.0.1"], url, max_bytes=10) == (413, "serve.image-too-large")
        assert refusal(["127.0.0.1"], f"{server}/none") == (400, "serve.image-refused")
        assert refusal(["127.0.0.1"], f"{server}/away") == (400, "serve.image-refused")
        # What one reader takes for the allowed host, and another for the other one.
        for mixed in (
            "http://example.com@127.0.0.1/",
            "http://127.0.0.1:99999/",
            "http://2130706433/",
        ):
            assert refusal(["example.com"], mixed)[1] in ("serve.host-not-allowed", "serve.not-an-address")
        # An allowed name that leads into this network; the check is of the very address that is asked.
        local = url.replace("127.0.0.1", "localhost")
        assert refusal(["localhost"], local) == (400, "serve.host-not-public")
        port = int(server.rpartition(":")[2])
        asked_for: list[str] = []

        def resolve(host: str, *_: Any, **__: Any) -> list[Any]:
            asked_for.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]

        monkeypatch.setattr(fetch_image.socket, "getaddrinfo", resolve)
        monkeypatch.setattr(fetch_image.ipaddress.IPv4Address, "is_global", True)
        named = f"http://images.example:{port}/a.png"
        assert asyncio.run(image_fetcher(["Images.Example."], 10_000)(named)) == png()  # type: ignore[arg-type]
        assert ASKED[-1] == f"images.example:{port}"  # the name, so that it serves the right site
        assert asked_for.count("images.example") == 1


def test_a_dead_host_is_one_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/a.png"
        assert refusal(["127.0.0.1"], url) == (400, "serve.image-not-fetched")

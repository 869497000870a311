"""One request: its errors by kind, redirects that are answers, retries, limits."""

from __future__ import annotations

import httpx2
import pytest
from kovqa_core.errors import AssetError, SettingsError
from kovqa_core.messages.languages import translate
from kovqa_core.net.request import (
    Interrupted,
    RemoteFile,
    new_http_client,
    read_document,
    redact_url,
    retry_request,
    stream_request,
)

from tests.download.server import Answer, File, Server, contents

SIZE = 200_000
DATA = contents(SIZE)
PATH = "/a/file.bin"
SECRET = "hf_verysecrettoken"


def remote(server: Server) -> RemoteFile:
    return RemoteFile(server.url + PATH)


def failing_client(error: Exception) -> httpx2.Client:
    """A client whose every request fails like this."""

    def fail(request: httpx2.Request) -> httpx2.Response:
        raise error

    return httpx2.Client(transport=httpx2.MockTransport(fail))


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (httpx2.ConnectTimeout("slow"), Interrupted, "no answer in time"),
        (httpx2.ReadTimeout("slow"), Interrupted, "no answer in time"),
        (httpx2.ConnectError(f"refused {SECRET}"), Interrupted, r"refused \*\*\*"),
        (httpx2.RemoteProtocolError("cut"), Interrupted, "cut"),
        (httpx2.UnsupportedProtocol("ftp"), AssetError, "not an address to fetch from"),
        (httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] no issuer"), AssetError, "cannot be trusted"),
    ],
)
def test_errors_that_time_may_mend_are_their_own_class(
    error: Exception, kind: type[AssetError], says: str
) -> None:
    file = RemoteFile("https://example.com/a?signature=x", headers={"Authorization": f"Bearer {SECRET}"})
    with (
        pytest.raises(AssetError, match=f"^https://example.com/a: .*{says}") as caught,
        stream_request(file, client=failing_client(error)),
    ):
        raise AssertionError("it was opened")
    assert type(caught.value) is kind
    assert "signature" not in str(caught.value)


def test_a_host_that_is_not_there_is_said_in_the_users_language() -> None:
    client = failing_client(httpx2.ConnectError("[Errno -2] Name or service not known"))
    with (
        pytest.raises(Interrupted) as caught,
        stream_request(RemoteFile("https://example.com/a"), client=client),
    ):
        raise AssertionError("it was opened")
    assert translate(caught.value.message, "ko") == "https://example.com/a: 알 수 없는 호스트 이름입니다"


def test_a_system_without_certificates_is_named() -> None:
    """httpx2 has no certificates of its own, as httpx had."""
    client = failing_client(httpx2.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] no issuer"))
    with (
        pytest.raises(AssetError) as caught,
        stream_request(RemoteFile("https://example.com/a"), client=client),
    ):
        raise AssertionError("it was opened")
    assert "ca-certificates" in caught.value.hint and "SSL_CERT_FILE" in caught.value.hint


def test_a_proxy_that_needs_another_package_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "carrierpigeon://user:password@127.0.0.1:9")
    with pytest.raises(SettingsError, match="proxy that is set cannot be used") as caught:
        new_http_client()
    assert "httpx2[socks]" in caught.value.hint and "password" not in str(caught.value)


def test_an_address_is_shown_without_its_secrets() -> None:
    assert redact_url("https://user:word@example.com:8/a?key=1#b") == "https://example.com:8/a"


def test_a_redirect_may_be_the_answer(server: Server) -> None:
    server.routes[PATH] = Answer(302, headers={"Location": "/elsewhere"})
    with stream_request(remote(server), follow_redirects=False) as response:
        assert response.headers["location"] == "/elsewhere"
    assert server.count("/elsewhere") == 0


def test_a_stream_is_read_with_the_same_errors(server: Server) -> None:
    server.routes[PATH] = File(DATA, cut=[70_000])

    def count() -> int:
        with stream_request(remote(server)) as response:
            return sum(map(len, response.iter_raw()))

    with pytest.raises(Interrupted):
        count()
    server.routes[PATH] = File(DATA, cut=[70_000, 0, 5])
    assert retry_request(count) == SIZE


def test_a_status_that_lies_can_be_accepted(server: Server) -> None:
    server.routes[PATH] = Answer(502, b"the right text")
    with stream_request(remote(server), accept=(200, 502)) as response:
        assert response.read() == b"the right text"


def test_a_document_has_a_limit(server: Server) -> None:
    server.routes[PATH] = File(DATA)
    assert read_document(remote(server)) == DATA
    with pytest.raises(AssetError, match="larger than 1,000 bytes"):
        read_document(remote(server), max_bytes=1000)

"""A key goes to the host it is stored for, and to no other: not by its name's spelling, not by a redirect, not in clear."""

from __future__ import annotations

from pathlib import Path

import pytest
from kovqa_core.answer.job import AnswerOptions
from kovqa_core.answer.remote_client import ask_server, server_backend
from kovqa_core.answer.server_requests import connect_server
from kovqa_core.errors import KovqaError, SettingsError
from kovqa_core.net.hosts import is_loopback, url_origin
from kovqa_core.net.request import RemoteFile, new_http_client, stream_request
from kovqa_core.net.server_key import find_server_key
from kovqa_core.progress import Progress

from tests.answer.server import Vllm
from tests.answer.server import running as running_vllm
from tests.download.server import Answer, Server, running

KEY, OPENAI_KEY = "k3y-0f-4-s3rv3r-9d8f77", "sk-0p3n41-5f2c"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without any key."""
    monkeypatch.setenv("KOVQA_HOME", str(tmp_path / "home"))
    for name in ("KOVQA_SERVER_KEY", "KOVQA_SERVER_HOST", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


def write_key(file: Path, mode: int = 0o600) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(KEY + "\n")
    file.chmod(mode)


@pytest.mark.parametrize(
    ("stored", "url", "is_sent"),
    [
        ("gpu-1.example", "https://gpu-1.example/v1", True),
        ("gpu-1.example", "https://gpu-1.example:8443/v1", True),  # without a port: all of the host
        ("GPU-1.Example.", "https://gpu-1.EXAMPLE/v1", True),
        ("gpu-1.example", "https://gpu-1.example./v1", True),  # the same name in DNS
        ("gpu-1.example:8443", "https://gpu-1.example:8443/v1", True),
        ("gpu-1.example:8443", "https://gpu-1.example/v1", False),
        ("gpu-1.example:443", "https://gpu-1.example/v1", True),
        ("gpu-1.example:443", "https://gpu-1.example:8443/v1", False),
        ("https://gpu-1.example/v1", "https://gpu-1.example/v1", True),
        ("https://gpu-1.example/v1", "https://gpu-1.example:8443/v1", False),
        ("한국어.example", "https://xn--3e0bs9hfvinn1a.example/v1", False),
        ("한국.kr", "https://xn--3e0b707e.kr/v1", True),
        ("xn--3e0b707e.kr", "https://한국.kr/v1", True),
        ("한국.kr", "https://xn--3e0b707e.kr.evil.example/v1", False),
        ("gpu-1.example", "https://gpu-1.example.evil.example/v1", False),
        ("gpu-1.example", "https://evil.example/gpu-1.example/v1", False),
        ("gpu-1.example", "https://evilgpu-1.example/v1", False),
        ("gpu-1.example", "https://gpu-1.example%2eevil.example/v1", False),
        ("example", "https://gpu-1.example/v1", False),
        ("localhost", "http://localhost:8000/v1", True),
        ("127.0.0.1", "http://127.0.0.2:8000/v1", False),
        ("[::1]:8000", "http://[::1]:8000/v1", True),
        ("", "http://127.0.0.1:8000/v1", True),  # a key without a host is for this machine
        ("", "http://localhost:8000/v1", True),
        ("", "https://gpu-1.example/v1", False),
    ],
)
def test_a_key_is_for_one_host(
    home: Path, monkeypatch: pytest.MonkeyPatch, stored: str, url: str, is_sent: bool
) -> None:
    monkeypatch.setenv("KOVQA_SERVER_KEY", KEY)
    monkeypatch.setenv("KOVQA_SERVER_HOST", stored)
    key = find_server_key(url)
    assert key.secret == (KEY if is_sent else "")
    assert bool(key.note) is not is_sent and KEY not in key.note + repr(key)
    monkeypatch.delenv("KOVQA_SERVER_KEY")
    monkeypatch.delenv("KOVQA_SERVER_HOST")
    if (
        stored and "/" not in stored
    ):  # the same as a file's name; a key for another host is then no key at all
        write_key(home / "server-keys" / stored)
        assert find_server_key(url).secret == (KEY if is_sent else "")


@pytest.mark.parametrize(
    ("url", "is_sent"),
    [
        ("https://api.openai.com/v1", True),
        ("https://API.OpenAI.com./v1", True),
        ("https://api.openai.com:443/v1", True),
        ("https://api.openai.com:8443/v1", False),
        ("http://api.openai.com/v1", False),
        ("https://api.openai.com.evil.example/v1", False),
        ("https://openai.com/v1", False),
        ("http://localhost:8000/v1", False),
        ("https://gpu-1.example/v1", False),
    ],
)
def test_openais_key_goes_to_openai_alone(monkeypatch: pytest.MonkeyPatch, url: str, is_sent: bool) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI_KEY)
    notes: list[Progress] = []
    with connect_server(url, notes.append) as server:
        assert dict(server.headers) == ({"Authorization": f"Bearer {OPENAI_KEY}"} if is_sent else {})
        assert OPENAI_KEY not in repr(server)
    assert [("OPENAI_API_KEY is for api.openai.com" in note.stage) for note in notes] == [True] * (
        not is_sent
    )


@pytest.mark.parametrize("host", ["gpu-1.example", "127.1", "2130706433", "0x7f000001", "[::ffff:127.0.0.1]"])
def test_a_key_never_leaves_this_machine_in_clear(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("KOVQA_SERVER_KEY", KEY)
    monkeypatch.setenv("KOVQA_SERVER_HOST", host)
    with pytest.raises(SettingsError, match=r"KOVQA_SERVER_KEY is not sent to .* over plain http") as caught:
        find_server_key(f"http://{host}:8000/v1")
    assert "ssh -L" in caught.value.hint and KEY not in str(caught.value)
    assert find_server_key(f"https://{host}:8000/v1").secret == KEY


def test_loopback_is_what_every_reader_takes_for_this_machine() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.8.7", "::1")))
    others = (
        "0.0.0.0",
        "::",
        "localhost.example",
        "x.localhost",
        "127.0.0.1.example",
        "10.0.0.1",
        "128.0.0.1",
    )
    assert not any(map(is_loopback, others))
    assert url_origin("http://LOCALHOST.:8000/v1").host == "localhost"


@pytest.mark.parametrize(
    "text",
    ["a b", "key@gpu-1.example", "gpu-1.example/v1", "gpu-1\\@evil.example", "http://me:x@gpu-1", ":", "a:b"],
)
def test_a_host_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("KOVQA_SERVER_HOST", text)
    with pytest.raises(SettingsError, match=r"KOVQA_SERVER_HOST=.* does not name a host"):
        find_server_key("https://gpu-1.example/v1")


@pytest.mark.parametrize(
    "url",
    [f"https://{KEY}@evil.example/v1", "https://api.openai.com\\@evil.example/v1", "https://@evil.example/v1",
     f"https://evil.example/v1?key={KEY}", "https://a@b@evil.example/v1"],
)  # fmt: skip
def test_an_address_that_can_be_read_in_two_ways_is_refused(url: str) -> None:
    with (
        pytest.raises(SettingsError, match="keys do not belong in an address") as caught,
        connect_server(url),
    ):
        raise AssertionError("connected")
    assert KEY not in str(caught.value)


def test_a_key_that_others_can_read_is_refused_where_it_would_be_used(home: Path) -> None:
    write_key(home / "server-keys" / "gpu-1.example", 0o640)
    with pytest.raises(SettingsError, match=r"others can read .*gpu-1.example"):
        find_server_key("https://gpu-1.example/v1")
    assert find_server_key("https://gpu-2.example/v1").secret == ""
    (home / "server-keys" / "gpu-1.example").chmod(0o600)
    write_key(home / "server-keys" / "gpu-1.example:8443")
    (home / "server-keys" / "gpu-1.example:8443").write_text("other")
    assert find_server_key("https://gpu-1.example:8443/v1").secret == "other"  # the nearer one


# -------------------------------------------------------------------------- with real servers


def test_a_server_of_another_host_gets_the_question_without_the_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two hosts of this machine: the key is for 127.0.0.2, the server is 127.0.0.1."""
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.setenv("KOVQA_SERVER_KEY", KEY)
    monkeypatch.setenv("KOVQA_SERVER_HOST", "127.0.0.2")
    notes: list[Progress] = []
    with running_vllm() as vllm:
        ask_server(vllm.url, tmp_path / "a.png", "무엇?", AnswerOptions(), notes.append)
        with server_backend(vllm.url, AnswerOptions(), 1, notes.append):
            pass
        assert not any("authorization" in headers for headers in vllm.headers)
        assert all(note.is_note and "KOVQA_SERVER_HOST=127.0.0.1" in note.stage for note in notes)
        assert len(notes) == 2  # once a command
        vllm.key = KEY
        with pytest.raises(KovqaError, match="401") as caught:
            ask_server(vllm.url, tmp_path / "a.png", "무엇?", AnswerOptions())
        assert "KOVQA_SERVER_HOST=127.0.0.1" in caught.value.hint
        monkeypatch.setenv("KOVQA_SERVER_HOST", vllm.url)
        ask_server(vllm.url, tmp_path / "a.png", "무엇?", AnswerOptions())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_of_a_chat_server_is_not_followed(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setenv("KOVQA_SERVER_KEY", KEY)
    with running() as server, running() as other:
        server.routes["/v1/models"] = Answer(status, headers={"Location": f"{other.url}/v1/models"})
        with (
            pytest.raises(SettingsError, match=f"{status}.* to {other.url}"),
            server_backend(f"{server.url}/v1", AnswerOptions(), 1),
        ):
            raise AssertionError("connected")
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
        assert not other.requests


@pytest.mark.parametrize("header", ["Authorization", "apikey", "X-Api-Key", "Cookie"])
@pytest.mark.parametrize("where", ["port", "host", "userinfo", "backslash", "relative"])
def test_a_redirect_carries_a_key_to_its_own_origin_alone(
    monkeypatch: pytest.MonkeyPatch, header: str, where: str
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,127.0.0.2")
    with running() as server, running("127.0.0.2" if where == "host" else "127.0.0.1") as other:
        port, other_port = server.url.rpartition(":")[2], other.url.rpartition(":")[2]
        target = {
            "port": f"{other.url}/b",
            "host": f"{other.url}/b",
            "userinfo": f"http://127.0.0.1:{port}@127.0.0.1:{other_port}/b",
            "backslash": f"http://127.0.0.1:{port}\\@127.0.0.1:{other_port}/b",
            "relative": "/b",
        }[where]
        server.routes["/a"] = Answer(302, headers={"Location": target})
        server.routes["/b"] = other.routes["/b"] = Answer(200, b"here")
        with stream_request(RemoteFile(f"{server.url}/a", headers={header: KEY})) as response:
            assert response.read() == b"here"
        assert KEY in server.requests[0].headers.values()
        if where == "relative":
            assert KEY in server.requests[1].headers.values()
        else:
            [request] = other.requests
            assert not any(KEY in value for value in request.headers.values())


def test_a_secret_header_is_not_sent_in_clear() -> None:
    """AI-Hub's key and a hub's token alike: refused before anything is asked."""
    for name in ("apikey", "Authorization"):
        remote = RemoteFile("http://mirror.example/a", headers={name: KEY})
        with (
            pytest.raises(SettingsError, match=r"not sent to mirror.example over plain http"),
            stream_request(remote),
        ):
            raise AssertionError("asked")


def test_this_machine_is_not_asked_through_a_proxy(
    vllm_behind_a_proxy: tuple[Vllm, Server], tmp_path: Path
) -> None:
    from PIL import Image

    vllm, proxy = vllm_behind_a_proxy
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    ask_server(vllm.url, tmp_path / "a.png", "무엇?", AnswerOptions())
    assert vllm.headers[0]["authorization"] == f"Bearer {KEY}"
    assert not proxy.requests
    with new_http_client() as client:  # what httpx2 itself would do
        client.get(vllm.url)
    assert proxy.requests


@pytest.fixture
def vllm_behind_a_proxy(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A server of this machine, and a proxy that is set for http."""
    for name in ("NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KOVQA_SERVER_KEY", KEY)
    with running_vllm() as vllm, running() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        yield vllm, proxy

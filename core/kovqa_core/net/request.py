"""One request: redirects, secrets, time limits, what a refusal means; and patience with the network.

`opened` is one request for those who read a stream themselves, `patiently` repeats such a thing while
the network is at fault, `read` brings a small document. Files are brought by `http.fetch`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import functools
import os
import random
import ssl
import time
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Protocol, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx2

from kovqa_core.errors import AssetError, SettingsError
from kovqa_core.net.pages import page_text

USER_AGENT = "kovqa (Korean visual question answering; command-line tool run by its user)"
RESUME_FETCH_HINT = "run the same command again: what is here is kept"
MAX_TRIES = 5  # in a row without a new byte
MAX_WAIT_SECONDS = 600.0  # seconds a server may ask us to wait
MAX_REDIRECTS = 10
HARMLESS_HEADERS = {"user-agent", "accept"}  # headers another host may see
RETRY_STATUSES = frozenset((408, 425, 429))  # statuses that time may mend

ActionResult = TypeVar("ActionResult")


class DownloadProgress(Protocol):
    """Called while bytes come: (bytes done, bytes in all or 0 when unknown, what is happening or "")."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


class FileRequester(Protocol):
    """One request for a file, its answer still unread."""

    def __call__(
        self, remote: RemoteFile, *, headers: Mapping[str, str] | None, accept: Container[int]
    ) -> contextlib.AbstractContextManager[httpx2.Response]: ...


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file somewhere else, and all that is known about it.

    Args:
        url: its address; never one that holds a token.
        size: bytes, when known.
        checksums: md5, sha1, sha256 or git -> hexadecimal.
        magic: a kind of `checks.KINDS` that the first bytes must show.
        headers: sent to this address's host alone; never shown, never written down.
        mirrors: other addresses of the same bytes, tried in order.
        ask: how to ask for it, where more than `opened` is needed (Google Drive's pages).
    """

    url: str
    size: int | None = None
    checksums: Mapping[str, str] = dataclasses.field(default_factory=dict)
    magic: str = ""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    mirrors: tuple[str, ...] = ()
    ask: FileRequester | None = None

    def hide(self, text: str) -> str:
        """A text without the words of secret headers, should a server repeat them."""
        secrets = (w for k, v in self.headers.items() if k.lower() not in HARMLESS_HEADERS for w in v.split())
        for word in secrets:
            text = text.replace(word, "***") if len(word) >= 8 else text
        return text


class Interrupted(AssetError):
    """The network or the server failed in a way that time may mend."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message, RESUME_FETCH_HINT)
        self.wait = wait  # seconds the server asked for


class Refused(AssetError):
    """The server answered, and the answer is no."""

    def __init__(self, message: str, hint: str, response: httpx2.Response) -> None:
        super().__init__(message, hint)
        self.status = response.status_code
        self.headers = response.headers


def redact_url(url: str) -> str:
    """An address for people: without query, user or password, where signatures and keys would be."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


# ------------------------------------------------------------------------------- one request


@contextlib.contextmanager
def stream_request(
    remote: RemoteFile,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    accept: Container[int] = (200,),
    stay: bool = False,
    body: bytes | None = None,
    client: httpx2.Client | None = None,
) -> Iterator[httpx2.Response]:
    """One request, its answer still unread; what goes wrong inside the block is classified too.

    Args:
        headers: more of them, harmless for any host (Range, If-Range).
        accept: statuses that are answers; all others are errors.
        stay: do not follow redirects but answer with them (hub metadata).
        body: what is sent, with POST.
        client: one with cookies, say; it stays open.

    Raises:
        Interrupted: time may mend it (connection, timeout, 408, 425, 429, 5xx, an expired signature).
        Refused: any other status.
        AssetError: a redirect loop, a certificate of another name, no address.
    """
    with contextlib.ExitStack() as stack:
        client = client or stack.enter_context(new_http_client())
        stack.enter_context(_network_errors(remote))
        response = _follow_redirects(client, remote, method, headers or {}, stay, body)
        stack.callback(response.close)
        if response.status_code not in accept and not (stay and response.is_redirect):
            raise _refusal_error(remote, response)
        yield response


def new_http_client(seconds: float = 60) -> httpx2.Client:
    """A client with our name and time limits; proxies and certificates as the environment says.

    Args:
        seconds: of silence that end a request, unless KOVQA_TIMEOUT_SECONDS says otherwise.
    """
    seconds = _seconds_setting("KOVQA_TIMEOUT_SECONDS", seconds)
    headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
    timeout = httpx2.Timeout(seconds, connect=min(seconds, 20))
    try:
        return httpx2.Client(headers=headers, timeout=timeout, verify=_trusted_ssl_context())
    except (ImportError, ValueError, httpx2.InvalidURL):
        hint = "check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY; for a SOCKS proxy: pip install 'httpx2[socks]'"
        raise SettingsError("the proxy that is set cannot be used", hint) from None


def _seconds_setting(name: str, usual: float) -> float:
    """A setting in seconds."""
    try:
        return float(os.environ.get(name, usual))
    except ValueError:
        raise SettingsError(f"{name}={os.environ[name]} is no number of seconds") from None


@functools.cache
def _trusted_ssl_context() -> ssl.SSLContext:
    return httpx2.create_ssl_context()  # reading all certificates takes as long as a small file


def _follow_redirects(
    client: httpx2.Client,
    remote: RemoteFile,
    method: str,
    headers: Mapping[str, str],
    stay: bool,
    body: bytes | None,
) -> httpx2.Response:
    url, own = remote.url, dict(remote.headers)
    for _ in range(MAX_REDIRECTS):
        request = client.build_request(method, url, headers={**own, **headers}, content=body)
        response = client.send(request, stream=True)
        target = response.headers.get("location") if response.is_redirect else None
        if stay or not target:
            return response
        there = urljoin(url, target)
        if _url_origin(there) != _url_origin(url):
            own = {name: value for name, value in own.items() if name.lower() in HARMLESS_HEADERS}
        response.close()
        url = there
    raise AssetError(
        f"{redact_url(remote.url)}: redirected {MAX_REDIRECTS} times without arriving", RESUME_FETCH_HINT
    )


def _url_origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


@contextlib.contextmanager
def _network_errors(remote: RemoteFile) -> Iterator[None]:
    """Turn httpx2's errors into ours."""
    where = redact_url(remote.url)
    try:
        yield
    except httpx2.TimeoutException:
        raise Interrupted(f"{where}: no answer in time") from None
    except (httpx2.UnsupportedProtocol, httpx2.InvalidURL, ValueError) as error:
        raise AssetError(f"{where}: no address to fetch from ({remote.hide(str(error))})") from None
    except httpx2.RequestError as error:
        text = remote.hide(str(error)) or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in text:
            hint = "install the system's ca-certificates; behind a company's proxy, set SSL_CERT_FILE to its certificates"
            raise AssetError(f"{where}: its certificate cannot be trusted", hint) from None
        raise Interrupted(f"{where}: {text}") from None


def _refusal_error(remote: RemoteFile, response: httpx2.Response) -> AssetError:
    status = response.status_code
    body = b"" if response.request.method == "HEAD" else _read_beginning(response)
    said = remote.hide(page_text(body))
    text = f"{redact_url(remote.url)}: {status} {response.reason_phrase}" + (f" ({said})" if said else "")
    # Signed addresses live for minutes: the original address gives a fresh one.
    expired = status == 403 and response.request.url != httpx2.URL(remote.url)
    if status in RETRY_STATUSES or status >= 500 or expired:
        return Interrupted(text, _retry_after_seconds(response))
    return Refused(text, "", response)


def _read_beginning(response: httpx2.Response, length: int = 8192) -> bytes:
    body = b""
    with contextlib.suppress(httpx2.HTTPError):  # the status says enough
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) >= length:
                break
    return body[:length]


def _retry_after_seconds(response: httpx2.Response) -> float | None:
    text = response.headers.get("retry-after", "").strip()
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def retry_request(
    action: Callable[[], ActionResult],
    told: DownloadProgress | None = None,
    done: Callable[[], int] = lambda: 0,
) -> ActionResult:
    """The result of an action, tried again while the network is at fault.

    Waits 1, 2, 4, 8 … seconds (scaled by KOVQA_RETRY_SECONDS, with jitter), or as long as the
    server asks. Only tries in a row that bring nothing are counted.

    Args:
        done: how far the action is (bytes); progress starts the count afresh.

    Raises:
        Interrupted: `TRIES` times in a row, or the server asks for more than `LONGEST_WAIT`.
    """
    scale, failures = _seconds_setting("KOVQA_RETRY_SECONDS", 1), 0
    while True:
        before = done()
        try:
            return action()
        except Interrupted as error:
            failures = 1 if done() > before else failures + 1
            if failures >= MAX_TRIES or (error.wait or 0) > MAX_WAIT_SECONDS:
                raise
            wait = scale * min(2 ** (failures - 1), 60) * random.uniform(0.5, 1)
            wait = wait if error.wait is None else error.wait
            if told:
                told(done(), 0, f"{error.message}; trying again in {wait:.0f} s")
            time.sleep(wait)


def read_document(remote: RemoteFile, told: DownloadProgress | None = None, most: int = 64 << 20) -> bytes:
    """The bytes of a small document (a listing, a status).

    Raises:
        AssetError: it cannot be had, or is larger than `most` bytes.
    """

    def once() -> bytes:
        with stream_request(remote) as response:
            body = b""
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > most:
                    raise AssetError(f"{redact_url(remote.url)}: larger than {most:,} bytes")
            return body

    return retry_request(once, told)

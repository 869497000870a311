"""One request: redirects, secrets, time limits, what a refusal means; and retries while the network fails.

`stream_request` is one request for callers that read the body themselves, `retry_request` repeats an action
while the network is at fault, `read_document` fetches a small document. Files are fetched by
`download.resumable.fetch_file`.
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
from kovqa_core.messages import message
from kovqa_core.messages.system_reasons import in_known_words
from kovqa_core.net.hosts import require_private_channel, url_origin
from kovqa_core.net.pages import page_text
from kovqa_core.progress import OnProgress, Progress, ignore_progress

USER_AGENT = "kovqa (Korean visual question answering; command-line tool run by its user)"
MAX_TRIES = 5  # in a row without a new byte
MAX_WAIT_SECONDS = 600.0  # seconds a server may ask us to wait
MAX_REDIRECTS = 10
HARMLESS_HEADERS = {"user-agent", "accept"}  # headers another host may see
RETRY_STATUSES = frozenset((408, 425, 429))  # statuses that time may mend

ActionResult = TypeVar("ActionResult")


class FileRequester(Protocol):
    """One request for a file, the body of its response not yet read."""

    def __call__(
        self, remote: RemoteFile, *, headers: Mapping[str, str] | None, accept: Container[int]
    ) -> contextlib.AbstractContextManager[httpx2.Response]: ...


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A file on a server, and all that is known about it.

    Args:
        url: its address; never one that holds a token.
        size: bytes, when known.
        checksums: md5, sha1, sha256 or git -> hexadecimal.
        magic: a key of `checks.FILE_MAGIC` that the first bytes must show.
        headers: sent to this address's host alone; never shown, never written down.
        mirrors: other addresses of the same bytes, tried in order.
        requester: how to request it, where more than `stream_request` is needed (Google Drive's pages).
    """

    url: str
    size: int | None = None
    checksums: Mapping[str, str] = dataclasses.field(default_factory=dict)
    magic: str = ""
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    mirrors: tuple[str, ...] = ()
    requester: FileRequester | None = None

    def redact_secrets(self, text: str) -> str:
        """A text without the words of secret headers, should a server repeat them."""
        # Word by word: of `Bearer TOKEN` a server may repeat the token alone. Short words (`Bearer`) are no secrets.
        secrets = (w for k, v in self.headers.items() if k.lower() not in HARMLESS_HEADERS for w in v.split())
        for word in secrets:
            text = text.replace(word, "***") if len(word) >= 8 else text
        return text


class Interrupted(AssetError):
    """The network or the server failed in a way that time may mend.

    Args:
        text: what failed.
        wait_seconds: how long the server asked us to wait; None: it said nothing.
        hint: what to do, where it is more than running the command again.
    """

    def __init__(self, text: str, wait_seconds: float | None = None, hint: str = "") -> None:
        super().__init__(text, hint or resume_hint())
        self.wait_seconds = wait_seconds


class Refused(AssetError):
    """The server answered, and the answer is no."""

    def __init__(self, text: str, response: httpx2.Response) -> None:
        super().__init__(text)
        self.status = response.status_code
        self.headers = response.headers


def resume_hint() -> str:
    """What to do after an interrupted download."""
    return message("net.resume.hint", "run the same command again: what has arrived is kept")


def redact_url(url: str) -> str:
    """An address for people: without query, user or password, where signatures and keys would be."""
    parts = urlsplit(url)
    # Signed addresses carry the signature in the query, proxies user and password before `@`.
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
    follow_redirects: bool = True,
    body: bytes | None = None,
    client: httpx2.Client | None = None,
) -> Iterator[httpx2.Response]:
    """One request, the body of its response not yet read; errors inside the block are classified too.

    Args:
        headers: more of them, harmless for any host (Range, If-Range).
        accept: statuses that are answers; all others are errors.
        follow_redirects: False: the redirect itself is the answer (hub metadata).
        body: what is sent, with POST.
        client: one with cookies, say; it stays open.

    Raises:
        Interrupted: time may mend it (connection, timeout, 408, 425, 429, 5xx, an expired signature).
        Refused: any other status.
        AssetError: a redirect loop, a certificate that is not trusted, no address.
    """
    with contextlib.ExitStack() as stack:
        client = client or stack.enter_context(new_http_client())
        stack.enter_context(network_errors(remote))
        response = _send_request(
            client, remote, method, headers or {}, body, follow_redirects=follow_redirects
        )
        stack.callback(response.close)
        if response.status_code not in accept and not (response.is_redirect and not follow_redirects):
            raise _refusal_error(remote, response)
        yield response


def new_http_client(silence_seconds: float = 60, *, direct: bool = False) -> httpx2.Client:
    """A client with our name and time limits; proxies and certificates as the environment says.

    Args:
        silence_seconds: of silence that end a request, unless KOVQA_TIMEOUT_SECONDS says otherwise.
        direct: without a proxy: for this machine itself, which httpx2 would ask a proxy for (docs/surprises.md).
    """
    seconds = _read_seconds("KOVQA_TIMEOUT_SECONDS", silence_seconds)
    # `identity`: a server that compressed a file would change its length and its ranges.
    headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
    # Silence, not length: a download of hours is fine as long as bytes come.
    timeout = httpx2.Timeout(seconds, connect=min(seconds, 20))
    try:
        return httpx2.Client(
            headers=headers, timeout=timeout, verify=_trusted_ssl_context(), trust_env=not direct
        )
    except (ImportError, ValueError, httpx2.InvalidURL):
        # httpx2's own text names the package it replaces (docs/surprises.md), and may show the proxy's password.
        raise SettingsError(
            message("net.proxy-unusable", "the proxy that is set cannot be used"),
            message(
                "net.proxy-unusable.hint",
                "check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY; for a SOCKS proxy: pip install 'httpx2[socks]'",
            ),
        ) from None


def _read_seconds(variable: str, default: float) -> float:
    """A setting in seconds."""
    try:
        return float(os.environ.get(variable, default))
    except ValueError:
        raise SettingsError(
            message(
                "net.seconds-malformed",
                "{variable}={value} is not a number of seconds",
                variable=variable,
                value=os.environ[variable],
            )
        ) from None


@functools.cache
def _trusted_ssl_context() -> ssl.SSLContext:
    return httpx2.create_ssl_context()  # reading all certificates takes as long as a small file


def _send_request(
    client: httpx2.Client,
    remote: RemoteFile,
    method: str,
    headers: Mapping[str, str],
    body: bytes | None,
    *,
    follow_redirects: bool,
) -> httpx2.Response:
    # Redirects are followed here and not by httpx2: it drops Authorization and Cookie at another origin,
    # but passes every other header on, and AI-Hub's key goes in one called `apikey`.
    url, own_headers = remote.url, dict(remote.headers)
    for _ in range(MAX_REDIRECTS):
        if any(name.lower() not in HARMLESS_HEADERS for name in own_headers):
            require_private_channel(url, message("net.your-key", "your key"))
        request = client.build_request(method, url, headers={**own_headers, **headers}, content=body)
        response = client.send(request, stream=True)
        location = response.headers.get("location") if response.is_redirect else None
        if not follow_redirects or not location:
            return response
        target = urljoin(url, location)
        # Once dropped, secrets do not come back, even where a later redirect leads home again.
        if url_origin(target) != url_origin(url):
            own_headers = {
                name: value for name, value in own_headers.items() if name.lower() in HARMLESS_HEADERS
            }
        response.close()
        url = target
    raise AssetError(
        message(
            "net.redirect-loop",
            "{url}: redirected {count} times without arriving",
            url=redact_url(remote.url),
            count=MAX_REDIRECTS,
        ),
        resume_hint(),
    )


@contextlib.contextmanager
def network_errors(remote: RemoteFile) -> Iterator[None]:
    """Turn httpx2's errors into ours; what a server repeats of a secret header is not shown."""
    url = redact_url(remote.url)
    try:
        yield
    except httpx2.TimeoutException:
        raise Interrupted(message("net.timeout", "{url}: no answer in time", url=url)) from None
    except (httpx2.UnsupportedProtocol, httpx2.InvalidURL, ValueError) as error:
        reason = remote.redact_secrets(str(error))
        raise AssetError(
            message(
                "net.url-invalid", "{url}: not an address to fetch from ({reason})", url=url, reason=reason
            )
        ) from None
    except httpx2.RequestError as error:
        reason = remote.redact_secrets(str(error)) or type(error).__name__
        # It arrives as a connection error, which would be tried again; time does not mend a certificate.
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            raise _untrusted_certificate_error(url) from None
        raise Interrupted(
            message("net.failed", "{url}: {reason}", url=url, reason=in_known_words(reason))
        ) from None


def _untrusted_certificate_error(url: str) -> AssetError:
    return AssetError(
        message("net.certificate-untrusted", "{url}: its certificate cannot be trusted", url=url),
        message(
            "net.certificate-untrusted.hint",
            "install the system's ca-certificates; behind a company's proxy, set SSL_CERT_FILE to its certificates",
        ),
    )


def _refusal_error(remote: RemoteFile, response: httpx2.Response) -> AssetError:
    status = response.status_code
    body = b"" if response.request.method == "HEAD" else _read_beginning(response)
    page = remote.redact_secrets(page_text(body))
    text = message(
        "net.refused",
        "{url}: {status} {reason}{page}",
        url=redact_url(remote.url),
        status=status,
        reason=response.reason_phrase,
        page=f" ({page})" if page else "",
    )
    # Signed addresses live for minutes: the original address gives a fresh one.
    expired = status == 403 and response.request.url != httpx2.URL(remote.url)
    if status in RETRY_STATUSES or status >= 500 or expired:
        return Interrupted(text, _retry_after_seconds(response))
    return Refused(text, response)


def _read_beginning(response: httpx2.Response, max_bytes: int = 8192) -> bytes:
    body = b""
    with contextlib.suppress(httpx2.HTTPError):  # the status says enough
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) >= max_bytes:
                break
    return body[:max_bytes]


def _retry_after_seconds(response: httpx2.Response) -> float | None:
    text = response.headers.get("retry-after", "").strip()
    # Retry-After is a number of seconds or a date (RFC 9110, 10.2.3).
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


# ------------------------------------------------------------------------------- retries


def retry_request(
    action: Callable[[], ActionResult],
    on_progress: OnProgress = ignore_progress,
    bytes_done: Callable[[], int] = lambda: 0,
) -> ActionResult:
    """The result of an action, tried again while the network is at fault.

    Waits 1, 2, 4, 8 … seconds (scaled by KOVQA_RETRY_SECONDS, with jitter), or as long as the
    server asks. Only failures in a row without a new byte are counted.

    Args:
        on_progress: shown what failed and how long the wait is.
        bytes_done: how far the action is; a new byte starts the count afresh.

    Raises:
        Interrupted: `MAX_TRIES` times in a row, or the server asks for more than `MAX_WAIT_SECONDS`.
    """
    scale, failures = _read_seconds("KOVQA_RETRY_SECONDS", 1), 0
    while True:
        before = bytes_done()
        try:
            return action()
        except Interrupted as error:
            # A line that breaks every few minutes still finishes a large file: only failures without progress count.
            failures = 1 if bytes_done() > before else failures + 1
            if failures >= MAX_TRIES or (error.wait_seconds or 0) > MAX_WAIT_SECONDS:
                raise
            # Jitter, so that many clients that were cut off together do not return together.
            wait = scale * min(2 ** (failures - 1), 60) * random.uniform(0.5, 1)
            wait = wait if error.wait_seconds is None else error.wait_seconds
            stage = message(
                "net.retrying", "{error}; trying again in {wait:.0f} s", error=error.message, wait=wait
            )
            on_progress(Progress(stage, bytes_done(), unit="bytes"))
            time.sleep(wait)


def read_document(
    remote: RemoteFile, on_progress: OnProgress = ignore_progress, max_bytes: int = 64 << 20
) -> bytes:
    """The bytes of a small document (a listing, a status).

    Raises:
        AssetError: it cannot be had, or is larger than `max_bytes`.
    """

    def read_once() -> bytes:
        with stream_request(remote) as response:
            body = b""
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > max_bytes:
                    raise AssetError(
                        message(
                            "net.document-too-large",
                            "{url}: larger than {limit:,} bytes",
                            url=redact_url(remote.url),
                            limit=max_bytes,
                        )
                    )
            return body

    return retry_request(read_once, on_progress)

"""Google Drive: a file behind pages that ask, warn or refuse, mostly with status 200.

A large file comes after a page that warns of viruses, whose form is sent here as a browser would
send it; anything else that is a page is a refusal, and says which. The address the form leads to
is good for minutes, so every attempt begins at the file's own address. No checksum is published:
ours is kept in the receipt and compared the next time. Where Google has changed its pages so that they are
not understood here, gdown is asked, if it is installed. Source: docs/sources/datasets.md, D14 to D16.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlencode, urljoin, urlsplit

import httpx2

from kovqa_core.bounded_json import parse_json
from kovqa_core.download import drive_gdown, resumable
from kovqa_core.download.members import MemberNames
from kovqa_core.download.part_file import FileReceipt, mismatch_path, part_file_path, read_receipt
from kovqa_core.errors import AssetError, SettingsError
from kovqa_core.messages import message, shell_quote
from kovqa_core.net.pages import page_text
from kovqa_core.net.request import (
    Interrupted,
    RemoteFile,
    new_http_client,
    retry_request,
    stream_request,
)
from kovqa_core.progress import OnProgress, ignore_progress

_FILE_ID = re.compile(r"[\w-]{10,}", re.ASCII)
# Pages between the address and the file: the warning, and once more when the confirmation was not taken.
_MAX_PAGES = 3
_MAX_DRIVE_PAGE_BYTES = 2 << 20  # bytes
_REFUSAL_STATUSES = (401, 403, 404)
# Google shows other pages to what does not look like a browser, and each in the language asked for.
_BROWSER_HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (kovqa)",
    "Accept-Language": "en",
}
# In English, which `_BROWSER_HEADERS` ask for, and in Korean, should Google not follow them.
_QUOTA_PATTERN = re.compile(r"quota|too many users|할당량|사용자가 너무 많", re.IGNORECASE)
# A private file is redirected to a login, so it is the address that says so, not the page.
_LOGIN_PATTERN = re.compile(r"ServiceLogin|//accounts\.google\.com/")
_PRIVATE_PATTERN = re.compile(r"need access|request access|sign in", re.IGNORECASE)
_FOLDER_LINK = re.compile(r"/folders/|drive_folder|folderview", re.IGNORECASE)


@dataclass(frozen=True)
class DriveFile:
    """A file as Google Drive announces it."""

    id: str
    name: str
    size: int | None  # bytes, when announced


class UnknownDrivePage(AssetError):
    """Google Drive answers with a page that is not understood: it may have been changed."""


def drive_file_id(link: str) -> str:
    """The id in a share link (`/file/d/ID/view`, `open?id=ID`, `uc?id=ID`), or the id itself.

    Raises:
        SettingsError: there is none, or it is a folder's.
    """
    parts = urlsplit(link.strip())
    if _FOLDER_LINK.search(parts.path):
        raise SettingsError(
            message("download.drive-folder-link", "{link} is a folder of Google Drive", link=link),
            message("download.drive-folder.hint", "give the link of one file in it"),
        )
    # `/file/d/ID/view` first: such a link may carry a query of its own (`?usp=sharing`).
    in_path = re.search(r"/d/([\w-]+)", parts.path, re.ASCII)
    file_id = in_path[1] if in_path else parse_qs(parts.query).get("id", [link.strip()])[0]
    if not _FILE_ID.fullmatch(file_id):
        raise SettingsError(
            message("download.drive-link-malformed", "no Google Drive file in {link!r}", link=link),
            message("download.drive-link-malformed.hint", "give a file's share link, or its id"),
        )
    return file_id


def resolve_drive_file(link: str, on_progress: OnProgress = ignore_progress) -> DriveFile:
    """Name and size of a file, without fetching it.

    Raises:
        AssetError: Google Drive refuses it; says why.
    """
    file_id = drive_file_id(link)

    def resolve_once() -> DriveFile:
        remote = RemoteFile(_drive_url(file_id))
        with _request_drive_file(
            remote, headers=None, accept=(200,), file_id=file_id, name="the file", asset="NAME"
        ) as response:
            size = response.headers.get("content-length")
            return DriveFile(file_id, _disposition_name(response) or file_id, int(size) if size else None)

    return retry_request(resolve_once, on_progress)


def fetch_drive_file(
    link: str,
    target: Path,
    on_progress: OnProgress = ignore_progress,
    asset: str = "NAME",
    magic: str = "",
    *,
    allow_mismatch: bool = False,
) -> Path:
    """Fetch a file; resume what an earlier attempt left.

    Args:
        link: share link or id.
        target: the file to write, or a folder that exists (the name is then the one at Google Drive).
        asset: what the user calls it, for the advice to fetch it with a browser.
        magic: a key of `checks.FILE_MAGIC`.
        allow_mismatch: take it although it is not the file that was fetched before.

    Raises:
        SettingsError: the link holds no file.
        AssetError: quota, private, deleted or changed; says which. What has arrived is kept.
    """
    file_id = drive_file_id(link)
    if target.is_dir():
        target /= resolve_drive_file(link, on_progress).name
    receipt = read_receipt(target)
    # No checksum is published (docs/sources/datasets.md, D16): the one of the first fetch is what a second must match.
    checksums = {"sha256": receipt.checksums["sha256"]} if receipt else {}
    requester = partial(_request_drive_file, file_id=file_id, name=target.name, asset=asset)
    remote = RemoteFile(_drive_url(file_id), checksums=checksums, magic=magic, requester=requester)
    try:
        try:
            return resumable.fetch_file(remote, target, on_progress, allow_mismatch=allow_mismatch)
        except UnknownDrivePage as error:
            return drive_gdown.fetch_with_gdown(
                file_id, remote, target, error, on_progress, allow_mismatch=allow_mismatch
            )
    # Aside lies a whole file and no part is left: so it was not the network, the file itself differs from the first.
    except AssetError as error:
        if receipt and mismatch_path(target).exists() and not part_file_path(target).exists():
            raise _changed_file_error(target, receipt, error) from None
        raise


def _changed_file_error(target: Path, receipt: FileReceipt, error: AssetError) -> AssetError:
    text = message(
        "download.drive-changed",
        "Google Drive's {file} is not the file fetched on {date} ({mismatch})",
        file=target.name,
        date=receipt.fetched,
        mismatch=error.message,
    )
    return AssetError(text, error.hint)


def _drive_url(file_id: str) -> str:
    endpoint = os.environ.get("KOVQA_DRIVE_ENDPOINT", "https://drive.google.com").rstrip("/")
    return f"{endpoint}/uc?export=download&id={file_id}"


# ------------------------------------------------------------------------------- to the file


@contextlib.contextmanager
def _request_drive_file(
    remote: RemoteFile,
    *,
    headers: Mapping[str, str] | None,
    accept: Container[int],
    file_id: str,
    name: str,
    asset: str,
) -> Iterator[httpx2.Response]:
    """From the file's address through the pages before it: the answer that is the file, unread."""
    # Refusals are read here: only their pages say whether it is the quota, or the file is private or gone.
    statuses = [status for status in range(100, 600) if status in accept or status in _REFUSAL_STATUSES]
    # Without the requester: these requests are made here, and it would call this function again.
    source = replace(remote, requester=None)
    with new_http_client() as client:  # one client for all pages: the warning's cookie must come back
        client.headers.update(_BROWSER_HEADERS)
        for _ in range(_MAX_PAGES):
            with stream_request(source, headers=headers, accept=statuses, client=client) as response:
                if _is_file_answer(response):
                    yield response
                    return
                page = _read_drive_page(response)
            next_url = _next_page_url(page, str(response.url))
            if next_url is None:
                raise _drive_refusal(response, page, file_id, name, asset)
            source = replace(source, url=next_url)
    raise Interrupted(
        message(
            "download.drive-warning-loop",
            "Google Drive showed its virus warning for {file} again and again",
            file=name,
        )
    )


def _is_file_answer(response: httpx2.Response) -> bool:
    if (
        response.status_code == 206
        or response.status_code == 416
        or "content-disposition" in response.headers
    ):
        return response.status_code not in _REFUSAL_STATUSES
    # Without Content-Disposition the type decides: a page is HTML, a refusal of the API JSON.
    content_type = response.headers.get("content-type", "text/html").partition(";")[0]
    return response.status_code == 200 and content_type not in ("text/html", "application/json")


def _disposition_name(response: httpx2.Response) -> str:
    """The name in Content-Disposition (`filename*` of RFC 5987 first), as a bare, safe name."""
    header = response.headers.get("content-disposition", "")
    # `filename*` is percent-encoded UTF-8, `filename` plain ASCII, which has no Hangul.
    encoded = re.search(r"filename\*\s*=\s*UTF-8''([^;\s]+)", header, re.IGNORECASE)
    ascii_name = re.search(r'filename\s*=\s*"?([^";]+)', header, re.IGNORECASE)
    name = unquote(encoded[1]) if encoded else ascii_name[1] if ascii_name else ""
    # The name is a server's word: the same rules as for an archive's members, and no folders.
    return MemberNames("Google Drive").claim_path(name).replace("/", "_") if name else ""


def _read_drive_page(response: httpx2.Response) -> str:
    body = b""
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > _MAX_DRIVE_PAGE_BYTES:
            raise AssetError(
                message("download.drive-long-page", "Google Drive sent a very long page instead of the file"),
                message("download.try-later.hint", "try again later"),
            )
    return body.decode("utf-8", "replace")


@dataclass
class _DrivePage(HTMLParser):
    """What matters of a page: the form that leads to the file, and links."""

    action: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    links: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        # Google has used both ids; other forms of the page lead elsewhere.
        if tag == "form" and values.get("id") in ("download-form", "downloadForm"):
            self.action = values.get("action", "")
        # Hidden fields of that form alone: `confirm` and `uuid` are what the file is given for.
        elif tag == "input" and self.action and values.get("type") == "hidden":
            self.inputs[values.get("name", "")] = values.get("value", "")
        elif tag == "a":
            self.links.append(values.get("href", ""))


def _next_page_url(text: str, base: str) -> str | None:
    """Where a page leads on to the file: its form, a legacy link with `confirm`, or JSON's `downloadUrl`."""
    page = _DrivePage()
    page.feed(text)
    if page.action:
        action = urljoin(base, page.action)
        return f"{action}{'&' if '?' in action else '?'}{urlencode(page.inputs)}" if page.inputs else action
    # Older pages: a link that carries the confirmation (docs/sources/datasets.md, D14).
    for link in page.links:
        if "confirm=" in link and "export=download" in link:
            return urljoin(base, link)
    # A JSON text up to its own quotation mark: escaped ones (`\"`) do not end it.
    if (in_json := re.search(r'"downloadUrl"\s*:\s*("(?:[^"\\]|\\.)*")', text)) is not None:
        return urljoin(base, parse_json(in_json[1]))
    return None


# ------------------------------------------------------------------------------- refusals


def _drive_refusal(response: httpx2.Response, page: str, file_id: str, name: str, asset: str) -> AssetError:
    """What a page says that is not the file and does not lead to it."""
    browser_url = f"https://drive.google.com/file/d/{file_id}/view"
    adopt_command = f"kovqa download {asset} --from {shell_quote(name)}"
    text = page_text(page.encode())
    # The text before the status: a used-up quota comes with status 200 (docs/sources/datasets.md, D15).
    if _QUOTA_PATTERN.search(page):
        return _quota_error(name, browser_url, adopt_command)
    if response.status_code == 404:
        return AssetError(
            message(
                "download.drive-missing",
                "Google Drive has no file {id} ({file}): deleted, or a wrong id",
                id=file_id,
                file=name,
            ),
            message("download.drive-missing.hint", "look at {url}", url=browser_url),
        )
    sign_in = response.status_code in (401, 403) or _LOGIN_PATTERN.search(str(response.url))
    if not sign_in and _FOLDER_LINK.search(f"{response.url} {page}"):
        return AssetError(
            message("download.drive-folder", "{id} is a folder of Google Drive", id=file_id),
            message("download.drive-folder.hint", "give the link of one file in it"),
        )
    if sign_in or _PRIVATE_PATTERN.search(text):
        return _private_file_error(file_id, name, browser_url, adopt_command)
    return UnknownDrivePage(
        message(
            "download.drive-page", "Google Drive sent a page instead of {file}: {page}", file=name, page=text
        ),
        message(
            "download.drive-page.hint",
            "open {url} in a browser, then run: {command}",
            url=browser_url,
            command=adopt_command,
        ),
    )


def _quota_error(name: str, browser_url: str, adopt_command: str) -> AssetError:
    return AssetError(
        message(
            "download.drive-quota",
            "Google Drive's quota for {file} is used up: too many downloads by others, for up to 24 hours",
            file=name,
        ),
        message(
            "download.drive-quota.hint",
            "open {url} in a browser where you are logged in, save {file}, then run: {command}; "
            "or run the same command again tomorrow: what is here is kept",
            url=browser_url,
            file=name,
            command=adopt_command,
        ),
    )


def _private_file_error(file_id: str, name: str, browser_url: str, adopt_command: str) -> AssetError:
    return AssetError(
        message(
            "download.drive-private",
            "Google Drive's file {id} ({file}) is private",
            id=file_id,
            file=name,
        ),
        message(
            "download.drive-private.hint",
            "ask its owner for access, save it from {url} while logged in, then run: {command}",
            url=browser_url,
            command=adopt_command,
        ),
    )

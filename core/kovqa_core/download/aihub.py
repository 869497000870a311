"""AI-Hub (aihub.or.kr): the file tree of a data set, and its files, one request each.

The service answers most things with status 502, good ones too, so only the body is believed. There
is no checksum, and Range is reported not to work: what can be checked is the tar itself, and a cut
file begins again while finished ones are never asked for twice. Source: docs/sources/datasets.md, D6 to D10.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx2

from kovqa_core.download import tar
from kovqa_core.download.aihub_assemble import receive_tar
from kovqa_core.download.checks import HEAD_BYTES, has_magic, is_web_page
from kovqa_core.download.members import MemberNames, check_disk_space
from kovqa_core.download.part_file import locked_part_file
from kovqa_core.errors import AssetError, unknown_name_error
from kovqa_core.files import make_folder, read_json, to_nfc, write_json
from kovqa_core.messages import message
from kovqa_core.net.api_keys import read_api_key
from kovqa_core.net.pages import page_text
from kovqa_core.net.request import DownloadProgress, Interrupted, RemoteFile, retry_request, stream_request

_ANY_STATUS = range(100, 600)
_MAX_TREE_BYTES = 16 << 20  # bytes of a file tree; the largest set has some thousand files
_SIZE_UNITS = {"B": 0, "KB": 1, "MB": 2, "GB": 3, "TB": 4}
_TREE_BRANCH = re.compile(r"^[\s│|]*(?P<sign>[├└])─+\s?(?P<name>.*)$")
_SIZE_PATTERN = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]?B)", re.IGNORECASE)
_UUID_PATTERN = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


@dataclass(frozen=True)
class AihubFile:
    """One file of a data set."""

    number: int  # AI-Hub's file key
    path: str  # folders and name, NFC
    size: int  # bytes, rounded by AI-Hub to a whole unit: a hint


# ------------------------------------------------------------------------------------ tree


def list_aihub_files(key: int) -> list[AihubFile]:
    """The files of a data set; no API key is needed.

    Raises:
        AssetError: AI-Hub does not show them, or cannot be reached.
    """
    return retry_request(lambda: _fetch_file_tree(key))


def _fetch_file_tree(key: int) -> list[AihubFile]:
    with stream_request(RemoteFile(f"{_aihub_endpoint()}/info/{key}.do"), accept=_ANY_STATUS) as response:
        body = _BodyStream(response.iter_bytes()).read(_MAX_TREE_BYTES)
        entries = parse_file_tree(body.decode("utf-8-sig", "replace"))
        if not entries:
            raise _aihub_refusal(key, response, body, "")
    return entries


def parse_file_tree(text: str) -> list[AihubFile]:
    """The entries of AI-Hub's drawing of a file tree (docs/sources/datasets.md, D8)."""
    entries: list[AihubFile] = []
    folders: list[str] = []
    notice = False
    for line in text.splitlines():
        rule = line.strip()
        if rule.strip("=") in ("", "공지사항") and rule.startswith("==="):
            notice = not notice and "공지사항" in rule
        branch = _TREE_BRANCH.match(line)
        if notice or not branch:
            continue
        depth = branch.start("sign") // 4  # columns: a name may begin with blanks, so they tell nothing
        name = to_nfc(branch["name"].strip())
        cells = [cell.strip() for cell in name.rsplit("|", 2)]
        size = _SIZE_PATTERN.fullmatch(cells[1]) if len(cells) == 3 and cells[2].isdecimal() else None
        if size:
            path = "/".join([*folders[:depth], cells[0]])
            number = float(size["number"]) * 1024 ** _SIZE_UNITS[size["unit"].upper()]
            entries.append(AihubFile(int(cells[2]), path, int(number)))
        else:
            folders = [*folders[:depth], name]
    return entries


# ----------------------------------------------------------------------------------- files


def fetch_aihub_files(
    key: int, folder: Path, files: Sequence[int] | None = None, told: DownloadProgress | None = None
) -> list[Path]:
    """Fetch files of a data set; those that are here are not asked for again.

    Args:
        key: the data set's number.
        folder: where the files go, below the folders AI-Hub has them in.
        files: file keys (`tree` lists them); all by default.
        told: hears bytes done and bytes expected, by AI-Hub's rounded sizes.

    Returns:
        The files, sorted.

    Raises:
        SettingsError: no API key, or a file key the set does not have.
        MachineError: the disk has no room.
        AssetError: AI-Hub refuses (says why, and which page to visit), or the network fails.
        DataError: what came is not safe to write.
    """
    secret = read_api_key("AI-Hub", "AIHUB_APIKEY", "aihub.key", "https://aihub.or.kr")
    entries = retry_request(lambda: _fetch_file_tree(key), told)
    wanted = _select_files(key, entries, files)
    record = _record_path(make_folder(folder), key)
    with locked_part_file(record, told):
        finished, renamed = _read_record(record, folder)
        missing = [entry for entry in wanted if str(entry.number) not in finished]
        total, begun = sum(entry.size for entry in missing), 0
        check_disk_space(folder, total)
        for count, entry in enumerate(missing):
            job = _FileJob(key, entry.number, folder, secret, begun, total, told)
            try:
                finished[str(entry.number)] = retry_request(
                    partial(_download_file, job, finished, renamed), told
                )
            except Interrupted as error:
                here = len(wanted) - len(missing) + count
                raise AssetError(
                    f"{error.message}; {here} of {len(wanted)} files are here", error.hint
                ) from None
            write_json(record, {"dataset": key, "finished": finished, "renamed": renamed})
            begun += entry.size
    return sorted(folder / path for entry in wanted for path in finished[str(entry.number)])


_FinishedFiles = dict[str, dict[str, int]]  # file key -> path -> bytes


@dataclass(frozen=True)
class _FileJob:
    """One file key on its way."""

    key: int
    number: int
    folder: Path
    secret: str = field(repr=False)
    begun: int  # bytes expected of those before it
    total: int  # bytes expected in all
    told: DownloadProgress | None

    def heard(self, done: int, total: int, note: str = "") -> None:
        """Tell what came of this file as a part of all."""
        if self.told:
            self.told(self.begun + done, max(self.total, self.begun + done), note)


def _select_files(key: int, entries: Sequence[AihubFile], files: Sequence[int] | None) -> list[AihubFile]:
    known = {entry.number: entry for entry in entries}
    for number in files or ():
        if number not in known:
            raise unknown_name_error(
                message("download.unknown-file-key", "unknown file key '{number}'", number=number),
                str(number),
                map(str, known),
                f"of AI-Hub's data set {key}; see {_dataset_page(key)}",
            )
    return list(known.values()) if files is None else [known[number] for number in dict.fromkeys(files)]


def _record_path(folder: Path, key: int) -> Path:
    return folder / f".aihub-{key}.json"


def _read_record(record: Path, folder: Path) -> tuple[_FinishedFiles, dict[str, str]]:
    """What earlier runs have brought and is still here; and our name -> AI-Hub's, where they differ."""

    def is_here(path: str, size: int) -> bool:
        file = folder / path
        return file.is_file() and file.stat().st_size == size

    known = read_json(record) if record.exists() else {"finished": {}, "renamed": {}}
    files: _FinishedFiles = known["finished"]
    here = {key: paths for key, paths in files.items() if all(is_here(*item) for item in paths.items())}
    return here, known["renamed"]


def _download_file(job: _FileJob, finished: _FinishedFiles, renamed: dict[str, str]) -> dict[str, int]:
    """One request for one file key: its tar, written as it comes."""
    what = f"AI-Hub {job.key}, file {job.number}"
    staging, record = job.folder / f".aihub-{job.key}.part", _record_path(job.folder, job.key)
    names = MemberNames(what)
    names.place(staging.name)
    names.place(record.name)
    for number, paths in finished.items():
        for path in paths if number != str(job.number) else ():
            names.place(path)
    address = f"{_aihub_endpoint()}/down/{_protocol_version()}/{job.key}.do?fileSn={job.number}"
    try:
        with stream_request(
            RemoteFile(address, headers={"apikey": job.secret}), accept=_ANY_STATUS
        ) as response:
            stream = _BodyStream(response.iter_bytes())
            if not has_magic(stream.peek(HEAD_BYTES), "tar"):
                raise _aihub_refusal(job.key, response, stream.read(_MAX_TREE_BYTES), job.secret)
            came = receive_tar(stream, job.folder, staging, names, job.heard)
            renamed.update(names.renamed)
            return came
    except tar.Cut as error:
        raise Interrupted(error.message) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


class _BodyStream:
    """The bytes of an answer, read as a file is."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = bytearray()

    def peek(self, size: int) -> bytes:
        """The next bytes, fewer at the end; they stay to be read."""
        while len(self._buffer) < size and (chunk := next(self._chunks, b"")):
            self._buffer += chunk
        return bytes(self._buffer[:size])

    def read(self, size: int, /) -> bytes:
        """The next bytes, fewer at the end."""
        data = self.peek(size)
        del self._buffer[:size]
        return data


# ------------------------------------------------------------------------------------ refusals


def classify_aihub_answer(status: int, body: bytes) -> str:
    """What an answer that is no data means (docs/sources/datasets.md, D6): the status says little, the text decides."""
    by_status = {401: "bad_key", 403: "no_such_file", 404: "no_such_file"}.get(status, "")
    if not body.strip():
        return by_status or "empty"
    if is_web_page(body):
        return "html"
    text = to_nfc(_decode_body(body)).lower()
    for kind, words in _REFUSAL_WORDS.items():
        if re.search(words, text):
            return kind
    return by_status or "unknown"


_REFUSAL_WORDS = {
    "expired": "유효기간.*만료|만료.*유효기간|expired",
    "old_version": "aihubshell|최신 ?버전|새로운 버전|newer version",
    "not_approved": "신청.*승인|승인.*신청|approv",
    "no_such_file": "존재하지|찾을 수 없|not found|no such",
    "bad_key": "인증|권한|api|키|key",
}

_REFUSAL_MEANINGS = {
    "expired": ("the approval has run out", "apply again at {page}"),
    "old_version": (
        "AI-Hub wants a newer protocol than {version}",
        "set KOVQA_AIHUB_VERSION to the version of the newest aihubshell, or update kovqa",
    ),
    "not_approved": ("you are not approved for this data set", "log in, apply and wait for the approval at {page}"),
    "no_such_file": ("withdrawn, not open, or no such file", "look whether it is still offered at {page}"),
    "bad_key": (
        "the API key was refused", "see that AIHUB_APIKEY is the key AI-Hub mailed to you; ask for a new one at {page}"
    ),
    "html": ("a web page came instead of data", "AI-Hub may be under maintenance; look at {page} and run it again"),
    "empty": ("an empty answer", "run the same command again later; see {page}"),
    "unknown": ("an answer that is no data", "see {page}, and run the same command again"),
}  # fmt: skip
_TRANSIENT_REFUSALS = {"html", "empty", "unknown"}


def _aihub_refusal(key: int, response: httpx2.Response, body: bytes, secret: str) -> AssetError:
    kind = classify_aihub_answer(response.status_code, body)
    means, hint = (
        text.format(page=_dataset_page(key), version=_protocol_version()) for text in _REFUSAL_MEANINGS[kind]
    )
    said = _mask_keys(page_text(_decode_body(body).encode()), secret)
    message = f"AI-Hub {key}: {means} ({kind}, status {response.status_code})" + (f": {said}" if said else "")
    may_pass = kind in _TRANSIENT_REFUSALS and (kind == "empty" or response.status_code >= 500)
    error = Interrupted(message) if may_pass else AssetError(message)
    error.hint = hint
    return error


def _decode_body(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return body.decode("cp949", "replace")


def _mask_keys(text: str, secret: str) -> str:
    """A text without anything that looks like a key, in case the service repeats ours."""
    return _UUID_PATTERN.sub("***", text.replace(secret, "***") if secret else text)


# ------------------------------------------------------------------------------------ settings


def _aihub_endpoint() -> str:
    return os.environ.get("KOVQA_AIHUB_ENDPOINT", "https://api.aihub.or.kr").rstrip("/")


def _protocol_version() -> str:
    return os.environ.get("KOVQA_AIHUB_VERSION", "0.6")


def _dataset_page(key: int) -> str:
    return f"https://aihub.or.kr/aihubdata/data/dwld.do?dataSetSn={key}"

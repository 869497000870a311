"""AI-Hub (aihub.or.kr): the file tree of a data set, and its files, one request each.

The service answers most things with status 502, good ones too, so only the body is believed. There
is not a checksum, and Range is reported not to work: what can be checked is the tar itself, and a cut
file begins again while finished ones are never asked for twice. Source: docs/sources/datasets.md, D6 to D10.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from kovqa_core.data import tar_stream as tar
from kovqa_core.download.aihub_assemble import receive_tar
from kovqa_core.download.aihub_refusals import aihub_refusal_error, dataset_page, protocol_version
from kovqa_core.download.checks import HEAD_BYTES, has_magic
from kovqa_core.download.members import MemberNames, check_disk_space
from kovqa_core.download.part_file import download_lock
from kovqa_core.errors import AssetError, unknown_name_error
from kovqa_core.files import make_folder, read_json, to_nfc, write_json
from kovqa_core.messages import Message, message
from kovqa_core.net.api_keys import read_api_key
from kovqa_core.net.request import Interrupted, RemoteFile, retry_request, stream_request
from kovqa_core.progress import OnProgress, Progress, ignore_progress

# Every status is let through: only the body says whether it is data (docs/sources/datasets.md, D6).
_ANY_STATUS = range(100, 600)
_MAX_TREE_BYTES = 16 << 20  # bytes of a file tree; the largest set has some thousand files
_SIZE_UNITS = {"B": 0, "KB": 1, "MB": 2, "GB": 3, "TB": 4}
# Spaces and upright lines of the levels above, the branch sign, its dash; then the name, which may begin with a space.
_TREE_BRANCH = re.compile(r"^[\s│|]*(?P<sign>[├└])─+\s?(?P<name>.*)$")
_SIZE_PATTERN = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]?B)", re.IGNORECASE)


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
            raise aihub_refusal_error(key, response, body, "")
    return entries


def parse_file_tree(text: str) -> list[AihubFile]:
    """The entries of AI-Hub's drawing of a file tree (docs/sources/datasets.md, D8).

    A line is a file when its last two cells are a size and a number, else a folder, whose depth is the column
    of its branch: `│   ├─ 동물.zip | 1 KB | 7`.
    """
    entries: list[AihubFile] = []
    folders: list[str] = []
    notice = False
    for line in text.splitlines():
        # A notice stands between `===공지사항===` and the next line of `=`: a branch sign inside it is text.
        rule = line.strip()
        if rule.strip("=") in ("", "공지사항") and rule.startswith("==="):
            notice = not notice and "공지사항" in rule
        branch = _TREE_BRANCH.match(line)
        if notice or not branch:
            continue
        depth = branch.start("sign") // 4  # columns: a name may begin with spaces, so those say nothing
        name = to_nfc(branch["name"].strip())
        # From the right: a name may hold `|` itself.
        cells = [cell.strip() for cell in name.rsplit("|", 2)]
        size = _SIZE_PATTERN.fullmatch(cells[1]) if len(cells) == 3 and cells[2].isdecimal() else None
        if size:
            path = "/".join([*folders[:depth], cells[0]])
            number = float(size["number"]) * 1024 ** _SIZE_UNITS[size["unit"].upper()]
            entries.append(AihubFile(int(cells[2]), path, int(number)))
        else:
            # A folder ends those of its depth and below, as a line of the drawing does.
            folders = [*folders[:depth], name]
    return entries


# ----------------------------------------------------------------------------------- files


def fetch_aihub_files(
    key: int,
    folder: Path,
    file_keys: Sequence[int] | None = None,
    on_progress: OnProgress = ignore_progress,
) -> list[Path]:
    """Fetch files of a data set; those that are here are not asked for again.

    Args:
        key: the data set's number.
        folder: where the files go, below the folders AI-Hub has them in.
        file_keys: `list_aihub_files` has them; all by default.
        on_progress: called with bytes done and bytes expected, by AI-Hub's rounded sizes.

    Returns:
        The files, sorted.

    Raises:
        SettingsError: no API key, or a file key the set does not have.
        MachineError: the disk has no room.
        AssetError: AI-Hub refuses (says why, and which page to visit), or the network fails.
        DataError: what came is not safe to write.
    """
    secret = read_api_key("AI-Hub", "AIHUB_APIKEY", "aihub.key", "https://aihub.or.kr")
    entries = retry_request(lambda: _fetch_file_tree(key), on_progress)
    wanted = _select_files(key, entries, file_keys)
    # The lock is on the record: two runs with different file keys write the same record.
    record_path = _record_path(make_folder(folder), key)
    with download_lock(record_path, on_progress):
        record = _read_record(record_path, folder, key)
        missing = [entry for entry in wanted if str(entry.number) not in record.finished]
        total, begun = sum(entry.size for entry in missing), 0
        # Before the first byte, though sizes are rounded: a full disk after hours helps nobody.
        check_disk_space(folder, total)
        for number, entry in enumerate(missing):
            job = _FileJob(key, entry.number, folder, secret, begun, total, on_progress)
            try:
                record.finished[str(entry.number)] = retry_request(
                    partial(_download_file, job, record), on_progress
                )
            except Interrupted as error:
                raise _interrupted_error(error, len(wanted) - len(missing) + number, len(wanted)) from None
            # Written down after each file: a kill loses no more than the file on its way.
            write_json(record_path, asdict(record))
            begun += entry.size
    return sorted(folder / path for entry in wanted for path in record.finished[str(entry.number)])


def _interrupted_error(error: Interrupted, present: int, total: int) -> AssetError:
    text = message(
        "download.aihub-interrupted",
        "{error}; {here} of {total} files are here",
        error=error.message,
        here=present,
        total=total,
    )
    return AssetError(text, error.hint)


@dataclass
class AihubRecord:
    """The file `.aihub-KEY.json`: what of a data set is here. Grows while it is fetched.

    Attributes:
        dataset: its number.
        finished: file key -> path below the folder -> bytes.
        renamed: our name -> AI-Hub's, where they differ.
    """

    dataset: int
    finished: dict[str, dict[str, int]] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _FileJob:
    """One file key on its way."""

    key: int
    number: int
    folder: Path
    secret: str = field(repr=False)
    begun: int  # bytes expected of those before it
    total: int  # bytes expected in all
    on_progress: OnProgress

    @property
    def name(self) -> Message:
        """What to call it."""
        return message("download.aihub-file", "AI-Hub {key}, file {number}", key=self.key, number=self.number)

    def show_bytes(self, done: int) -> None:
        """Report what came of this file as a part of all; AI-Hub's sizes are rounded, so all may be more."""
        done += self.begun
        self.on_progress(Progress(self.name, done, max(self.total, done), "bytes"))


def _select_files(key: int, entries: Sequence[AihubFile], file_keys: Sequence[int] | None) -> list[AihubFile]:
    known = {entry.number: entry for entry in entries}
    for number in file_keys or ():
        if number not in known:
            raise unknown_name_error(
                message("download.unknown-file-key", "unknown file key '{number}'", number=number),
                str(number),
                map(str, known),
                message(
                    "download.unknown-file-key.hint",
                    "of AI-Hub's data set {key}; see {page}",
                    key=key,
                    page=dataset_page(key),
                ),
            )
    if file_keys is None:
        return list(known.values())
    # Each once, in the order asked for: a key named twice is one file.
    return [known[number] for number in dict.fromkeys(file_keys)]


def _record_path(folder: Path, key: int) -> Path:
    return folder / f".aihub-{key}.json"


def _read_record(path: Path, folder: Path, key: int) -> AihubRecord:
    """What earlier runs have fetched and is still here."""

    def is_here(name: str, size: int) -> bool:
        file = folder / name
        return file.is_file() and file.stat().st_size == size

    record = AihubRecord(**read_json(path)) if path.exists() else AihubRecord(key)
    # A file that is gone, or has another size, takes all files of its key with it: they come in one tar.
    record.finished = {
        number: files
        for number, files in record.finished.items()
        if all(is_here(name, size) for name, size in files.items())
    }
    return record


def _download_file(job: _FileJob, record: AihubRecord) -> dict[str, int]:
    """One request for one file key: its tar, written as it comes; path below the folder -> bytes."""
    staging = job.folder / f".aihub-{job.key}.part"
    names = MemberNames(job.name)
    # Members must collide neither with our own files nor with what other file keys brought.
    names.claim_path(staging.name)
    names.claim_path(_record_path(job.folder, job.key).name)
    for number, paths in record.finished.items():
        for path in paths if number != str(job.number) else ():
            names.claim_path(path)
    url = f"{_aihub_endpoint()}/down/{protocol_version()}/{job.key}.do?fileSn={job.number}"
    remote = RemoteFile(url, headers={"apikey": job.secret})
    try:
        with stream_request(remote, accept=_ANY_STATUS) as response:
            stream = _BodyStream(response.iter_bytes())
            # Not the status: good answers come with 502 too.
            if not has_magic(stream.peek(HEAD_BYTES), "tar"):
                raise aihub_refusal_error(job.key, response, stream.read(_MAX_TREE_BYTES), job.secret)
            written = receive_tar(stream, job.folder, staging, names, job.show_bytes)
            record.renamed.update(names.renamed)
            return written
    # A cut stream looks finished (docs/sources/datasets.md, D10): only the tar shows it, and trying again may help.
    except tar.TarCutShort as error:
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


def _aihub_endpoint() -> str:
    return os.environ.get("KOVQA_AIHUB_ENDPOINT", "https://api.aihub.or.kr").rstrip("/")

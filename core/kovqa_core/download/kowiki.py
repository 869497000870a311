"""Korean Wikipedia: the newest finished dump, by its date. Source: docs/sources/datasets.md, D20.

`latest` may move while a download is resumed, so the date comes first: the one asked for, the one
whose `.part` is here, or the newest that is finished. Files are then fetched by their dated addresses,
one after the other (Wikimedia allows two connections).
"""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel

from kovqa_core.bounded_json import parse_json
from kovqa_core.download.table import Asset, endpoint_url
from kovqa_core.errors import AssetError, SettingsError
from kovqa_core.messages import message
from kovqa_core.net.request import Refused, RemoteFile, read_document
from kovqa_core.progress import OnProgress, ignore_progress

# With or without dashes: the two layouts differ.
_DUMP_DATE = re.compile(r"\d{4}-?\d{2}-?\d{2}")
_DUMP_JOBS = {"articles": "articlesdump", "multistream": "articlesmultistreamdump"}
_DUMP_FILE_NAMES = {
    "articles": ("kowiki-{}-pages-articles.xml.bz2",),
    "multistream": (
        "kowiki-{}-pages-articles-multistream.xml.bz2",
        "kowiki-{}-pages-articles-multistream-index.txt.bz2",
    ),
}


class DumpFile(BaseModel):
    """A file of a dump, as `dumpstatus.json` lists it."""

    size: int | None = None
    sha1: str = ""
    md5: str = ""


class DumpJob(BaseModel):
    """What makes some of a dump's files, as `dumpstatus.json` has it."""

    status: str = ""
    files: dict[str, DumpFile] = {}


def kowiki_remotes(
    asset: Asset, folder: Path, on_progress: OnProgress = ignore_progress
) -> dict[str, RemoteFile]:
    """The files of a dump: name -> where, how large, which checksum.

    Args:
        folder: where unfinished parts of an earlier attempt may lie.

    Raises:
        SettingsError: the pinned date is not a date.
        AssetError: no finished dump; or the pinned one is not there.
    """
    list_files = _new_layout_files if asset.dump == "content" else _old_layout_files
    if asset.pin:
        if not _DUMP_DATE.fullmatch(asset.pin):
            raise SettingsError(
                message("download.dump-date-malformed", "{date} is not a date of a dump", date=asset.pin),
                message("download.dump-date-malformed.hint", "like {asset}@20260101", asset=asset.name),
            )
        remotes = list_files(asset.dump, asset.pin, on_progress)
        if not remotes:
            raise AssetError(
                message(
                    "download.dump-missing",
                    "the dump of {date} is not finished or no longer kept",
                    date=asset.pin,
                ),
                message("download.dump-missing.hint", "choose another date"),
            )
        return remotes
    # A dump begun here comes first, although a newer one may be finished: its part can be resumed.
    for date in [*_begun_dates(asset.dump, folder), *_list_dump_dates(asset.dump, on_progress)]:
        if remotes := list_files(asset.dump, date, on_progress):
            return remotes
    raise AssetError(
        message("download.no-dump", "{url} has no finished dump of kowiki", url=endpoint_url("kowiki")),
        message("download.no-dump.hint", "try again tomorrow"),
    )


def _dump_base_url(dump: str) -> str:
    return f"{endpoint_url('kowiki')}/" + (
        "other/mediawiki_content_current/kowiki" if dump == "content" else "kowiki"
    )


def _list_dump_dates(dump: str, on_progress: OnProgress) -> list[str]:
    """Dates of all dumps there, newest first."""
    listing = read_document(RemoteFile(f"{_dump_base_url(dump)}/"), on_progress).decode(errors="replace")
    return sorted(set(re.findall(rf'href="({_DUMP_DATE.pattern})/?"', listing)), reverse=True)


def _begun_dates(dump: str, folder: Path) -> list[str]:
    """Dates of dumps whose `.part` lies here."""
    patterns = [name.format("*") for name in _DUMP_FILE_NAMES.get(dump, ("kowiki-*-p*.xml.bz2",))]
    names = [path.name for pattern in patterns for path in folder.glob(pattern + ".part")]
    return sorted({match[0] for name in names if (match := _DUMP_DATE.search(name))}, reverse=True)


def _old_layout_files(dump: str, date: str, on_progress: OnProgress) -> dict[str, RemoteFile]:
    """Files of a dump in the old layout; empty when it is not finished or not there."""
    date = date.replace("-", "")
    base = f"{_dump_base_url(dump)}/{date}"
    try:
        status = parse_json(read_document(RemoteFile(f"{base}/dumpstatus.json"), on_progress))
        job = DumpJob.model_validate(status["jobs"][_DUMP_JOBS[dump]])
    except Refused:
        return {}
    except (ValueError, KeyError, TypeError):  # pydantic's error is a ValueError
        raise AssetError(
            message("download.dump-status-malformed", "{url}/dumpstatus.json has another form", url=base),
            message("download.dump-status-malformed.hint", "look at the address in a browser"),
        ) from None
    # A dump in progress has an address already, and files that still grow.
    if job.status != "done":
        return {}
    names = [name.format(date) for name in _DUMP_FILE_NAMES[dump]]
    listed = {name: job.files.get(name, DumpFile()) for name in names}
    md5sums = {} if all(file.sha1 for file in listed.values()) else _fetch_md5sums(base, date, on_progress)
    return {name: _dump_remote(f"{base}/{name}", file, md5sums.get(name)) for name, file in listed.items()}


def _dump_remote(url: str, file: DumpFile, md5: str | None) -> RemoteFile:
    checksums = {name: value for name, value in (("sha1", file.sha1), ("md5", file.md5)) if value}
    checksums = checksums or ({"md5": md5} if md5 else {})
    return RemoteFile(url, file.size, checksums, "bzip2")


def _fetch_md5sums(base: str, date: str, on_progress: OnProgress) -> dict[str, str]:
    """Dated name -> md5, as published beside the files."""
    return _parse_checksums(read_document(RemoteFile(f"{base}/kowiki-{date}-md5sums.txt"), on_progress))


def _parse_checksums(text: bytes) -> dict[str, str]:
    rows = (line.split(maxsplit=1) for line in text.decode().splitlines())
    # `md5sum` writes ` *NAME` for binary files, and some lists have `./NAME`.
    return {row[1].strip().lstrip("*./"): row[0] for row in rows if len(row) == 2}


def _new_layout_files(dump: str, date: str, on_progress: OnProgress) -> dict[str, RemoteFile]:
    """Files of a dump in the new layout; empty when it is not finished or not there."""
    base = f"{_dump_base_url(dump)}/{date}/xml/bzip2"
    try:
        # This empty file appears last: without it the folder is still being filled (docs/sources/datasets.md, D20).
        read_document(RemoteFile(f"{base}/_SUCCESS"), on_progress)
        checksums = _parse_checksums(read_document(RemoteFile(f"{base}/SHA256SUMS"), on_progress))
    except Refused:
        return {}
    # A name is a server's word: no slash, so that no file leaves its folder.
    names = sorted(name for name in checksums if re.fullmatch(r"[\w.-]+\.bz2", name))
    return {
        name: RemoteFile(f"{base}/{name}", checksums={"sha256": checksums[name]}, magic="bzip2")
        for name in names
    }

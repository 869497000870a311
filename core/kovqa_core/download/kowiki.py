"""Korean Wikipedia: the newest finished dump, by its date. Source: docs/sources/datasets.md, D20.

`latest` may move while a download is resumed, so the date comes first: the one asked for, the one
whose part is here, or the newest that is finished. Files are then fetched by their dated addresses,
one after the other (Wikimedia allows two connections).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from kovqa_core.download.table import Asset, endpoint_url
from kovqa_core.errors import AssetError, SettingsError
from kovqa_core.net.request import DownloadProgress, Refused, RemoteFile, read_document

_DUMP_DATE = re.compile(r"\d{4}-?\d{2}-?\d{2}")
_DUMP_JOBS = {"articles": "articlesdump", "multistream": "articlesmultistreamdump"}
_DUMP_FILE_NAMES = {
    "articles": ("kowiki-{}-pages-articles.xml.bz2",),
    "multistream": (
        "kowiki-{}-pages-articles-multistream.xml.bz2",
        "kowiki-{}-pages-articles-multistream-index.txt.bz2",
    ),
}


def kowiki_remotes(asset: Asset, folder: Path, told: DownloadProgress | None = None) -> dict[str, RemoteFile]:
    """The files of a dump: name -> where, how large, which checksum.

    Args:
        folder: where unfinished parts of an earlier attempt may lie.

    Raises:
        SettingsError: the pinned date is no date.
        AssetError: no finished dump; or the pinned one is not there.
    """
    files = _new_layout_files if asset.dump == "content" else _old_layout_files
    if asset.pin:
        if not _DUMP_DATE.fullmatch(asset.pin):
            raise SettingsError(f"{asset.pin} is no date of a dump", f"like {asset.name}@20260101")
        found = files(asset.dump, asset.pin, told)
        if not found:
            raise AssetError(
                f"the dump of {asset.pin} is not finished or no longer kept", "choose another date"
            )
        return found
    for date in [*_begun_dates(asset.dump, folder), *_list_dump_dates(asset.dump, told)]:
        if found := files(asset.dump, date, told):
            return found
    raise AssetError(f"{endpoint_url('kowiki')} has no finished dump of kowiki", "try again tomorrow")


def _dump_base_url(dump: str) -> str:
    return f"{endpoint_url('kowiki')}/" + (
        "other/mediawiki_content_current/kowiki" if dump == "content" else "kowiki"
    )


def _list_dump_dates(dump: str, told: DownloadProgress | None) -> list[str]:
    """Dates of all dumps there, newest first."""
    listing = read_document(RemoteFile(f"{_dump_base_url(dump)}/"), told).decode(errors="replace")
    return sorted(set(re.findall(rf'href="({_DUMP_DATE.pattern})/?"', listing)), reverse=True)


def _begun_dates(dump: str, folder: Path) -> list[str]:
    """Dates of which a part lies here."""
    patterns = [name.format("*") for name in _DUMP_FILE_NAMES.get(dump, ("kowiki-*-p*.xml.bz2",))]
    parts = [path.name for pattern in patterns for path in folder.glob(pattern + ".part")]
    return sorted({found[0] for name in parts if (found := _DUMP_DATE.search(name))}, reverse=True)


def _old_layout_files(dump: str, date: str, told: DownloadProgress | None) -> dict[str, RemoteFile]:
    """Files of a dump in the old layout; empty when it is not finished or not there."""
    date = date.replace("-", "")
    base = f"{_dump_base_url(dump)}/{date}"
    try:
        job = json.loads(read_document(RemoteFile(f"{base}/dumpstatus.json"), told))["jobs"][_DUMP_JOBS[dump]]
    except Refused:
        return {}
    except (ValueError, KeyError, TypeError):
        raise AssetError(
            f"{base}/dumpstatus.json is not what it was", "see the address in a browser"
        ) from None
    if job.get("status") != "done":
        return {}
    names = [name.format(date) for name in _DUMP_FILE_NAMES[dump]]
    known: dict[str, dict[str, Any]] = job.get("files", {})
    sums = {} if all("sha1" in known.get(name, {}) for name in names) else _fetch_md5sums(base, date, told)
    return {name: _dump_remote(f"{base}/{name}", known.get(name, {}), sums.get(name)) for name in names}


def _dump_remote(url: str, known: dict[str, Any], md5: str | None) -> RemoteFile:
    sums = {name: str(known[name]) for name in known if name in ("sha1", "md5")}
    sums = sums or ({"md5": md5} if md5 else {})
    return RemoteFile(url, known.get("size"), sums, "bzip2")


def _fetch_md5sums(base: str, date: str, told: DownloadProgress | None) -> dict[str, str]:
    """Dated name -> md5, as published beside the files."""
    return _parse_checksums(read_document(RemoteFile(f"{base}/kowiki-{date}-md5sums.txt"), told))


def _parse_checksums(text: bytes) -> dict[str, str]:
    rows = (line.split(maxsplit=1) for line in text.decode().splitlines())
    return {row[1].strip().lstrip("*./"): row[0] for row in rows if len(row) == 2}


def _new_layout_files(dump: str, date: str, told: DownloadProgress | None) -> dict[str, RemoteFile]:
    """Files of a dump in the new layout; empty when it is not finished or not there."""
    base = f"{_dump_base_url(dump)}/{date}/xml/bzip2"
    try:
        read_document(RemoteFile(f"{base}/_SUCCESS"), told)
        sums = _parse_checksums(read_document(RemoteFile(f"{base}/SHA256SUMS"), told))
    except Refused:
        return {}
    names = sorted(name for name in sums if re.fullmatch(r"[\w.-]+\.bz2", name))
    return {
        name: RemoteFile(f"{base}/{name}", checksums={"sha256": sums[name]}, magic="bzip2") for name in names
    }

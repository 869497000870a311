"""What GitHub, Wikimedia and the Hugging Face hub look like from outside: routes of the local server."""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping

from tests.download.server import Answer, File, ReceivedRequest, Route, Server, contents, sha256


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def tarred(files: Mapping[str, bytes]) -> bytes:
    """A packed tar."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def signed(server: Server, path: str, file: File, good_for: int) -> Route:
    """A redirect to a signed address of `/objects`, which answers 403 after so many requests."""
    left: dict[str, int] = {}

    def objects(request: ReceivedRequest) -> File | Answer:
        left[request.query["sig"]] -= 1
        if left[request.query["sig"]] < 0:
            return Answer(
                403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
            )
        return file

    def redirect(_: ReceivedRequest) -> Answer:
        left[f"s{len(left)}"] = good_for
        return Answer(302, headers={"Location": f"{server.url}/objects{path}?sig=s{len(left) - 1}"})

    server.routes[f"/objects{path}"] = objects
    server.routes[path] = redirect
    return redirect


# ---------------------------------------------------------------------------------- kowiki


class Kowiki:
    """Dumps of one wiki: dates with their status, sums with dated names, and Wikimedia's manners."""

    XML = bz2.compress(b"<mediawiki>" + contents(6000).hex().encode() + b"</mediawiki>")

    def __init__(self, server: Server) -> None:
        self.server = server
        self.dates: dict[str, str] = {}
        server.routes["/kowiki/"] = lambda request: self._listing(sorted(self.dates))

    def _listing(self, dates: list[str]) -> Answer:
        return Answer(
            200, "".join(f'<a href="{date}/">{date}/</a>\n' for date in [*dates, "latest"]).encode()
        )

    def add(self, date: str, status: str = "done", sums_in_status: bool = True, data: bytes = XML) -> File:
        """A dump of a date; the file it serves."""
        self.dates[date] = status
        base, stem = f"/kowiki/{date}", f"kowiki-{date}-pages-articles"
        names = [f"{stem}.xml.bz2", f"{stem}-multistream.xml.bz2", f"{stem}-multistream-index.txt.bz2"]
        known = {
            name: {"size": len(self.XML), "url": f"{base}/{name}"}
            | (
                {"md5": hashlib.md5(self.XML).hexdigest(), "sha1": hashlib.sha1(self.XML).hexdigest()}
                if sums_in_status
                else {}
            )
            for name in names
        }
        jobs = {
            "articlesdump": {"status": status, "files": {names[0]: known[names[0]]}},
            "articlesmultistreamdump": {"status": status, "files": {name: known[name] for name in names[1:]}},
        }
        sums = "".join(f"{hashlib.md5(self.XML).hexdigest()}  {name}\n" for name in names)
        file = File(data)
        routes = self.server.routes
        routes[f"{base}/dumpstatus.json"] = self._polite(Answer(200, json.dumps({"jobs": jobs}).encode()))
        routes[f"{base}/kowiki-{date}-md5sums.txt"] = self._polite(Answer(200, sums.encode()))
        for name in names:
            routes[f"{base}/{name}"] = self._polite(file)
        return file

    def add_content(self, date: str, finished: bool = True) -> None:
        """A dump in the new layout, in two files."""
        top = "/other/mediawiki_content_current/kowiki"
        self.dates[date] = "content"
        base = f"{top}/{date}/xml/bzip2"
        names = [f"kowiki-{date}-p1p900.xml.bz2", f"kowiki-{date}-p901p1800.xml.bz2"]
        sums = "".join(f"{sha256(self.XML)}  {name}\n" for name in names)
        self.server.routes[f"{top}/"] = lambda request: self._listing(sorted(self.dates))
        self.server.routes[f"{base}/SHA256SUMS"] = Answer(200, sums.encode())
        if finished:
            self.server.routes[f"{base}/_SUCCESS"] = Answer(200)
        for name in names:
            self.server.routes[f"{base}/{name}"] = File(self.XML)

    def _polite(self, served: File | Answer) -> Route:
        """Refuse who has no name (403) and a third connection (429)."""

        def answer(request: ReceivedRequest) -> File | Answer:
            if "kowiki" not in request.path or not request.headers.get("user-agent", "").startswith("kovqa"):
                return Answer(403, b"Please set a user-agent")
            if request.concurrent > 2:
                return Answer(429, b"Too many connections", {"Retry-After": "0"})
            return served

        return answer


# ------------------------------------------------------------------------------------- hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """One repository: small files inline, large ones by redirect to another host with a signature."""

    def __init__(self, server: Server, cdn: Server, repo: str, dataset: bool = False) -> None:
        self.server, self.cdn, self.repo = server, cdn, repo
        self.kind = "datasets/" if dataset else ""
        self.siblings: list[dict[str, object]] = []  # files as the listing has them
        self.needs = ""  # token
        self.code = "GatedRepo"
        self.lists_blobs = True  # sizes and checksums, as the hub does when they are asked for
        api = f"/api/{'datasets' if dataset else 'models'}/{repo}/revision/"
        server.routes[f"{api}main"] = server.routes[api + COMMIT] = self.listing

    def _refused(self, request: ReceivedRequest) -> Answer | None:
        authorization = request.headers.get("authorization", "")
        if not self.needs or authorization == f"Bearer {self.needs}":
            return None
        return Answer(
            401 if not authorization else 403,
            f"no access for {authorization}".encode(),
            {"X-Error-Code": self.code},
        )

    def listing(self, request: ReceivedRequest) -> Answer:
        """The repository's files, as its API gives them."""
        siblings = self.siblings
        if not self.lists_blobs or request.query.get("blobs") != "true":
            siblings = [{"rfilename": sibling["rfilename"]} for sibling in siblings]
        card = {"license": "apache-2.0"}
        body = json.dumps({"id": self.repo, "sha": COMMIT, "siblings": siblings, "cardData": card}).encode()
        listed = Answer(200, body, {"Content-Type": "application/json"})
        # Whoever has no access to a gated repository sees the names of its files all the same.
        return listed if self.code == "GatedRepo" else self._refused(request) or listed

    def path(self, name: str) -> str:
        """Where a file is resolved."""
        return f"/{self.kind}{self.repo}/resolve/{COMMIT}/{name}"

    def small(self, name: str, data: bytes) -> File:
        """A file git keeps: its ETag is git's sha1."""
        etag = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        self.siblings.append({"rfilename": name, "size": len(data), "blobId": etag})
        file = File(data, etag=f'"{etag}"', headers={"X-Repo-Commit": COMMIT})
        self.server.routes[self.path(name)] = lambda request: self._refused(request) or file
        return file

    def large(self, name: str, data: bytes, good_for: int = 1) -> File:
        """A file in large storage: its sha256 in the hub's headers, its bytes elsewhere."""
        lfs = {"sha256": sha256(data), "size": len(data), "pointerSize": 130}
        self.siblings.append({"rfilename": name, "size": len(data), "blobId": "0" * 40, "lfs": lfs})
        file = File(data)
        left: dict[str, int] = {}

        def resolve(request: ReceivedRequest) -> Answer:
            if refused := self._refused(request):
                return refused
            left[sig := str(len(left))] = good_for
            headers = {
                "X-Linked-Etag": f'"{sha256(data)}"',
                "X-Linked-Size": str(len(data)),
                "X-Repo-Commit": COMMIT,
            }
            return Answer(302, headers={**headers, "Location": f"{self.cdn.url}/cdn/{name}?Signature={sig}"})

        def give(request: ReceivedRequest) -> File | Answer:
            left[request.query["Signature"]] -= 1
            return file if left[request.query["Signature"]] >= 0 else Answer(403, b"signature expired")

        self.server.routes[self.path(name)] = resolve
        self.cdn.routes[f"/cdn/{name}"] = give
        return file

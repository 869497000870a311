"""Google Drive's `/uc` and `/download` as docs/sources/datasets.md, D14 and D15, has them, on the server of `server.py`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

from tests.download.server import Answer, File, ReceivedRequest, Server

COOKIE = "download_warning_13058876669334088843_1=t"
QUOTA = """<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body><div id="uc-text">
<p class="uc-error-caption">Sorry, you can't view or download this file at this time.</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently. Please try accessing
the file again later. If the file you are trying to access is particularly large or is shared with many people,
it may take up to 24 hours to be able to view or download the file.</p></div></body></html>"""

Warning = Literal["none", "form", "legacy link", "json", "form without end"]


@dataclass
class Drive:
    """One file of Google Drive, and what stands before it."""

    server: Server
    file: File
    id: str
    name: str = "이미지 1.zip"
    warning: Warning = "none"
    quota_after: int | None = None  # bytes served until the quota page comes
    private: Literal["", "login", "403"] = ""
    deleted: bool = False
    folder: bool = False
    uuids: Counter[str] = field(default_factory=Counter)  # handed out by forms: good for one request each

    def __post_init__(self) -> None:
        disposition = f"attachment; filename=\"_.zip\"; filename*=UTF-8''{quote(self.name)}"
        kind = "application/octet-stream"
        self.file.headers = {"Content-Disposition": disposition, "Content-Type": kind}
        self.server.routes.update({
            "/uc": self.uc, "/download": self.download, "/legacy": self.legacy,
            "/ServiceLogin": page("<title>Google Drive: Sign in</title>Sign in to continue"),
        })  # fmt: skip

    def uc(self, request: ReceivedRequest) -> File | Answer:
        if self.deleted or request.query.get("id") != self.id:
            return page(
                "<title>Error 404 (Not Found)!!1</title>The requested URL was not found. Sign in", 404
            )
        if self.private == "login":
            return Answer(302, headers={"Location": "/ServiceLogin?continue=uc"})
        if self.private == "403":
            return page("<title>Google Drive - Access Denied</title>You need access", 403)
        if self.folder:
            return page(f'Sign in <a href="https://drive.google.com/drive/folders/{self.id}">open</a>')
        if request.query.get("confirm") == "t0K3" and COOKIE in request.headers.get("cookie", ""):
            return self.give()
        return Answer(303, headers={"Location": f"/download?id={self.id}&export=download"})

    def download(self, request: ReceivedRequest) -> File | Answer:
        uuid = request.query.get("uuid", "")
        passed = request.query.get("confirm") == "t" and self.uuids[uuid] > 0
        if self.warning == "none" or (passed and self.warning == "form"):
            self.uuids[uuid] -= 1
            return self.give()
        if self.exhausted():
            return page(QUOTA)
        if self.warning == "legacy link":
            link = f"/uc?export=download&amp;confirm=t0K3&amp;id={self.id}"
            return page(f'<a href="/about">x</a><a id="uc-download-link" href="{link}">go</a>', cookie=COOKIE)
        if self.warning == "json":
            address = f"{self.server.url}/legacy?e\\u003ddownload"
            body = b")]}'\n" + f'{{"sizeBytes":1,"downloadUrl":"{address}"}}'.encode()
            return Answer(200, body, {"Content-Type": "application/json; charset=utf-8"})
        new = f"0000-{len(self.uuids)}"
        self.uuids[new] = 1
        fields = {"id": self.id, "export": "download", "confirm": "t", "uuid": new, "at": "A+B=="}
        inputs = "".join(f'<input type="hidden" name="{k}" value="{v}">' for k, v in fields.items())
        return page(
            "<title>Google Drive - Virus scan warning</title><p>Google Drive can't scan this file for viruses.</p>"
            f'<form id="search"><input type="hidden" name="q" value="no"></form><form id="download-form" '
            f'action="{self.server.url}/download" method="get"><input type="submit" value="go">{inputs}</form>'
        )

    def legacy(self, request: ReceivedRequest) -> File | Answer:
        return self.give() if request.query == {"e": "download"} else page("no", 404)

    def exhausted(self) -> bool:
        served = self.server.served["/download"] + self.server.served["/uc"]
        return self.quota_after is not None and served >= self.quota_after

    def give(self) -> File | Answer:
        return page(QUOTA) if self.exhausted() else self.file


def page(text: str, status: int = 200, cookie: str = "") -> Answer:
    """A web page, as Google answers with."""
    headers = {"Content-Type": "text/html; charset=utf-8", **({"Set-Cookie": cookie} if cookie else {})}
    return Answer(
        status, text.encode() if "<html" in text else f"<!DOCTYPE html><html>{text}".encode(), headers
    )

"""A hub on this machine: what huggingface_hub asks of it to make a repository and put files into it."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_secretTokenOfTests"


class Hub:
    """State and log: repositories (private?), files by repository, large objects, requests."""

    def __init__(self) -> None:
        self.private: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.refuse = ""  # requests whose path holds this text
        self.address = ""


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: object) -> None:
            """Silent."""

        def _send(self, status: int, body: object = None) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            self.wfile.write(data)

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _answer(self) -> None:
            body = self._body()
            hub.requests.append(f"{self.command} {self.path}")
            is_object = self.path.startswith("/objects/")
            if not is_object and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._send(401, {"error": f"bad token {self.headers.get('Authorization')}"})
            elif hub.refuse and hub.refuse in self.path:
                self._send(400, {"error": f"refused; your token is {TOKEN}"})
            elif is_object:
                hub.objects[self.path.removeprefix("/objects/")] = body
                self._send(200, {})
            else:
                status, answer = _reply(hub, self.path, body)
                self._send(status, answer)

        do_GET = do_POST = do_PUT = _answer

    return Handler


def _reply(hub: Hub, path: str, body: bytes) -> tuple[int, Any]:
    if path == "/api/whoami-v2":
        return 200, {"name": "tester", "type": "user"}
    if path == "/api/repos/create":
        asked = json.loads(body)
        repo = f"{asked['organization']}/{asked['name']}"
        status = 409 if repo in hub.private else 200
        hub.private.setdefault(repo, asked.get("visibility") != "public")
        hub.files.setdefault(repo, {})
        return status, {"url": f"{hub.address}/{repo}", "error": "exists"}
    if path == "/api/validate-yaml":
        return 200, {"errors": [], "warnings": []}
    repo = "/".join(path.removeprefix("/api/models/").removeprefix("/").split("/")[:2]).removesuffix(".git")
    if repo not in hub.private:
        return 404, {"error": "no such repository"}
    if "/preupload/" in path:
        files = json.loads(body)["files"]
        modes = [
            {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
             "shouldIgnore": False} for f in files
        ]  # fmt: skip
        return 200, {"files": modes}
    if path.endswith("/info/lfs/objects/batch"):
        objects = []
        for each in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{hub.address}/objects/{each['oid']}"}}
            objects.append(each if each["oid"] in hub.objects else {**each, "actions": upload})
        return 200, {"transfer": "basic", "objects": objects}
    if "/commit/" in path:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                hub.files[repo][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                hub.files[repo][value["path"]] = hub.objects[value["oid"]]
        oid = hashlib.sha1(body).hexdigest()
        return 200, {"success": True, "commitOid": oid, "commitUrl": f"{hub.address}/{repo}/commit/{oid}"}
    return 200, {"id": repo, "private": hub.private[repo], "sha": "a" * 40, "siblings": []}


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers on this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

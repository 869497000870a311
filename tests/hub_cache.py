"""Models as the hub's own library, and `kovqa download`, lay them down on a disk; no network."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

COMMIT = "1234567890abcdef1234567890abcdef12345678"
OTHER_COMMIT = "fedcba0987654321fedcba0987654321fedcba09"


def cache_model(cache: Path, repo: str, files: Path, commit: str = COMMIT, branch: str = "main") -> Path:
    """A snapshot of a model folder in a cache of the hub's library: links to blobs, which it names by their content.

    Args:
        cache: what HF_HUB_CACHE names.
        repo: OWNER/NAME.
        files: the model folder; copied.
        commit: of the snapshot.
        branch: that is at this commit; "": none.
    """
    entry = cache / f"models--{repo.replace('/', '--')}"
    snapshot, blobs = entry / "snapshots" / commit, entry / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    for path in sorted(path for path in files.rglob("*") if path.is_file()):
        blob = blobs / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copyfile(path, blob)
        link = snapshot / path.relative_to(files)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    if branch:
        (entry / "refs" / branch).parent.mkdir(parents=True, exist_ok=True)
        (entry / "refs" / branch).write_text(commit)
    return snapshot


def asset_model(home: Path, repo: str, files: Path, commit: str = COMMIT, revision: str = "") -> Path:
    """A model folder where `kovqa download hf:OWNER/NAME[@REVISION]` puts it, with its record."""
    folder = home / "assets" / "hf" / (repo + (f"@{revision.replace('/', '--')}" if revision else ""))
    shutil.copytree(files, folder)
    names = [path.relative_to(files).as_posix() for path in files.rglob("*") if path.is_file()]
    record = {"asset": f"hf:{repo}", "revision": commit, "paths": ["."], "files": names, "fetched": ""}
    (folder / f".hf-{repo.replace('/', '--')}.asset.json").write_text(json.dumps(record))
    return folder

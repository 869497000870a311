"""A running server, and the guard: in these tests no host but 127.0.0.1 can be reached."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants as hub_constants

from tests.download.server import Server, running

NOWHERE = "http://127.0.0.1:9"  # a port where nobody listens


@pytest.fixture(autouse=True)
def only_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All other hosts are reached through a proxy that does not exist, here and in processes started here."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy") or name.startswith("HF_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ALL_PROXY", NOWHERE)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("KOVQA_RETRY_SECONDS", "0.01")
    monkeypatch.setenv("KOVQA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    # The hub's library has read the environment when it was imported.
    monkeypatch.setattr(hub_constants, "HF_TOKEN_PATH", str(tmp_path / "user/.cache/huggingface/token"))
    monkeypatch.setattr(hub_constants, "HF_HUB_DISABLE_TELEMETRY", True)


@pytest.fixture
def endpoints(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """All sources are the server; set here, and returned for commands that run as processes of their own."""
    names = ("COCO", "S3", "STANFORD", "GITHUB", "KOWIKI", "HUB", "DRIVE", "AIHUB")
    settings = {f"KOVQA_{name}_ENDPOINT": server.url for name in names}
    settings |= {"KOVQA_RETRY_SECONDS": "0.01", "KOVQA_HOME": str(tmp_path / "home")}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.fixture
def server() -> Iterator[Server]:
    """A file server without files yet."""
    with running() as started:
        yield started


@pytest.fixture
def cdn() -> Iterator[Server]:
    """A second host, where the hub keeps large files."""
    with running() as started:
        yield started

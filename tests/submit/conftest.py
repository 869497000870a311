"""A running submission service; no host but 127.0.0.1 can be reached."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.download.conftest import only_here  # noqa: F401 - a fixture for every test here
from tests.submit.server import TEAM, TOKEN, Dacon, running


@pytest.fixture
def dacon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dacon]:
    """The service; this process and those it starts send there, with a known token."""
    with running() as service:
        monkeypatch.setenv("KOVQA_DACON_ENDPOINT", service.url)
        monkeypatch.setenv("KOVQA_DACON_TEAM", TEAM)
        monkeypatch.setenv("DACON_API_TOKEN", TOKEN)
        yield service

"""The same server and guard as for downloads: no host but 127.0.0.1 can be reached."""

from __future__ import annotations

from tests.download.conftest import only_here, server

__all__ = ["only_here", "server"]

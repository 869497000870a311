"""A folder for a raw data set."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "원본").mkdir()
    return tmp_path / "원본"

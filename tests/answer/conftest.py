"""A running server of a model, and a table to ask it; no host but 127.0.0.1 can be reached."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.answer.server import Vllm, running
from tests.conftest import Small
from tests.download.conftest import only_here  # noqa: F401 - a fixture for every test here


@pytest.fixture
def vllm() -> Iterator[Vllm]:
    """A server with one model."""
    with running() as server:
        yield server


@pytest.fixture
def table(small: Small, tmp_path: Path) -> Path:
    """40 questions, each different, about the demo images, which are linked beside the table."""
    images = sorted((small.root / "images").glob("*.png"))
    (tmp_path / "images").symlink_to(small.root / "images")
    rows = [
        {
            "id": f"Q{n}",
            "image": f"images/{images[n % len(images)].name}",
            "question": f"{n}번 그림은?",
            "메모": n,
        }
        for n in range(40)
    ]
    path = tmp_path / "질문.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def settings(**extra: str) -> dict[str, str]:
    """Variables that the fixtures have set, for processes of their own."""
    kovqa_variables = {name: value for name, value in os.environ.items() if name.startswith("KOVQA_")}
    return {**kovqa_variables, **extra}

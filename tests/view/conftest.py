"""A session over the small data set, two models' answers and one database for all tests that only look."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from kovqa_core.index.reader import open_index
from kovqa_core.view.inputs import open_inputs
from kovqa_core.view.session import ViewSession

from tests.conftest import Small

HOSTILE = "=1+1'; DROP TABLE rows; -- <script>document.title='taken'</script>"


def write_answers(small: Small, path: Path, every: int, **more: object) -> Path:
    """Answers to the test split, of which each `every`-th is wrong and the first hostile; surer and surer."""
    examples = list(open_index(small.index).split("test"))
    rows = [
        {"id": e.id, "answer": max(e.answers) if n % every else "틀린 답", "score": n / len(examples), **more}
        for n, e in enumerate(examples)
    ]
    rows[0]["answer"] = HOSTILE
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def answers(small: Small, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models' predictions files; A's has the likeliest answers, too. A pattern of DuckDB is in their path."""
    folder = tmp_path_factory.mktemp("예측 [ab]'s *")
    likeliest = [["하나", 0.75], ["둘", 0.25]]
    return (
        write_answers(small, folder / "a?.jsonl", 3, likeliest=likeliest),
        write_answers(small, folder / "b.jsonl", 2),
    )


@pytest.fixture(scope="session")
def session(small: Small, answers: tuple[Path, Path]) -> Iterator[ViewSession]:
    """A finished session over both."""
    started = ViewSession(open_inputs(small.index, answers), keep=False)
    started.start()
    started.wait(60)
    yield started
    started.close()

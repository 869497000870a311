"""The order of the checks: the most valuable first, so that a run that is cut short has shown the most."""

from __future__ import annotations

from pathlib import Path

import pytest

ORDER = (
    "test_captions", "test_agreement", "test_kernels", "test_waits", "test_memory", "test_resume", "test_answers",
    "test_strategies", "test_vlm", "test_loaders", "test_compile",
)  # fmt: skip
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of this folder in their order, in the places that they have among all tests."""
    places = [place for place, item in enumerate(items) if item.path.parent == _HERE]
    of_here = sorted((items[place] for place in places), key=_rank)
    for place, item in zip(places, of_here, strict=True):
        items[place] = item


def _rank(item: pytest.Item) -> int:
    name = item.path.stem
    return ORDER.index(name) if name in ORDER else len(ORDER)

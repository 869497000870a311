"""Imported first in a process of tests: packages that the variable TEST_LACKS names are not there, as if never installed."""

from __future__ import annotations

import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

_LACKS = frozenset(os.environ["TEST_LACKS"].split(","))


class _HidingFinder(MetaPathFinder):
    """Another finder, which does not find them."""

    def __init__(self, finder: Any) -> None:
        self._finder = finder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] in _LACKS:
            return None
        spec: ModuleSpec | None = self._finder.find_spec(name, path, target)
        return spec

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)


assert not _LACKS & set(sys.modules), "imported before it could be hidden"
sys.meta_path[:] = [_HidingFinder(finder) for finder in sys.meta_path]

"""The thermometer of style counts what its definitions say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "measure_style.py"
FIRST = '''"""A module."""

from typing import Any

LIMIT = 3  # why three


# ------------------------------------------------------------------ a ruler is no comment


@decorated
def _read(path: str, strict: bool, *, quiet: bool = False) -> Any:
    """Read."""
    # why like this
    return "# no comment"


def read_all(paths, deep=True) -> None:  # noqa: X1
    pass


class Batch:
    def __init__(self, ids: "list[Any]") -> None:
        self.ids: dict[str, Any] = {}
'''
SECOND = '''from dataclasses import dataclass


def _read() -> None: ...


@dataclass
class HTTPServer:
    """It serves."""

    busy: bool = False
'''


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Two modules in a folder `src`."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "first.py").write_text(FIRST)
    (tmp_path / "src" / "second.py").write_text(SECOND)
    return tmp_path


def run(checkout: Path, *words: object) -> str:
    """The tool's output for a checkout."""
    done = subprocess.run(
        [sys.executable, TOOL, "src", "--root", checkout, *map(str, words)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_figures(checkout: Path) -> None:
    found = json.loads(run(checkout, "--json"))["now"]
    assert (found["files"], found["functions"]) == (2, 4)
    assert found["function length, max"] == 4  # without the decorator's line
    assert found["top-level names"] == 5  # _read, read_all, Batch; _read, HTTPServer
    assert found["top-level names of one single word, %"] == 60.0
    assert found["same name in two or more modules, %"] == 40.0
    lines = [line for line in (FIRST + SECOND).splitlines() if line.strip()]
    assert found["comments per 100 code lines"] == round(100 * 2 / len(lines), 1)
    assert found["annotations"] == 8
    assert found["annotations that name Any, %"] == 25.0
    assert found["fields and variables that name Any, %"] == 50.0
    assert found["positional bool parameters"] == 1  # strict; quiet needs its name
    assert found["positional parameters with a bool default only"] == 1  # deep
    assert found["positional bool fields"] == 1
    assert found["functions fully typed, %"] == 75.0
    assert found["public, with a docstring, %"] == round(100 * 2 / 5, 1)  # a module and HTTPServer


def test_constants_are_names_where_asked(checkout: Path) -> None:
    assert json.loads(run(checkout, "--json", "--constants"))["now"]["top-level names"] == 6


@pytest.mark.parametrize(
    ("which", "names"),
    [
        ("one-word", ["first.py:12: _read", "first.py:22: Batch", "second.py:4: _read"]),
        ("shared", ["first.py:12: _read", "second.py:4: _read"]),
        ("any", ["first.py:12: _read -> Any", "first.py:23: __init__(ids) 'list[Any]'",
                 "first.py:24: self.ids dict[str, Any]"]),
        ("bools", ["first.py:12: _read(strict)", "first.py:18: read_all(deep)", "second.py:11: HTTPServer(busy)"]),
        ("long", []),
    ],
)  # fmt: skip
def test_offenders_are_named_with_their_place(checkout: Path, which: str, names: list[str]) -> None:
    assert run(checkout, "--list", which).split() == " ".join(f"src/{name}" for name in names).split()


def test_two_checkouts_stand_side_by_side(checkout: Path, tmp_path: Path) -> None:
    before = tmp_path / "before" / "src"
    before.mkdir(parents=True)
    (before / "first.py").write_text(FIRST)
    rows = run(checkout, "--against", before.parent).splitlines()
    assert rows[0] == "| | before | after |"
    assert "| files | 1 | 2 |" in rows

"""Who may import whom: imports go down or stay level, and paper is readable without torch.

The table below is the rule; the import statements of all files are read and compared with it.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import kovqa_core
import pytest

import kovqa_cli

CORE = Path(kovqa_core.__file__).parent
CLI = Path(kovqa_cli.__file__).parent
MOST_LINES = 400

# Tensors' libraries; everything not in TENSOR_ROOMS can be used without them being installed.
HEAVY = {"torch", "safetensors", "transformers", "timm", "deepspeed", "tensorboardX"}
TENSOR_ROOMS = {"models", "train", "predict", "worker"}
LIGHT_FILES = ("models/__init__.py", "models/*/__init__.py", "models/*/config.py", "models/*/sizes.py")
LIGHT_NAMES = re.compile(r"kovqa_core\.models(\.FAMILIES|\.\w+\.(config|sizes)(\.\w+)?)?$")

# Room (folder or file of kovqa_core) -> the rooms it may import, besides itself. In this order,
# every room imports only rooms above it.
GROUND = {"errors", "files", "paths", "processes", "output_lock"}
SETTINGS = {*GROUND, "settings"}
FLOORS: dict[str, set[str]] = {
    "errors": set(),
    "files": {"errors"},
    "paths": {"errors"},
    "output_lock": {"errors", "files"},
    "processes": {"errors"},
    "keys": {"errors", "files", "paths"},
    "settings": GROUND,
    "data": GROUND,
    "results": {*GROUND, "data"},
    "runs": SETTINGS,
    "assets": SETTINGS,
    "download": {*SETTINGS, "assets", "keys"},
    "upload": {*GROUND, "keys", "download"},
    "machine": SETTINGS,
    "detect": {*SETTINGS, "machine"},
    "history": {*SETTINGS, "runs", "machine"},
    "launch": {*SETTINGS, "runs"},
    "doctor": {*SETTINGS, "machine", "history", "download"},
    "memory": SETTINGS,
    "models": {*SETTINGS, "data", "runs", "assets", "memory"},
    "fit": {*SETTINGS, "data", "machine", "models", "memory"},
    "serving_client": {*SETTINGS, "data", "results", "download", "keys", "models"},
    "demo": {*GROUND, "data"},
    "planning": {*SETTINGS, "data", "runs", "history", "assets", "machine", "launch", "models", "fit"},
    "shares": {*SETTINGS, "data", "results", "runs", "machine", "launch"},
    "train": {*SETTINGS, "data", "results", "runs", "models", "fit"},
    "predict": {*SETTINGS, "data", "results", "runs", "models", "shares", "train"},
    "worker": {*SETTINGS, "results", "runs", "history", "models", "shares", "train", "predict"},
}


class Import(NamedTuple):
    """One imported name: `kovqa_core.data.index`, and where."""

    name: str
    line: int
    at_top: bool  # runs when the module is imported


def imports(source: str, package: str) -> Iterator[Import]:
    """All imports of a file of a package; `from a import b` gives `a` and `a.b`."""

    def visit(node: ast.AST, at_top: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                kept = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*kept, base]) if base else ".".join(kept)
            yield from (Import(f"{base}.{alias.name}", node.lineno, at_top) for alias in node.names)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, at_top and not inside and not for_types)

    yield from visit(ast.parse(source), True)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imports_of(path: Path) -> Iterator[Import]:
    root = CORE.parent if path.is_relative_to(CORE) else CLI.parent
    package = ".".join(path.relative_to(root).parent.parts)
    return imports(path.read_text("utf-8"), package)


def room(path: Path) -> str:
    """First part of a file's place in kovqa_core."""
    return path.relative_to(CORE).parts[0].removesuffix(".py")


def room_of(name: str) -> str | None:
    """The room an imported name lies in; None outside kovqa_core, and for kovqa_core itself."""
    parts = name.split(".")
    return parts[1] if parts[0] == "kovqa_core" and len(parts) > 1 else None


def is_light(path: Path) -> bool:
    return any(path.relative_to(CORE).match(pattern) for pattern in LIGHT_FILES)


def show(path: Path, found: Import) -> str:
    return f"{path.relative_to(path.parents[2])}:{found.line} imports {found.name}"


CORE_FILES = [path for path in files(CORE) if path != CORE / "__init__.py"]


# -------------------------------------------------------------------------------- the reader


def test_the_reader_finds_every_kind_of_import() -> None:
    source = (
        "import a.b, c\n"
        "from d import e, f\n"
        "from . import g\n"
        "from ..h import i\n"
        "if TYPE_CHECKING:\n    import j\n"
        "try:\n    import k\nexcept ImportError:\n    pass\n"
        "def x():\n    from l import m\n"
        "class Y:\n    import n\n"
    )
    found = {i.name: i.at_top for i in imports(source, "top.inner")}
    assert found == {
        "a.b": True, "c": True, "d.e": True, "d.f": True, "top.inner.g": True, "top.h.i": True,
        "j": False, "k": True, "l.m": False, "n": True,
    }  # fmt: skip


def test_the_table_has_no_way_up() -> None:
    above: set[str] = set()
    for name, allowed in FLOORS.items():
        assert allowed <= above, f"{name} may import {sorted(allowed - above)}, which stand below it"
        above.add(name)


# ------------------------------------------------------------------------------------- rules


def test_every_room_has_its_floor() -> None:
    rooms = {room(path) for path in CORE_FILES}
    assert rooms <= FLOORS.keys(), "say in FLOORS what these may import"


def test_imports_go_down_or_stay_level() -> None:
    wrong = [
        show(path, found)
        for path in CORE_FILES
        for found in imports_of(path)
        if (target := room_of(found.name)) in FLOORS
        and target != room(path)
        and target not in FLOORS[room(path)]
    ]
    assert not wrong


def test_the_engine_knows_nothing_of_the_command_line() -> None:
    wrong = [
        show(path, found)
        for path in files(CORE)
        for found in imports_of(path)
        if found.name.split(".")[0] in ("kovqa_cli", "typer", "rich")
    ]
    assert not wrong


def test_paper_never_imports_tensors() -> None:
    """Not even inside a function: settings, data, results and launch work without torch."""
    paper = [p for p in CORE_FILES if room(p) not in TENSOR_ROOMS or is_light(p)]
    assert {"settings", "data", "results", "errors", "files", "launch", "machine", "assets"} <= {
        room(p) for p in paper
    }
    wrong = [
        show(path, found)
        for path in paper
        for found in imports_of(path)
        if found.name.split(".")[0] in HEAVY
        or (room_of(found.name) in TENSOR_ROOMS and not LIGHT_NAMES.match(found.name))
    ]
    assert not wrong


def test_paper_loads_without_torch() -> None:
    """The proof of it: every paper module imported, and torch still unknown."""
    modules = [
        ".".join(path.relative_to(CORE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in CORE_FILES
        if room(path) not in TENSOR_ROOMS or is_light(path)
    ]
    script = (
        "import importlib, sys\n"
        f"sys.path[:0] = {[str(CORE.parent), str(CLI.parent)]!r}\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(*sorted({HEAVY!r} & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_data_does_not_import_models() -> None:
    wrong = [
        show(path, found)
        for path in files(CORE / "data")
        for found in imports_of(path)
        if room_of(found.name) in TENSOR_ROOMS
    ]
    assert not wrong


def families() -> list[str]:
    return sorted(path.parent.name for path in CORE.glob("models/*/family.py"))


def test_no_family_imports_another() -> None:
    assert "beit3" in families()
    wrong = [
        show(path, found)
        for own in families()
        for path in files(CORE / "models" / own)
        for found in imports_of(path)
        for other in families()
        if other != own and f"{found.name}.".startswith(f"kovqa_core.models.{other}.")
    ]
    assert not wrong


@pytest.mark.parametrize("name", ["train", "predict.py", "worker.py", "planning.py", "models/family.py"])
def test_no_family_is_imported_by_name(name: str) -> None:
    """A family is found in the table of names; nothing outside it says which there are."""
    place = CORE / name
    assert place.exists()
    wrong = [
        show(path, found)
        for path in (files(place) if place.is_dir() else [place])
        for found in imports_of(path)
        for family in families()
        if f"{found.name}.".startswith(f"kovqa_core.models.{family}.")
    ]
    assert not wrong


def test_the_front_stays_light() -> None:
    """At the top of a command's file: typer, the standard library, the errors, other commands."""
    wrong = [
        show(path, found)
        for path in files(CLI)
        for found in imports_of(path)
        if found.at_top
        and (top := found.name.split(".")[0]) not in sys.stdlib_module_names
        and top not in ("typer", "kovqa_cli")
        and not f"{found.name}.".startswith("kovqa_core.errors.")
    ]
    assert not wrong


def test_no_file_is_too_long() -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in [*files(CORE), *files(CLI)]}
    assert not {str(path): length for path, length in lengths.items() if length > MOST_LINES}

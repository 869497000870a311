"""Who may import whom. The layers stand in pyproject.toml, for `lint-imports`; what it cannot see is here."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kovqa_core

import kovqa_cli

CORE, CLI = Path(kovqa_core.__file__).parent, Path(kovqa_cli.__file__).parent
ROOT = CLI.parent
MOST_LINES = 400

# Tensors' libraries; every module outside of TENSOR_PACKAGES works without them being installed.
HEAVY = {"torch", "safetensors", "transformers", "timm", "peft", "deepspeed", "tensorboardX"}
TENSOR_PACKAGES = {
    "models",
    "train",
    "answer",
    "serve",
    "speech",
    "explain",
    "export",
    "distributed",
    "tracking",
    "worker",
}
LIGHT_FILES = (
    "models/__init__.py", "models/config.py", "models/memory.py", "models/checkpoint_info.py",
    "models/*/__init__.py", "models/*/config.py", "models/*/memory.py",
)  # fmt: skip
LIGHT_CORE = re.compile(
    r"kovqa_core\.(__version__|errors|messages|plugins|process_limits|progress)\b"
)  # what the front may load at its top


def python_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def top_level_imports(path: Path) -> Iterator[str]:
    """Names of what a file imports when it is itself imported."""

    def visit(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        in_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not in_function and not for_types:
            for child in ast.iter_child_nodes(node):
                yield from visit(child)

    yield from visit(ast.parse(path.read_text("utf-8")))


def test_contracts_of_pyproject_are_kept() -> None:
    """Layers, no cycles, families apart, the engine without the command line, paper without torch."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as c; c()",
        "--no-cache",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_paper_loads_without_torch() -> None:
    """Every module that needs no tensors, imported in one process: the tensors' libraries stay unknown."""
    modules = [
        ".".join(path.relative_to(CORE.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in python_files(CORE)
        if path.relative_to(CORE).parts[0].removesuffix(".py") not in TENSOR_PACKAGES
        or any(path.relative_to(CORE).match(pattern) for pattern in LIGHT_FILES)
    ]
    assert len(modules) > 100
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


# Where JSON and YAML become values: with bounds, and nowhere else.
READERS = {
    "bounded_json.py", "data/json_values.py", "data/json_stream.py", "data/example.py", "settings/strict_yaml.py",
}  # fmt: skip
READING = re.compile(
    r"\bjson\.(loads?|JSONDecoder|decoder|scanner)\b|\bfrom json import|\bjson\.tool\b"
    r"|\byaml\.(\w*load\w*|compose\w*|parse|scan|\w*Loader\w*)\b|\bfrom yaml import"
)


# Put into exports as they are, to be read where there is no kovqa.
PUBLISHED = {"published_model.py", "onnx_runtime_example.py"}


def code_with(pattern: re.Pattern[str]) -> Iterator[tuple[str, ast.AST]]:
    """File and node of every call, attribute and import that a pattern finds; scripts that are texts are not code.

    Nor are modules that exports are given to be read without kovqa, which never imports them.
    """
    for path in [*python_files(CORE), *python_files(CLI)]:
        if path.name in PUBLISHED:
            continue
        name = str(path.relative_to(CORE if path.is_relative_to(CORE) else CLI.parent))
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)) if pattern.search(text) else ():
            if isinstance(node, ast.Attribute | ast.ImportFrom) and pattern.search(ast.unparse(node)):
                yield name, node


def test_json_and_yaml_are_read_in_one_place() -> None:
    """All others call `parse_json`, `read_json`, `decode_json_line`, `iter_json_…`, `parse_yaml` or `read_yaml`."""
    assert not {name for name, _ in code_with(READING)} - READERS


def test_a_published_module_needs_nothing_of_ours_and_nothing_of_ours_imports_it() -> None:
    published = [path for path in python_files(CORE) if path.name in PUBLISHED]
    assert len(published) == 3
    for path in python_files(CORE):
        names = list(top_level_imports(path))
        if path in published:
            assert not [name for name in names if name.startswith("kovqa")], path
        assert not [name for name in names if f"{name.rpartition('.')[2]}.py" in PUBLISHED], path


def test_images_are_opened_in_one_place() -> None:
    """With Pillow's format named: alone it would try all it has, and start other programs for some."""
    opening = re.compile(r"\bImage\.open\b|\bimage_utils\b|\btorchvision\.io\b|\bdecode_image\b")
    assert {name for name, _ in code_with(opening)} == {"data/image_io.py", "data/image_repair.py"}
    for name in ("data/image_io.py", "data/image_repair.py"):
        text = (CORE / name).read_text("utf-8")
        assert text.count("Image.open(") == len(re.findall(r"Image\.open\(.*\bformats=", text))


def test_the_front_stays_light() -> None:
    """At the top of a command's file: typer, the standard library, errors, messages, other commands."""
    wrong = [
        f"{path.name} imports {name}"
        for path in python_files(CLI)
        for name in top_level_imports(path)
        if (top := name.split(".")[0]) not in sys.stdlib_module_names
        and top not in ("typer", "kovqa_cli")
        and not LIGHT_CORE.match(name)
    ]
    assert not wrong


def test_no_file_is_too_long() -> None:
    lengths = {
        path: len(path.read_text("utf-8").splitlines()) for path in [*python_files(CORE), *python_files(CLI)]
    }
    assert not {str(path): length for path, length in lengths.items() if length > MOST_LINES}

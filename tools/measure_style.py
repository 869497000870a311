"""How readable source code is, as far as it can be counted: sizes, names, comments, types.

    python tools/measure_style.py [FOLDER …]                  one table (Markdown)
    python tools/measure_style.py --against OTHER             another checkout beside it: before and after
    python tools/measure_style.py --list one-word             the offenders, file:line
    python tools/measure_style.py --json

Definitions:
* a function runs from its `def` line to its last line, decorators not counted; methods and nested functions count;
* a top-level name is a function or class of a module, `main` and `run` among them; with `--constants` also what a
  module assigns (no dunders); what stands twice in one module counts once;
* one word: no underscore inside (a leading one is ignored) and no capital inside: `_read`, `Batch`, `SIZES`, but not
  `read_run`, `DataError`;
* shared: another module has the same top-level name, leading underscore included;
* a comment is a line with a `#` outside of strings, alone or behind code; rulers (`# -----`), shebangs, `noqa`, `fmt:`,
  `ruff:`, `pragma` and `type:` are none; a code line is any line that is not blank, docstrings included;
* an annotation is one of a parameter or a return value; those of fields and variables have a row of their own. It
  names Any if Any stands anywhere in it, also in quotes;
* a positional bool is a function's parameter that can be passed without its name and is annotated bool (or
  bool | None). Those that only have True or False as their default (an unannotated one, or an option of a Typer command,
  Annotated[bool, …]) have a row of their own, and so have bool fields that the `__init__` of a dataclass or NamedTuple
  takes by position;
* typed: functions whose every parameter (but self and cls) and whose return value are annotated;
* docstring: public functions, classes and modules that have one.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import math
import re
import statistics
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_FOLDERS = ("core/kovqa_core", "kovqa_cli")
LONG = 45  # lines
_DIRECTIVE = re.compile(r"#\s*(!|noqa|fmt:|type:|ruff:|pragma|-{5,})")
Function = ast.FunctionDef | ast.AsyncFunctionDef
LISTS = ("one-word", "shared", "any", "bools", "long")


@dataclass(frozen=True)
class Place:
    """Something that was counted: its name and where it stands."""

    name: str
    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.name}"


@dataclass
class Counts:
    """Everything counted in some files."""

    file_lengths: list[int] = field(default_factory=list)
    function_lengths: list[int] = field(default_factory=list)
    long_functions: list[Place] = field(default_factory=list)
    top_level: list[Place] = field(default_factory=list)
    comments: int = 0
    code_lines: int = 0
    annotations: int = 0
    any_annotations: list[Place] = field(default_factory=list)
    variables: int = 0  # annotated fields and variables
    any_variables: list[Place] = field(default_factory=list)
    positional_bools: list[Place] = field(default_factory=list)
    bool_defaults: list[Place] = field(default_factory=list)
    bool_fields: list[Place] = field(default_factory=list)
    typed: list[bool] = field(default_factory=list)
    documented: list[bool] = field(default_factory=list)

    @property
    def one_word(self) -> list[Place]:
        """Top-level names of a single word."""
        return [place for place in self.top_level if len(split_words(place.name)) == 1]

    @property
    def shared(self) -> list[Place]:
        """Top-level names that stand in two or more modules."""
        paths = defaultdict(set)
        for place in self.top_level:
            paths[place.name].add(place.path)
        return sorted(
            (place for place in self.top_level if len(paths[place.name]) > 1), key=lambda p: (p.name, p.path)
        )


def split_words(name: str) -> list[str]:
    """The words of a name in snake_case or CamelCase; underscores around it are ignored.

    `read_run` has two, `DataError` two, `_BINDING` one, `HTTPServer` two.
    """
    parts = [part for part in name.split("_") if part]
    return [
        word
        for part in parts
        for word in (re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^A-Z]+", part) if not part.isupper() else [part])
    ]


def measure(folders: Iterable[Path], root: Path, constants: bool = False) -> Counts:
    """Count everything in the Python files below some folders.

    Args:
        folders: where; relative ones start from `root`.
        root: paths are shown relative to it.
        constants: are a module's assignments among its top-level names?

    Raises:
        FileNotFoundError: a folder without any Python file.
        SyntaxError: a file that is not Python.
    """
    counts = Counts()
    for folder in folders:
        files = sorted((root / folder).rglob("*.py"))
        if not files:
            raise FileNotFoundError(f"no Python file below {root / folder}")
        for file in files:
            shown = file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)
            count_source(file.read_text("utf-8"), shown, counts, constants)
    return counts


def count_source(source: str, path: str, counts: Counts, constants: bool = False) -> None:
    """Add one file's numbers to `counts`."""
    tree = ast.parse(source, path)
    counts.file_lengths.append(len(source.splitlines()))
    names: dict[str, int] = {}
    for name, line in _top_level(tree, constants):
        names.setdefault(name, line)
    counts.top_level += (Place(name, path, line) for name, line in names.items())
    _count_lines(source, counts)
    counts.documented.append(ast.get_docstring(tree) is not None)
    for node in ast.walk(tree):
        if isinstance(node, Function):
            _count_function(node, path, counts)
        elif isinstance(node, ast.ClassDef):
            _count_class(node, path, counts)
        elif isinstance(node, ast.AnnAssign):
            counts.variables += 1
            counts.any_variables += _any_place(node.annotation, ast.unparse(node.target), path)


def _top_level(tree: ast.Module, constants: bool) -> Iterator[tuple[str, int]]:
    """Names a module defines, and their lines; also below a top-level `if` or `try`."""
    open_nodes: list[ast.AST] = list(tree.body)
    while open_nodes:
        node = open_nodes.pop(0)
        if isinstance(node, ast.If | ast.Try):
            open_nodes += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
        elif isinstance(node, Function | ast.ClassDef):
            yield node.name, node.lineno
        elif constants and isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for name in (n for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)):
                if isinstance(name.ctx, ast.Store) and not name.id.startswith("__"):
                    yield name.id, node.lineno


def _count_lines(source: str, counts: Counts) -> None:
    """Comments that say something, and lines that are not blank."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            counts.comments += not _DIRECTIVE.match(token.string)
    counts.code_lines += sum(bool(line.strip()) for line in source.splitlines())


def _count_function(node: Function, path: str, counts: Counts) -> None:
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    counts.function_lengths.append(length)
    if length > LONG:
        counts.long_functions.append(Place(f"{node.name} ({length} lines)", path, node.lineno))
    named = node.args
    positional = [*named.posonlyargs, *named.args]
    every = [*positional, *named.kwonlyargs, *(arg for arg in (named.vararg, named.kwarg) if arg)]
    notes = {f"{node.name}({arg.arg})": arg.annotation for arg in every} | {f"{node.name} ->": node.returns}
    for name, annotation in notes.items():
        if annotation is not None:
            counts.annotations += 1
            counts.any_annotations += _any_place(annotation, name, path)
    defaults = [None] * (len(positional) - len(named.defaults)) + list(named.defaults)
    for arg, default in zip(positional, defaults, strict=True):
        place = Place(f"{node.name}({arg.arg})", path, arg.lineno)
        if is_bool(arg.annotation):
            counts.positional_bools.append(place)
        elif isinstance(default, ast.Constant) and isinstance(default.value, bool):
            counts.bool_defaults.append(place)
    asked = [arg for number, arg in enumerate(every) if number or arg.arg not in ("self", "cls")]
    counts.typed.append(node.returns is not None and all(arg.annotation is not None for arg in asked))
    if not node.name.startswith("_"):
        counts.documented.append(ast.get_docstring(node) is not None)


def _count_class(node: ast.ClassDef, path: str, counts: Counts) -> None:
    if not node.name.startswith("_"):
        counts.documented.append(ast.get_docstring(node) is not None)
    made = " ".join(ast.unparse(part) for part in (*node.decorator_list, *node.bases))
    if not re.search(r"\b(dataclass|NamedTuple)\b", made) or "kw_only=True" in made:
        return
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and is_bool(line.annotation):
            name = f"{node.name}({ast.unparse(line.target)})"
            counts.bool_fields.append(Place(name, path, line.lineno))


def is_bool(annotation: ast.expr | None) -> bool:
    """Does an annotation say bool, or bool or None?"""
    text = ast.unparse(annotation) if annotation is not None else ""
    return re.sub(r"['\" ]|\|None|None\|", "", text) == "bool"


def _any_place(annotation: ast.expr, name: str, path: str) -> list[Place]:
    """The annotation's place, if it names Any."""
    text = ast.unparse(annotation)
    return [Place(f"{name} {text}", path, annotation.lineno)] if re.search(r"\bAny\b", text) else []


# ----------------------------------------------------------------------------------------- the table


def table(counts: Counts) -> dict[str, float | int]:
    """The figures of the table, by their label."""
    names = len(counts.top_level) or 1
    functions = counts.function_lengths or [0]
    return {
        "files": len(counts.file_lengths),
        "lines": sum(counts.file_lengths),
        "file length, median": percentile(counts.file_lengths, 50),
        "file length, p95": percentile(counts.file_lengths, 95),
        "functions": len(counts.function_lengths),
        "function length, median": percentile(functions, 50),
        "function length, p95": percentile(functions, 95),
        "function length, max": max(functions),
        f"functions above {LONG} lines, %": _percent(len(counts.long_functions), len(functions)),
        "top-level names": len(counts.top_level),
        "top-level names of one single word, %": _percent(len(counts.one_word), names),
        "same name in two or more modules, %": _percent(len(counts.shared), names),
        "comments per 100 code lines": _percent(counts.comments, counts.code_lines),
        "annotations": counts.annotations,
        "annotations that name Any, %": _percent(len(counts.any_annotations), counts.annotations),
        "fields and variables that name Any, %": _percent(len(counts.any_variables), counts.variables),
        "positional bool parameters": len(counts.positional_bools),
        "positional parameters with a bool default only": len(counts.bool_defaults),
        "positional bool fields": len(counts.bool_fields),
        "functions fully typed, %": _percent(sum(counts.typed), len(counts.typed)),
        "public, with a docstring, %": _percent(sum(counts.documented), len(counts.documented)),
    }


def percentile(values: list[int], percent: int) -> int:
    """The value that so many percent of all are not above; the middle one, for 50, rounded down."""
    if not values:
        return 0
    if percent == 50:
        return math.floor(statistics.median(values))
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _percent(some: int, all_of_them: int) -> float:
    return round(100 * some / all_of_them, 1) if all_of_them else 0.0


def markdown(columns: dict[str, dict[str, float | int]]) -> str:
    """One Markdown table of one or two columns of figures."""
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for label in next(iter(columns.values())):
        cells = " | ".join(f"{column[label]:,}" for column in columns.values())
        lines.append(f"| {label} | {cells} |")
    return "\n".join(lines)


def offenders(counts: Counts, which: str) -> list[Place]:
    """What `--list` shows."""
    return {
        "one-word": counts.one_word,
        "shared": counts.shared,
        "any": [*counts.any_annotations, *counts.any_variables],
        "bools": [*counts.positional_bools, *counts.bool_defaults, *counts.bool_fields],
        "long": counts.long_functions,
    }[which]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, default=[Path(name) for name in DEFAULT_FOLDERS])
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="checkout [default: here]")
    parser.add_argument("--against", type=Path, metavar="OTHER", help="an earlier checkout: `before`")
    parser.add_argument("--constants", action="store_true", help="constants are names, too")
    parser.add_argument("--list", choices=LISTS, dest="which", help="the offenders instead of the table")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        now = measure(args.folders, args.root.resolve(), args.constants)
        before = measure(args.folders, args.against.resolve(), args.constants) if args.against else None
    except (FileNotFoundError, SyntaxError) as error:
        sys.exit(str(error))
    if args.which:
        found = offenders(now, args.which)
        rows = [vars(place) for place in found]
        print(json.dumps(rows, ensure_ascii=False) if args.json else "\n".join(map(str, found)))
        return
    columns = {"now": table(now)} if before is None else {"before": table(before), "after": table(now)}
    print(json.dumps(columns, ensure_ascii=False) if args.json else markdown(columns))


if __name__ == "__main__":
    main()

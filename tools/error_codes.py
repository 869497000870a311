"""Numbers the errors and writes their pages: `python tools/error_codes.py`.

`core/kovqa_core/messages/error_codes.tsv` holds a line for each message that an error of `errors.py` may carry: its code
and its key. A code begins with the error's exit code (9: it depends on where it happens), and is never changed nor given
again: a line whose message is gone stays.
`docs/errors.md` lists all codes that the code still uses, with what to do.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "core")]

from kovqa_core import errors  # noqa: E402
from kovqa_core.messages import languages  # noqa: E402

FILE = ROOT / "core" / "kovqa_core" / "messages" / "error_codes.tsv"
EXIT_CODES = {
    name: value.exit_code
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.KovqaError)
}
# Errors of a package's own that are one of these, and functions that make one: read from the code below.
MAX_DEPTH = 4


class ErrorFinder:
    """Finds the keys of messages that may become an error's, through variables, parameters and helper functions."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.hints: dict[str, str] = {}  # the key of what to do, by the key of what is wrong
        self.functions: dict[str, list[ast.FunctionDef]] = {}
        self.calls: dict[str, list[tuple[ast.Call, ast.FunctionDef | None]]] = {}
        for folder in ("core/kovqa_core", "core/kovqa", "kovqa_cli"):
            for path in sorted((ROOT / folder).rglob("*.py")):
                self._read(ast.parse(path.read_text("utf-8")), None)

    def _read(self, node: ast.AST, scope: ast.FunctionDef | None) -> None:
        if isinstance(node, ast.FunctionDef):
            self.functions.setdefault(node.name, []).append(node)
            scope = node
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                if isinstance(base, ast.Name) and base.id in EXIT_CODES:
                    EXIT_CODES.setdefault(node.name, EXIT_CODES[base.id])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            self.calls.setdefault(node.func.id, []).append((node, scope))
            if node.func.id == "message" and len(node.args) == 2:
                key, english = (getattr(argument, "value", "") for argument in node.args)
                self.texts[key] = english
        for child in ast.iter_child_nodes(node):
            self._read(child, scope)

    def error_keys(self) -> dict[str, int]:
        """The exit code of each key that an error may carry."""
        found: dict[str, int] = {}
        for name, exit_code in sorted(EXIT_CODES.items()):
            for call, scope in self.calls.get(name, []):
                hints = [key for node in call.args[1:2] for key in self._keys(node, scope, MAX_DEPTH)]
                for key in self._keys(call.args[0], scope, MAX_DEPTH) if call.args else ():
                    found.setdefault(key, exit_code)
                    if hints:
                        self.hints.setdefault(key, hints[0])
        # What the search misses, such as messages out of tables: whatever has a hint is an error, too.
        for key in self.texts:
            if f"{key}.hint" in self.texts:
                self.hints[key] = f"{key}.hint"
                found.setdefault(key, 9)
        wrappers = {key for key in found if key.startswith("errors.")}  # around another message
        return {key: found[key] for key in found if key not in wrappers}

    def _keys(self, node: ast.expr, scope: ast.FunctionDef | None, depth: int) -> Iterator[str]:
        if depth == 0:
            return
        if isinstance(node, ast.IfExp):
            yield from self._keys(node.body, scope, depth)
            yield from self._keys(node.orelse, scope, depth)
        elif isinstance(node, ast.BoolOp):
            for value in node.values:
                yield from self._keys(value, scope, depth)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield from self._keys_of_call(node, node.func.id, scope, depth)
        elif isinstance(node, ast.Name) and scope is not None:
            yield from self._keys_of_name(node.id, scope, depth)

    def _keys_of_call(
        self, node: ast.Call, name: str, scope: ast.FunctionDef | None, depth: int
    ) -> Iterator[str]:
        if name == "message":
            yield str(getattr(node.args[0], "value", ""))
            return
        if name == "did_you_mean":
            yield from self._keys(node.args[0], scope, depth)
        for function in self.functions.get(name, []):
            for part in ast.walk(function):
                if isinstance(part, ast.Return) and part.value is not None:
                    yield from self._keys(part.value, function, depth - 1)

    def _keys_of_name(self, name: str, scope: ast.FunctionDef, depth: int) -> Iterator[str]:
        for part in ast.walk(scope):
            targets = part.targets if isinstance(part, ast.Assign) else []
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                yield from self._keys(part.value, scope, depth - 1)  # type: ignore[attr-defined]
        parameters = [parameter.arg for parameter in scope.args.args]
        if name in parameters:
            for call, caller in self.calls.get(scope.name, []):
                place = parameters.index(name)
                given = [keyword.value for keyword in call.keywords if keyword.arg == name]
                for argument in given or call.args[place : place + 1]:
                    yield from self._keys(argument, caller, depth - 1)


def read_codes() -> dict[str, str]:
    """Code by key, of all that ever had one."""
    lines = FILE.read_text("utf-8").splitlines() if FILE.is_file() else []
    return {key: code for code, _, key in (line.partition("\t") for line in lines)}


def assign_codes(keys: dict[str, int], codes: dict[str, str]) -> dict[str, str]:
    """The codes with those of new keys: the next free number of each exit code."""
    assigned = dict(codes)
    for key in sorted(keys):
        if key not in assigned:
            first = f"KOVQA-{str(keys[key])[0]}"
            numbers = [int(code[-3:]) for code in assigned.values() if code.startswith(first)]
            assigned[key] = f"{first}{max(numbers, default=0) + 1:03}"
    return assigned


HEADING = """# Errors by their codes · 오류 코드

An error names its code. The first digit is the exit code (7: 75; 9: one of several). In braces stands what an error names.

오류에는 코드가 붙습니다. 첫 숫자는 종료 코드입니다(7은 75, 9는 경우에 따라 다름). 중괄호에는 오류마다 다른 값이 들어갑니다.

| code | what is wrong → what to do | 무엇이 잘못되었나 → 어떻게 하나 |
|---|---|---|
"""


def render_page(finder: ErrorFinder, keys: dict[str, int], codes: dict[str, str]) -> str:
    """The page of all errors, in both languages: a code is searched for."""
    lines = []
    for key in sorted(keys, key=lambda key: codes[key]):
        texts = [_error_text(finder, key, language) for language in languages.LANGUAGES]
        lines.append(f"| {' | '.join([codes[key], *texts])} |")
    return HEADING + "\n".join(lines) + "\n"


def _error_text(finder: ErrorFinder, key: str, language: str) -> str:
    problem = _text(key, language, finder.texts)
    hint = _text(finder.hints.get(key, ""), language, finder.texts)
    text = f"{problem} → {hint}" if hint else problem
    return (
        text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_").replace("`", "")
    )


def _text(key: str, language: str, texts: dict[str, str]) -> str:
    translated = (
        languages.read_catalogue(language, key.partition(".")[0]).get(key) if language != "en" else ""
    )
    return translated or texts.get(key, "")


def files_as_they_should_be() -> dict[Path, str]:
    """All that this script writes."""
    finder = ErrorFinder()
    keys = finder.error_keys()
    codes = assign_codes(keys, read_codes())
    lines = sorted(f"{code}\t{key}" for key, code in codes.items())
    return {
        FILE: "\n".join(lines) + "\n",
        ROOT / "docs" / "errors.md": render_page(finder, keys, codes),
    }


def main() -> None:
    """Write the table and the pages."""
    for path, text in files_as_they_should_be().items():
        path.write_text(text, "utf-8")
        print(f"{path.relative_to(ROOT)}: {len(text.splitlines())} lines")


if __name__ == "__main__":
    main()

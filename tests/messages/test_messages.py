"""Texts for people: each has a key, one English text, and exactly the fields that it names; and is English."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import kovqa_core
import pytest
from kovqa_core.messages import Message, message

import kovqa_cli

CORE, CLI = Path(kovqa_core.__file__).parent, Path(kovqa_cli.__file__).parent
FILES = sorted([*CORE.parent.rglob("*.py"), *CLI.rglob("*.py")])
KEY = re.compile(r"[a-z0-9_]+(\.[a-z0-9-]+)+")


pytestmark = pytest.mark.xdist_group("messages")  # the files are read once, and not where tests are collected


@cache
def nodes() -> list[tuple[Path, tuple[ast.AST, ...]]]:
    """All that each file's tree holds."""
    return [(path, tuple(ast.walk(ast.parse(path.read_text("utf-8"))))) for path in FILES]


@cache
def message_calls() -> list[tuple[str, ast.Call]]:
    """Calls of `message`, with their places."""
    return [
        (f"{path.relative_to(path.parents[2])}:{node.lineno}", node)
        for path, found in nodes()
        for node in found
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "message"
    ]


def text_of(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def test_a_message_is_a_text_that_knows_its_key_and_fields() -> None:
    text = message(
        "index.rows-left-out", "{rows:,} rows of {file} are left out", rows=1200, file=Path("a.csv")
    )
    assert text == "1,200 rows of a.csv are left out"
    assert isinstance(text, Message)
    assert (text.key, text.fields) == ("index.rows-left-out", {"rows": 1200, "file": Path("a.csv")})


def test_every_message_has_a_key_a_text_and_its_fields() -> None:
    wrong = []
    for place, call in message_calls():
        key, english = (text_of(argument) for argument in call.args) if len(call.args) == 2 else (None, None)
        if key is None or english is None or not KEY.fullmatch(key):
            wrong.append(f"{place}: key and text are two literals, the key like index.image-missing")
            continue
        named = {field for _, field, _, _ in string.Formatter().parse(english) if field is not None}
        given = {keyword.arg for keyword in call.keywords}
        if named != given:
            wrong.append(f"{place}: the text names {sorted(named)}, given are {sorted(map(str, given))}")
    assert not wrong


def test_one_key_one_text() -> None:
    texts: dict[str, set[str]] = {}
    for _, call in message_calls():
        texts.setdefault(text_of(call.args[0]) or "", set()).add(text_of(call.args[1]) or "")
    assert not {key: found for key, found in texts.items() if len(found) > 1}


ERRORS = {
    "KovqaError", "SettingsError", "DataError", "ModelError", "MachineError", "AssetError", "WorkerError", "LostError",
    "Stopped",
}  # fmt: skip


def test_every_error_speaks_by_key() -> None:
    """An error's words are messages, or come from one; nothing is glued together where it is raised."""
    wrong = []
    for path, found in nodes():
        for node in found:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
                for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                    glued = isinstance(argument, ast.JoinedStr | ast.BinOp)
                    if glued or (text_of(argument) or "") != "":
                        wrong.append(f"{path.relative_to(path.parents[2])}:{argument.lineno}")
    assert not wrong


# Each stands for a family of odd English that was in here; write what a native speaker would.
BANNED = [
    r"(?<!there )\b(is|are) no (?!longer|more|such)\w+", r"\btakes? it not\b", r"\binherits not\b", r"\bsee a firewall\b",
    r"\bleave (it|them|this|--[\w-]+) away\b", r"\bdo one again\b", r"\ba try without\b", r"\bsee to \w+ first\b",
    r"\bknow no language\b", r"\bsecond body\b", r"\btries doors\b", r"\bknows? not\b", r"\bpatiently\b",
]  # fmt: skip


def texts() -> Iterator[tuple[str, str]]:
    """Messages, help texts and docstrings, with their places."""
    for path, found in nodes():
        place = path.relative_to(path.parents[2])
        for node in found:
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (
                doc := ast.get_docstring(node)
            ):
                yield f"{place}:{getattr(node, 'lineno', 1)}", doc
            elif isinstance(node, ast.Call):
                words = [a for a in node.args if text_of(a)] + [
                    k.value for k in node.keywords if text_of(k.value)
                ]
                yield from ((f"{place}:{word.lineno}", text_of(word) or "") for word in words)


def test_no_odd_english() -> None:
    published = "answer is no class"  # a key of index.json, which stays
    lines = [(place, " ".join(text.split())) for place, text in texts() if text != published]
    assert not [
        (phrase, place, line[:90]) for place, line in lines for phrase in BANNED if re.search(phrase, line)
    ]

"""Every `kovqa …` that README, CONTRIBUTING or docs show is a command that exists, with options that exist.

Nothing is run here: `make demo` and tests/journeys run the journeys that the pages describe.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from kovqa_cli.main import app
from tests.docs.pages import PAGES, ROOT


def shown_commands(page: Path) -> Iterator[str]:
    """Commands of code blocks (a line each, comments off) and of inline code, as they stand."""
    text = page.read_text("utf-8")
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for block in blocks:
        yield from (line.removeprefix("$ ") for line in block.splitlines())
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", prose))


def kovqa_words(shown: str) -> Iterator[list[str]]:
    """The words after `kovqa` of each command on a line, up to a shell's operator or comment."""
    lexer = shlex.shlex(shown.removeprefix("!"), posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # a quote that is only half a quote: prose
        return
    command: list[str] | None = None
    for word in [*words, ";"]:
        if set(word) <= set("|&;"):
            if command:
                yield command
            command = None
        elif word == "kovqa" and command is None:
            command = []
        elif command is not None:
            command.append(word)


COMMANDS = [
    pytest.param(words, id=f"{page.name}: kovqa {' '.join(words)}"[:90])
    for page in PAGES
    for shown in shown_commands(page)
    if shown.removeprefix("!").startswith("kovqa ") or " && kovqa " in shown
    for words in kovqa_words(shown)
]


PLUGIN_COMMANDS = {"rows"}  # of the example in docs/plugins.md, which tests/test_plugins.py runs


@functools.cache  # 30 ms each time
def parser() -> Any:
    return typer.main.get_command(app)


def unknown_words(words: list[str]) -> list[str]:
    """Subcommands and options of a command line that the app does not have."""
    command, rest = parser(), list(words)
    options = {option for parameter in command.params for option in parameter.opts}
    while hasattr(command, "commands"):
        names = [word for word in rest if not word.startswith("-")]
        if not names:
            break
        if names[0] in PLUGIN_COMMANDS:
            return []
        if names[0] not in command.commands:
            return [names[0]]
        rest.remove(names[0])
        command = command.commands[names[0]]
        options |= {
            option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
        }
    typed = [word.strip("[]") for word in rest if re.match(r"\[?--?[a-z]", word)]
    return [word for word in typed if word.partition("=")[0] not in {*options, "-h", "--help"}]


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_that_is_shown_exists(words: list[str]) -> None:
    assert unknown_words(words) == []


def test_a_command_that_does_not_exist_is_noticed() -> None:
    assert unknown_words(["trian", "-r", "tiny"]) == ["trian"]
    assert unknown_words(["runs", "show", "--everything"]) == ["--everything"]
    assert unknown_words(["train", "-r", "tiny", "--set", "optim.lr=1e-5"]) == []


def named_files(page: Path) -> set[str]:
    """Files and folders that inline code of a page names; not those with a NAME to be filled in."""
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    codes = [code.replace("core/…", "core/kovqa_core") for code in re.findall(r"`([^`\s]+)`", prose)]
    named = re.compile(r"[\w./-]+(\.(py|md|yaml|toml)|/)")
    return {code for code in codes if named.fullmatch(code) and not re.search(r"NAME|X/", code)}


def test_files_named_for_contributors_exist() -> None:
    """By a whole path, or by the end of one where the line before says which folder is meant."""
    folders = ("core/kovqa_core", "core/kovqa", "kovqa_cli", "profiles", "tests", "tools", "docs", "bench")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    paths += ROOT.glob("*")
    ends = [f"/{path.relative_to(ROOT)}" + "/" * path.is_dir() for path in paths]
    ends += [f"/{folder}/" for folder in folders]
    written = {"run.yaml"}  # names of files that kovqa writes
    named = named_files(ROOT / "CONTRIBUTING.md") - written
    assert len(named) > 80
    assert not {name for name in named if not any(end.endswith(f"/{name}") for end in ends)}

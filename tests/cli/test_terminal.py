"""What reaches a terminal: through a pseudo-terminal, as functions and as whole commands."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.progress import Progress

from kovqa_cli.output import console
from kovqa_cli.output.progress import show_progress
from kovqa_cli.output.table import print_table
from tests.conftest import clean_env, command

BAD = "a\x1b[31m\rb\u202e\nc"
SHOWN = r"a\x1b[31m\rb\u202e\nc"


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], str]:
    """Calls a function whose stdout and stderr are a terminal; what it wrote there."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("CI", raising=False)

    def call(function: Callable[[], object]) -> str:
        leader, follower = pty.openpty()
        read: list[bytes] = []
        reader = threading.Thread(target=_read_all, args=(leader, read))
        reader.start()
        with open(follower, "w", encoding="utf-8") as stream:  # noqa: PTH123 - a descriptor
            monkeypatch.setattr(sys, "stdout", stream)
            monkeypatch.setattr(sys, "stderr", stream)
            function()
            stream.flush()
        monkeypatch.undo()
        reader.join(10)
        os.close(leader)
        return b"".join(read).decode().replace("\r\n", "\n")

    return call


def _read_all(leader: int, read: list[bytes]) -> None:
    try:
        while data := os.read(leader, 65536):
            read.append(data)
    except OSError:  # the other end is closed
        pass


def test_notes_answers_and_json_are_escaped_on_a_terminal(
    on_terminal: Callable[[Callable[[], object]], str],
) -> None:
    assert on_terminal(lambda: console.print_note(BAD)) == f"{SHOWN}\n"
    assert on_terminal(lambda: console.print_warnings([BAD])) == f"warning: {SHOWN}\n"
    assert on_terminal(lambda: console.print_outcome(BAD, {}, as_json=False, quiet=True)) == f"{SHOWN}\n"
    shown = on_terminal(lambda: console.print_outcome(BAD, {"answer": BAD}, as_json=True, quiet=True))
    assert json.loads(shown)["answer"] == BAD
    assert "\x1b" not in shown and "\u202e" not in shown


def test_a_result_for_a_pipe_is_data(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_outcome("한 줄\n두 줄\t끝", {}, as_json=False, quiet=False)
    assert capsys.readouterr().out == "한 줄\n두 줄\t끝\n"
    console.print_note("한 줄\n두 줄")  # for people, wherever it goes
    assert capsys.readouterr().err == "한 줄\\n두 줄\n"


def test_square_brackets_of_a_table_are_text(on_terminal: Callable[[Callable[[], object]], str]) -> None:
    rows = [["[/x]", "[image] 가"], ["[red]b[/red]", ":smile: [link=x]y"], [BAD, "x" * 5_000]]
    columns = [("[type]", "left"), ("b", "text")]
    text = on_terminal(lambda: print_table(columns, rows, "[caption]"))
    for part in ("[type]", "[caption]", "[/x]", "[image] 가", "[red]b[/red]", ":smile: [link=x]y", SHOWN):
        assert part in text
    assert "(5,000" in text and text.count("x") < 2_000
    assert "\x1b[31m" not in text


def test_wide_letters_keep_a_table_straight(on_terminal: Callable[[Callable[[], object]], str]) -> None:
    rows = [["가나다", "7"], ["ＡＢ", "8"], ["abcdef", "9"]]
    lines = on_terminal(lambda: print_table([("name", "left"), ("n", "left")], rows)).splitlines()
    from rich.cells import cell_len

    columns = {cell_len(line[: line.index(digit)]) for line in lines for digit in "789" if digit in line}
    assert len(columns) == 1


def test_a_bar_shows_a_stage_as_text(on_terminal: Callable[[Callable[[], object]], str]) -> None:
    def run() -> None:
        with show_progress() as on_progress:
            on_progress(Progress("[/x] \x1b]0;t\x07", 1, 2))
            on_progress(Progress("[image] \x07 kept", is_note=True))

    text = on_terminal(run)
    assert "[image] \\x07 kept" in text
    assert "\x1b]0;t" not in text


def test_a_whole_command_on_a_terminal(tmp_path: Path) -> None:
    """Words of the shell, too, may be names that somebody else chose."""
    leader, follower = pty.openpty()
    words = command(["doctor", BAD])
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=follower, stderr=follower, cwd=tmp_path, env=clean_env()
    )
    os.close(follower)
    read: list[bytes] = []
    _read_all(leader, read)
    os.close(leader)
    assert process.wait(60) == 2
    assert r"a\x1b[31m" in b"".join(read).decode()
    assert b"\x1b" not in b"".join(read)

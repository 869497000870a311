"""The notebooks are what tools/make_notebook.py makes of the READMEs; the Korean one is run, the English has its cells.

Its cells are run by a real kernel. `kovqa` is found there as a small program that asks this process for a fork
(tests/tools/forked_commands.py): each command starts in a tenth of a second, where Python would load torch anew.
"""

from __future__ import annotations

import json
import os
import runpy
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import left_out
from tests.docs.block_runner import plain_lines
from tests.docs.blocks import TypedLine, all_lines, substituted, typed_lines
from tests.docs.pages import PAIRS, ROOT
from tests.tools.forked_commands import ForkedCommands

pytestmark = pytest.mark.xdist_group("blocks")

MADE: dict[str, Any] = runpy.run_path(str(ROOT / "tools" / "make_notebook.py"))
_PROGRAM = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as asked:
    asked.connect({address!r})
    asked.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode() + b"\\n")
    code, told, said = json.loads(asked.makefile(encoding="utf-8").readline())
sys.stderr.write(told)
sys.stdout.write(said)
sys.exit(code)
"""


@dataclass
class KovqaProgram:
    """A program `kovqa` in a folder, whose commands are forks of a process that has loaded all libraries.

    Args:
        folder: where it lies; for PATH.
        commands: makes the forks.
    """

    folder: Path
    commands: ForkedCommands
    ended: list[tuple[list[str], int, str]] = field(default_factory=list)  # words, exit code, stderr

    def __enter__(self) -> KovqaProgram:
        self.folder.mkdir()
        address = str(self.folder / "socket")
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(address)
        self._server.listen()
        program = self.folder / "kovqa"
        program.write_text(_PROGRAM.format(python=sys.executable, address=address), "utf-8")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        threading.Thread(target=self._answer, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _answer(self) -> None:
        while True:
            try:
                asked, _ = self._server.accept()
            except OSError:  # closed
                return
            with asked:
                words, folder, environment = json.loads(asked.makefile(encoding="utf-8").readline())
                kept = {name: value for name, value in environment.items() if name.startswith("KOVQA_")}
                done = self.commands.run(words, Path(folder), environment=kept, seconds=120, inside="")
                self.ended.append((words, done.code, done.stderr))
                asked.sendall(json.dumps([done.code, done.stderr, done.stdout]).encode() + b"\n")


@pytest.fixture
def program(
    tmp_path: Path, forked_commands: ForkedCommands, monkeypatch: pytest.MonkeyPatch
) -> Iterator[KovqaProgram]:
    with KovqaProgram(tmp_path / "bin", forked_commands) as made:
        monkeypatch.setenv("PATH", f"{made.folder}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("KOVQA_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("KOVQA_LANG", "ko")
        yield made


def cells(name: str, kind: str) -> list[str]:
    """Sources of the cells of a kind."""
    document = json.loads((ROOT / "notebooks" / name).read_text("utf-8"))
    return ["".join(cell["source"]) for cell in document["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("name", MADE["NOTEBOOKS"])
def test_the_file_is_what_the_readme_says(name: str) -> None:
    assert (ROOT / "notebooks" / name).read_text("utf-8") == MADE["notebook_text"](name), (
        "python tools/make_notebook.py"
    )


def test_both_notebooks_have_the_same_cells() -> None:
    assert cells("kovqa_en.ipynb", "code") == cells("kovqa_ko.ipynb", "code")
    assert len(cells("kovqa_en.ipynb", "markdown")) == len(cells("kovqa_ko.ipynb", "markdown"))


def test_the_korean_notebook_runs_and_prints_what_it_says(tmp_path: Path, program: KovqaProgram) -> None:
    """With the substitutes of block_marks.yaml: few images and steps."""
    try:
        import nbformat
        from nbclient import NotebookClient
    except ImportError:
        left_out("no nbclient here: pip install nbclient ipykernel")
    notebook = nbformat.read(ROOT / "notebooks" / "kovqa_ko.ipynb", as_version=4)
    known = {f"!{line.text}": line for line in all_lines() if line.page == "README.md"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = "\n".join(f"!{substituted(known[line])}" for line in cell.source.splitlines())
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    assert [words for words, code, _ in program.ended if code] == []
    printed = [
        "".join(output.get("text", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
    assert len(printed) == len(cells("kovqa_ko.ipynb", "code"))
    for shown, came in zip(shown_outputs(), printed, strict=True):
        lines = iter(plain_lines(came))
        missing = [
            line for line in plain_lines("\n".join(shown.expected)) if line != "…" and line not in lines
        ]
        assert missing == [], f"{shown.text}\n{came}"


def shown_outputs() -> list[TypedLine]:
    """The last line of each block of the Korean walk, with what the page shows as its output."""
    page, heading, _ = MADE["NOTEBOOKS"]["kovqa_ko.ipynb"]
    assert page in PAIRS.values()
    return [line for line in typed_lines(page) if line.section == heading and line.expected]

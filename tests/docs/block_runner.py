"""Runs the lines of a page as a shell or a notebook would: in one folder, one after the other."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import Kovqa, clean_env, command
from tests.docs.blocks import TypedLine, marks_of, substituted

COLAB = "/content"  # what a notebook on Colab calls its folder


@dataclass
class BlockRunner:
    """One folder, in which the lines of a section are run.

    Args:
        folder: where they are run; `/content` is here.
        kovqa: runs a command of kovqa.
        environment: variables besides.
        words: word on a page -> what it stands for here (a team's name, a port).
    """

    folder: Path
    kovqa: Kovqa
    environment: dict[str, str] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    servers: ExitStack = field(default_factory=ExitStack)

    def run(self, line: TypedLine) -> str | None:
        """Run a line, or what its marks put in its place; what it printed, or None where nothing is run.

        Raises:
            AssertionError: it failed.
        """
        text = substituted(line)
        if text is None:
            return None
        text = text.replace(COLAB, str(self.folder))
        for word, meaning in self.words.items():
            text = re.sub(rf"(?<![\w-]){word}\b", lambda _, meaning=meaning: meaning, text)  # type: ignore[misc]
        if line.language == "python" or (line.language == "ipython" and text[0] not in "!%"):
            return self._python(text)
        if text.startswith("%"):
            return self._magic(text)
        until = next((mark.until for mark in marks_of(line) if mark.until), "")
        printed = [self._command(shlex.split(part), until) for part in text.removeprefix("!").split(" && ")]
        return "".join(printed)

    def _command(self, words: list[str], until: str) -> str:
        if words[0] != "kovqa":
            done = subprocess.run(
                words, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False
            )
        elif until:
            return self._serve(words[1:], until)
        else:
            done = self.kovqa(*words[1:], cwd=self.folder, **self.environment)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
        return done.stderr + done.stdout

    def _serve(self, words: list[str], until: str) -> str:
        """Start what runs until Ctrl-C; the lines that follow may ask it, at PORT."""
        process = self.servers.enter_context(
            subprocess.Popen(
                command(words), cwd=self.folder, env=clean_env(**self.environment), text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )
        )  # fmt: skip
        self.servers.callback(process.send_signal, signal.SIGINT)
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if until in line:
                break
        address = re.search(r"127\.0\.0\.1:(\d+)", printed)
        assert address, printed
        self.words["PORT"] = address[1]
        return printed

    def _magic(self, text: str) -> str:
        name, _, rest = text.partition(" ")
        if name == "%env":
            variable, _, value = rest.partition("=")
            self.environment[variable] = value
        else:
            assert name == "%cd", text
            assert Path(rest) == self.folder, "the folder of the section is where a notebook goes"
        return ""

    def _python(self, code: str) -> str:
        """In this process, with the modules of Colab; variables that it sets are those of later commands."""
        before = dict(os.environ)
        with colab_modules(self.environment), working_folder(self.folder):
            try:
                exec(compile(code, "block", "exec"), self.__dict__.setdefault("names", {}))
                changed = {name: value for name, value in os.environ.items() if before.get(name) != value}
            finally:
                os.environ.clear()
                os.environ.update(before)
        self.environment.update(changed)
        return ""


@contextmanager
def working_folder(folder: Path) -> Iterator[None]:
    """For a while, relative paths begin here."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def colab_modules(secrets: Mapping[str, str]) -> Iterator[None]:
    """What a notebook on Colab imports: a drive that is there, and the secrets of its owner."""
    made = {name: types.ModuleType(name) for name in ("google", "google.colab")}
    drive = types.SimpleNamespace(mount=lambda _path: None)
    userdata = types.SimpleNamespace(get=lambda name: secrets[f"COLAB_{name}"])
    made["google.colab"].__dict__.update(drive=drive, userdata=userdata)
    before = {name: sys.modules.get(name) for name in made}
    sys.modules.update(made)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name)
            else:
                sys.modules[name] = module


def plain_lines(printed: str) -> list[str]:
    """Lines of an output without what differs from run to run: numbers, times, spaces of tables, rules."""
    lines = []
    for line in printed.splitlines():
        line = re.sub(r"\b(\d+h)?(\d+m)?\d+s\b", "0s", line)
        line = re.sub(r"(\d+시간 ?)?(\d+분 ?)?\d+초", "0초", line)
        line = re.sub(r"\d[\d,.]*(e-\d+)?", "0", line)
        line = re.sub(r"\s+", " ", re.sub("─+", "", line)).strip()
        if re.search(r"[A-Za-z0-9]", line):
            lines.append(line)
    return lines

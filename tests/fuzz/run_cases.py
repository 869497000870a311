"""Cases of the fuzzer: which file of which kind gets which damage, and what a command does with it."""

from __future__ import annotations

import random
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.base_tree import make_base
from tests.fuzz.damages import DAMAGES
from tests.fuzz.file_kinds import FILE_KINDS, FileKind
from tests.fuzz.judge import MAX_MEMORY, MAX_SECONDS, find_fault, list_files
from tests.tools.forked_commands import Ended, ForkedCommands

# All that a case takes of the network is refused at once.
_NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
_NO_NETWORK |= {"KOVQA_RETRY_SECONDS": "0", "HF_HUB_OFFLINE": "1", "no_proxy": "", "NO_PROXY": ""}
_KINDS = {kind.name: kind for kind in FILE_KINDS}


@dataclass(frozen=True)
class Case:
    """One case.

    Args:
        kind: name of a file kind.
        damage: name of a damage.
        command: number of the kind's command.
        seed: of which file, and of the damage.
    """

    kind: str
    damage: str
    command: int
    seed: int

    def __str__(self) -> str:
        return f"{self.kind}/{self.damage}/{self.command}/{self.seed}"


def parse_case(text: str) -> Case:
    """The case that a line names.

    Raises:
        SystemExit: no such kind, damage or command.
    """
    kind, rest = text.split("/", 1)
    damage, command, seed = rest.rsplit("/", 2)
    if kind not in _KINDS or damage not in DAMAGES or int(command) >= len(_KINDS[kind].commands):
        raise SystemExit(f"no such case: {text}")
    return Case(kind, damage, int(command), int(seed))


def draw_case(seed: int, kinds: tuple[str, ...] = ()) -> Case:
    """A case by its number; what loads a model or starts processes is drawn more seldom."""
    draw = random.Random(seed)
    names = kinds or tuple(_KINDS)
    is_slow = [all(map(_is_slow, _KINDS[name].commands)) for name in names]
    kind = _KINDS[draw.choices(names, [0.4 if slow else 1 for slow in is_slow])[0]]
    weights = [0.1 if _is_slow(words) else 1 for words in kind.commands]
    command = draw.choices(range(len(kind.commands)), weights)[0]
    return Case(kind.name, draw.choice(list(DAMAGES)), command, seed)


def _is_slow(words: str) -> bool:
    return any(each in words for each in ("--model", "export", "tokenizer train", "tokenizer extend"))


@dataclass(frozen=True)
class Failure:
    """A case that did not end as it should: what was wrong, and what the command said."""

    case: Case
    damaged: str
    fault: str
    ended: Ended

    def __str__(self) -> str:
        words = _KINDS[self.case.kind].commands[self.case.command]
        repeat = f"make fuzz CASE={shlex.quote(str(self.case))}"
        said = "\n".join(f"    {line[:300]}" for line in self.ended.stderr.splitlines()[-12:])
        return f"{self.fault}\n  {self.damaged}: {self.case.damage}\n  kovqa {words}\n  {repeat}\n{said}"


class Fuzzer:
    """The base, the server of forks, and a folder for cases; a context manager."""

    def __init__(self) -> None:
        self.commands = ForkedCommands()
        self._scratch = Path(tempfile.mkdtemp(prefix="kovqa-fuzz-"))
        self.base = self._scratch / "base"
        self._number = 0

    def __enter__(self) -> Fuzzer:
        self.base.mkdir()
        make_base(self.base, self.commands)
        return self

    def __exit__(self, *exc: object) -> None:
        self.commands.__exit__(*exc)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def run(self, case: Case) -> Failure | None:
        """Run a case; None where it ended as it should."""
        kind = _KINDS[case.kind]
        folder = self._copy(kind)
        try:
            draw = random.Random(f"{case}")
            damaged = draw.choice(_files(kind, folder))
            DAMAGES[case.damage](folder / damaged, draw)
            before = list_files(folder)
            ended = self._run_command(kind, case.command, folder)
            fault = find_fault(
                kind, damaged, ended, before, list_files(folder), folder, _outputs(kind, case.command)
            )
            return Failure(case, damaged, fault, ended) if fault else None
        finally:
            _remove(folder)

    def run_whole(self, kind: FileKind, command: int) -> Ended:
        """The command on whole files."""
        folder = self._copy(kind)
        try:
            return self._run_command(kind, command, folder)
        finally:
            _remove(folder)

    def _copy(self, kind: FileKind) -> Path:
        self._number += 1
        folder = self._scratch / f"경우{self._number}"
        shutil.copytree(self.base / kind.tree, folder, symlinks=True)
        return folder

    def _run_command(self, kind: FileKind, command: int, folder: Path) -> Ended:
        environment = {"KOVQA_HOME": str(self._scratch / "home"), **_NO_NETWORK, **kind.environment}
        return self.commands.run(
            shlex.split(kind.commands[command]), folder, seconds=MAX_SECONDS, memory=MAX_MEMORY,
            environment=environment, capabilities=False, inside="",
        )  # fmt: skip


def _outputs(kind: FileKind, command: int) -> tuple[str, ...]:
    words = shlex.split(kind.commands[command])
    if "-n" in words:  # a dry run leaves nothing
        return ()
    return tuple(word.removeprefix("out/") for word in words if word.startswith("out/"))


def _files(kind: FileKind, folder: Path) -> list[str]:
    paths = {
        path
        for pattern in kind.files
        for path in folder.glob(pattern)
        if path.is_file() and not path.is_symlink()
    }
    links = {path for pattern in kind.files for path in folder.glob(pattern) if path.is_symlink()}
    return sorted(str(path.relative_to(folder)) for path in paths | links)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def failures(fuzzer: Fuzzer, first_seed: int, count: int, kinds: tuple[str, ...] = ()) -> Iterator[Failure]:
    """The cases from a seed on that fail."""
    for seed in range(first_seed, first_seed + count):
        if failure := fuzzer.run(draw_case(seed, kinds)):
            yield failure

"""kovqa commands by the hundred: one process loads all libraries once, and every command is a fork of it.

A fork runs `kovqa_cli.main.run` with words, environment, folder, streams and exit code of its own, as a shell
would start it, in some 30 ms in place of seconds. It can be limited in memory and time, and killed at the n-th
operation on a file of its folder.

    with ForkedCommands() as commands:
        done = commands.run(["index", "aihub", "--root", raw, "-o", out], folder=tmp_path)
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LIBRARIES = (
    "torch",
    "transformers",
    "PIL.Image",
    "numpy",
    "sentencepiece",
    "timm",
    "openpyxl",
    "pyarrow.parquet",
)
_PROGRAMS = (
    "__main__",
    "entry",
    "worker",
    "onnx_runtime_example",
)  # they do something where they are imported
# Audit events of Python that change files; `open` counts where it is for writing.
_CHANGES = (
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
    "shutil.copyfile", "shutil.rmtree", "shutil.move",
)  # fmt: skip


@dataclass(frozen=True)
class Started:
    """One command to run.

    Args:
        words: after `kovqa`.
        folder: the working folder.
        environment: all of it.
        stdin: a file; without one there is nothing to read.
        seconds: after so long it is killed with all it started.
        memory: bytes of address space beyond what the libraries take; 0: no limit.
        kill_at: SIGKILL before this operation on a file (1: the first); 0: never.
        kill_after: SIGKILL after so many seconds; 0: never.
        inside: operations on files below this folder are counted.
        capabilities: False: root may read no file that its mode forbids.
    """

    words: Sequence[str]
    folder: str
    environment: Mapping[str, str] = field(default_factory=dict)
    stdin: str = os.devnull
    seconds: float = 60
    memory: int = 0
    kill_at: int = 0
    kill_after: float = 0
    inside: str = ""
    capabilities: bool = True


@dataclass(frozen=True)
class Ended:
    """What came of a command.

    Args:
        code: exit code; negative: the signal that ended it.
        timed_out: it ran past its seconds.
        peak_memory: bytes of resident memory, libraries included.
        operations: the operations on files inside the counted folder, in order ("open /a/b", "os.rename /a/b").
    """

    code: int
    stdout: str
    stderr: str
    seconds: float
    timed_out: bool
    peak_memory: int
    operations: tuple[str, ...]


class ForkedCommands:
    """A server of forks; a context manager.

    Args:
        libraries: modules that it imports at the beginning; fewer start faster.
        environment: variables of the server besides ours: what a library reads when it is imported.
    """

    def __init__(
        self, libraries: Sequence[str] = LIBRARIES, environment: Mapping[str, str] | None = None
    ) -> None:
        # -P and -X utf8 as tests.conftest.command has them; stdout is the wire.
        words = [sys.executable, "-P", "-X", "utf8", "-m", "tests.tools.forked_commands", *libraries]
        self._server = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=_environment(**(environment or {})),
        )  # fmt: skip

    def __enter__(self) -> ForkedCommands:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(30)

    def run(self, words: Sequence[object], folder: Path, **options: Any) -> Ended:
        """Run one command; options are those of `Started`."""
        return self.run_at_once([words], folder, **options)[0]

    def run_at_once(self, commands: Sequence[Sequence[object]], folder: Path, **options: Any) -> list[Ended]:
        """Run several commands at the same moment, all in one folder."""
        extra = options.pop("environment", {})
        shared = {
            "inside": str(folder),
            **options,
            "environment": _environment(**extra),
            "folder": str(folder),
        }
        started = [Started(words=tuple(map(str, words)), **shared) for words in commands]
        return [Ended(**answer) for answer in self._ask([asdict(command) for command in started])]

    def _ask(self, request: object) -> Any:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(request), file=self._server.stdin, flush=True)
        line = self._server.stdout.readline()
        assert line, "the server of forks has ended"
        return json.loads(line)


def _environment(**extra: str) -> dict[str, str]:
    """As tests.conftest.clean_env, with one thread per process."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("KOVQA_", "PYTEST_", "TORCHELASTIC", "PYTORCH_"))
    }
    return {**kept, "CI": "true", "OMP_NUM_THREADS": "1", **extra}


# --------------------------------------------------------------------------- the server


def _serve() -> None:
    import importlib

    if "timm" in sys.argv:
        from kovqa_core.models.torchvision_compat import load_torchvision

        load_torchvision()
    for library in sys.argv[1:]:
        importlib.import_module(library)
    import typer.main

    from kovqa_cli.main import app

    # Typer builds the same parser for every command, from the functions' signatures: 30 ms each time.
    build = typer.main.get_command
    parser = build(app)
    typer.main.get_command = lambda typer_app: parser if typer_app is app else build(typer_app)
    _import_all_modules()
    _forget_exit_functions()
    gc.collect()
    gc.freeze()  # what is loaded is not looked through, and so not copied, by any fork
    wire = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in sys.stdin:
        started = [Started(**command) for command in json.loads(line)]
        folders = [_scratch() for _ in started]
        begin = time.monotonic()
        pids = [_fork(command, scratch) for command, scratch in zip(started, folders, strict=True)]
        answers = _wait(started, pids, folders, begin)
        os.write(wire, (json.dumps(answers) + "\n").encode())
    os._exit(0)  # without the libraries' functions for it, their objects would complain


def _import_all_modules() -> None:
    """Commands import their modules when they run: a third of a second of each fork, most of it pydantic's classes.

    A module that lacks a package here lacks it in the fork, too, which then says so.
    """
    import importlib
    import pkgutil

    import kovqa_core

    import kovqa_cli

    for package in (kovqa_core, kovqa_cli):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.rpartition(".")[2] not in _PROGRAMS:
                with contextlib.suppress(ImportError):
                    importlib.import_module(module.name)


def _forget_exit_functions() -> None:
    """Those that libraries left at their import take 40 ms of each fork, to tidy up what no fork has used."""
    import atexit
    import logging
    import multiprocessing.util

    atexit._clear()
    for function in (logging.shutdown, multiprocessing.util._exit_function):  # type: ignore[attr-defined]
        atexit.register(function)


def _scratch() -> Path:
    import tempfile

    return Path(tempfile.mkdtemp(prefix="forked-"))


def _fork(command: Started, scratch: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        _become(command, scratch)
        from kovqa_cli.main import run

        run()
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
        if isinstance(left.code, str):
            print(left.code, file=sys.stderr)
    except BaseException:  # a traceback, as the interpreter prints it
        traceback.print_exc()
        code = 1
    try:
        import atexit
        import threading

        # As the interpreter ends: a pool's thread may still be tidying up.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _become(command: Started, scratch: Path) -> None:
    os.setsid()
    os.chdir(command.folder)
    os.environ.clear()
    os.environ.update(command.environment)
    for number, name in ((0, command.stdin), (1, scratch / "stdout"), (2, scratch / "stderr")):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT, 0o600), number)
    # The server's own streams hold its requests: what is left of them is not the command's to read.
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        for number, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    sys.argv = ["kovqa", *command.words]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if command.memory:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + command.memory, taken + command.memory))
    if command.kill_after:
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, command.kill_after)
    if command.inside:
        count_operations(command, scratch)
    if not command.capabilities:
        drop_capabilities()


def drop_capabilities() -> None:
    """As capset(2): from here on root is a user like any other, who owns root's files."""
    import ctypes

    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")


def count_operations(command: Started, scratch: Path) -> None:
    """Note each change of a file below the folder; before the `kill_at`-th, end this process as SIGKILL does."""
    log = os.open(scratch / "operations", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    me, inside, count = os.getpid(), _whole_path(command.inside), 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in _CHANGES and not (event == "open" and _writes(arguments)):
            return
        if os.getpid() != me or not isinstance(arguments[0], (str, bytes, os.PathLike)):
            return
        path = _whole_path(arguments[0])
        if not path.startswith(inside):
            return
        count += 1
        os.write(log, f"{event} {path}\n".encode(errors="surrogateescape"))
        if count == command.kill_at:
            os.kill(me, signal.SIGKILL)

    sys.addaudithook(hook)


def _whole_path(path: str | bytes | os.PathLike[str]) -> str:
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - links are not followed


def _writes(arguments: tuple[Any, ...]) -> bool:
    """Is this `open` for writing? Its second argument is a mode, or None beside the flags of os.open."""
    mode, flags = arguments[1], arguments[2]
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _wait(
    started: Sequence[Started], pids: Sequence[int], folders: Sequence[Path], begin: float
) -> list[dict[str, Any]]:
    """Wait for all, end those that take too long, and collect what they wrote."""
    import shutil

    answers: dict[int, dict[str, Any]] = {}
    timed_out: set[int] = set()
    while len(answers) < len(pids):
        pid, status, usage = os.wait4(-1, os.WNOHANG)
        now = time.monotonic()
        if pid in pids:
            answers[pid] = {
                "code": os.waitstatus_to_exitcode(status),
                "seconds": now - begin,
                "timed_out": pid in timed_out,
                "peak_memory": usage.ru_maxrss * 1024,
            }
            continue
        for command, each in zip(started, pids, strict=True):
            if each not in answers and now - begin > command.seconds:
                timed_out.add(each)
                os.killpg(each, signal.SIGKILL)
        time.sleep(0.002)
    for pid, scratch in zip(pids, folders, strict=True):
        _end_group(pid)  # what a killed command had started
        for name in ("stdout", "stderr"):
            answers[pid][name] = _read(scratch / name)
        answers[pid]["operations"] = tuple(_read(scratch / "operations").splitlines())
        shutil.rmtree(scratch, ignore_errors=True)
    return [answers[pid] for pid in pids]


def _end_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


if __name__ == "__main__":
    _serve()

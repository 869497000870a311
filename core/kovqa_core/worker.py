"""The door through which training processes enter: `python worker.py RUN/run.yaml`.

Started by torchrun, by its path, with PYTHONSAFEPATH=1, so that nothing in the user's folder can
take the engine's place. The first process that fails leaves `error.json` for the launcher.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent


def check_identity() -> None:
    """Refuse to run with an engine other than the one this file belongs to."""
    import kovqa_core

    found = Path(kovqa_core.__file__ or "").resolve().parent
    if found != HERE:
        sys.exit(f"kovqa: the engine in {found} is not the one in {HERE}; unset PYTHONPATH and try again")


def main(run_file: Path) -> int:
    """Train the run of a `run.yaml`; the exit code."""
    from kovqa_core.errors import KovqaError
    from kovqa_core.history.manifest import launched
    from kovqa_core.runs import ERROR
    from kovqa_core.settings.run import read_run
    from kovqa_core.train import ranks

    rank = ranks.from_env(os.environ)
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    folder = run_file.parent
    if not rank.first:
        _to_file(folder / "logs" / f"rank-{rank.rank}.log")
    try:
        run = read_run(run_file)
        lock = _lock(folder) if rank.first else None
        with launched(run) if rank.first else contextlib.nullcontext():
            from kovqa_core.train.loop import train

            device = ranks.join(rank, run.profile.device)
            train(run, rank, device, asked.is_set)
            ranks.leave()
        del lock
        return 0
    except KovqaError as error:
        _tell(folder / ERROR, type(error).__name__, error.message, error.hint, rank.rank)
        return error.exit_code
    except BaseException as error:
        trace = traceback.format_exc()
        print(trace, file=sys.stderr)
        if not asked.is_set() and not _is_echo(error):
            _tell(folder / ERROR, "", f"{type(error).__name__}: {error}", trace, rank.rank)
        return 1


def _is_echo(error: BaseException) -> bool:
    """Is this only another process's end, noticed here?"""
    text = str(error)
    return any(mark in text for mark in ("Connection closed by peer", "Connection reset by peer", "gloo"))


def _to_file(path: Path) -> None:
    """Send this process's output to its own log."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)


def _lock(folder: Path) -> object:
    """Hold the run folder for this process; waits for an earlier run's processes to end.

    Raises:
        SettingsError: another run goes on in this folder.
    """
    import fcntl

    from kovqa_core.errors import SettingsError

    stream = (folder / ".lock").open("a")
    for _ in range(60):
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return stream
        except BlockingIOError:
            time.sleep(0.5)
    raise SettingsError(f"another run is training in {folder}", "wait for it, or choose another -o")


def _tell(path: Path, kind: str, message: str, detail: str, rank: int) -> None:
    """Leave an error for the launcher; only the first one stays."""
    import json

    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    text = json.dumps({"kind": kind, "message": message, "detail": detail, "rank": rank}, ensure_ascii=False)
    try:
        part.write_text(text, encoding="utf-8")
        os.link(part, path)
    except OSError:
        pass  # somebody was first, or the disk takes nothing: the line below is what remains
    part.unlink(missing_ok=True)
    print(f"kovqa: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    check_identity()
    from kovqa_core.processes import die_with_parent

    die_with_parent()
    sys.exit(main(Path(sys.argv[1])))

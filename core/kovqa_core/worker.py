"""The door through which training processes enter: `python worker.py RUN/run.yaml`.

Started by torchrun, by its path, with PYTHONSAFEPATH=1, so that nothing in the user's folder can
take the engine's place. The first process that fails leaves `error.json` for the launcher.
"""

from __future__ import annotations

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
    """Train the run of a `run.yaml`; the exit code.

    0 means finished, or stopped with a complete checkpoint: only the first of srun's tasks says 75 then,
    and nobody under torchrun, which would begin again. `error.json` tells everybody else.
    """
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda *_: asked.set())
    folder, rank = run_file.parent, None
    try:
        from kovqa_core.errors import KovqaError, Stopped
        from kovqa_core.settings.run import read_run
        from kovqa_core.train import ranks

        run = read_run(run_file)
        elastic = run.profile.launcher == "torchrun" or run.profile.slurm.tasks == "node"
        rank = ranks.from_torchrun(os.environ) if elastic else ranks.from_slurm(os.environ)
        _to_log(folder, rank)
        return train(run, rank, asked)
    except ImportError as error:
        where = f"on {socket.gethostname()}, {sys.executable}"
        _tell(folder, "MachineError", f"a worker cannot start: {error} ({where})", "install kovqa there", -1)
        return 4
    except Stopped as stopped:
        _tell(folder, "Stopped", stopped.message, stopped.hint, number)
        return 0 if elastic or not rank.first else stopped.exit_code
    except KovqaError as error:
        _tell(folder, type(error).__name__, error.message, error.hint, rank.rank if rank else -1)
        return error.exit_code
    except BaseException as error:
        trace = traceback.format_exc()
        print(trace, file=sys.stderr)
        if not asked.is_set() and not _is_echo(error):
            _tell(folder, "", f"{type(error).__name__}: {error}", trace, rank.rank if rank else -1)
        return 1

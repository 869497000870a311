"""In a worker of a run under test: its phases are noted in a file, and last long enough to be interrupted."""

import os
import sys
import time

# Seconds that each phase lasts longer.
SECONDS = {"computing": float(os.environ.get("PHASES_COMPUTING", "0.01")), "evaluating": 0.1, "saving": 0.3}

if (file := os.environ.get("PHASES_FILE")) and any(word.endswith("worker.py") for word in sys.orig_argv[:4]):
    from kovqa_core.distributed import watchdog

    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    set_phase = watchdog.set_phase

    def set_slow_phase(phase: str, step: int | None = None) -> None:
        set_phase(phase, step)
        os.write(handle, f"{phase}\n".encode())
        time.sleep(SECONDS.get(phase, 0))

    watchdog.set_phase = set_slow_phase

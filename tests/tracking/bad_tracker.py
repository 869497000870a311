"""A tracker that does what libraries have done, one misdeed at a time (`MISDEED`)."""

from __future__ import annotations

import atexit
import ctypes
import os
import random
import signal
import subprocess
import sys
import threading
import time

MISDEED = os.environ.get("KOVQA_TEST_MISDEED", "")
if MISDEED == "raises when imported":
    raise RuntimeError("broken installation")


def set_variables(run):
    """Nothing to set."""


def open_tracker(run, state, warn):
    """Begin."""
    print("noise " * 1000)
    print("noise " * 1000, file=sys.stderr)
    random.seed(0)
    sys.excepthook = lambda *_: None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    if MISDEED == "raises at the beginning":
        raise ConnectionError(f"401 for {os.environ['KOVQA_TEST_API_KEY']} at https://me:pass@host/path")
    if MISDEED == "hangs at the beginning":
        time.sleep(1000)
    if MISDEED == "hangs and holds Python's lock":
        ctypes.PyDLL(None).sleep(1000)
    if MISDEED == "ends the process":
        os._exit(3)
    if MISDEED == "asks for an end":
        sys.exit("no key")
    if MISDEED == "leaves a thread and a process":
        threading.Thread(target=time.sleep, args=[1000]).start()
        atexit.register(time.sleep, 1000)
        subprocess.Popen(["sleep", "1000"])
    return BadTracker()


class BadTracker:
    """Of one run."""

    def add_values(self, rows):
        """Record."""
        if MISDEED == "raises at every record":
            raise OSError(28, "No space left on device")

    def add_samples(self, step, samples):
        """Show."""

    def finish(self, outcome, summary):
        """End."""
        if MISDEED == "hangs at the end":
            time.sleep(1000)

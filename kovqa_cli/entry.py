"""The first line of kovqa: signals are taken care of before the command line and its libraries are imported."""

from __future__ import annotations

# The interpreter's own part of `signal`: that module makes enumerations for milliseconds when it is imported, and
# Ctrl-C would meanwhile be a traceback of them.
import _signal  # type: ignore[import-not-found]
import os


def _exit_now(number: int, frame: object) -> None:
    os._exit(128 + number)


# Python that is started with `-c`, as the processes of a pool are, looks for modules in the working folder first: a
# struct.py in downloaded data would be run. A main module that is a file has only its own folder there.
os.environ["PYTHONSAFEPATH"] = "1"

for _number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
    if _signal.getsignal(_number) != _signal.SIG_IGN:
        _signal.signal(_number, _exit_now)


def run() -> None:
    """Entry point: see `kovqa_cli.main.run`."""
    from kovqa_cli.stop_signals import exit_on_signals

    exit_on_signals()
    from kovqa_cli.main import run as run_command

    run_command()

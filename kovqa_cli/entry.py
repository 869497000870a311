"""The first line of kovqa: signals are taken care of before the command line and its libraries are imported."""

from __future__ import annotations

# The interpreter's own part of `signal`: that module makes enumerations for milliseconds when it is imported, and
# Ctrl-C would meanwhile be a traceback of them.
import _signal  # type: ignore[import-not-found]
import os
import sys


def _exit_now(number: int, frame: object) -> None:
    os._exit(128 + number)


# Python that is started with `-c`, as the processes of a pool are, looks for modules in the working folder first: a
# struct.py in downloaded data would be run. A main module that is a file has only its own folder there.
os.environ["PYTHONSAFEPATH"] = "1"

for _name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
    _number = getattr(_signal, _name, None)
    if _number is not None and _signal.getsignal(_number) != _signal.SIG_IGN:
        _signal.signal(_number, _exit_now)


def run() -> None:
    """Entry point: see `kovqa_cli.main.run`."""
    from kovqa_cli.stop_signals import exit_on_signals

    exit_on_signals()
    try:
        from kovqa_cli.main import run as run_command
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "kovqa_cli", "kovqa_core"):
            raise  # a bug, or no installation of kovqa
        sys.exit(_report_missing(package))
    run_command()


def _report_missing(package: str) -> int:
    """Say that what the command line itself is made of is not installed."""
    from kovqa_core.messages.error_codes import find_error_code
    from kovqa_core.messages.languages import translate, user_language
    from kovqa_core.missing_packages import missing_package_error

    error, language = missing_package_error([package]), user_language()
    text, hint = translate(error.message, language), translate(error.hint, language)
    sys.stderr.write(f"kovqa: {text} [{find_error_code(error.message)}] → {hint}\n")
    return error.exit_code

"""Ctrl-C, SIGTERM and SIGHUP end a command with 130, 143 and 129: cleaned up, and never with a traceback."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Windows has no SIGHUP.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_REPEAT_SECONDS = 0.05

_received = 0  # the first of them, once one has arrived


def exit_on_signals() -> None:
    """From here on they end the process at once: while libraries are imported, and when all is done.

    There is nothing to clean up then, and a KeyboardInterrupt would be a traceback of whatever is being imported.
    """
    _handle_signals(_exit_now)
    sys.excepthook = _quiet_interrupts  # an interrupt that was on its way when the handlers were replaced
    if not _received:
        # Registered first, called last: Python gives its handlers up when it ends, and the system's would kill
        # what has ended well.
        atexit.register(_handle_signals, signal.SIG_IGN)


@contextlib.contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """While it lasts they raise KeyboardInterrupt, so that every `finally` does its work; then `exit_on_signals`.

    Raises:
        SystemExit: 128 + the number of the first one that came, whatever else the command ended with.
    """
    global _received
    _received = 0
    sys.unraisablehook = _repeat_interrupt
    try:
        _handle_signals(_interrupt)
        yield
    except BaseException:
        exit_on_signals()
        if not _received:
            raise
    finally:
        exit_on_signals()
    if _received:
        # CPython notes an interrupt that passed through exec() of a text, and ends by SIGINT at last, whatever
        # exit code is asked for; the next such exec() takes the note back.
        exec("")
        sys.exit(128 + _received)


def _handle_signals(handler: signal._HANDLER) -> None:
    for number in _SIGNALS:
        # nohup ignores SIGHUP, and a shell SIGINT of what a script runs in the background: both mean it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _exit_now(number: int, frame: FrameType | None) -> None:
    os._exit(128 + (_received or number))


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _received
    _received = _received or number
    if _is_importing(frame):
        # An exception on its way through the C++ of a library that is being imported aborts the process (torch's
        # does). What this leaves is what SIGKILL would leave.
        os._exit(128 + _received)
    raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _quiet_interrupts(kind: type[BaseException], error: BaseException, trace: object) -> None:
    if isinstance(error, KeyboardInterrupt):
        os._exit(128 + (_received or signal.SIGINT))
    sys.__excepthook__(kind, error, trace)  # type: ignore[arg-type]  # a traceback, or None


def _repeat_interrupt(unraisable: sys.UnraisableHookArgs) -> None:
    """An interrupt inside a destructor or callback is printed and dropped by Python: send it once more."""
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    import threading

    repeat = threading.Timer(_REPEAT_SECONDS, _signal_again)
    repeat.daemon = True
    repeat.start()


def _signal_again() -> None:
    number = _received or signal.SIGINT
    if hasattr(os, "killpg"):
        os.kill(os.getpid(), number)
    else:  # Windows, where os.kill ends a process at once
        signal.raise_signal(number)

"""What operating systems lack, asked by feature and not by name: Windows has no signals of terminals, owners or fork.

Everything but training (and SLURM) runs there; training needs Linux or macOS, on Windows WSL2.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterable
from typing import TYPE_CHECKING

from kovqa_core.errors import MachineError
from kovqa_core.messages import message

if TYPE_CHECKING:
    import subprocess

# Windows neither renames nor removes a file that is open, and gives a folder no descriptor.
MOVES_OPEN_FILES = hasattr(os, "geteuid")
HAS_FILE_OWNERS = hasattr(os, "geteuid")  # and permissions of user, group and others
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_NOT_OF_WINDOWS = re.compile(r'(?i)^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)|[<>:"|?*\x00-\x1f]|[ .]$')
# Process groups, signals between processes, a shell at /bin/sh: what a launch is made of.
_LAUNCHING = ("fork", "killpg", "setsid")


def existing_signals(names: Iterable[str]) -> tuple[signal.Signals, ...]:
    """Those of some signals that this system has, by their names ("SIGHUP")."""
    found = (getattr(signal, name, None) for name in names)
    return tuple(number for number in found if number is not None)


def owner_id() -> int:
    """Whose a file is that this process makes: `st_uid`, which is 0 where files have no owners."""
    return os.geteuid() if HAS_FILE_OWNERS else 0


def is_storable_name(name: str) -> bool:
    """Can this system store a file of that name? Windows keeps some for devices, and has neither `:` nor `?`."""
    return HAS_FILE_OWNERS or not _NOT_OF_WINDOWS.search(name)


def end_process_group(process: subprocess.Popen[str]) -> None:
    """Kill a process that has a session of its own, and what it has started; where there are none, it alone."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def require_launching() -> None:
    """See that worker processes can be started, listened to and stopped on this system.

    Raises:
        MachineError: they cannot; Windows.
    """
    if not all(hasattr(os, name) for name in _LAUNCHING):
        raise MachineError(
            message(
                "system_support.no-launching",
                "Windows itself cannot start a profile's processes: kovqa trains on Linux and macOS",
            ),
            message(
                "system_support.no-launching.hint",
                "install WSL2 (wsl --install), and type the same command in it; answering works here, without a profile",
            ),
        )

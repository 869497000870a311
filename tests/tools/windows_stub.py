"""Imported first in a process of tests: what kovqa's own modules then see of Python is what Windows has.

Libraries keep the system's own, for they know Windows themselves. A stub shows what is missing, and how an open file
behaves; nothing but a Windows shows what its own calls do.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import stat
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.tools import windows_locks

LACKS_MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty")
# Of https://docs.python.org/3/library/os.html and signal.html: "Availability: Unix", and not Windows.
_LACKS = {
    "os": (
        "O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_SYNC O_NOCTTY O_DSYNC O_TMPFILE O_PATH WNOHANG chown chroot "
        "ctermid fchdir fchmod fchown fork forkpty getegid geteuid getgid getgroups getloadavg getpgid getpgrp "
        "getpriority getresuid getsid getuid initgroups killpg lchown lockf major makedev minor mkfifo mknod nice "
        "openpty pathconf pipe2 posix_fadvise posix_fallocate posix_spawn pread pwrite readv register_at_fork "
        "sched_getaffinity sched_setaffinity sched_yield sendfile set_blocking setegid seteuid setgid setpgid "
        "setpriority setsid setuid statvfs fstatvfs sync sysconf tcgetpgrp tcsetpgrp ttyname uname wait wait3 "
        "wait4 writev WEXITSTATUS WIFEXITED WIFSIGNALED WTERMSIG"
    ),
    "signal": (
        "ITIMER_PROF ITIMER_REAL ITIMER_VIRTUAL SIGALRM SIGBUS SIGCHLD SIGCONT SIGHUP SIGIO SIGKILL SIGPIPE "
        "SIGPROF SIGQUIT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGUSR1 SIGUSR2 SIGXCPU SIG_BLOCK SIG_SETMASK SIG_UNBLOCK "
        "alarm getitimer pause pthread_kill pthread_sigmask set_wakeup_fd setitimer siginterrupt sigpending "
        "sigtimedwait sigwait sigwaitinfo"
    ),
}
LACKS = {module: names.split() for module, names in _LACKS.items()}


def _without(module: types.ModuleType, names: Sequence[str], changed: Mapping[str, Any]) -> types.ModuleType:
    """A module without some names; all others are its own."""
    copy = types.ModuleType(module.__name__, module.__doc__)
    vars(copy).update({name: value for name, value in vars(module).items() if name not in names})
    vars(copy).update(changed)
    return copy


def _open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: None = None) -> int:
    """`os.open` of Windows gives no descriptor of a folder."""
    handle = os.open(path, flags | os.O_CLOEXEC, mode)
    if stat.S_ISDIR(os.fstat(handle).st_mode):
        os.close(handle)
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
    return handle


def _fsync(handle: int) -> None:
    """Of Windows: only what is open to be written."""
    if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    os.fsync(handle)


def _kill(pid: int, number: int) -> None:
    """Of Windows: whatever the signal, the process ends with its number."""
    os._exit(number) if pid == os.getpid() else os.kill(pid, signal.SIGKILL)


def _guard_open_files(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that moves or removes files, as Windows has it: none that this process has open."""

    def guarded(*paths: Any, **options: Any) -> Any:
        if not options:  # of shutil: by the descriptor of their folder
            opened = set(_open_files())
            for path in paths:
                whole = os.path.realpath(os.fsdecode(path))
                if any(name == whole or name.startswith(whole + "/") for name in opened):
                    raise PermissionError(errno.EACCES, "it is open in this process (WinError 32)", path)
        return function(*paths, **options)

    return guarded


def _open_files() -> list[str]:
    names = []
    for handle in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists them
            names.append(str(handle.readlink()))
    return [name for name in names if name.startswith("/") and not name.startswith(("/dev/", "/proc/"))]


class _Kernel32:
    """A call of Windows' own library."""

    def __init__(self, name: str) -> None:
        assert name == "kernel32"

    def GlobalMemoryStatusEx(self, status: Any) -> int:
        """A machine of 16 GiB."""
        assert status[0] == ctypes.sizeof(status), "it begins with its own size"
        status[1] = 16 * 2**30
        return 1


STUBS = {
    "ctypes": _without(ctypes, (), {"WinDLL": _Kernel32}),
    "os": _without(os, LACKS["os"], {"open": _open, "fsync": _fsync, "kill": _kill}),
    "signal": _without(signal, LACKS["signal"], {}),
}
_import = builtins.__import__


def _import_as_windows(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> types.ModuleType:
    """What kovqa's modules import of these is what Windows has; all others import as ever."""
    if level == 0 and str((globals or {}).get("__name__")).startswith("kovqa"):
        if name in LACKS_MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name in STUBS:
            return STUBS[name]
        if name == "_signal":
            return STUBS["signal"]
    return _import(name, globals, locals, fromlist or (), level)


builtins.__import__ = _import_as_windows  # type: ignore[assignment]
for _name in ("rename", "replace", "remove", "unlink"):
    setattr(os, _name, _guard_open_files(getattr(os, _name)))
    setattr(STUBS["os"], _name, getattr(os, _name))
sys.modules["msvcrt"] = windows_locks
assert not any(name.startswith("kovqa") for name in sys.modules), "imported before the stub"
assert Path("/proc/self/fd").is_dir(), "the stub looks there for open files"

"""DuckDB, as `kovqa view` uses it: closed to everything but its own file.

Text of users reaches it as parameters alone. Once a database is built it is opened read-only, without access to other
files, without extensions, and with its settings locked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.errors import MachineError
from kovqa_core.messages import message
from kovqa_core.process_pool import usable_cpu_count

if TYPE_CHECKING:
    import duckdb

MEMORY_LIMIT = "1GiB"  # of DuckDB; what does not fit goes to its temporary files
_MAX_THREADS = 8  # each takes some memory of its own
_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
}


def require_engine() -> None:
    """See that what the page needs is installed.

    Raises:
        MachineError: it is not.
    """
    try:
        import duckdb  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MachineError(
            message(
                "view.missing-library",
                "kovqa view needs {library}, which is not installed",
                library=error.name or "",
            ),
            message("view.missing-library.hint", "pip install 'kovqa[serve]'"),
        ) from None


def open_new_database(path: Path) -> duckdb.DuckDBPyConnection:
    """A database to be filled; it may read files, those that our own code names."""
    import duckdb

    temporary = path.parent / "spill"
    settings = {
        **_CLOSED,
        "memory_limit": MEMORY_LIMIT,
        "threads": min(_MAX_THREADS, usable_cpu_count()),
        "temp_directory": str(temporary),
    }
    return duckdb.connect(str(path), config=settings)


def open_finished_database(path: Path, temporary: Path) -> duckdb.DuckDBPyConnection:
    """A database to be asked, and nothing else.

    Args:
        path: that `open_new_database` made.
        temporary: a folder for what does not fit into memory.

    Raises:
        duckdb.Error: it is damaged, or of another version.
    """
    import duckdb

    settings = {
        **_CLOSED,
        "memory_limit": MEMORY_LIMIT,
        "threads": min(_MAX_THREADS, usable_cpu_count()),
        "temp_directory": str(temporary),
    }
    connection = duckdb.connect(str(path), read_only=True, config=settings)
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


@contextlib.contextmanager
def engine_errors(folder: Path) -> Iterator[None]:
    """Turn what this machine refuses DuckDB into a `MachineError`.

    Args:
        folder: where it writes.
    """
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise _no_room(folder, error) from None
    except duckdb.IOException as error:
        raise _no_room(folder, error) from None


def _no_room(folder: Path, error: Exception) -> MachineError:
    reason = str(error).splitlines()[0]
    return MachineError(
        message("view.no-room", "counting in {folder} failed ({reason})", folder=folder, reason=reason),
        message(
            "view.no-room.hint", "make room there, or name another folder: XDG_CACHE_HOME=DIR, or TMPDIR=DIR with --no-cache"
        ),
    )  # fmt: skip

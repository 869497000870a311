"""DuckDB, as `kovqa view` uses it: closed to everything but its own file.

Text of users reaches it as parameters alone. Once a database is built it is opened read-only, without access to other
files, without extensions, and with its settings locked.

Why DuckDB and not SQLite: 7.5 million rows, two models' answers to 6 million of them, on two cores that many programs
shared (`bench/view_scale.py --engines`; DuckDB 2.0.1, SQLite 3.40 with indexes and an FTS5 trigram table; least of three):

| | DuckDB | SQLite |
|---|---|---|
| from JSON lines to the database | 63 s of CPU, scores included | 71 s to take DuckDB's rows, 153 s to index them |
| size | 188 MB | 549 MB |
| count and mean of 6 million rows | 0.02 s | 1.6 s |
| the most frequent answers | 0.15 s | 1.0 s |
| confused pairs | 0.2 s | 14.8 s |
| questions with their scores | 0.25 s | 19.6 s |
| search for four letters / for two | 0.28 s / 0.47 s | 0.01 s / 0.48 s |

Memory peaks at 1.4 GB while the database is made, and at 0.15 GB when one that was kept is opened.
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

"""One `kovqa view`: what it shows at once, and the database that it makes meanwhile."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.errors import KovqaError
from kovqa_core.messages import message
from kovqa_core.progress import Progress
from kovqa_core.view.build import build_database
from kovqa_core.view.cache import (
    build_folder,
    cache_folder,
    database_key,
    find_database,
    keep_database,
)
from kovqa_core.view.engine import open_finished_database
from kovqa_core.view.inputs import ViewInputs
from kovqa_core.view.queries import ViewQueries
from kovqa_core.view.thumbnails import Thumbnails

if TYPE_CHECKING:
    import duckdb

_STOP_SECONDS = 5.0  # for a database that is still being built at the end
_INTERRUPT_SECONDS = 0.05  # between two tries: a query that begins meanwhile has not heard the first


class ViewSession:
    """What is shown; the database is made by a thread, and `queries` is None until it is there.

    Args:
        inputs: what is shown.
        keep: may the database stay in the user's cache, for the next time?
        on_failure: called where it cannot be made; `error` says why.

    Attributes:
        progress: of making the database.
        error: why there is none.
        is_kept: whether it stays.
        key: stands in the addresses of images, which browsers keep: another session has others under the same numbers.
    """

    def __init__(
        self, inputs: ViewInputs, *, keep: bool = True, on_failure: Callable[[], object] = lambda: None
    ) -> None:
        self.inputs, self.on_failure = inputs, on_failure
        self.thumbnails = Thumbnails(inputs.images)
        self.key = secrets.token_hex(4)
        self.queries: ViewQueries | None = None
        self.progress: Progress = Progress(message("view.step-start", "opening"), 0, 1, "steps")
        self.error: BaseException | None = None
        self.is_kept = keep
        self._stop = threading.Event()
        self._failed_or_ready = threading.Event()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._building: duckdb.DuckDBPyConnection | None = None
        self._folder: Path | None = None
        # A daemon: a file that takes minutes must not hold the end of the program.
        self._thread = threading.Thread(target=self._run, name="view-database", daemon=True)

    def start(self) -> None:
        """Begin to make the database."""
        self._thread.start()

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the database, so long at most.

        Raises:
            KovqaError: it cannot be made.
        """
        self._failed_or_ready.wait(seconds)
        self.raise_error()

    def raise_error(self) -> None:
        """Raise why there is no database, if there cannot be one."""
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Stop, and remove what is temporary."""
        self._stop.set()
        deadline = time.monotonic() + _STOP_SECONDS
        # A thread that is inside DuckDB when Python ends aborts the process (SIGABRT).
        while self._is_busy() and time.monotonic() < deadline:
            with contextlib.suppress(Exception):  # it has just ended by itself
                self._interrupt()
            self._thread.join(_INTERRUPT_SECONDS)
        if self._connection is not None:
            self._connection.close()
        if self._folder is not None:  # of a thread that does not hear us
            shutil.rmtree(self._folder, ignore_errors=True)

    def _is_busy(self) -> bool:
        return self._thread.is_alive() or (self.queries is not None and self.queries.is_busy)

    def _interrupt(self) -> None:
        if self._building is not None:
            self._building.interrupt()
        if self.queries is not None:
            self.queries.interrupt()

    def _hold(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._building = connection

    def _run(self) -> None:
        try:
            with contextlib.ExitStack() as stack:
                self._folder = self._enter_folder(stack)
                self._connection = self._open_database(self._folder)
                self.queries = ViewQueries(self._connection, list(self.inputs.splits))
                self._failed_or_ready.set()
                self._stop.wait()  # the folder stays for what does not fit into memory
        except BaseException as error:  # raised again by the thread that asks
            if self._stop.is_set():
                return
            self.error = error
            self._failed_or_ready.set()
            self.on_failure()

    def _enter_folder(self, stack: contextlib.ExitStack) -> Path:
        """A folder in the cache; where there can be none, one with the system's temporary files."""
        if self.is_kept:
            try:
                return stack.enter_context(build_folder(cache_folder()))
            except KovqaError:
                self.is_kept = False
        return stack.enter_context(build_folder(Path(tempfile.gettempdir())))

    def _open_database(self, folder: Path) -> duckdb.DuckDBPyConnection:
        """The database that is kept, if there is one that opens; else a new one."""
        import duckdb

        key, spill = database_key(self.inputs), folder / "spill"
        if self.is_kept and (kept := find_database(key)):
            try:
                return open_finished_database(kept, spill)
            except duckdb.Error:  # cut off, or gone meanwhile: it is made anew
                pass
        built = build_database(self.inputs, folder, self._report, self._hold)
        self._building = None
        return open_finished_database(keep_database(built, key) if self.is_kept else built, spill)

    def _report(self, progress: Progress) -> None:
        if self._stop.is_set():
            raise _Stopped
        self.progress = progress


class _Stopped(Exception):
    """The page is closed while its database is being made."""

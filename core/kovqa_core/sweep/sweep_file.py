"""`sweep.json` in a sweep's folder: its grid, so that a changed one is seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from kovqa_core.files import write_json
from kovqa_core.messages import Message, message
from kovqa_core.settings.json_file import read_json_as
from kovqa_core.sweep.grid import SweepGrid, grid_points

SWEEP_FILE = "sweep.json"


@dataclass(frozen=True)
class StoredAxis:
    """A setting that varies, and its values."""

    key: str
    values: list[str]


@dataclass(frozen=True)
class StoredSweep:
    """The contents of `sweep.json`."""

    axes: list[StoredAxis]
    seeds: list[int]
    runs: list[str]


def write_sweep(folder: Path, grid: SweepGrid) -> None:
    """Write down the grid of a sweep."""
    axes = [StoredAxis(axis.key, list(axis.values)) for axis in grid.axes]
    runs = [point.name for point in grid_points(grid)]
    write_json(folder / SWEEP_FILE, {"schema": 1, **asdict(StoredSweep(axes, list(grid.seeds), runs))})


def read_sweep(folder: Path) -> StoredSweep | None:
    """The grid that was written down last; None: none was.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / SWEEP_FILE
    hint = message("sweep.bad-file.hint", "remove it: it is written again, and the runs beside it stay")
    return read_json_as(path, StoredSweep, hint) if path.is_file() else None


def grid_changes(stored: StoredSweep, grid: SweepGrid) -> Iterator[Message]:
    """How a grid is another than the one that was written down, in lines for people."""
    before, now = ({axis.key: list(axis.values) for axis in axes} for axes in (stored.axes, grid.axes))
    for key in {**before, **now}:
        if before.get(key) != now.get(key):
            yield message(
                "sweep.axis-changed",
                "the grid has changed: {key} {values} ({before} before)",
                key=key,
                values=", ".join(now.get(key, ["-"])),
                before=", ".join(before.get(key, ["-"])),
            )
    if stored.seeds != list(grid.seeds):
        yield message(
            "sweep.seeds-changed",
            "the grid has changed: seeds {seeds} ({before} before)",
            seeds=_seed_text(grid.seeds),
            before=_seed_text(stored.seeds),
        )
    left = set(stored.runs) - {point.name for point in grid_points(grid)}
    if left:
        yield message(
            "sweep.runs-of-other-grid",
            "{count} runs of the earlier grid stay as they are, and are not in this table",
            count=len(left),
        )


def _seed_text(seeds: list[int] | tuple[int, ...]) -> str:
    return ", ".join(map(str, seeds)) or "-"

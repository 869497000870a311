"""What trackers are told of a run, and what they have been sent of its log."""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from kovqa_core.bounded_json import parse_json
from kovqa_core.errors import KovqaError
from kovqa_core.files import read_json, write_json

TRACKING_FOLDER = "tracking"  # in the run folder: what trackers are told, and one state file for each
IMAGES_FOLDER = "images"  # in there: small copies of the validation images that are shown
PROJECT = "kovqa"  # unless the library's own variable names another


@dataclass(frozen=True)
class TrackedRun:
    """A run, as its trackers see it.

    Attributes:
        folder: the run folder.
        log: the file whose lines are recorded.
        samples: the file of what was answered to a few validation examples.
        config: settings, by dotted keys.
        tags: commits and versions, by name.
    """

    folder: Path
    log: Path
    samples: Path
    config: Mapping[str, object]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class LoggedValues:
    """The numbers of one line of the log: curves `KIND/NAME`."""

    step: int
    kind: str
    values: dict[str, float]


@dataclass(frozen=True)
class ShownSample:
    """A validation example as people see it in a tracker: a small copy of its image, and what was asked and said."""

    image: Path
    question: str
    answer: str
    truth: str

    @property
    def caption(self) -> str:
        """One line below the image."""
        return " ".join(
            filter(None, [self.question, f"→ {self.answer}", f"({self.truth})" if self.truth else ""])
        )


class Tracker(Protocol):
    """A run in a tracker. Whatever it raises or does, it does in a process of its own (`tracker_process.py`)."""

    def add_values(self, rows: list[LoggedValues]) -> None:
        """Record points of curves; the steps of a kind only grow."""

    def add_samples(self, step: int, samples: list[ShownSample]) -> None:
        """Show what was answered at an evaluation, whose score has just been recorded."""

    def finish(self, outcome: str, summary: Mapping[str, float]) -> None:
        """End the run: `outcome` is finished, stopped, failed or killed."""


@dataclass
class TrackerState:
    """What a tracker has been sent, as a file keeps it.

    Attributes:
        id: of the run in this tracker; a new one for a copy of a run folder.
        run_id: what the tracker calls it, where it chooses by itself.
        place: which folder that was: path, device and inode.
        sent: last step by kind of line. What is done again after a kill is not sent again.
    """

    id: str
    place: tuple[str, int, int]
    run_id: str = ""
    sent: dict[str, int] = field(default_factory=dict)


def write_tracked_run(run: TrackedRun) -> None:
    """Leave what trackers are told for their processes. Raises a KovqaError where the disk refuses it."""
    (run.folder / TRACKING_FOLDER).mkdir(exist_ok=True)
    write_json(
        run.folder / TRACKING_FOLDER / "run.json",
        {
            "log": run.log.name,
            "samples": run.samples.name,
            "config": dict(run.config),
            "tags": dict(run.tags),
        },
    )


def read_tracked_run(folder: Path) -> TrackedRun:
    """What `write_tracked_run` left."""
    values = read_json(folder / TRACKING_FOLDER / "run.json")
    files = folder / values["log"], folder / values["samples"]
    return TrackedRun(folder, *files, values["config"], values["tags"])


def image_copy(folder: Path, image: str) -> Path:
    """Where the small copy of a validation image lies.

    Args:
        folder: of the run.
        image: its name in the index.
    """
    name = hashlib.sha256(image.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return folder / TRACKING_FOLDER / IMAGES_FOLDER / f"{name}.jpg"


def shown_samples(run: TrackedRun, step: int) -> list[ShownSample]:
    """The samples of an evaluation whose images were copied."""
    if not run.samples.is_file():
        return []
    shown = []
    for line in run.samples.read_bytes().splitlines():
        try:
            row = parse_json(line)
            samples = row["samples"] if row["step"] == step else []
            for each in samples:
                path, truth = image_copy(run.folder, each["image"]), "; ".join(each["truth"][:1])
                if path.is_file():
                    shown.append(ShownSample(path, each["question"], each["answer"], truth))
        except (ValueError, LookupError, TypeError):  # torn by a kill
            continue
    return shown


def read_state(folder: Path, name: str) -> TrackerState:
    """How far a tracker has come with a run; a new state for a run, or a copy of one, that it does not know."""
    place = _place(folder)
    new = TrackerState(secrets.token_hex(8), place)
    try:
        state = TrackerState(**read_json(_state_file(folder, name)))
        path, device, inode = state.place
    except (KovqaError, TypeError, ValueError):
        return new
    # Of a folder that was moved the inode stays; one that came back to its place from elsewhere has its path.
    if path != place[0] and (device, inode) != place[1:]:
        return new
    return TrackerState(state.id, place, state.run_id, dict(state.sent))


def write_state(folder: Path, name: str, state: TrackerState) -> None:
    """Keep how far a tracker has come. Raises a KovqaError where the disk refuses it."""
    write_json(_state_file(folder, name), asdict(state))


def _state_file(folder: Path, name: str) -> Path:
    return folder / TRACKING_FOLDER / f"{name}.json"


def _place(folder: Path) -> tuple[str, int, int]:
    status = folder.stat()
    return os.path.realpath(folder), status.st_dev, status.st_ino


def logged_values(line: bytes) -> LoggedValues | None:
    """The numbers of a line of the log; None: it has none, or cannot be read."""
    try:
        row = parse_json(line)
        step, kind = int(row["step"]), str(row["kind"])
        numbers = {key: row[key] for key in row if isinstance(row[key], float) and math.isfinite(row[key])}
    except (ValueError, LookupError, TypeError):
        return None
    return LoggedValues(step, kind, {f"{kind}/{key}": value for key, value in numbers.items()})


def flat_config(
    values: Mapping[str, object], prefix: str = ""
) -> Iterator[tuple[str, str | int | float | bool]]:
    """Settings by dotted keys; lists as JSON; without those that are not set."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat_config(value, f"{prefix}{key}.")
        elif isinstance(value, str | int | float | bool):
            yield f"{prefix}{key}", value
        elif value is not None:
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False)


def error_text(error: BaseException) -> str:
    """What went wrong, in one line: its kind, and what it says."""
    return f"{type(error).__name__}: {error.message if isinstance(error, KovqaError) else error}"

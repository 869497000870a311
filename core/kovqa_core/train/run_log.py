"""What a run tells: `log.jsonl`, TensorBoard files, and lines for whoever watches."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from kovqa_core.files import disk_errors, write_text
from kovqa_core.runs.events import EVENTS_VARIABLE
from kovqa_core.runs.folder import LOG_FILE


class RunLog:
    """Records of one run; only the first process writes.

    Args:
        folder: the run folder.
        step: the step training goes on from: what an interrupted run logged beyond it is removed,
            because it will be done again.
        writes: is this the first process?
        without_evaluation: that step's evaluation will be done again, too.
    """

    def __init__(self, folder: Path, step: int, writes: bool, without_evaluation: bool = False) -> None:
        self.path, self.writes = folder / LOG_FILE, writes
        self._spoke = 0.0
        if writes:
            _truncate_log(self.path, step, without_evaluation)
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def record(self, kind: str, step: int, **values: Any) -> None:
        """One line of the log, also told to whoever watches."""
        if not self.writes:
            return
        row = {"kind": kind, "step": step, **values}
        with disk_errors(self.path), self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        for name, value in values.items():
            if isinstance(value, float):
                self._board.add_scalar(f"{kind}/{name}", value, step)
        self.tell(row)

    def progress(self, **values: Any) -> None:
        """Where the run is, at most five times a second; not kept."""
        if self.writes and time.monotonic() - self._spoke > 0.2:
            self._spoke = time.monotonic()
            self.tell({"kind": "progress", **values})

    def tell(self, event: dict[str, Any]) -> None:
        """Say an event: as JSON to `kovqa train`, as a line to a person."""
        if not self.writes:
            return
        if os.environ.get(EVENTS_VARIABLE):
            try:
                print(json.dumps(event, ensure_ascii=False), flush=True)
            except BrokenPipeError:
                os._exit(143)  # `kovqa train` is gone: go with it, the last checkpoint is whole
        elif event["kind"] != "progress":
            values = "  ".join(
                f"{k} {v:.5g}" if isinstance(v, float) else f"{k} {v}" for k, v in event.items()
            )
            print(values.removeprefix("kind "), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Hand everything to the disk."""
        if self.writes:
            self._board.close()


def _truncate_log(path: Path, step: int, without_evaluation: bool) -> None:
    """Keep the whole lines up to a step, its evaluation's if it counts."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
            again = without_evaluation and row.get("kind") == "eval" and row["step"] == step
            if row["step"] <= step and not again:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            break  # torn by a kill
    write_text(path, "".join(kept))


def read_log(folder: Path) -> list[dict[str, Any]]:
    """All records of a run's log."""
    path = folder / LOG_FILE
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    )

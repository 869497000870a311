"""What is asked of a run that was disturbed: the same end as an undisturbed one, nothing twice in its log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kovqa_core.runs.folder import follow_pointer

from tests.conftest import Small, training
from tests.tools.training_log import read_log

STEPS = 160  # some seconds: long enough to be disturbed twice
RUN = (
    f"optim.steps={STEPS}", "eval.every_steps=40", "save.every_steps=5", "data.augment=crop",
    "model.drop_path=0.2",
)  # fmt: skip


def words(small: Small, profile: Path, folder: Path, *assignments: str) -> list[object]:
    """`train …` of a run worth disturbing, on a profile."""
    asked = training(small, *RUN, *assignments)
    asked[asked.index("-p") + 1] = profile
    return [*asked, "--resume", "-o", folder]


def weights(folder: Path) -> dict[str, bytes]:
    """Every file of the last checkpoint, which is the last step's."""
    last = follow_pointer(folder, "last")
    assert last is not None
    assert last.name == f"step-{STEPS:06d}"
    return {str(p.relative_to(last)): p.read_bytes() for p in last.rglob("*") if p.is_file()}


def same_end(folder: Path, undisturbed: Path) -> None:
    """The same bits, and a log in which every step and every evaluation stands once, with the same loss."""
    assert weights(folder) == weights(undisturbed)
    assert _told(folder) == _told(undisturbed)


def _told(folder: Path) -> list[tuple[str, int, float]]:
    return [(row["kind"], row["step"], row.get("loss", row.get("score"))) for row in read_log(folder)]


def step(folder: Path) -> int:
    """The last step in the log, 0 before the first."""
    try:
        lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
        return int(json.loads(lines[-1])["step"]) if lines else 0
    except (OSError, ValueError):
        return 0


def until(true: Callable[[], Any], what: str, seconds: float = 120) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def marked_processes(mark: str) -> dict[str, list[int]]:
    """Living processes that carry a mark in their environment, by what they are."""
    processes: dict[str, list[int]] = {"launcher": [], "torchrun": [], "rank": []}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() not in (process / "environ").read_bytes().split(b"\0"):
                continue
            line = (process / "cmdline").read_bytes().decode().split("\0")
        except (OSError, UnicodeDecodeError):
            continue
        if "torch.distributed.run" in line:
            processes["torchrun"].append(int(process.name))
        elif any(word.endswith("worker.py") for word in line):
            processes["rank"].append(int(process.name))
        elif line != [""]:
            processes["launcher"].append(int(process.name))
    return processes


def ended(mark: str, seconds: float = 10) -> bool:
    """Are all processes with a mark gone, at once or soon?"""
    deadline = time.monotonic() + seconds
    while any(marked_processes(mark).values()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(marked_processes(mark).values())

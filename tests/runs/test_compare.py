"""Two runs side by side, and what launches of one run did otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kovqa_core.runs.compare import batch_splits, compare_runs
from kovqa_core.settings.resolve import load_profile, load_recipe
from kovqa_core.settings.run import make_run, write_run

Launch = tuple[int, int]  # first step, micro-batch


def run_folder(folder: Path, *launches: Launch) -> Path:
    """A run of a batch of 16, as far as a comparison looks at it."""
    folder.mkdir()
    write_run(make_run(load_recipe("tiny"), load_profile("cpu"), folder, []))
    entries = [
        {"from_step": step, "profile": "cpu", "processes": 1, "micro_batch": size, "accumulate": 16 // size}
        for step, size in launches
    ]
    (folder / "manifest.json").write_text(json.dumps({"schema": 1, "launches": entries}))
    return folder


def test_launches_that_split_the_batch_otherwise_differ(tmp_path: Path) -> None:
    a = run_folder(tmp_path / "a", (0, 16), (20, 4))
    b = run_folder(tmp_path / "b", (0, 4), (10, 4))
    (difference,) = compare_runs(a, b).differences
    assert (difference.section, difference.key) == ("batch", "launches")
    assert difference.a == "from step 1: 1 × 16 × 1 on cpu, from step 21: 1 × 4 × 4 on cpu"
    assert difference.b == "from step 1: 1 × 4 × 4 on cpu"
    assert compare_runs(a, a).differences == []


@pytest.mark.parametrize(
    ("launches", "splits"),
    [
        ([(0, 4), (8, 4), (16, 4)], [(0, 4)]),  # resumed on the same machine
        ([(0, 16), (0, 4)], [(0, 4)]),  # nothing of the first is left
        ([(0, 16), (20, 8), (10, 4)], [(0, 16), (10, 4)]),  # later step folders were removed
        ([(0, 16), (4, 8), (8, 16)], [(0, 16), (4, 8), (8, 16)]),
        ([], []),
    ],
)
def test_the_splits_by_which_steps_were_made(
    tmp_path: Path, launches: list[Launch], splits: list[Launch]
) -> None:
    folder = run_folder(tmp_path / "run", *launches)
    assert [(split.from_step, split.micro_batch) for split in batch_splits(folder)] == splits


def test_launches_of_an_earlier_version_say_no_split(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    (folder / "manifest.json").write_text(
        json.dumps({"schema": 1, "launches": [{"from_step": 0}, {"from_step": 4}]})
    )
    assert batch_splits(folder) == []

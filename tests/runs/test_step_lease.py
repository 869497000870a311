"""A reader beside a training that removes its older step folders."""

from __future__ import annotations

import json
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from kovqa_core.errors import ModelError
from kovqa_core.files import write_text
from kovqa_core.runs import step_lease
from kovqa_core.runs.checksums import note_files
from kovqa_core.runs.folder import find_model_folder
from kovqa_core.runs.step_lease import hold_step_folder, read_found_step, remove_unread_step
from kovqa_core.whole_folder import write_folder

READS = 50
STEPS = 5  # written, and removed, meanwhile at least
FILES = (
    "kovqa.json",
    "model.safetensors",
    "answers.txt",
    "trainer/state.json",
    "trainer/optimizer.safetensors",
)


def fill_step(step: Path, number: int) -> None:
    (step / "trainer").mkdir()
    for name in FILES:
        (step / name).write_text(json.dumps({"step": number, "best_step": number}))
    note_files(step)


def write_step(folder: Path, number: int) -> None:
    """What a training with keep=1 does, each step the best so far."""
    step = folder / f"step-{number:06d}"
    write_folder(step, partial(fill_step, number=number))
    for pointer in ("last", "best"):
        write_text(folder / pointer, step.name + "\n")
    for other in folder.glob("step-??????"):
        if other != step:
            remove_unread_step(other)


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
def test_readers_beside_a_pruning_training_always_read_a_whole_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    if not locks:  # a disk without them says so, and everybody goes on
        monkeypatch.setattr(step_lease, "_lock", lambda handle, *, shared: True)
    write_step(tmp_path, 1)
    ended = threading.Event()
    written = [1]

    def train() -> None:
        while not ended.is_set():
            written[0] += 1
            write_step(tmp_path, written[0])
            if not locks:
                # Nobody waits for a reader: it must get through between two steps, once in 20 tries.
                time.sleep(0.05)

    def read(step: Path) -> set[str]:
        contents = set()
        for name in FILES:
            contents.add((step / name).read_text())
            time.sleep(0.002)  # others take their turn between two files
        return contents

    training = threading.Thread(target=train)
    training.start()
    try:
        reads = 0
        while reads < READS or written[0] <= STEPS:  # a slow disk writes few steps in so many reads
            assert len(read_found_step(partial(find_model_folder, tmp_path, "vqa"), read)) == 1
            reads += 1
    finally:
        ended.set()
        training.join()
    if locks:
        remaining = [path.name for path in tmp_path.glob("step-*")]
        write_step(tmp_path, written[0] + 1)  # what was held is removed with the next one
        assert len(remaining) <= 2
        assert [path.name for path in tmp_path.glob("step-*")] == [f"step-{written[0] + 1:06d}"]


@pytest.mark.parametrize("is_published", [False, True], ids=["whole", "without trainer"])
def test_a_held_step_is_not_removed(tmp_path: Path, is_published: bool) -> None:
    step = tmp_path / "step-000001"
    write_folder(step, partial(fill_step, number=1))
    if is_published:
        for path in (step / "trainer").iterdir():
            path.unlink()
        (step / "trainer").rmdir()
    with hold_step_folder(step) as first, hold_step_folder(step) as second:
        assert first
        assert second
        assert not remove_unread_step(step)
        assert (step / "model.safetensors").is_file()
    assert remove_unread_step(step)
    assert list(tmp_path.iterdir()) == []
    with hold_step_folder(step) as is_there:
        assert not is_there


def test_what_is_wrong_with_a_folder_that_is_there_is_said_at_once(tmp_path: Path) -> None:
    write_step(tmp_path, 1)
    calls = []

    def read(step: Path) -> None:
        calls.append(step)
        raise ModelError("damaged")

    with pytest.raises(ModelError, match="damaged"):
        read_found_step(partial(find_model_folder, tmp_path, "vqa"), read)
    assert len(calls) == 1

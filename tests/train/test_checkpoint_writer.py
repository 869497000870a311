"""Checkpoints written by a thread: the bytes of those that training waits for, whole whatever ends the run."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from kovqa_core.errors import MachineError, Stopped
from kovqa_core.runs.checksums import damaged_files
from kovqa_core.runs.events import SavedEvent, WarningEvent
from kovqa_core.runs.folder import follow_pointer
from kovqa_core.settings.run import Run
from kovqa_core.train import checkpoint, checkpoint_writer, host_copies, loop
from kovqa_core.train.loop import run_training
from kovqa_core.train.run_log import RunLog
from kovqa_core.train.strategies.full_weights import copy_without_weights

from tests.conftest import Small
from tests.tools.training_log import read_log
from tests.train.test_resume import ALONE, CPU, Killed, everything, make_small_run, never_stop, stop_after

FOUR_STEPS = (
    "optim.steps=4",
    "eval.every_steps=4",
    "save.every_steps=2",
    "optim.ema_decay=0.5",
    "log_every=1",
)
write_step_folder = checkpoint.write_step_folder


def logged_steps(folder: Path) -> int:
    return max((row["step"] for row in read_log(folder)), default=0)


def write_only_after(step: int) -> Callable[..., Path]:
    """The first checkpoint is written once a later step stands in the log: training went on."""

    def write(folder: Path, parts: Any, progress: checkpoint.TrainProgress, keep: int) -> Path:
        end = time.monotonic() + 20
        while progress.step < step and logged_steps(folder) < step:
            assert time.monotonic() < end, "training waits for its checkpoint"
            time.sleep(0.005)
        return write_step_folder(folder, parts, progress, keep)

    return write


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    seen: list[object] = []
    monkeypatch.setattr(RunLog, "emit_event", lambda self, event: seen.append(event))
    return seen


def trained(run: Run) -> dict[str, object]:
    run_training(run, ALONE, CPU, never_stop)
    return everything(run)


def test_training_goes_on_and_the_bytes_are_those_of_a_training_that_waits(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: list[object]
) -> None:
    monkeypatch.setattr(checkpoint, "write_step_folder", write_only_after(3))
    left = trained(make_small_run(small, tmp_path / "thread", *FOUR_STEPS))
    assert not [event for event in events if isinstance(event, WarningEvent)]
    saved = [event for event in events if isinstance(event, SavedEvent)]
    assert [event.step for event in saved] == [2, 4]  # step 2's while step 3 was made, and told after it
    assert {"step-000002/trainer/weights.safetensors", "step-000002/trainer/files.json"} <= left.keys()
    events.clear()
    monkeypatch.setattr(checkpoint, "write_step_folder", write_step_folder)
    monkeypatch.setattr(host_copies, "available_memory", lambda: 1000)
    assert trained(make_small_run(small, tmp_path / "waits", *FOUR_STEPS)) == left
    notes = [event.note for event in events if isinstance(event, WarningEvent)]
    assert [note.split(":")[0] for note in notes] == ["training stands still while a checkpoint is written"]


def test_a_full_disk_ends_the_run_at_the_next_step(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_at_step_2(folder: Path, parts: Any, progress: checkpoint.TrainProgress, keep: int) -> Path:
        def write_nothing(unfinished: Path) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(unfinished))

        written = [write_nothing] if progress.step == 2 else parts
        return write_step_folder(folder, written, progress, keep)

    monkeypatch.setattr(checkpoint, "write_step_folder", full_at_step_2)
    run = make_small_run(small, tmp_path / "run", *FOUR_STEPS, "save.every_steps=1")
    with pytest.raises(MachineError, match="step-000001 is still whole"):
        run_training(run, ALONE, CPU, never_stop)
    assert logged_steps(run.folder) in (2, 3)  # step 3 was made, and may not have been read
    assert [path.name for path in sorted(run.folder.glob("*step-*"))] == ["step-000001"]
    last = follow_pointer(run.folder, "last")
    assert last is not None
    assert last.name == "step-000001"


@pytest.mark.parametrize("place", ["copy", "write"])
def test_memory_that_a_checkpoint_lacks_is_not_blamed_on_the_micro_batch(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("CUDA error: out of memory") if place == "copy" else MemoryError

    if place == "copy":
        monkeypatch.setattr(host_copies.HostCopies, "copy", refuse)
    else:
        monkeypatch.setattr(checkpoint, "write_step_folder", refuse)
    run = make_small_run(small, tmp_path / "run", *FOUR_STEPS, "save.every_steps=1")
    with pytest.raises(MachineError, match="memory ran out while step-000001 was saved") as caught:
        run_training(run, ALONE, CPU, never_stop)
    assert "--micro-batch" not in caught.value.hint
    assert f"kovqa train --resume -o {run.folder}" in caught.value.hint


def test_a_stop_and_an_error_wait_for_the_checkpoint_on_its_way(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each comes at step 3 while step 2 is being written."""
    monkeypatch.setattr(checkpoint, "write_step_folder", write_only_after(3))
    stopped = make_small_run(small, tmp_path / "stopped", *FOUR_STEPS)
    with pytest.raises(Stopped, match="stopped at step 3 of 4"):
        run_training(stopped, ALONE, CPU, stop_after(3))
    ended = make_small_run(small, tmp_path / "ended", *FOUR_STEPS)
    finish_step = loop.finish_step

    def end_after_step_3(state: Any, meter: Any, **due: bool) -> None:
        if state.progress.step == 3:
            loop.settle_report(state, meter, state.pending)
            raise Killed
        finish_step(state, meter, **due)

    monkeypatch.setattr(loop, "finish_step", end_after_step_3)
    with pytest.raises(Killed):
        run_training(ended, ALONE, CPU, never_stop)
    for run, name in ((stopped, "step-000003"), (ended, "step-000002")):
        last = follow_pointer(run.folder, "last")
        assert last is not None
        assert last.name == name
        assert damaged_files(last) == []
    monkeypatch.setattr(loop, "finish_step", finish_step)
    run_training(ended, ALONE, CPU, never_stop)  # the log is cut where the checkpoint is
    assert [row["step"] for row in read_log(ended.folder) if row["kind"] == "train"] == [1, 2, 3, 4]


def test_copies_stay_as_they_were_and_are_made_in_the_same_memory() -> None:
    host, weight = host_copies.HostCopies(CPU), torch.arange(6.0).reshape(2, 3).t()
    first = host.copy("weight", weight)
    weight += 1
    assert first.is_contiguous()
    assert first.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert host.copy("weight", weight).data_ptr() == first.data_ptr()
    assert torch.equal(first, weight)


def test_what_cannot_be_copied_is_trained_all_the_same() -> None:
    model: Any = torch.nn.Linear(2, 2)
    copied = copy_without_weights(model)
    assert copied is not None
    assert copied.weight.is_meta
    assert model.weight.device == CPU
    model.functions = [partial(len, os)]  # a function that holds its module
    assert copy_without_weights(model) is not None
    model.lock = threading.Lock()
    assert copy_without_weights(model) is None
    quantized: Any = torch.nn.Linear(2, 2).requires_grad_(False)
    quantized.weight = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.uint8), requires_grad=False)
    assert copy_without_weights(quantized) is None


def test_the_last_of_the_memory_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, size, fits in ((1000, 500, True), (1000, 501, False), (None, 1, False)):
        monkeypatch.setattr(host_copies, "available_memory", lambda free=free: free)
        assert host_copies.have_host_memory(size) is fits
    monkeypatch.setattr(host_copies, "available_memory", lambda: 1 << 62)
    assert not host_copies.have_host_memory(1 << 60)  # refused by the system


def test_a_processor_that_cannot_be_copied_is_saved_while_training_waits() -> None:
    assert checkpoint_writer._copy_or_none(cast("Any", threading.Lock())) is None
    plain = cast("Any", {"a": [1]})
    assert checkpoint_writer._copy_or_none(plain) == plain

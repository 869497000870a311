"""Checkpoints of a run: copied to host memory, then written by a thread while training goes on.

One at a time: the next one, an evaluation's score, a stop, an error and the end wait for it. The folder appears whole
or not at all, with the bytes that a training which stands still would write; killed meanwhile, the run goes on
from the checkpoint before it. Where the host has no memory for the copy, training stands still.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import torch

from kovqa_core.distributed import watchdog
from kovqa_core.errors import KovqaError, MachineError
from kovqa_core.messages import message, shell_quote
from kovqa_core.models.batches import ExampleProcessor
from kovqa_core.models.checkpoint_info import CheckpointInfo
from kovqa_core.models.device_memory import out_of_memory_text
from kovqa_core.process_pool import signals_blocked
from kovqa_core.runs.events import SavedEvent, WarningEvent, WorkerEvent
from kovqa_core.settings.run import Run
from kovqa_core.train import checkpoint
from kovqa_core.train.checkpoint import PartWriter, TrainProgress
from kovqa_core.train.host_copies import HostCopies, have_host_memory
from kovqa_core.train.strategies.base import LocalShards, TrainStrategy


class CheckpointWriter:
    """Writes the step folders of one run. A context manager: left, whatever was to be written is written.

    Args:
        run: its folder and settings.
        strategy: model and optimizer.
        processor: saved with the model.
        emit_event: told of each checkpoint once it is whole.
    """

    def __init__(
        self,
        run: Run,
        strategy: TrainStrategy,
        processor: ExampleProcessor,
        emit_event: Callable[[WorkerEvent], None],
    ) -> None:
        self._run, self._strategy, self._emit_event = run, strategy, emit_event
        self._processor = processor
        # Its own, as it is now: a tokenizer's Rust part refuses to be saved by one thread while another uses it.
        self._copied_processor = _copy_or_none(processor) if strategy.rank.is_main_process else None
        self._threads = ThreadPoolExecutor(1, "checkpoint")
        self._host: HostCopies | None = None
        self._stands_still = False  # there is no memory for copies
        self._pending: Future[Path] | None = None
        self._pending_step = 0

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.finish()
        except KovqaError as failed:
            if error is None:
                raise
            # What ended the run is said by its own error; this checkpoint is lacking all the same.
            text = message("train.checkpoint-failed", "warning: {error}", error=failed.message)
            self._emit_event(WarningEvent(text))
        finally:
            self._threads.shutdown()

    def save(self, averages: LocalShards | None, progress: TrainProgress) -> None:
        """Write a step folder, or let it be written. Collective: all processes must come here.

        Args:
            averages: moving averages of the weights, this process's shards.
            progress: how far the run is; gets the loss scale.

        Raises:
            MachineError: the disk is full, or memory is; earlier checkpoints are untouched.
        """
        self.finish()
        watchdog.set_phase("saving")
        strategy, recipe = self._strategy, self._run.recipe
        progress.loss_scale = strategy.loss_scaler if strategy.loss_scaler.dynamic else None
        info = CheckpointInfo(
            recipe.family, recipe.task, recipe.name, step=progress.step, score=progress.score
        )
        host = self._host_copies(averages)
        processor = self._processor if host is None else self._copied_processor
        assert processor is not None
        parts = checkpoint.gather_parts(strategy, processor, averages, info, host)
        if not strategy.rank.is_main_process:
            list(parts)  # takes part in the collectives, and has nothing to write
            return
        # An evaluation changes score and best while the checkpoint is written, the next step the loss scale.
        of_step = copy.deepcopy(progress)
        self._pending_step = progress.step
        if host is None:
            self._pending = Future()
            self._pending.set_result(self._write(parts, of_step))
            self.poll()
            return
        with self._memory_errors(progress.step):
            copied = list(parts)
            host.mark_complete()
        with signals_blocked():  # a thread begins with the mask of its parent: signals are for the loop
            self._pending = self._threads.submit(self._write_copies, host, copied, of_step)

    def poll(self) -> None:
        """Say it if the checkpoint is whole by now.

        Raises:
            MachineError: it could not be written: the disk is full; earlier checkpoints are untouched.
        """
        if self._pending is not None and self._pending.done():
            self.finish()

    def finish(self) -> None:
        """Wait until what is being written is whole. Raises what `poll` raises."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if not pending.done():
            watchdog.set_phase("saving")
        self._emit_event(SavedEvent(self._pending_step, str(pending.result())))

    def _write(self, parts: Iterable[PartWriter], progress: TrainProgress) -> Path:
        with self._memory_errors(progress.step):
            return checkpoint.write_step_folder(self._run.folder, parts, progress, self._run.recipe.save.keep)

    @contextlib.contextmanager
    def _memory_errors(self, step: int) -> Iterator[None]:
        """Memory that a checkpoint did not get is said as that: a smaller micro-batch may not help.

        Raises:
            MachineError: it ran out, the host's or the device's.
        """
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not (reason := out_of_memory_text(error)):
                raise
            raise MachineError(
                message(
                    "train.no-memory-for-checkpoint",
                    "memory ran out while step-{step:06d} was saved ({reason}); earlier checkpoints are whole",
                    step=step,
                    reason=reason,
                ),
                message(
                    "train.no-memory-for-checkpoint.hint",
                    "free some memory of this machine (each loader process takes some: --set "
                    "profile.loader_workers=N); then go on: kovqa train --resume -o {folder}",
                    folder=shell_quote(self._run.folder),
                ),
            ) from error

    def _write_copies(self, host: HostCopies, parts: list[PartWriter], progress: TrainProgress) -> Path:
        if self._strategy.device.type == "cuda":
            torch.cuda.set_device(self._strategy.device)  # of this thread
        host.wait()
        return self._write(parts, progress)

    def _host_copies(self, averages: LocalShards | None) -> HostCopies | None:
        """What takes the copies, on the first process; None: there is no memory, which is said once."""
        strategy = self._strategy
        if not strategy.rank.is_main_process or self._stands_still:
            return None
        if self._host is None:
            size = strategy.host_copy_size(has_averages=averages is not None)
            if self._copied_processor is None:
                size = None
            if size is not None and have_host_memory(size):
                self._host = HostCopies(strategy.device)
            else:
                self._stands_still = True
                self._emit_event(WarningEvent(_stands_still_note(size)))
        return self._host


def _copy_or_none(processor: ExampleProcessor) -> ExampleProcessor | None:
    try:
        return copy.deepcopy(processor)
    except Exception:  # a model's own code may hold anything
        return None


def _stands_still_note(size: int | None) -> str:
    if size is None:
        return message(
            "train.saves-stand-still-uncopied",
            "training stands still while a checkpoint is written: this model (quantized, or of foreign code) cannot be "
            "copied",
        )
    return message(
        "train.saves-stand-still",
        "training stands still while a checkpoint is written: a copy of it takes {size:.1f} GB, more than half of the "
        "memory that is free",
        size=size / 2**30,
    )

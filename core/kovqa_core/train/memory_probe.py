"""Before a run: does a step fit into memory? It is tried, and again with half the micro-batch until it does.

Tried is a forward and a backward pass of this process alone, with the longest examples, beside room for
what the optimizer will keep. Nothing of it stays: no weight moves, and every step seeds its own draws.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from traceback import clear_frames
from typing import TYPE_CHECKING

import torch

from kovqa_core.distributed import process_group
from kovqa_core.errors import MachineError
from kovqa_core.models.batches import ModelBatch, iterate_batches
from kovqa_core.plan.micro_batch import with_micro_batch
from kovqa_core.settings.run import Run, split_global_batch, write_run
from kovqa_core.train.strategies.ddp import make_autocast

if TYPE_CHECKING:
    from kovqa_core.train.loop import TrainState

_PROBE_SAMPLE_SIZE = 4096  # examples among which the longest are sought
# What torch says on a GPU and on a CPU, and what oneDNN does, which may not recover: on a CPU the count decides.
_OUT_OF_MEMORY_TEXTS = (
    "out of memory",
    "can't allocate memory",
    "could not create a primitive",
    "could not execute a primitive",
)


def probe_micro_batch(t: TrainState) -> Run:
    """The run, with the largest micro-batch at which a step fits on every process; written to `run.yaml`.

    Strategies that share the model out are not tried: a step of one process alone does not exist there.

    Raises:
        MachineError: not even one example fits.
    """
    run, began = t.run, t.run.micro_batch
    while run.profile.strategy == "ddp" and any(
        said := process_group.all_gather_objects(_out_of_memory_error(t, run))
    ):
        if run.micro_batch == 1:
            raise MachineError(
                f"not even one example fits into this machine's memory ({max(said)})",
                "--set profile.activation_checkpointing=true, a smaller model, or a machine with more",
            )
        run = _halve_micro_batch(run)
    run = run.model_copy(update={"probe": False})
    if t.rank.first:
        write_run(run)
    t.log.record(
        "fit", t.state.step, micro_batch=run.micro_batch, accumulate=run.accumulate, tried_first=began
    )
    return run


def _halve_micro_batch(run: Run) -> Run:
    profile = with_micro_batch(run.profile, run.recipe.name, run.micro_batch // 2)
    micro, accumulate = split_global_batch(
        run.recipe.optim.global_batch, profile.max_micro_batch(run.recipe.name), profile.processes
    )
    return run.model_copy(update={"profile": profile, "micro_batch": micro, "accumulate": accumulate})


def _out_of_memory_error(t: TrainState, run: Run) -> str:
    """What a step of this process ended with for want of memory; empty where it went through."""
    kept = {
        name: buffer.clone() for name, buffer in t.stepper.model.named_buffers()
    }  # a batch norm's averages move
    try:
        _run_probe_step(t, run)
        return ""
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in _OUT_OF_MEMORY_TEXTS):
            raise
        clear_frames(error.__traceback__)  # they hold the step's tensors
        return str(error).splitlines()[0][:200] if str(error) else "MemoryError"
    finally:
        t.stepper.model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in t.stepper.model.named_buffers():
                buffer.copy_(kept[name])
        _release_memory(t.device)


def _release_memory(device: torch.device) -> None:
    """Hand memory that is free again to the system: the next try shall find it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone keeps it, and has this
        ctypes.CDLL(None).malloc_trim(0)


def _run_probe_step(t: TrainState, run: Run) -> None:
    learned = [p for p in t.stepper.model.parameters() if p.requires_grad]
    # Room for both moments of AdamW, where it has none yet, and for DDP's buckets; touched, so that it is taken.
    more = 2 * (not t.stepper.optimizer.state) + (t.rank.world > 1)
    room = [torch.zeros(more, p.numel(), dtype=p.dtype, device=t.device) for p in learned]
    batch = _longest_batch(t, run.micro_batch).to(t.device)
    for _ in range(min(run.accumulate, 2)):  # the second pass runs beside the first one's gradients
        with make_autocast(run.profile, t.device):
            loss = t.stepper.model(batch, t.state.step)["loss"]
        loss.backward()
    del room


def _longest_batch(t: TrainState, size: int) -> ModelBatch:
    """A batch of the longest examples that can be learned from, among some thousands."""
    every = max(1, len(t.rows) // max(_PROBE_SAMPLE_SIZE, size))
    lengths = {number: _text_length(t, number) for number in range(0, len(t.rows), every)}
    numbers = sorted(lengths, key=lambda number: -lengths[number])
    pieces = [numbers[i : i + size] for i in range(0, len(numbers) - size + 1, size)]
    keys = ([(0, number) for number in piece] for piece in pieces)
    found = iterate_batches(keys, t.rows, t.index.images, t.processor, train=True, seed=t.run.recipe.seed)
    best = next(found)
    while best.left_out and (other := next(found, None)):  # too long for the model: the next ones
        best = max(best, other, key=lambda batch: len(batch.ids))
    return best


def _text_length(t: TrainState, number: int) -> int:
    """Characters of an example's texts."""
    row = t.rows[number]
    return len(row.question) + max(map(len, (*row.answers, *row.captions)), default=0)

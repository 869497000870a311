"""Before a run: does a step fit into memory? It is tried, and again with half the micro-batch until it does.

Tried is a forward and a backward pass of this process alone, with the longest examples, beside room for
what the optimizer will keep. Nothing of it stays: no weight moves, and every step seeds its own draws.
"""

from __future__ import annotations

import torch

from kovqa_core.distributed import process_group
from kovqa_core.errors import MachineError
from kovqa_core.messages import message
from kovqa_core.models.batches import ModelBatch, iterate_batches
from kovqa_core.models.device_memory import forget_tensors, out_of_memory_text, release_memory
from kovqa_core.models.precision import make_autocast
from kovqa_core.plan.micro_batch import micro_batch_within, with_micro_batch
from kovqa_core.runs.events import MemoryFitEvent
from kovqa_core.settings.run import Run, split_recipe_batch, write_run
from kovqa_core.train.state import TrainState

_PROBE_SAMPLE_SIZE = 4096  # examples among which the longest are sought


def probe_micro_batch(state: TrainState) -> Run:
    """The run, with the largest micro-batch at which a step fits on every process; written to `run.yaml`.

    Sharding strategies are not tried: there, no step of one process alone exists.

    Raises:
        MachineError: not even one example fits.
    """
    run, tried_first = state.run, state.run.micro_batch
    if (free := _free_memory(state.device)) is not None:
        fitting = micro_batch_within(run, free)
        run = _set_micro_batch(run, min(process_group.all_gather_objects(fitting)))
    # Gathered, so that all processes halve together: one with other GPUs, or longer examples, decides for all.
    while run.profile.strategy == "ddp" and any(
        errors := process_group.all_gather_objects(_out_of_memory_error(state, run))
    ):
        if run.micro_batch == 1:
            raise MachineError(
                message(
                    "train.one-example-too-large",
                    "not even one example fits into this machine's memory ({error})",
                    error=max(errors),
                ),
                message(
                    "train.one-example-too-large.hint",
                    "--set profile.activation_checkpointing=true, a smaller model, or a machine with more",
                ),
            )
        run = _set_micro_batch(run, run.micro_batch // 2)
    run = run.model_copy(update={"probe": False})
    if state.rank.is_main_process:
        write_run(run)
    state.log.log_record(
        MemoryFitEvent(state.progress.step, run.micro_batch, run.accumulate, tried_first=tried_first)
    )
    return run


def _free_memory(device: torch.device) -> int | None:
    """Bytes of a GPU that this process has or could have; None on a CPU, where the plan has counted what is free."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device)


def _set_micro_batch(run: Run, most: int) -> Run:
    profile = with_micro_batch(run.profile, run.recipe.name, most)
    micro_batch, accumulate = split_recipe_batch(run.recipe, profile)
    return run.model_copy(update={"profile": profile, "micro_batch": micro_batch, "accumulate": accumulate})


def _out_of_memory_error(state: TrainState, run: Run) -> str:
    """The first line of the error by which a step of this process ran out of memory; empty where it went through."""
    model = state.strategy.model
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}  # a batch norm's means move
    try:
        _run_probe_step(state, run)
        return ""
    except (RuntimeError, MemoryError) as error:
        text = out_of_memory_text(error)
        if not text:
            raise
        forget_tensors(error)
        return text
    finally:
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
        release_memory(state.device)


def _run_probe_step(state: TrainState, run: Run) -> None:
    model, strategy = state.strategy.model, state.strategy
    trainable = [p for p in model.parameters() if p.requires_grad]
    # Room for both moments of AdamW, where it has none yet, and for DDP's buckets; zeros, because memory is
    # taken when it is first touched.
    copies = 2 * (not strategy.optimizer.state) + (state.rank.world_size > 1)
    room = [torch.zeros(copies, p.numel(), dtype=p.dtype, device=state.device) for p in trainable]
    batch = _longest_batch(state, run.micro_batch).to(state.device)
    for _ in range(min(run.accumulate, 2)):  # the second pass runs beside the first one's gradients
        with make_autocast(run.profile.precision, state.device):
            loss = model(batch, state.progress.step)["loss"]
        loss.backward()
    del room


def _longest_batch(state: TrainState, size: int) -> ModelBatch:
    """A batch of the longest examples that can be learned from, among some thousands."""
    examples = state.examples
    every = max(1, len(examples) // max(_PROBE_SAMPLE_SIZE, size))
    lengths = {number: _text_length(state, number) for number in range(0, len(examples), every)}
    numbers = sorted(lengths, key=lambda number: -lengths[number])
    slices = [numbers[i : i + size] for i in range(0, len(numbers) - size + 1, size)]
    keys = ([(0, number) for number in numbers] for numbers in slices)
    batches = iterate_batches(
        keys, examples, state.index.images, state.processor, train=True, seed=state.run.recipe.seed,
        keep_faults=True,
    )  # fmt: skip
    largest = next(batches)
    while largest.left_out and (
        other := next(batches, None)
    ):  # unreadable, or too long for the model: the next ones
        largest = max(largest, other, key=lambda batch: len(batch.ids))
    return largest


def _text_length(state: TrainState, number: int) -> int:
    """Characters of an example's texts."""
    example = state.examples[number]
    return len(example.question) + max(map(len, (*example.answers, *example.captions)), default=0)

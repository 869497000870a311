"""Gradients of one optimizer step, summed over micro-batches and processes: those of one mean over the global batch.

Each micro-batch's mean loss is weighted by what it counts (`FamilyModel.loss_weight`: examples, tokens, class
weights), and the sums are divided once, at the step: so no gradient depends on how the global batch is cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kovqa_core.distributed import process_group, watchdog
from kovqa_core.messages import Message, message
from kovqa_core.models.batches import ModelBatch
from kovqa_core.settings.run import Run
from kovqa_core.train.pending_step import StepBatches
from kovqa_core.train.state import TrainState


def accumulate_gradients(state: TrainState, batches: Iterator[ModelBatch], step: int) -> StepBatches:
    """Gradients of one optimizer step, summed over its micro-batches."""
    micro_batches = StepBatches()
    of_step = _read_step(state, batches, step)
    if _ranks_global_batch(state, step):
        of_step = iter(choose_counted_losses(state, list(of_step), step))
    for turn, on_host in enumerate(of_step):
        batch = on_host.to(state.device)
        watchdog.set_phase("computing")
        seed_dropout(state, batch, step)
        loss = state.strategy.backward(batch, step, last=turn + 1 == state.run.accumulate)
        micro_batches.losses.append(loss)
        micro_batches.ids.append(batch.ids)
        micro_batches.left_out += batch.left_out
        micro_batches.faults += [error.message for error in batch.faults.values()]
    return micro_batches


def _read_step(state: TrainState, batches: Iterator[ModelBatch], step: int) -> Iterator[ModelBatch]:
    for _ in range(state.run.accumulate):
        watchdog.set_phase("reading a batch", step + 1)
        yield next(batches)


def _ranks_global_batch(state: TrainState, step: int) -> bool:
    """Must all losses of the step be known before the first gradient?"""
    run = state.run
    one_batch = run.accumulate * state.rank.world_size == 1  # ranks its losses itself
    by_micro_batch = run.recipe.optim.loss_micro_batch is not None  # so does each, if the recipe wants that
    return state.strategy.model.ranks_losses(step) and not one_batch and not by_micro_batch


def choose_counted_losses(state: TrainState, batches: list[ModelBatch], step: int) -> list[ModelBatch]:
    """This process's micro-batches, with what counts of the whole global batch in a tensor "counted".

    One forward pass more, without gradients, and one exchange. Collective: all processes must come here.
    """
    losses_of_batches: list[Tensor] = []
    for batch in batches:
        watchdog.set_phase("computing")
        seed_dropout(state, batch, step)
        losses_of_batches.append(state.strategy.losses(batch.to(state.device), step))
    with watchdog.waiting_for_peers():  # a step's collectives may still be in the queue before it
        flat = torch.cat(losses_of_batches).cpu()  # one transfer, not one a micro-batch
    own = [part.tolist() for part in flat.split([len(losses) for losses in losses_of_batches])]
    by_rank = process_group.all_gather_objects(own)
    # As `micro_batch_keys` deals them: the order of the global batch, however it is cut, so that equal losses
    # are chosen among alike.
    dealt = [(turn, rank) for turn in range(len(batches)) for rank in range(state.rank.world_size)]
    losses = torch.tensor([loss for turn, rank in dealt for loss in by_rank[rank][turn]])
    counted = state.strategy.model.counted_losses(losses, step)
    parts = counted.split([len(by_rank[rank][turn]) for turn, rank in dealt])
    own_parts = [part for part, (_, rank) in zip(parts, dealt, strict=True) if rank == state.rank.rank]
    return [
        replace(batch, tensors={**batch.tensors, "counted": part})
        for batch, part in zip(batches, own_parts, strict=True)
    ]


def seed_dropout(state: TrainState, batch: ModelBatch, step: int) -> None:
    """Seed what a model draws itself, before each forward pass; see `dropout_seed`."""
    torch.manual_seed(dropout_seed(state.run.recipe.seed, step, batch.ids))


def dropout_seed(seed: int, step: int, ids: list[str]) -> int:
    """Seed of what a model draws itself (dropout): of the step and the micro-batch's examples, not of the process.

    So another micro-batch draws other masks; what is drawn for an example in `encode` depends on nothing else.
    Seeded before each micro-batch, so that a resumed run draws as the uninterrupted one did, without a
    generator's state in the checkpoint. 63 bits of a hash: torch takes no larger seed, and neighbouring
    steps share nothing.
    """
    return int.from_bytes(hashlib.sha256(f"{seed} {step} {ids}".encode()).digest()[:8], "little") >> 1


def batch_norm_note(model: nn.Module, run: Run) -> Message | None:
    """That batch norms see one micro-batch at a time; None where there are none, or the recipe fixes its size."""
    norms = sum(isinstance(module, _BatchNorm) and module.training for module in model.modules())
    if not norms or run.recipe.optim.loss_micro_batch is not None:
        return None
    return message(
        "train.batch-norms",
        "this model has {norms} batch norms: their means are of a micro-batch ({micro_batch} examples), so that "
        "another one trains a little differently; optim.loss_micro_batch={micro_batch} keeps it on every machine",
        norms=norms,
        micro_batch=run.micro_batch,
    )

"""zero1, zero2, zero3: moments, gradients, weights cut up by DeepSpeed (an optional library).

Only its ZeRO optimizer is used, around our AdamW: learning rates, precision, what is logged and what
is saved stay ours. Source: docs/sources/launching.md, R21 to R25.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kovqa_core.models.batches import ModelBatch
from kovqa_core.settings.run import Run
from kovqa_core.settings.strategy import read_deepspeed_config
from kovqa_core.train import optim
from kovqa_core.train.strategies.ddp import (
    ADAM_MOMENTS,
    LocalShards,
    TrainStrategy,
    broadcast_buffers,
    make_autocast,
)
from kovqa_core.train.strategies.full_weights import make_full_parameter_copy, summon_full_params

_BUCKET_SIZE = 50_000_000  # numbers sent at once; DeepSpeed's own 5e8 are 2 GB of each device


class _AutocastModule(nn.Module):
    """The model in the precision of the profile: DeepSpeed forbids autocast around itself, not inside."""

    def __init__(self, model: nn.Module, run: Run, device: torch.device) -> None:
        super().__init__()
        self.model, self._run, self._device = model, run, device

    def forward(self, batch: ModelBatch, step: int) -> dict[str, Tensor]:
        """The loss of a batch."""
        with make_autocast(self._run.profile, self._device):
            return self.model(batch, step)


class ZeroStrategy(TrainStrategy):
    """Every process holds a piece of what the stage names."""

    def wrap(self) -> None:
        """Hand model and optimizer to DeepSpeed."""
        self.stage = int(self.run.profile.strategy[-1])
        self.together = self.stage == 3
        if self.together:
            self.twin = make_full_parameter_copy(self.model)
        else:
            self.model.to(self.device)
        self.optimizer = optim.make_optimizer(self.model, self.model, self.run.recipe.optim)
        deepspeed = _import_deepspeed()
        with contextlib.redirect_stdout(sys.stderr):
            self.net, *_ = deepspeed.initialize(
                model=_AutocastModule(self.model, self.run, self.device),
                optimizer=self.optimizer,
                config=deepspeed_config(self.run, self.stage),
            )
        self._begin_moments()

    def _begin_moments(self) -> None:
        """Moments of 0, as AdamW itself begins; but before its first step, for then DeepSpeed links
        only the first group's to the parameters they belong to."""
        zero = self.net.optimizer
        flats = zero.fp32_partitioned_groups_flat if self.stage == 3 else zero.single_partition_of_fp32_groups
        for flat in flats:
            moments = {key: torch.zeros_like(flat, requires_grad=False) for key in ADAM_MOMENTS}
            self.optimizer.state[flat] = {"step": torch.zeros((), device=flat.device), **moments}
        if self.stage < 3:
            zero._lazy_init_hp_params_optimizer_state()

    def backward(self, batch: ModelBatch, step: int, last: bool) -> Tensor:
        """As everywhere."""
        batch, counts = self._counted(batch)
        loss = self.net(batch, step)["loss"] * counts
        self.net.optimizer.override_loss_scale(self.scale.value)
        self.net.backward(loss)
        if not last:
            self.net.step()  # counts the micro-batch, no more
        return loss.detach()

    def step(self) -> float:
        """As everywhere; DeepSpeed itself leaves out a step whose norm is not finite."""
        self.net.step()
        return math.inf if self.net.optimizer.overflow else float(self.net.get_global_grad_norm())

    def pieces(self) -> LocalShards:
        """Stage 3: an equal share of each weight's numbers."""
        if self.stage < 3:
            return super().pieces()
        return {name: p.ds_tensor.data for name, p in self.model.named_parameters()}

    def cut(self, name: str, whole: Tensor) -> Tensor:
        """This process's share; the last one is filled up with zeros."""
        if self.stage < 3:
            return super().cut(name, whole)
        size = self.model.get_parameter(name).ds_tensor.numel()
        padded = whole.new_zeros(size * dist.get_world_size())
        padded[: whole.numel()] = whole.flatten()
        return padded.narrow(0, size * self.rank.rank, size).to(self.device)

    @contextlib.contextmanager
    def plain(self, averages: LocalShards | None, everywhere: bool) -> Iterator[Any]:
        """Stage 3: the twin, with all weights."""
        if self.stage < 3:
            with super().plain(averages, everywhere) as model:
                yield model
            return
        broadcast_buffers(self.model)
        pieces = (averages or self.pieces()).items()
        wholes = (
            (name, _all_gather_parameter(piece, self.model.get_parameter(name))) for name, piece in pieces
        )
        with summon_full_params(self.twin, self.model, wholes, everywhere, self.rank.first) as model:
            yield model

    def moments(self) -> dict[str, Tensor]:
        """As everywhere."""
        from deepspeed.utils import safe_get_full_optimizer_state

        found = {"step": next(iter(self.optimizer.state.values()))["step"].cpu().clone()}
        for name, parameter in self.model.named_parameters():
            for key in ADAM_MOMENTS if parameter.requires_grad else ():
                whole = safe_get_full_optimizer_state(parameter, key)
                if self.rank.first:
                    found[f"{key}.{name}"] = whole.cpu()
        return found if self.rank.first else {}

    def load_moments(self, tensors: Mapping[str, Tensor]) -> None:
        """As everywhere; DeepSpeed makes AdamW's state at its first step, which this goes before."""
        if not tensors:
            return
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        for state in self.optimizer.state.values():
            state["step"].copy_(tensors["step"])
        put = safe_set_local_optimizer_state if self.stage == 3 else safe_set_full_optimizer_state
        for name, parameter in self.model.named_parameters():
            for key in ADAM_MOMENTS if parameter.requires_grad else ():
                put(parameter, self.cut(name, tensors[f"{key}.{name}"]), key)


def deepspeed_config(run: Run, stage: int) -> dict[str, Any]:
    """DeepSpeed's settings: the user's own file, and what follows from the run on top."""
    own = read_deepspeed_config(run.profile)
    buckets = {"reduce_bucket_size": _BUCKET_SIZE, "allgather_bucket_size": _BUCKET_SIZE}
    return own | {
        "train_micro_batch_size_per_gpu": run.micro_batch,
        "gradient_accumulation_steps": run.accumulate,
        "gradient_clipping": run.recipe.optim.max_grad_norm or 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {**buckets, **own.get("zero_optimization", {}), "stage": stage},
        "steps_per_print": sys.maxsize,
    }


def _import_deepspeed() -> Any:
    """DeepSpeed, whose words go to stderr: stdout carries our events."""
    with contextlib.redirect_stdout(sys.stderr):  # its logger takes the stdout it finds
        import deepspeed
    deepspeed.utils.logger.setLevel(logging.WARNING)
    # It calls, at every layer, what newer versions of torch name otherwise.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    # Its shared-memory reduction for CPUs would be compiled at first use: gloo does without a compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _all_gather_parameter(piece: Tensor, parameter: Any) -> Tensor:
    """A weight of all processes' shares."""
    every = piece.new_empty(piece.numel() * dist.get_world_size())
    dist.all_gather_into_tensor(every, piece.contiguous())
    return every[: parameter.ds_numel].view(parameter.ds_shape)

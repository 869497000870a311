"""zero1, zero2, zero3: moments, gradients, weights sharded by DeepSpeed (an optional library).

Only its ZeRO optimizer is used, around our AdamW: learning rates, precision, what is logged and what
is saved stay ours. Source: docs/sources/launching.md, R21 to R25.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.family import FamilyModel
from kovqa_core.models.precision import make_autocast
from kovqa_core.settings.run import Run
from kovqa_core.settings.strategy import read_deepspeed_config
from kovqa_core.train import optim
from kovqa_core.train.strategies.base import (
    ADAM_MOMENTS,
    LocalShards,
    LossScaler,
    MicroBatchLoss,
    StepOutcome,
    TrainStrategy,
    broadcast_buffers,
    next_loss_scale,
)
from kovqa_core.train.strategies.full_weights import make_full_parameter_copy, summon_full_params

_BUCKET_SIZE = 50_000_000  # numbers sent at once; DeepSpeed's own 5e8 are 2 GB of each device


class _AutocastModule(nn.Module):
    """The model in the precision of the profile: DeepSpeed forbids autocast around itself, not inside."""

    def __init__(self, model: FamilyModel, run: Run, device: torch.device) -> None:
        super().__init__()
        self.model, self._run, self._device = model, run, device

    def forward(self, batch: ModelBatch, step: int) -> dict[str, Tensor]:
        """The loss of a batch."""
        with make_autocast(self._run.profile.precision, self._device):
            return self.model(batch, step)


class ZeroStrategy(TrainStrategy):
    """Every process holds a shard of what the stage names; stages 1 and 2 keep full weights."""

    def set_loss_scaler(self, scaler: LossScaler) -> None:
        """See `TrainStrategy`; DeepSpeed takes the scale of the very next step, which `loss_scaler` may not know."""
        super().set_loss_scaler(scaler)
        self._host_loss_scale = scaler.value

    def wrap(self) -> None:
        """Hand model and optimizer to DeepSpeed."""
        self.stage = int(self.run.profile.strategy[-1])
        self.collective_forward = self.stage == 3
        if self.stage == 3:
            # Before DeepSpeed shards the weights, and moves them to the device: the copy needs their full shapes.
            self.full_parameter_copy = make_full_parameter_copy(self.model)
        else:
            self.model.to(self.device)
        self.optimizer = optim.make_optimizer(self.model, self.model, self.run.recipe.optim)
        deepspeed = _import_deepspeed()
        with contextlib.redirect_stdout(sys.stderr):
            self.wrapped_model, *_ = deepspeed.initialize(
                model=_AutocastModule(self.model, self.run, self.device),
                optimizer=self.optimizer,
                config=deepspeed_config(self.run, self.stage),
            )
        self._init_moments()

    def _init_moments(self) -> None:
        """Moments of 0, as AdamW itself begins.

        Made before its first step: DeepSpeed links moments to parameters when they appear, and after a
        first step it does so for the first parameter group only.
        """
        zero = self.wrapped_model.optimizer
        flat_groups = (
            zero.fp32_partitioned_groups_flat if self.stage == 3 else zero.single_partition_of_fp32_groups
        )
        for flat in flat_groups:  # one vector per parameter group, this process's shard
            moments = {key: torch.zeros_like(flat, requires_grad=False) for key in ADAM_MOMENTS}
            self.optimizer.state[flat] = {"step": torch.zeros((), device=flat.device), **moments}
        if self.stage < 3:
            zero._lazy_init_hp_params_optimizer_state()

    def backward(self, batch: ModelBatch, step: int, *, last: bool) -> MicroBatchLoss:
        """See `TrainStrategy`; DeepSpeed itself divides by the accumulation and averages over processes."""
        share = self._loss_share(batch, step)
        batch, factor = self._usable_batch(batch)
        loss = self.wrapped_model(batch, step)["loss"] * factor
        self.wrapped_model.optimizer.override_loss_scale(self._host_loss_scale)  # ours, not its own
        self.wrapped_model.backward(loss * share)
        if not last:
            self.wrapped_model.step()  # only counts the micro-batch
        return MicroBatchLoss(loss.detach(), share)

    @torch.no_grad()
    def losses(self, batch: ModelBatch, step: int) -> Tensor:
        """See `TrainStrategy`."""
        usable, factor = self._usable_batch(batch)
        losses: Tensor = self.wrapped_model(usable, step)["losses"]
        return losses if factor else losses[:0]

    def set_max_grad_norm(self, max_norm: float | None) -> None:
        """See `TrainStrategy`; what DeepSpeed was told at its beginning lies in this attribute of its optimizer."""
        super().set_max_grad_norm(max_norm)
        self.wrapped_model.optimizer.clip_grad = max_norm or 0.0

    def step(self, scale: Tensor, loss: Tensor) -> StepOutcome:
        """See `TrainStrategy`; DeepSpeed itself skips a step whose norm is not finite.

        It takes scales as numbers of the host and gives its norm as one: this waits for the device, twice and
        more, where the other strategies do not.
        """
        # It divides gradients and norm by the loss scale of this moment.
        self.wrapped_model.optimizer.override_loss_scale(self._host_loss_scale / scale.item())
        self.wrapped_model.step()
        zero = self.wrapped_model.optimizer
        norm = math.inf if zero.overflow else float(self.wrapped_model.get_global_grad_norm())
        skipped = torch.full((), float(not math.isfinite(norm)), device=self.device)
        if self.loss_scaler.dynamic:
            self.loss_scale, self.good_steps = next_loss_scale(self.loss_scale, self.good_steps, skipped)
            self._host_loss_scale = self.loss_scale.item()  # what the next backward pass tells DeepSpeed
        return StepOutcome(torch.full((), norm, device=self.device), skipped)

    def local_shards(self) -> LocalShards:
        """Stage 3: an equal part of each weight's numbers, flat."""
        if self.stage < 3:
            return super().local_shards()
        return {name: _partition(p).data for name, p in self.model.named_parameters()}

    def shard(self, name: str, full: Tensor) -> Tensor:
        """This process's part, flat; all are of one size, so the last one is padded with zeros."""
        if self.stage < 3:
            return super().shard(name, full)
        size = _partition(self.model.get_parameter(name)).numel()
        # DeepSpeed's shards are of one size; what they hold beyond the end is never read.
        padded = full.new_zeros(size * dist.get_world_size())
        padded[: full.numel()] = full.flatten()
        return padded.narrow(0, size * self.rank.rank, size).to(self.device)

    @contextlib.contextmanager
    def full_model(self, averages: LocalShards | None, *, everywhere: bool) -> Iterator[FamilyModel | None]:
        """Stage 3: the full copy, with all weights.

        Not DeepSpeed's GatheredParameters: the sharded model keeps its hooks, which make every forward pass
        collective.
        """
        if self.stage < 3:
            with super().full_model(averages, everywhere=everywhere) as model:
                yield model
            return
        broadcast_buffers(self.model)
        with summon_full_params(
            self.full_parameter_copy,
            self.model,
            self._full_tensors(averages),
            everywhere=everywhere,
            is_main_process=self.rank.is_main_process,
        ) as model:
            yield model

    def _full_tensors(self, averages: LocalShards | None) -> Iterator[tuple[str, Tensor]]:
        """Stage 3: gathered one at a time."""
        for name, tensor in super()._full_tensors(averages):
            is_sharded = self.stage == 3
            yield (
                name,
                _all_gather_parameter(tensor, self.model.get_parameter(name)) if is_sharded else tensor,
            )

    def full_moments(self, to_host: Callable[[str, Tensor], Tensor]) -> dict[str, Tensor]:
        """See `TrainStrategy`."""
        from deepspeed.utils import safe_get_full_optimizer_state

        moments = {"step": next(iter(self.optimizer.state.values()))["step"].cpu().clone()}
        for name, parameter in self.model.named_parameters():
            for key in ADAM_MOMENTS if parameter.requires_grad else ():
                full = safe_get_full_optimizer_state(parameter, key)
                if self.rank.is_main_process:
                    moments[f"{key}.{name}"] = to_host(f"{key} {name}", full)
        return moments if self.rank.is_main_process else {}

    def load_moments(self, tensors: Mapping[str, Tensor]) -> None:
        """See `TrainStrategy`; written into the zeros of `_init_moments`."""
        if not tensors:
            return
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        for state in self.optimizer.state.values():
            state["step"].copy_(tensors["step"])
        set_state = safe_set_local_optimizer_state if self.stage == 3 else safe_set_full_optimizer_state
        for name, parameter in self.model.named_parameters():
            for key in ADAM_MOMENTS if parameter.requires_grad else ():
                set_state(parameter, self.shard(name, tensors[f"{key}.{name}"]), key)


def deepspeed_config(run: Run, stage: int) -> dict[str, Any]:
    """DeepSpeed's settings: the user's own file, and what follows from the run on top."""
    own = read_deepspeed_config(run.profile)
    buckets = {"reduce_bucket_size": _BUCKET_SIZE, "allgather_bucket_size": _BUCKET_SIZE}
    offload = {
        key: {"device": "cpu", "pin_memory": run.profile.device == "cuda"}
        for key in ("offload_optimizer", "offload_param")
        if getattr(run.profile, key) == "cpu"
    }
    reduction = {"communication_data_type": "bf16"} if run.profile.gradient_reduction == "bf16" else {}
    # What follows from the run comes last: a file of the user's cannot change the experiment.
    return (
        own
        | reduction
        | {
            "train_micro_batch_size_per_gpu": run.micro_batch,
            "gradient_accumulation_steps": run.accumulate,
            "gradient_clipping": run.recipe.optim.max_grad_norm or 0.0,
            # DeepSpeed knows few optimizers, and with offloading to the CPU accepts its own alone: these two allow ours.
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "zero_optimization": {**buckets, **own.get("zero_optimization", {}), **offload, "stage": stage},
            "steps_per_print": sys.maxsize,
        }
    )


def _import_deepspeed() -> Any:
    """DeepSpeed, whose output goes to stderr: stdout carries our events."""
    with contextlib.redirect_stdout(sys.stderr):  # its logger keeps the stdout of its import
        import deepspeed
    deepspeed.utils.logger.setLevel(logging.WARNING)
    # At every layer it calls functions that newer versions of torch have renamed.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    # Its shared-memory reduction for CPUs would be compiled at first use: gloo does without a compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _partition(parameter: Any) -> Tensor:
    """This process's part of a parameter of stage 3, an attribute that DeepSpeed puts on it."""
    return parameter.ds_tensor


def _all_gather_parameter(shard: Tensor, parameter: Any) -> Tensor:
    """A full weight of all processes' shards (flat, of one size; the padding at the end is cut off)."""
    gathered = shard.new_empty(shard.numel() * dist.get_world_size())
    dist.all_gather_into_tensor(gathered, shard.contiguous())
    return gathered[: parameter.ds_numel].view(parameter.ds_shape)

"""One optimizer step over many processes: what all strategies share.

`TrainStrategy` is written for full weights on every process. A strategy overrides what it does otherwise;
the loop, the files and the mathematics stay the same, so that a run may go on with another strategy.

| strategy | weights | gradients | moments | by |
|---|---|---|---|---|
| ddp | full | full | full | torch |
| zero1 | full | full | sharded | DeepSpeed |
| zero2 | full | sharded | sharded | DeepSpeed |
| zero3 | sharded | sharded | sharded | DeepSpeed |
| fsdp2 | sharded | sharded | sharded | torch |
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import DataError
from kovqa_core.messages import message
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.family import FamilyModel
from kovqa_core.models.precision import make_autocast
from kovqa_core.settings.run import Run
from kovqa_core.train import optim
from kovqa_core.train.host_copies import HostCopies
from kovqa_core.train.strategies.full_weights import assign_full_params, copy_without_weights

LocalShards = dict[str, Tensor]  # parameter name -> this process's shard of it; may be all of it
ADAM_MOMENTS = ("exp_avg", "exp_avg_sq")  # as AdamW names them
INIT_LOSS_SCALE = 2.0**16  # of a loss in fp16
_SCALE_GROWTH_INTERVAL = 2000  # finite steps after which the scale is doubled, as torch.amp.GradScaler does


@dataclass
class LossScaler:
    """What a loss is multiplied by, so that its gradients are numbers in fp16; 1 and constant elsewhere.

    What the host knows of it (and `state.json` keeps): the values after the last step that was read. The
    device itself goes on, by `next_loss_scale`.
    """

    dynamic: bool = False
    value: float = 1.0
    good: int = 0  # finite steps since the value was changed (a key of state.json)


def next_loss_scale(scale: Tensor, good: Tensor, skipped: Tensor) -> tuple[Tensor, Tensor]:
    """Loss scale and finite steps since its last change, after one more step; on the device, without a wait.

    The rule of torch.amp.GradScaler: halved after gradients that were not finite, doubled after many that were.
    GradScaler itself looks at each gradient of one device, which says nothing of gradients sharded over
    processes. The norm is the same number on all processes, and so is the scale, without a word between them.

    Args:
        scale, good: before the step; scalars.
        skipped: was it? 1 or 0.
    """
    good = torch.where(skipped > 0, 0.0, good + 1)
    grows = good == _SCALE_GROWTH_INTERVAL
    scale = torch.where(skipped > 0, scale / 2, torch.where(grows, scale * 2, scale))
    return scale, torch.where(grows, 0.0, good)


class StepOutcome(NamedTuple):
    """What became of an optimizer step; scalars on the device, the same on all processes.

    Attributes:
        norm: the global gradient norm before clipping, unscaled.
        skipped: 1 where norm or loss is not finite and nothing was changed, else 0; fp32.
    """

    norm: Tensor
    skipped: Tensor


class MicroBatchLoss(NamedTuple):
    """What a micro-batch adds to the loss of its step; scalars without gradient.

    Attributes:
        mean: over what it counts.
        share: its weight in the step's mean: what it counts, an example 1 / micro-batch. So most micro-batches
            have 1, and so has each where the recipe wants the mean of their means.
    """

    mean: Tensor
    share: Tensor


class TrainStrategy(ABC):
    """Gradients, optimizer steps and weights by name, on all processes.

    Args:
        model: full, on the CPU; belongs to the strategy from now on.
        run: what to do.
        rank: place of this process.
        device: where the model lives.
    """

    collective_forward = False  # does a forward pass need all processes at once?
    wrapped_model: Any  # what is called: the model, or a wrapper around it
    optimizer: torch.optim.AdamW  # the one whose groups' rates are set

    def __init__(self, model: FamilyModel, run: Run, rank: RankInfo, device: torch.device) -> None:
        self.model, self.run, self.rank, self.device = model, run, rank, device
        is_fp16 = run.profile.precision == "fp16"
        self.set_loss_scaler(LossScaler(True, INIT_LOSS_SCALE) if is_fp16 else LossScaler())
        self.max_grad_norm = run.recipe.optim.max_grad_norm
        self._last_usable_batch: ModelBatch | None = None
        # Before `wrap`: what libraries hang on the model is not to be copied.
        self._saved_model = copy_without_weights(model)
        self.wrap()

    @abstractmethod
    def wrap(self) -> None:
        """Make `wrapped_model` and `optimizer` of the model."""

    # ------------------------------------------------------------------------------- learning

    def set_loss_scaler(self, scaler: LossScaler) -> None:
        """Go on with this loss scale."""
        self.loss_scaler = scaler
        self.loss_scale = torch.full((), scaler.value, device=self.device)
        self.good_steps = torch.full((), float(scaler.good), device=self.device)

    def backward(self, batch: ModelBatch, step: int, *, last: bool) -> MicroBatchLoss:
        """Add the gradients of one micro-batch: those of mean × share / (accumulation × processes).

        Args:
            batch: on this device.
            step: the optimizer step it belongs to.
            last: is it the last micro-batch of that step?

        Returns:
            Its loss, neither divided nor scaled.
        """
        share = self._loss_share(batch, step)
        batch, factor = self._usable_batch(batch)
        with self._no_sync(last=last):
            with make_autocast(self.run.profile.precision, self.device):
                loss = self.wrapped_model(batch, step)["loss"] * factor
            # Over processes it is the wrapper that averages. The scale comes last: it must reach every
            # gradient in fp16, and is taken out again in fp32, before the norm.
            part = loss * share / self.run.accumulate
            (part * self.loss_scale if self.loss_scaler.dynamic else part).backward()
        return MicroBatchLoss(loss.detach(), share)

    def _loss_share(self, batch: ModelBatch, step: int) -> Tensor:
        if self.run.recipe.optim.loss_micro_batch is not None:
            # A micro-batch without an example has no mean.
            return torch.full((), float(bool(batch.ids)), device=self.device)
        weight = self.model.loss_weight(batch, step)
        if not isinstance(weight, Tensor):  # filled on the device: what is copied there is waited for
            weight = torch.full((), weight, device=self.device)
        return weight.float() / self.run.micro_batch

    @torch.no_grad()
    def losses(self, batch: ModelBatch, step: int) -> Tensor:
        """The losses [N] of a batch of a model that `ranks_losses`; no gradient is added."""
        usable, factor = self._usable_batch(batch)
        with make_autocast(self.run.profile.precision, self.device):
            losses: Tensor = self.wrapped_model(usable, step)["losses"]
        return losses if factor else losses[:0]

    def _usable_batch(self, batch: ModelBatch) -> tuple[ModelBatch, float]:
        """The batch to go through the model, and what its loss is multiplied by.

        Where a forward pass is collective, a process whose examples were all left out must not stay away:
        the others would wait for its collectives. It goes through its last usable batch, times 0.

        Raises:
            DataError: not even the first batch has a usable example.
        """
        if not self.collective_forward:
            return batch, 1.0
        if batch.ids:
            self._last_usable_batch = batch
            return batch, 1.0
        if self._last_usable_batch is None:
            raise DataError(
                message(
                    "train.first-batch-unusable",
                    "no example of this process's first batch can be learned from: {ids}",
                    ids=", ".join(batch.left_out),
                ),
                message(
                    "train.first-batch-unusable.hint",
                    "restore their images, raise model.max_text, or use --set profile.strategy=zero2",
                ),
            )
        return self._last_usable_batch, 0.0

    def _no_sync(self, *, last: bool) -> AbstractContextManager[None]:
        """Where gradients must not be averaged yet."""
        return contextlib.nullcontext()

    def set_max_grad_norm(self, max_norm: float | None) -> None:
        """Clip gradients to this global norm from here on; None: not at all."""
        self.max_grad_norm = max_norm

    def step(self, scale: Tensor, loss: Tensor) -> StepOutcome:
        """Scale and clip the gradient, step if it and the loss are finite, forget it; waits for nothing.

        All processes see the same norm and the same loss: none steps alone.

        Args:
            scale: of the gradients, which makes them those of the mean over the global batch; a scalar.
            loss: that mean, a scalar.
        """
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        if self.loss_scaler.dynamic:
            scale = scale / self.loss_scale
        # Before the norm, which is of the unscaled gradient. Powers of two lose no bit in fp32.
        gradients = [local_tensor(p.grad) for p in parameters if p.grad is not None]
        torch._foreach_mul_(gradients, scale.float())
        norm = optim.clip_grad_norm(parameters, self.max_grad_norm)
        skipped = 1 - (torch.isfinite(norm) & torch.isfinite(loss)).float()
        self._step_optimizer(skipped)
        self.optimizer.zero_grad(set_to_none=True)
        if self.loss_scaler.dynamic:
            self.loss_scale, self.good_steps = next_loss_scale(self.loss_scale, self.good_steps, skipped)
        return StepOutcome(norm, skipped)

    def _step_optimizer(self, skipped: Tensor) -> None:
        """AdamW, which reads on the device whether it shall do nothing; its moments and count stay as well then."""
        if self.device.type == "mps":  # its kernel takes no such word (docs/surprises.md)
            if not skipped.item():
                self.optimizer.step()
            return
        self.optimizer.found_inf = skipped  # type: ignore[attr-defined]  # as torch.amp.GradScaler hands it over
        self.optimizer.step()

    # ------------------------------------------------------------------------ weights, by name

    def local_shards(self) -> LocalShards:
        """This process's shard of every parameter: the very memory, not a copy."""
        return {name: p.data for name, p in self.model.named_parameters()}

    def shard(self, name: str, full: Tensor) -> Tensor:
        """This process's shard of a tensor of the shape of parameter `name`."""
        return full.to(self.device)

    @contextlib.contextmanager
    def full_model(self, averages: LocalShards | None, *, everywhere: bool) -> Iterator[FamilyModel | None]:
        """A model with full weights, the averaged ones if given. Collective: all processes must come here.

        Args:
            averages: moving averages of the weights, this process's shards.
            everywhere: on every process's device; else for the first process alone, None for the others.
        """
        broadcast_buffers(self.model)
        self._swap_averages(averages)
        yield self.model if everywhere or self.rank.is_main_process else None
        self._swap_averages(averages)

    def _full_tensors(self, averages: LocalShards | None) -> Iterator[tuple[str, Tensor]]:
        """Names and full tensors of all parameters, one at a time, the averaged ones if given. Collective."""
        yield from (averages or self.local_shards()).items()

    def copy_full_model(self, averages: LocalShards | None, host: HostCopies) -> FamilyModel:
        """The model of this moment on the host, for the first process, which may save it while training goes on.

        The collectives are those of `full_model(everywhere=False)`, where the other processes are meanwhile. One
        model, made anew by every call: what `state_dict` returned before stays as it was.

        Args:
            averages: see `full_model`.
            host: takes the copies.
        """
        model, place = self._saved_model, "weights" if averages is None else "averages"
        assert model is not None
        broadcast_buffers(self.model)
        frozen = {name for name, p in self.model.named_parameters() if not p.requires_grad}
        weights = {
            # What never changes is not copied where it stays in its place.
            name: tensor
            if name in frozen and averages is None and not self.collective_forward
            else host.copy(f"{place} {name}", tensor)
            for name, tensor in self._full_tensors(averages)
        }
        buffers = {name: host.copy(f"buffer {name}", buffer) for name, buffer in self.model.named_buffers()}
        assign_full_params(model, self.model, weights, buffers)
        return model

    def host_copy_size(self, *, has_averages: bool) -> int | None:
        """Bytes that copies of model and moments take; None: this model cannot be copied."""
        if self._saved_model is None:
            return None
        size = sum(buffer.nbytes for buffer in self.model.buffers())
        for parameter in self._saved_model.parameters():  # of full shape, where this process holds a shard
            learns = parameter.requires_grad
            size += parameter.nbytes * (has_averages or learns or self.collective_forward)
            size += parameter.nbytes * (has_averages and (learns or self.collective_forward))
            size += 4 * parameter.numel() * len(ADAM_MOMENTS) * learns
        return size

    @torch.no_grad()
    def _swap_averages(self, averages: LocalShards | None) -> None:
        """Swap weights and averages by pointer: no third copy of the weights is ever made."""
        for name, parameter in self.model.named_parameters() if averages else ():
            assert averages is not None
            averages[name], parameter.data = parameter.data, averages[name]

    # --------------------------------------------------------------------------- moments, by name

    def full_moments(self, to_host: Callable[[str, Tensor], Tensor]) -> dict[str, Tensor]:
        """AdamW's moments and step, full, for the first process. Collective: all processes must come here.

        By parameter name ("exp_avg.NAME"), so that they fit any number of processes, any strategy and any
        grouping. Empty before the first step, and on the other processes.

        Args:
            to_host: (name, full moment on the device) -> what is returned of it.
        """
        moments: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            state = self.optimizer.state.get(parameter, {})
            for key in ADAM_MOMENTS if state else ():
                full = self.full_moment(state[key])
                if self.rank.is_main_process:
                    moments[f"{key}.{name}"] = to_host(f"{key} {name}", full)
                    moments["step"] = state["step"].detach().cpu().clone()
        return moments

    def full_moment(self, moment: Tensor) -> Tensor:
        """All of a moment, on the device; collective where it is sharded."""
        return moment

    def load_moments(self, tensors: Mapping[str, Tensor]) -> None:
        """Bring back what `full_moments` returned; nothing where it is empty.

        Raises:
            KeyError: a parameter's moments are missing.
        """
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and tensors:
                self.optimizer.state[parameter] = {
                    "step": tensors["step"].clone().to(self.device),
                    **{
                        key: self.local_moment(name, parameter, tensors[f"{key}.{name}"])
                        for key in ADAM_MOMENTS
                    },
                }

    def local_moment(self, name: str, parameter: Tensor, full: Tensor) -> Tensor:
        """What this process's optimizer keeps of a full moment."""
        return self.shard(name, full)


def local_tensor(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor (DTensor), the very memory; another tensor itself."""
    to_local: Callable[[], Tensor] | None = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def broadcast_buffers(model: torch.nn.Module) -> None:
    """Give all processes the first one's buffers (running means): all must answer alike."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)

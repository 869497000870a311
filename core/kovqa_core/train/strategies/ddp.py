"""One optimizer step over many processes: what differs between strategies, and nothing else.

`Stepper` is the plain one: a process holds the whole model, gradients are averaged (ddp). `fsdp2.py`
and `zero.py` override what they do otherwise; the loop, the files and the mathematics stay the same.

| strategy | weights | gradients | moments | by |
|---|---|---|---|---|
| ddp | whole | whole | whole | torch |
| zero1 | whole | whole | cut | DeepSpeed |
| zero2 | whole | cut | cut | DeepSpeed |
| zero3 | cut | cut | cut | DeepSpeed |
| fsdp2 | cut | cut | cut | torch |
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import DataError
from kovqa_core.models.batches import ModelBatch
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.run import Run
from kovqa_core.train import optim

LocalShards = dict[str, Tensor]  # parameter name -> this process's piece of it; may be all of it
ADAM_MOMENTS = ("exp_avg", "exp_avg_sq")  # as AdamW names them
INIT_LOSS_SCALE = 2.0**16  # of a loss in fp16
_SCALE_GROWTH_INTERVAL = 2000  # finite steps after which the scale is doubled, as torch.amp.GradScaler does


@dataclass
class LossScaler:
    """What a loss is multiplied with, so that its gradients are numbers in fp16; 1 and constant elsewhere.

    torch.amp.GradScaler's rule in steps instead of tensors: so one rule holds where gradients are cut.
    """

    dynamic: bool = False
    value: float = 1.0
    good: int = 0  # finite steps since the value was changed

    def follow(self, finite: bool) -> None:
        """Halve after gradients that were not finite, double after many that were."""
        if not self.dynamic:
            return
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.value /= 2
        elif self.good == _SCALE_GROWTH_INTERVAL:
            self.value, self.good = self.value * 2, 0


def make_autocast(profile: Profile, device: torch.device) -> torch.autocast:
    """16 bits where the profile says so."""
    dtype = torch.float16 if profile.precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=profile.precision != "fp32")


class TrainStrategy:
    """All processes hold the whole model.

    Args:
        model: whole, on the CPU; becomes this stepper's.
        run: what to do.
        rank: place of this process.
        device: where the model lives.
    """

    together = False  # is a forward pass something all processes must do together?
    net: Any  # what is called: the model, or something around it
    optimizer: torch.optim.AdamW  # whose groups' rates are set

    def __init__(self, model: Any, run: Run, rank: RankInfo, device: torch.device) -> None:
        self.model, self.run, self.rank, self.device = model, run, rank, device
        fp16 = run.profile.precision == "fp16"
        self.scale = LossScaler(True, INIT_LOSS_SCALE) if fp16 else LossScaler()
        self._usable: ModelBatch | None = None
        self.wrap()

    def wrap(self) -> None:
        """Make `net` and `optimizer` of the model."""
        self.net = self.model.to(self.device)
        self.optimizer = optim.make_optimizer(self.model, self.model, self.run.recipe.optim)
        if self.rank.world > 1:
            gpu = [self.device.index] if self.device.type == "cuda" else None
            self.net = DistributedDataParallel(self.model, device_ids=gpu, gradient_as_bucket_view=True)

    # ------------------------------------------------------------------------------- learning

    def backward(self, batch: ModelBatch, step: int, last: bool) -> Tensor:
        """Add the gradients of one micro-batch; its loss.

        Args:
            batch: on this device.
            step: the optimizer step it belongs to.
            last: of this step's micro-batches.
        """
        batch, counts = self._counted(batch)
        with self._no_sync(last):
            with make_autocast(self.run.profile, self.device):
                loss = self.net(batch, step)["loss"] * counts
            (loss / self.run.accumulate * self.scale.value).backward()
        return loss.detach()

    def _counted(self, batch: ModelBatch) -> tuple[ModelBatch, float]:
        """The batch, and what its loss counts: where all must go through the model together, an earlier
        one that counts nothing stands in for a batch of which every example was left out."""
        if not self.together:
            return batch, 1.0
        if batch.ids:
            self._usable = batch
            return batch, 1.0
        if self._usable is None:
            raise DataError(
                f"no example of this process's first batch can be learned from: {', '.join(batch.left_out)}",
                "raise model.max_text, or use --set profile.strategy=zero2",
            )
        return self._usable, 0.0

    def _no_sync(self, last: bool) -> AbstractContextManager[None]:
        """Gradients are averaged once a step."""
        waits = isinstance(self.net, DistributedDataParallel) and not last
        return self.net.no_sync() if waits else contextlib.nullcontext()

    def step(self) -> float:
        """Clip, step if the gradient is finite, forget it; its norm before clipping, the same on all."""
        learned = [p for p in self.model.parameters() if p.grad is not None]
        if self.scale.value != 1:
            torch._foreach_mul_([p.grad for p in learned], 1 / self.scale.value)
        norm = float(optim.clip_grad_norm(learned, self.run.recipe.optim.max_grad_norm))
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    # ------------------------------------------------------------------------ weights, by name

    def pieces(self) -> LocalShards:
        """This process's piece of every parameter: the very memory, not a copy."""
        return {name: p.data for name, p in self.model.named_parameters()}

    def cut(self, name: str, whole: Tensor) -> Tensor:
        """This process's piece of a tensor that is like a parameter."""
        return whole.to(self.device)

    @contextlib.contextmanager
    def plain(self, averages: LocalShards | None, everywhere: bool) -> Iterator[Any]:
        """A model that holds whole weights, the averaged ones if given; all processes must come here.

        Args:
            averages: moving averages of the weights.
            everywhere: on every process's device; or for the first process alone, None for the others.
        """
        broadcast_buffers(self.model)
        self._swap(averages)
        yield self.model if everywhere or self.rank.first else None
        self._swap(averages)

    @torch.no_grad()
    def _swap(self, averages: LocalShards | None) -> None:
        for name, parameter in self.model.named_parameters() if averages else ():
            assert averages is not None
            averages[name], parameter.data = parameter.data, averages[name]

    # --------------------------------------------------------------------------- moments, by name

    def moments(self) -> dict[str, Tensor]:
        """AdamW's moments and step, whole, for the first process; all processes must come here.

        By parameter name, so that they fit any number of processes, any strategy and any grouping.
        Empty before the first step.
        """
        found: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            state = self.optimizer.state.get(parameter)
            if state:
                found["step"] = state["step"].detach().cpu().clone()
                found |= {f"{key}.{name}": self.whole_moment(state[key]) for key in ADAM_MOMENTS}
        return found if self.rank.first else {}

    def whole_moment(self, moment: Tensor) -> Tensor:
        """A moment, whole (on the first process)."""
        return moment

    def load_moments(self, tensors: Mapping[str, Tensor]) -> None:
        """Bring back what `moments` gave.

        Raises:
            KeyError: a parameter's moments are missing.
        """
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and tensors:
                self.optimizer.state[parameter] = {
                    "step": tensors["step"].clone().to(self.device),
                    **{
                        key: self.own_moment(name, parameter, tensors[f"{key}.{name}"])
                        for key in ADAM_MOMENTS
                    },
                }

    def own_moment(self, name: str, parameter: Tensor, whole: Tensor) -> Tensor:
        """What the optimizer keeps of a whole moment."""
        return self.cut(name, whole)


def make_strategy(model: Any, run: Run, rank: RankInfo, device: torch.device) -> TrainStrategy:
    """The stepper of a run's strategy."""
    strategy = run.profile.strategy
    if strategy == "ddp":
        return TrainStrategy(model, run, rank, device)
    if not dist.is_initialized():  # alone: these strategies want a group all the same
        backend = "nccl" if device.type == "cuda" else "gloo"
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    if strategy == "fsdp2":
        from kovqa_core.train.strategies.fsdp2 import Fsdp2Strategy

        return Fsdp2Strategy(model, run, rank, device)
    from kovqa_core.train.strategies.zero import ZeroStrategy

    return ZeroStrategy(model, run, rank, device)


def broadcast_buffers(model: torch.nn.Module) -> None:
    """Give all processes the first one's buffers (running means): all must answer alike."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)

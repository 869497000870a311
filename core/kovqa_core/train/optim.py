"""Parameter groups, learning rates, gradient norm. Source: docs/sources/beit3.md, B38 to B40."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kovqa_core.errors import SettingsError
from kovqa_core.messages import message
from kovqa_core.models.parameter_rules import ParameterRules
from kovqa_core.settings.recipe import OptimSettings
from kovqa_core.settings.run import Run, optim_at_step


@dataclass
class ParamGroup:
    """Parameters that share a weight decay and a learning rate factor, and are frozen at first or not."""

    weight_decay: float
    lr_scale: float
    names: list[str] = field(default_factory=list)
    frozen_at_first: bool = False


def make_param_groups(
    parameters: Iterable[tuple[str, int]], rules: ParameterRules, optim: OptimSettings
) -> list[ParamGroup]:
    """Group parameters, in order of first appearance.

    Args:
        parameters: (name, number of dimensions) of each.
        rules: of the model: which layer, which head, which free of decay.
        optim: weight decay, layer decay, head rate.

    No decay for vectors, biases and what the model names (but with `decay_bias_and_norm`). Layer decay d
    gives d^(head's layer - layer of the name); without it the head's factor applies to the head. With
    `freeze_vision_steps` all but the text side is frozen at first.
    """
    groups: dict[tuple[bool, float, bool], ParamGroup] = {}
    for name, dimensions in parameters:
        is_vector = dimensions <= 1 or name.endswith(".bias") or rules.no_weight_decay(name)
        undecayed = is_vector and not optim.decay_bias_and_norm
        decay = 0.0 if undecayed else optim.weight_decay
        if optim.layer_decay < 1:
            scale = optim.layer_decay ** (rules.head_layer_id - rules.layer_id(name))
        else:
            scale = optim.head_lr_scale if rules.is_head_parameter(name) else 1.0
        frozen = optim.freeze_vision_steps > 0 and not rules.is_text_parameter(name)
        # Keyed by "undecayed", not by the decay itself: a weight decay of 0 keeps its groups apart.
        key = (undecayed, scale, frozen)
        groups.setdefault(key, ParamGroup(decay, scale, frozen_at_first=frozen)).names.append(name)
    return list(groups.values())


@dataclass(frozen=True)
class TrainingSteps:
    """How long a run is, in optimizer steps."""

    total: int
    warmup: int
    per_epoch: int


def count_training_steps(optim: OptimSettings, rows: int) -> TrainingSteps:
    """Steps of a run over an index of so many rows.

    An incomplete last batch of an epoch is left out, as BEiT-3 does (docs/sources/beit3.md, B40 and B41); the
    plan says how many rows that are (`plan/batch_notes.py`).
    """
    per_epoch = rows // optim.global_batch
    warmup = optim.warmup_steps or int(optim.warmup_epochs * per_epoch)
    return TrainingSteps(optim.count_steps(rows), warmup, per_epoch)


def learning_rate(step: int, optim: OptimSettings, steps: TrainingSteps) -> float:
    """Learning rate of optimizer step `step` (from 0): linear warm-up, then half a cosine.

    Both ends of the warm-up count, as in the original: its first step has rate 0, its last the
    full rate; without `warmup_reaches` the first step after it does.
    """
    if step < steps.warmup:
        last = steps.warmup - 1 if optim.warmup_reaches else steps.warmup
        return optim.lr * step / last if last else 0.0
    fraction = (step - steps.warmup) / max(1, steps.total - steps.warmup)
    return optim.min_lr + 0.5 * (optim.lr - optim.min_lr) * (1 + math.cos(math.pi * fraction))


def run_learning_rate(run: Run, step: int, rows: int) -> float:
    """Learning rate of optimizer step `step` (from 0) of a run that may have been changed on the way.

    A change of rate or length counts from its step on, as if the run had been so from its beginning: the rate
    is that of the new curve at this step, and may jump there. A run of 1,000 steps that ended at `min_lr` and
    gets 1,000 more goes on at the middle of the longer cosine, and ends at `min_lr` again.

    Args:
        run: with its changes.
        step: from 0.
        rows: of the training split.
    """
    settings = optim_at_step(run, step)
    return learning_rate(step, settings, count_training_steps(settings, rows))


def make_optimizer(model: torch.nn.Module, rules: ParameterRules, optim: OptimSettings) -> torch.optim.AdamW:
    """Fused AdamW over a model's trainable parameters; each group holds `lr_scale`, `frozen_at_first`.

    Raises:
        SettingsError: there are none.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise SettingsError(
            message("train.nothing-trainable", "this model has no trainable parameter"),
            message("train.nothing-trainable.hint", "choose what learns: --set model.train=lora"),
        )
    groups = make_param_groups(((name, p.ndim) for name, p in trainable.items()), rules, optim)
    return torch.optim.AdamW(
        [
            {
                "params": [trainable[name] for name in group.names],
                "weight_decay": group.weight_decay,
                "lr_scale": group.lr_scale,
                "frozen_at_first": group.frozen_at_first,
            }
            for group in groups
        ],
        lr=0.0,  # set before every step
        betas=optim.betas,
        eps=optim.eps,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float, *, text_only: bool = False) -> None:
    """Set the rate of every group, times the group's factor.

    With `text_only`, groups that are frozen at first get rate 0 instead of no gradient: AdamW at rate 0
    changes no bit (its weight decay is a fraction of the rate), and its moments are warm when these groups
    begin to learn. No parameter is added to or taken from the graph, which DDP and fsdp2 would not stand.
    """
    for group in optimizer.param_groups:
        group["lr"] = 0.0 if text_only and group["frozen_at_first"] else rate * group["lr_scale"]


def clip_grad_norm(parameters: Sequence[Tensor], max_norm: float | None) -> Tensor:
    """Global gradient norm before clipping, a scalar; gradients are clipped to `max_norm` if given."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if max_norm is not None:  # else torch would multiply every gradient by 1
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    # Of DTensors torch returns a norm that is itself sharded: each process knows the norm of its rows. Asked by
    # attribute, because importing DTensor costs a second, which ddp need not pay.
    full_tensor: Callable[[], Tensor] | None = getattr(norm, "full_tensor", None)
    return norm if full_tensor is None else full_tensor()


@torch.no_grad()
def update_ema(
    averages: Mapping[str, Tensor], shards: Mapping[str, Tensor], decay: float, skipped: Tensor
) -> None:
    """One step of the moving average, on this process's shards: averages += (1 - decay) · (shards - averages).

    After a step that was skipped, nothing: it changed no weight and must not age the average. Decided on the
    device, for the host does not know it yet.

    Args:
        averages: changed in place; by parameter name.
        shards: the weights, by the same names.
        decay: of the average.
        skipped: was the step? 1 or 0, fp32.
    """
    share = (1 - skipped) * (1 - decay)
    torch._foreach_lerp_(list(averages.values()), list(shards.values()), [share] * len(averages))

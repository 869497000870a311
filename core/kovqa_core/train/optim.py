"""Parameter groups, learning rates, gradient norm. Source: docs/sources/beit3.md, B38 to B40."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kovqa_core.errors import SettingsError
from kovqa_core.models.family import ParameterRules
from kovqa_core.settings.recipe import OptimSettings


@dataclass
class ParamGroup:
    """Parameters that share a weight decay and a learning rate factor, and rest at first or not."""

    weight_decay: float
    lr_scale: float
    names: list[str] = field(default_factory=list)
    rests: bool = False


def make_param_groups(
    parameters: Iterable[tuple[str, int]], rules: ParameterRules, optim: OptimSettings
) -> list[ParamGroup]:
    """Group parameters, in order of first appearance.

    Args:
        parameters: (name, number of dimensions) of each.
        rules: of the model: which layer, which head, which free of decay.
        optim: weight decay, layer decay, head rate.

    No decay for vectors, biases and what the model names (but with `decay_bias_and_norm`). Layer decay d
    gives d^(depth - depth of the name); without it the head's factor applies to the head. With
    `freeze_vision_steps` all but the text side rests at first.
    """
    found: dict[tuple[bool, float, bool], ParamGroup] = {}
    for name, dimensions in parameters:
        vector = dimensions <= 1 or name.endswith(".bias") or rules.no_weight_decay(name)
        undecayed = vector and not optim.decay_bias_and_norm
        decay = 0.0 if undecayed else optim.weight_decay
        if optim.layer_decay < 1:
            scale = optim.layer_decay ** (rules.head_layer_id - rules.layer_id(name))
        else:
            scale = optim.head_lr_scale if rules.is_head_parameter(name) else 1.0
        # Keyed by "decayed or not", so that a weight decay of 0 keeps its groups apart.
        rests = optim.freeze_vision_steps > 0 and not rules.is_text_parameter(name)
        key = (undecayed, scale, rests)
        found.setdefault(key, ParamGroup(decay, scale, rests=rests)).names.append(name)
    return list(found.values())


@dataclass(frozen=True)
class TrainingSteps:
    """How long a run is, in optimizer steps."""

    total: int
    warmup: int
    per_epoch: int


def count_training_steps(optim: OptimSettings, rows: int) -> TrainingSteps:
    """Steps of a run over an index of so many rows; an incomplete last batch of an epoch is dropped."""
    per_epoch = rows // optim.global_batch
    total = optim.steps or (optim.epochs or 0) * per_epoch
    warmup = optim.warmup_steps or int(optim.warmup_epochs * per_epoch)
    return TrainingSteps(total, warmup, per_epoch)


def learning_rate(step: int, optim: OptimSettings, length: TrainingSteps) -> float:
    """Learning rate of optimizer step `step` (from 0): linear warm-up, then half a cosine.

    Both ends of the warm-up count, as in the original: its first step has rate 0, its last the
    full rate; without `warmup_reaches` the first step after it does.
    """
    if step < length.warmup:
        last = length.warmup - 1 if optim.warmup_reaches else length.warmup
        return optim.lr * step / last if last else 0.0
    share = (step - length.warmup) / max(1, length.total - length.warmup)
    return optim.min_lr + 0.5 * (optim.lr - optim.min_lr) * (1 + math.cos(math.pi * share))


def make_optimizer(model: torch.nn.Module, rules: ParameterRules, optim: OptimSettings) -> torch.optim.AdamW:
    """Fused AdamW over a model's trainable parameters; each group remembers `lr_scale`, `rests`.

    Raises:
        SettingsError: there are none.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not named:
        raise SettingsError("nothing learns in this model", "say what does: --set model.train=lora")
    grouped = make_param_groups(((name, p.ndim) for name, p in named.items()), rules, optim)
    return torch.optim.AdamW(
        [
            {
                "params": [named[n] for n in g.names],
                "weight_decay": g.weight_decay,
                "lr_scale": g.lr_scale,
                "rests": g.rests,
            }
            for g in grouped
        ],
        lr=0.0,
        betas=optim.betas,
        eps=optim.eps,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float, text_first: bool = False) -> None:
    """Set the rate of every group, times the group's factor; 0 for those that rest in `text_first`.

    AdamW at rate 0 changes no bit, its decay is a share of the rate, and its moments are ready when
    the rest begins to learn.
    """
    for group in optimizer.param_groups:
        group["lr"] = 0.0 if text_first and group["rests"] else value * group["lr_scale"]


def clip_grad_norm(parameters: list[Tensor], largest: float | None) -> Tensor:
    """Global gradient norm (before clipping), clipped to `largest` if given."""
    norm: Any = torch.nn.utils.clip_grad_norm_(parameters, largest if largest is not None else math.inf)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # of gradients that are cut up

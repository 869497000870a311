"""Losses over one right class an example, and weights of classes. Source: docs/sources/vqa_nia.md, N8 to N11.

Shapes (models/family.py): B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

NO_CLASS = -100  # target of an answer that is not a class: it adds nothing to a loss
_EFFECTIVE_BETA = 0.9999  # of effective numbers (arXiv 1901.05555)


def class_cross_entropy(
    logits: Tensor, targets: Tensor, weight: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Mean cross-entropy, weighted by the true class's weight; a scalar.

    Without weights the mean is over all rows, also those without a class, which add 0.

    Args:
        logits: [B, C].
        targets: [B], classes or NO_CLASS.
        weight: [C], or None.
        smoothing: of labels.
    """
    total = functional.cross_entropy(logits, targets, weight, label_smoothing=smoothing, reduction="sum")
    if weight is None:
        return total / len(targets)
    return total / _at_least_tiny(row_weights(targets, weight).sum())


def row_weights(targets: Tensor, weight: Tensor) -> Tensor:
    """Weight of each row's true class, [B]; 0 where it has none. Arguments as of `class_cross_entropy`."""
    return weight[targets.clamp(min=0)] * (targets != NO_CLASS)


def _at_least_tiny(total: Tensor) -> Tensor:
    """A sum of weights to divide by: a batch without any class has loss 0 / tiny = 0, not 0 / 0."""
    return total.clamp(min=torch.finfo(total.dtype).tiny)


def focal_loss(
    logits: Tensor, targets: Tensor, gamma: float, weight: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Σ w (1 - p)^γ ce / Σ w over examples: p the true class's probability, ce smoothed and unweighted.

    Without weights divided by all rows, like `class_cross_entropy`, which it equals at γ = 0
    (arXiv 1708.02002). Arguments as there.
    """
    has_class = targets != NO_CLASS  # [B]
    ce = functional.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")  # [B]
    classes = targets.clamp(min=0)  # an index that exists; `has_class` removes these rows again
    p = logits.softmax(1).gather(1, classes[:, None])[:, 0]  # [B]
    # The gradient of x^γ at x = 0 is infinite for γ < 1: a certain prediction keeps a tiny rest.
    losses = (1 - p).clamp(min=1e-7) ** gamma * ce * has_class
    if weight is None:
        return losses.mean()
    weights = row_weights(targets, weight)
    return (weights * losses).sum() / _at_least_tiny(weights.sum())


def original_focal_loss(
    logits: Tensor, targets: Tensor, gamma: float, weight: Tensor | None = None, smoothing: float = 0.1
) -> Tensor:
    """The original's: the focal term of the batch's mean, so that hard and easy examples count alike.

    For comparison only: it depends on how a batch is cut. Arguments as of `class_cross_entropy`.
    """
    ce = functional.cross_entropy(logits, targets, weight, label_smoothing=smoothing)
    return (1 - torch.exp(-ce)) ** gamma * ce


def compute_class_weights(counts: Sequence[int], scheme: str) -> Tensor:
    """Weights [C] of classes by how often training has them.

    Args:
        counts: n, training rows of each class.
        scheme: "original" (1 - n / N), "inverse_sqrt" (n^-1/2) or "effective" ((1 - β) / (1 - β^n)); the
            last two have mean 1, so that the learning rate keeps its meaning.
    """
    n = torch.tensor(counts, dtype=torch.float64)
    if scheme == "original":
        return (1 - n / n.sum()).float()
    seen = n.clamp(min=1)  # a class that training does not have: as if once
    if scheme == "inverse_sqrt":
        weights = seen**-0.5
    else:
        weights = (1 - _EFFECTIVE_BETA) / (1 - _EFFECTIVE_BETA**seen)
    return (weights / weights.mean()).float()


def scale_gradient_by_loss(loss: Tensor) -> Tensor:
    """The same value, its gradient multiplied by it: the original's `loss.backward(loss)`."""
    return loss.detach() + (loss - loss.detach()) * loss.detach()

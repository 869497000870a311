"""Losses over one right class an example, and weights of classes. Source: docs/sources/vqa_nia.md, N8 to N11."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

NO_CLASS = -100  # an answer that is no class: counts for nothing
_EFFECTIVE_BETA = 0.9999  # of effective numbers (arXiv 1901.05555)


def class_cross_entropy(
    logits: Tensor, targets: Tensor, weight: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Mean cross-entropy of logits [B, C] against classes [B]; weighted by the true class's weight.

    Without weights the mean is over all rows, so that batches may be cut anywhere; a row without a
    class adds 0.
    """
    if weight is not None:
        return functional.cross_entropy(logits, targets, weight, label_smoothing=smoothing)
    summed = functional.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum")
    return summed / len(targets)


def focal_loss(
    logits: Tensor, targets: Tensor, gamma: float, weight: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Σ w (1 - p)^γ ce / Σ w by example: p the true class's probability, ce smoothed and unweighted.

    Without weights divided by all rows, as `cross_entropy`, which it equals at γ = 0.
    """
    known = targets != NO_CLASS
    ce = functional.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
    classes = targets.clamp(min=0)
    p = logits.softmax(1).gather(1, classes[:, None])[:, 0]
    losses = (1 - p).clamp(min=1e-7) ** gamma * ce * known  # 0 to a power below 1 has no gradient
    if weight is None:
        return losses.mean()
    share = weight[classes] * known
    return (share * losses).sum() / share.sum().clamp(min=torch.finfo(share.dtype).tiny)


def original_focal_loss(
    logits: Tensor, targets: Tensor, gamma: float, weight: Tensor | None = None, smoothing: float = 0.1
) -> Tensor:
    """The original's: of the batch mean, so that hard and easy examples count alike. To compare with."""
    ce = functional.cross_entropy(logits, targets, weight, label_smoothing=smoothing)
    return (1 - torch.exp(-ce)) ** gamma * ce


def compute_class_weights(counts: Sequence[int], kind: str) -> Tensor:
    """Weights [C] of classes seen so often in training.

    Args:
        counts: rows of each class.
        kind: "original" (1 - n / N), "inverse_sqrt" or "effective"; the two latter have mean 1.
    """
    n = torch.tensor(counts, dtype=torch.float64)
    if kind == "original":
        return (1 - n / n.sum()).float()
    seen = n.clamp(min=1)
    found = seen**-0.5 if kind == "inverse_sqrt" else (1 - _EFFECTIVE_BETA) / (1 - _EFFECTIVE_BETA**seen)
    return (found / found.mean()).float()


def scale_gradient_by_loss(loss: Tensor) -> Tensor:
    """The same value, its gradient multiplied by it: the original's `loss.backward(loss)`."""
    return loss.detach() + (loss - loss.detach()) * loss.detach()

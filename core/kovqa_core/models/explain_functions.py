"""What a family offers to those who ask where an answer comes from, and the one measure of it.

An answer's score here is its log-odds, log(p / (1 - p)): a probability hardly moves where it is near 1, though the model
may have become a hundred times less sure; log-odds move as much there as in the middle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kovqa_core.models.batches import ModelBatch

ModelType = TypeVar("ModelType")
ProcessorType = TypeVar("ProcessorType")


def square_pixels(item: Any) -> np.ndarray:
    """The pixels, uint8 [S, S, 3], of an item whose `image` is uint8 [3, S, S]."""
    pixels: np.ndarray = item.image.transpose(1, 2, 0)
    return pixels


def with_square_pixels(item: Any, pixels: np.ndarray) -> Any:
    """Such an item with other pixels, uint8 [S, S, 3]."""
    return replace(item, image=np.ascontiguousarray(pixels.transpose(2, 0, 1)))


@dataclass(frozen=True)
class ExplainFunctions(Generic[ModelType, ProcessorType]):
    """How a family scores an answer that is given, about an image whose pixels are changed.

    Attributes:
        score_answer: model, processor, batch, answer -> the answer's log-odds in every row, [B] in fp32.
        item_pixels: what `encode` made of an example -> its image, uint8 [height, width, 3].
        with_pixels: such an item with other pixels, of the same size.
        as_stored: does the processor leave images as they are stored, not turned upright by EXIF?
        roll_out_attention: model, processor, batch of one row, answer -> how much the answer's token attends to each
            place of the image, fp32 [rows, columns]; None: its attention is not to be read.
    """

    # An encoded example is the family's own type.
    score_answer: Callable[[ModelType, ProcessorType, ModelBatch, str], Tensor]
    item_pixels: Callable[[Any], np.ndarray] = square_pixels
    with_pixels: Callable[[Any, np.ndarray], Any] = with_square_pixels
    as_stored: Callable[[ProcessorType], bool] = field(kw_only=True)
    roll_out_attention: Callable[[ModelType, ProcessorType, ModelBatch, str], np.ndarray] | None = None


def token_log_odds(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Log-odds of one class or token against all others.

    Args:
        logits: [..., V], in fp32.
        token_ids: [...].

    Returns:
        [...]: without taking 1 - p, of which nothing is left where p is near 1.
    """
    chosen = token_ids.unsqueeze(-1)
    others = logits.scatter(-1, chosen, -torch.inf).logsumexp(-1)
    return logits.gather(-1, chosen).squeeze(-1) - others


def sequence_log_odds(log_odds: Tensor) -> Tensor:
    """Log-odds of a whole text, whose probability is the product of its tokens'.

    Args:
        log_odds: [B, T], of the tokens.

    Returns:
        [B].
    """
    # -log p of a token is softplus(-log-odds); with s their sum, log(p / (1 - p)) = -log(exp(s) - 1).
    # On the host where the device has no float64, as Apple's.
    wide = log_odds.cpu() if log_odds.device.type == "mps" else log_odds
    total = functional.softplus(-wide.double()).sum(-1).clamp(min=1e-300)
    return (-total - torch.log(-torch.expm1(-total))).float().to(log_odds.device)

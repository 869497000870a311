"""How sure a fusion model is of a given answer, and the image of an encoded example."""

from __future__ import annotations

import torch
from torch import Tensor

from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.explain_functions import token_log_odds
from kovqa_core.models.fusion.network import FusionNet
from kovqa_core.models.fusion.vqa import FusionProcessor, fusion_logits


def score_answer(net: FusionNet, processor: FusionProcessor, batch: ModelBatch, answer: str) -> Tensor:
    """Log-odds of an answer's class against all others, [B].

    Raises:
        ValueError: the answer is not a class.
    """
    logits = fusion_logits(net, batch)
    label = processor.answers.index(answer)
    return token_log_odds(logits, torch.full((len(logits),), label, device=logits.device))

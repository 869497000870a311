"""How sure a vision language model is of a given answer, and the image of an encoded example."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.explain_functions import sequence_log_odds, token_log_odds
from kovqa_core.models.vlm import generation
from kovqa_core.models.vlm.hf_types import ContentBlock
from kovqa_core.models.vlm.model import VlmModel
from kovqa_core.models.vlm.processor import VlmItem, VlmProcessor


def score_answer(model: VlmModel, processor: VlmProcessor, batch: ModelBatch, answer: str) -> Tensor:
    """Log-odds of an answer's tokens together, its end included, [B]; by the tokens the tokenizer makes of it."""
    answer_ids = generation.answer_token_ids(model.generator, answer)
    logits = model.continuation_logits(batch, [answer_ids] * len(batch.ids)).float()  # [B, A, V]
    # As it answers: tokens that no answer has are not among the others.
    logits[..., model.generator.suppress_tokens] = -torch.inf
    targets = torch.tensor(answer_ids, device=logits.device).expand(len(logits), -1)
    return sequence_log_odds(token_log_odds(logits, targets))


def item_pixels(item: VlmItem) -> np.ndarray:
    """uint8 [height, width, 3]."""
    return np.asarray(item.turns[0]["content"][0]["image"])


def with_pixels(item: VlmItem, pixels: np.ndarray) -> VlmItem:
    """The same question about other pixels, uint8 [height, width, 3]."""
    asked, *others = item.turns
    image: ContentBlock = {"type": "image", "image": Image.fromarray(pixels)}
    content = [image if block["type"] == "image" else block for block in asked["content"]]
    return replace(item, turns=[{**asked, "content": content}, *others])

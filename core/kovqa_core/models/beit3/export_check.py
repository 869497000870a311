"""The logits of a BEiT-3 by kovqa, and by the module that is exported beside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kovqa_core.data.example import Example
from kovqa_core.models import image_transforms
from kovqa_core.models.beit3.caption import Beit3CaptionProcessor
from kovqa_core.models.beit3.vqa import Beit3VqaProcessor, beit3_vqa_logits
from kovqa_core.models.export_check import one_example_batch

MODULE_NAME = "beit3_model.py"
CHECK_CODE = """\
from beit3_model import Beit3

model = None

def logits(row, image, device):
    global model
    model = model or Beit3(".", device)
    if model.answers:
        return model.answer_logits(image, row["text"])
    ids = model.ids(row["text"])[:row["tokens"]]
    return torch.stack([model.caption_logits(image, ids[:n]) for n in range(1, len(ids))])
"""
_CAPTION_TOKENS = 6  # that are predicted one by one, each with the whole image: more would only take longer


def example_row(processor: Beit3VqaProcessor | Beit3CaptionProcessor, example: Example) -> dict[str, object]:
    """The question, or the beginning of a caption."""
    if isinstance(processor, Beit3VqaProcessor):
        return {"text": example.question}
    return {"text": _caption(example), "tokens": _CAPTION_TOKENS + 1}


def _caption(example: Example) -> str:
    return example.captions[0] if example.captions else example.question


@torch.inference_mode()
def own_logits(model: Any, processor: Beit3VqaProcessor | Beit3CaptionProcessor, example: Example) -> Tensor:
    """[C]; of a captioner [tokens, V], each after the tokens before it."""
    device = next(model.parameters()).device
    batch = one_example_batch(processor, example).to(device)
    if isinstance(processor, Beit3VqaProcessor):
        return beit3_vqa_logits(model.net, batch)[0]
    ids = processor.tokenizer.encode_with_specials(_caption(example), processor.config.max_text)
    image_cache = model.net.search_cache(image_transforms.normalise_pixels(batch.tensors["image"]))
    text_cache = model.net.empty_kv_cache(1, len(ids) + 1, image_cache[0][0])
    mask_id = processor.tokenizer.mask_id
    return torch.cat(
        [
            model.net.next_token_logits(torch.tensor([id], device=device), mask_id, image_cache, text_cache)
            for id in ids[:_CAPTION_TOKENS]
        ]
    )

"""The logits of a vision language model's next token by kovqa, and by transformers alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kovqa_core.data.example import Example
from kovqa_core.models.export_check import one_example_batch
from kovqa_core.models.vlm import chat_template
from kovqa_core.models.vlm.explain import item_pixels
from kovqa_core.models.vlm.model import VlmModel
from kovqa_core.models.vlm.processor import VlmProcessor

CHECK_CODE = """\
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
model, processor = None, AutoProcessor.from_pretrained(".", **options)
processor.image_processor = AutoImageProcessor.from_pretrained(".", backend="pil", **options)

@torch.inference_mode()
def logits(row, image, device):
    global model
    if model is None:
        model = AutoModelForImageTextToText.from_pretrained(".", dtype=torch.float32, **options).eval().to(device)
    if row["size"] != list(image.size):
        image = image.resize(row["size"], Image.Resampling.BICUBIC)
    content = [{"type": "image", "image": image}, {"type": "text", "text": row["text"]}]
    chat = [{"role": "user", "content": content}]
    inputs = processor.apply_chat_template([chat], return_tensors="pt", **row["arguments"]).to(device)
    return model(**inputs, logits_to_keep=1).logits[0, -1]
"""


def example_row(processor: VlmProcessor, example: Example) -> dict[str, object]:
    """The prompt's text, how it is written by the template, and the size that a large image is reduced to."""
    item = processor.encode(example, Path(), train=False, rng=np.random.default_rng(0))
    (text,) = [block["text"] for block in item.turns[0]["content"] if block["type"] == "text"]
    height, width, _ = item_pixels(item).shape
    arguments = chat_template.template_arguments(processor.hf, add_generation_prompt=True)
    return {"text": text, "size": [width, height], "arguments": arguments}


@torch.inference_mode()
def own_logits(model: VlmModel, processor: VlmProcessor, example: Example) -> Tensor:
    """[V], of the first token of an answer."""
    batch = one_example_batch(processor, example).to(next(model.parameters()).device)
    return model.continuation_logits(batch, [model.generator.eos_token_ids[:1]])[0, 0]

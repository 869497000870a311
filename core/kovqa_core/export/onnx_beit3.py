"""BEiT-3 for ONNX: a classifier as one graph; a captioner as two, its image and its text.

The image's keys and values are computed once an image and shared by its beams, as kovqa does it. The text has no cache:
all words so far go through the text's side for every word more, which needs no state between calls.

Shapes (models/family.py): B images, K beams an image, T words so far with `<mask>` at their end, L layers, H heads,
P image tokens, D width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kovqa_core.export.onnx_graphs import (
    OnnxGraph,
    OnnxModel,
    RunGraph,
    classifier_model,
    largest_difference,
    to_arrays,
)
from kovqa_core.models.beit3.caption_network import CaptionNet, caption_mask
from kovqa_core.models.beit3.config import ModelConfig
from kovqa_core.models.beit3.family import Beit3Model, Beit3Processor
from kovqa_core.models.beit3.vqa import Beit3VqaProcessor
from kovqa_core.models.xlmr_tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID, XlmrTokenizer

_TOKENIZER_FILE = "tokenizer.model"


class _ImageSide(nn.Module):
    """Pixels [B, 3, S, S] -> keys and values of all layers, [B, L, 2, H, P, D/H]."""

    def __init__(self, net: CaptionNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.stack([torch.stack(layer, 1) for layer in self.net.encode_image(pixels)], 1)


class _TextSide(nn.Module):
    """An image's keys and values and words [B, K, T] -> logits of the word at the last place, [B, K, V]."""

    def __init__(self, net: CaptionNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image_cache: Tensor, tokens: Tensor) -> Tensor:
        images, beams, _ = tokens.shape
        of_rows = image_cache[:, None].expand(-1, beams, -1, -1, -1, -1, -1).flatten(0, 1)
        rows = tokens.flatten(0, 1)
        x = self.net.encoder.embed_text(rows, None)
        mask = caption_mask(image_cache.shape[4], rows, None, x.dtype)
        for i, layer in enumerate(self.net.layers):
            x = layer.text_tokens(x, of_rows[:, i, 0], of_rows[:, i, 1], mask, None)
        assert self.net.encoder.norm is not None
        return self.net.mlm_head(self.net.encoder.norm["text"](x[:, -1])).unflatten(0, (images, beams))


def beit3_onnx_model(model: Beit3Model, processor: Beit3Processor) -> OnnxModel:
    """The graphs and settings of a BEiT-3."""
    config, tokenizer = processor.config, processor.tokenizer
    settings: dict[str, object] = {
        "image_size": config.image_size, "resample": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3,
        "image_loading": config.image_loading, "tokenizer": _TOKENIZER_FILE, "max_text": config.max_text,
        "pad_id": PAD_ID, "special_ids": _special_ids(tokenizer),
    }  # fmt: skip
    file = (_TOKENIZER_FILE, tokenizer.model_bytes)
    if isinstance(processor, Beit3VqaProcessor):
        ids = UNK_ID, tokenizer.mask_id
        graph, compare = classifier_model(model.net, config.image_size, ids, config.max_text)
        return OnnxModel((graph,), {**settings, "probability": "sigmoid"}, file, processor.answers, compare)
    search = {"num_beams": config.caption.num_beams, "length_penalty": config.caption.length_penalty}
    graphs = _caption_graphs(model.net, config)
    return OnnxModel(
        graphs, {**settings, **search}, file, None, lambda run: _compare_captioner(model.net, config, run)
    )


def _special_ids(tokenizer: XlmrTokenizer) -> dict[str, int]:
    """What a literal `<s>` and the like in a text become."""
    return {"<s>": BOS_ID, "<pad>": PAD_ID, "</s>": EOS_ID, "<unk>": UNK_ID, "<mask>": tokenizer.mask_id}


def _caption_graphs(net: CaptionNet, config: ModelConfig) -> tuple[OnnxGraph, OnnxGraph]:
    pixels = torch.zeros(2, 3, config.image_size, config.image_size)
    with torch.no_grad():
        cache = _ImageSide(net)(pixels)
    words = {"image_cache": {0: "images"}, "tokens": {0: "images", 1: "beams", 2: "words"}}
    return (
        OnnxGraph("image", _ImageSide(net), {"pixels": pixels}, {"pixels": {0: "images"}}, "image_cache"),
        OnnxGraph(
            "text",
            _TextSide(net),
            {"image_cache": cache, "tokens": torch.full((2, 3, 5), UNK_ID)},
            words,
            "logits",
        ),
    )


def _compare_captioner(net: CaptionNet, config: ModelConfig, run: RunGraph) -> float:
    """Of the logits that the network gives for whole captions, as it computes them in training."""
    side, largest = config.image_size, 0.0
    assert config.vocab_size is not None
    for images, beams, words in ((1, 1, 2), (1, 3, 9), (2, 3, config.max_text - 1)):
        generator = torch.Generator().manual_seed(words)
        pixels = torch.rand(images, 3, side, side, generator=generator) * 2 - 1
        tokens = torch.randint(UNK_ID, config.vocab_size, (images, beams, words), generator=generator)
        rows = pixels.repeat_interleave(beams, 0), tokens.flatten(0, 1)
        ours = net.mlm_head(net.hidden_states(*rows, None)[:, -1]).unflatten(0, (images, beams))
        cache = run("image", to_arrays({"pixels": pixels}))
        other = run("text", {"image_cache": cache, "tokens": tokens.numpy()})
        largest = max(largest, largest_difference(ours, other))
    return largest

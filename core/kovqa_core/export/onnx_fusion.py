"""A fusion model for ONNX: both encoders and the head as one graph."""

from __future__ import annotations

from kovqa_core.export.onnx_graphs import OnnxModel, classifier_model
from kovqa_core.models.fusion.family import FusionModel
from kovqa_core.models.fusion.tokenizer import saved_tokenizer_name
from kovqa_core.models.fusion.vqa import FusionProcessor


def fusion_onnx_model(model: FusionModel, processor: FusionProcessor) -> OnnxModel:
    """The graph and settings of a fusion model."""
    config, tokenizer = processor.config, processor.tokenizer
    pad_id = config.question_config.get("pad_token_id") or 0
    settings: dict[str, object] = {
        "image_size": config.image_size, "resample": config.resample, "mean": config.mean, "std": config.std,
        "image_loading": config.image_loading, "tokenizer": saved_tokenizer_name(tokenizer),
        "max_text": config.max_text, "pad_id": pad_id, "special_ids": {}, "probability": "softmax",
    }  # fmt: skip
    # Positions of RoBERTa count tokens that are no padding: the check's tokens are none.
    ids = pad_id + 1, tokenizer.vocab_size - 1
    graph, compare = classifier_model(model.net, config.image_size, ids, config.max_text)
    file = (saved_tokenizer_name(tokenizer), tokenizer.model_bytes)
    return OnnxModel((graph,), settings, file, processor.answers, compare)

"""The models that are simulated, at their real sizes, with batches as their recipes make them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.family import FamilyModel
from torch import Tensor, nn

CLASSES, VOCAB, TEXT = (
    3129,
    64010,
    20,
)  # answers and tokenizer of VQAv2; tokens of the longest question of a batch
CAPTION_TEXT, MASKED = 16, 9  # tokens of a caption, and those of them that are predicted


@dataclass(frozen=True)
class Case:
    """A model in training.

    Attributes:
        recipe: whose optimizer settings hold.
        micro_batch: examples of a forward pass.
        make_model: called with device cuda as torch's own.
        make_batch: examples -> a batch on the CPU, whole numbers with their values.
    """

    recipe: str
    micro_batch: int
    make_model: Callable[[], nn.Module]
    make_batch: Callable[[int], ModelBatch]


def _ids(rows: int) -> list[str]:
    return [str(row) for row in range(rows)]


def _beit3(size: str, side: int, drop_path: float) -> Callable[[], FamilyModel]:
    def make() -> FamilyModel:
        from kovqa_core.models.beit3.config import ModelConfig
        from kovqa_core.models.beit3.family import Beit3Model
        from kovqa_core.models.beit3.network import Beit3VqaNet
        from kovqa_core.models.beit3.vqa import VqaTask

        config = ModelConfig.model_validate(
            {
                "size": size,
                "image_size": side,
                "drop_path": drop_path,
                "vocab_size": VOCAB,
                "num_classes": CLASSES,
            }
        )
        return Beit3Model(Beit3VqaNet(config), VqaTask(["answer"] * CLASSES))

    return make


def _caption(size: str, side: int, drop_path: float) -> Callable[[], FamilyModel]:
    def make() -> FamilyModel:
        from kovqa_core.models.beit3.caption import CaptionTask
        from kovqa_core.models.beit3.caption_network import CaptionNet
        from kovqa_core.models.beit3.config import ModelConfig
        from kovqa_core.models.beit3.family import Beit3Model

        config = ModelConfig.model_validate(
            {"size": size, "image_size": side, "drop_path": drop_path, "vocab_size": VOCAB}
        )
        tokenizer: Any = SimpleNamespace(mask_id=VOCAB - 1)
        return Beit3Model(CaptionNet(config), CaptionTask(config.caption, config.max_text, tokenizer))

    return make


def _text(rows: int, length: int) -> tuple[Tensor, Tensor]:
    """Ids and padding of texts, the last of which is the shortest."""
    tokens = torch.randint(5, 5000, (rows, length))
    padding = torch.zeros(rows, length, dtype=torch.bool)
    padding[-1, length // 2 :] = True
    return tokens, padding


def _pixels(rows: int, side: int) -> Tensor:
    return torch.empty(rows, 3, side, side, dtype=torch.uint8)


def _vqa_batch(side: int, layers: int) -> Callable[[int], ModelBatch]:
    def make(rows: int) -> ModelBatch:
        tokens, padding = _text(rows, TEXT)
        return ModelBatch(
            {
                "image": _pixels(rows, side), "tokens": tokens, "padding": padding,
                "noise": torch.rand(rows, layers, 2),
                "label_positions": torch.stack([torch.arange(rows), torch.arange(rows) % CLASSES], 1),
                "label_scores": torch.ones(rows),
            },
            _ids(rows),
        )  # fmt: skip

    return make


def _caption_batch(side: int, layers: int) -> Callable[[int], ModelBatch]:
    def make(rows: int) -> ModelBatch:
        tokens, padding = _text(rows, CAPTION_TEXT)
        positions = torch.stack(
            [torch.arange(rows).repeat_interleave(MASKED), 1 + torch.arange(rows * MASKED) % 7], 1
        )
        return ModelBatch(
            {
                "image": _pixels(rows, side), "noise": torch.rand(rows, layers, 2), "tokens": tokens,
                "padding": padding, "positions": positions, "targets": torch.randint(5, 5000, (rows * MASKED,)),
            },
            _ids(rows),
        )  # fmt: skip

    return make


def _nia() -> FamilyModel:
    from kovqa_core.models.fusion.config import ModelConfig
    from kovqa_core.models.fusion.family import FusionModel
    from kovqa_core.models.fusion.network import FusionNet

    question = {
        "model_type": "xlm-roberta", "vocab_size": 250002, "hidden_size": 768, "num_hidden_layers": 12,
        "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 514, "type_vocab_size": 1,
        "pad_token_id": 1,
    }  # fmt: skip
    config = ModelConfig.model_validate(
        {"random_init": True, "tokenizer": "none", "num_classes": CLASSES, "question_config": question}
    )
    config = config.model_copy(update={"picture_config": {"architecture": "resnet50"}})
    return FusionModel(FusionNet(config), ["answer"] * CLASSES)


def _nia_batch(rows: int) -> ModelBatch:
    tokens, padding = _text(rows, TEXT)
    tensors = {
        "image": _pixels(rows, 224),
        "tokens": tokens,
        "padding": padding,
        "targets": torch.arange(rows),
    }
    return ModelBatch(tensors, _ids(rows))


# ------------------------------------------------------------------------- vision language models


def _vlm(make_net: Callable[[], Any], train: Any = "lora") -> Callable[[], FamilyModel]:
    def make() -> FamilyModel:
        from kovqa_core.models.vlm.config import ModelConfig
        from kovqa_core.models.vlm.generation import TextGenerator
        from kovqa_core.models.vlm.model import VlmModel
        from kovqa_core.models.vlm.tuning import apply_tuning

        config = ModelConfig.model_validate({"train": train})
        tokenizer: Any = SimpleNamespace(get_vocab=dict, pad_token_id=0)
        processor: Any = SimpleNamespace(tokenizer=tokenizer)
        net = apply_tuning(make_net(), config, processor, 0)
        return VlmModel(net, config, TextGenerator(net, tokenizer, [2], [], 8))

    return make


_IMAGE_ID = 151655  # of Qwen's tokenizer


def _qwen3_vl() -> Any:
    """Qwen3-VL 2B."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    text = {
        "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True,
        "rope_scaling": {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True},
    }  # fmt: skip
    vision = {
        "depth": 24, "hidden_size": 1024, "num_heads": 16, "intermediate_size": 4096, "out_hidden_size": 2048,
        "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "deepstack_visual_indexes": [5, 11, 17],
    }  # fmt: skip
    config = Qwen3VLConfig(
        text_config=text, vision_config=vision, image_token_id=_IMAGE_ID, tie_word_embeddings=True
    )
    return Qwen3VLForConditionalGeneration(config)


def _vlm_batch(
    image_id: int, image_tokens: int, images: Callable[[int], dict[str, Tensor]]
) -> Callable[[int], ModelBatch]:
    def make(rows: int) -> ModelBatch:
        prompt, answer = image_tokens + 24, 4
        length = prompt + answer
        ids = torch.randint(5, 5000, (rows, length))
        ids[:, 4 : 4 + image_tokens] = image_id
        labels = torch.full_like(ids, -100)
        labels[:, prompt:] = ids[:, prompt:]
        tensors = {
            "input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels,
            "prompt_lengths": torch.full((rows,), prompt), **images(rows),
        }  # fmt: skip
        if image_id == _IMAGE_ID:
            tensors["mm_token_type_ids"] = (ids == image_id).long()
        return ModelBatch(tensors, _ids(rows))

    return make


def _qwen_images(rows: int) -> dict[str, Tensor]:
    grid = torch.tensor([[1, 28, 28]] * rows)  # 448 pixels a side, patches of 16
    return {"pixel_values": torch.empty(rows * 28 * 28, 3 * 2 * 16 * 16), "image_grid_thw": grid}


def _llava() -> Any:
    """LLaVA-1.5 7B's widths, with eight of its 32 layers."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
        patch_size=14, projection_dim=768,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=32064,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=8,
        num_attention_heads=32,
    )
    return LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=32000, image_seq_length=576)
    )


def _vit(architecture: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import timm

        return _Classifier(timm.create_model(architecture))

    return make


class _Classifier(nn.Module):
    """A model of timm behind what training asks of a family, to calibrate by."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, batch: ModelBatch, step: int) -> dict[str, Tensor]:
        """The loss of a batch."""
        logits = self.net(batch.tensors["image"])
        return {"loss": nn.functional.cross_entropy(logits, batch.tensors["labels"])}


def _vit_batch(rows: int) -> ModelBatch:
    return ModelBatch(
        {"image": torch.empty(rows, 3, 224, 224), "labels": torch.zeros(rows, dtype=torch.long)}, _ids(rows)
    )


CASES: dict[str, Case] = {
    "base-224": Case("kobeit3", 128, _beit3("base", 224, 0.1), _vqa_batch(224, 12)),
    "large-224": Case("kobeit3", 128, _beit3("large", 224, 0.15), _vqa_batch(224, 24)),
    "base-480": Case("vqav2", 64, _beit3("base", 480, 0.1), _vqa_batch(480, 12)),
    "large-480": Case("vqav2-large", 32, _beit3("large", 480, 0.15), _vqa_batch(480, 24)),
    "caption-base": Case("coco-caption", 32, _caption("base", 480, 0.1), _caption_batch(480, 12)),
    "caption-large": Case("coco-caption-large", 16, _caption("large", 480, 0.1), _caption_batch(480, 24)),
    "nia": Case("nia", 64, _nia, _nia_batch),
    "qwen3-vl-lora": Case("dacon-vlm-lora", 8, _vlm(_qwen3_vl), _vlm_batch(_IMAGE_ID, 196, _qwen_images)),
    "llava-projector": Case(
        "llava-v1", 8, _vlm(_llava, "projector"),
        _vlm_batch(32000, 576, lambda rows: {"pixel_values": torch.empty(rows, 3, 336, 336)}),
    ),
}  # fmt: skip
NEIGHBOURS: dict[str, Case] = {
    "timm-vit-large": Case("", 64, _vit("vit_large_patch16_224"), _vit_batch),
    "timm-vit-base": Case("", 192, _vit("vit_base_patch16_224"), _vit_batch),
}

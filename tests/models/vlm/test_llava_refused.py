"""LLaVA folders that are not supported, or do not fit together: one error that names the cause, nothing written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from kovqa_core.errors import ModelError
from kovqa_core.models.vlm.convert_llava import ConversionSettings, convert_llava_folder
from torch import Tensor

from tests.models.vlm.llava_folders import (
    CLIP,
    LAYER,
    NEWER,
    PAIR,
    PLAIN_TRAINED,
    TABLES,
    TRAINED,
    VICUNA,
    Weights,
    adapter,
    vicuna,
    without,
    write_folder,
)
from tests.models.vlm.llava_reference import read_json


def add(name: str, *shape: int) -> Callable[[Weights], None]:
    return lambda weights: weights.update({name: torch.zeros(shape)})


REFUSED_SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "three layers": ({"mm_projector_type": "mlp3x_gelu"}, "mm_projector_type=mlp3x_gelu is not supported"),
    "no projector": ({"mm_projector_type": "identity"}, "mm_projector_type=identity"),
    "unknown feature": ({"mm_vision_select_feature": "cls"}, "mm_vision_select_feature=cls"),
    "tiles": ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio=anyres"),
    "joined tiles": ({"mm_patch_merge_type": "spatial_unpad"}, "mm_patch_merge_type=spatial_unpad"),
    "several scales": ({"s2": True}, "s2=True"),
    "trained encoder": ({"mm_tunable_parts": "mm_vision_tower"}, "mm_tunable_parts=mm_vision_tower"),
    "resampler": ({"mm_resampler_type": "perceiver"}, "mm_resampler_type=perceiver"),
    "Mistral": ({"model_type": "llava_mistral"}, "model_type=llava_mistral"),
    "MPT": ({"model_type": "llava_mpt"}, "model_type=llava_mpt"),
    "layer that is not there": ({"mm_vision_select_layer": -5}, "mm_vision_select_layer=-5, .* layers -4 to 3"),
    "no layer named": ({"mm_vision_select_layer": None}, "mm_vision_select_layer=None"),
    "another encoder's width": ({"mm_hidden_size": 1024}, "hidden_size is 48, not 1024"),
    "another encoder's images": (
        {"mm_vision_tower": "openai/clip-vit-large-patch14-336"}, "image_size is 56, not 336",
    ),
    "Llama 2 Chat": ({"_name_or_path": "checkpoints/llama-2-13b-chat"}, "another prompt than Vicuna's"),
    "heads that do not fit": ({"num_attention_heads": 5}, "cannot be used"),
    "narrower layers": ({"intermediate_size": 128}, r"gate_proj.weight has the shape \[160, 64\], but \[128, 64\]"),
}  # fmt: skip
REFUSED_WEIGHTS: dict[str, tuple[Callable[[Weights], None], str]] = {
    "tiles": (add("model.image_newline", 64), "no place for: model.image_newline"),
    "third layer": (add("model.mm_projector.4.weight", 64, 64), "no place for: model.mm_projector.4.weight"),
    "quantised": (add("model.layers.0.mlp.up_proj.qweight", 2), "no place for: .*qweight"),
    "no head": (without("lm_head.weight"), "lacks 1 weights, lm_head.weight"),
    "no second layer": (without("model.mm_projector.2.weight"), "lacks 1 weights, .*linear_2.weight"),
    "projector twice": (add("model.mm_projector.weight", 64, 48), "a weight twice: model.mm_projector.weight"),
    "short table": (
        lambda w: w.update({name: w[name][:900] for name in TABLES}), "900 rows in its text table, and 1000 tokens",
    ),
}  # fmt: skip


def require_refused(
    folder: Path, expected: str, language: Path | None = None, vision: Path = CLIP, output: Path | None = None
) -> None:
    output = output or folder.parent / "x"
    with pytest.raises(ModelError, match=expected):
        convert_llava_folder(folder, output, language, vision)
    assert not output.exists()


@pytest.mark.parametrize("name", REFUSED_SETTINGS)
def test_a_setting_that_would_change_answers_is_refused_by_name(name: str, tmp_path: Path) -> None:
    config, expected = REFUSED_SETTINGS[name]
    write_folder(tmp_path / "llava", NEWER, config)
    require_refused(tmp_path / "llava", expected)


@pytest.mark.parametrize("name", REFUSED_WEIGHTS)
def test_a_weight_without_a_place_is_named(name: str, tmp_path: Path) -> None:
    change, expected = REFUSED_WEIGHTS[name]
    write_folder(tmp_path / "llava", NEWER, {}, change)
    require_refused(tmp_path / "llava", expected)


def test_a_trained_image_encoder_must_be_there(tmp_path: Path) -> None:
    def drop(weights: Weights) -> None:
        for name in [name for name in weights if "vision_tower" in name]:
            del weights[name]

    write_folder(tmp_path / "llava", NEWER, {"unfreeze_mm_vision_tower": True}, drop)
    require_refused(tmp_path / "llava", "lacks 1 weights, model.vision_tower")


def test_two_layers_are_not_taken_for_one(tmp_path: Path) -> None:
    write_folder(tmp_path / "llava", NEWER, {"mm_projector_type": None})
    require_refused(tmp_path / "llava", r"no place for: model.mm_projector.2")


def test_a_shared_table_that_is_there_twice_and_differs_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "llava", NEWER, {"tie_word_embeddings": True})
    require_refused(tmp_path / "llava", "lm_head is the text table .* but its weights differ")


def test_weights_of_a_projectors_file_must_fit_its_base(tmp_path: Path) -> None:
    folder = tmp_path / "llava"
    shutil.copytree(PLAIN_TRAINED, folder)
    trained = torch.load(TRAINED / "mm_projector.bin", weights_only=True)
    torch.save(trained, folder / "mm_projector.bin")
    require_refused(folder, "has 1003 rows of model.embed_tokens.weight, .* tokens 1000", VICUNA)
    (folder / "config.json").write_bytes((TRAINED / "config.json").read_bytes())
    torch.save({n: t for n, t in trained.items() if "mm_projector" in n}, folder / "mm_projector.bin")
    require_refused(folder, "has 0 rows of model.embed_tokens.weight", VICUNA)
    torch.save({**trained, "step": 3}, folder / "mm_projector.bin")
    require_refused(folder, "is not a tensor", VICUNA)
    (folder / "mm_projector.bin").write_bytes((TRAINED / "mm_projector.bin").read_bytes())
    settings = read_json(TRAINED / "config.json")
    (folder / "config.json").write_text(json.dumps({**settings, "hidden_size": 32}))
    require_refused(folder, "linear_1.weight has the shape", VICUNA)
    require_refused(folder, "model_type=clip is not supported", CLIP)


@pytest.mark.parametrize(
    ("tensors", "settings", "expected"),
    [
        (PAIR, {"use_dora": True}, "use_dora=True"),
        (PAIR, {"rank_pattern": {"q_proj": 8}}, "rank_pattern="),
        (PAIR, {"r": None}, "r=None"),
        (
            {**PAIR, f"{LAYER}.bias": torch.ones(64)},
            {},
            "the adapter has model.layers.1.self_attn.q_proj.bias",
        ),
        ({f"{LAYER}.lora_A.weight": torch.ones(4, 64)}, {}, "does not have in this shape"),
        ({**PAIR, f"{LAYER}.lora_A.weight": torch.ones(4, 32)}, {}, "does not have in this shape"),
    ],
)
def test_an_adapter_that_would_be_added_in_part_is_refused(
    tensors: Mapping[str, Tensor], settings: dict[str, object], expected: str, tmp_path: Path
) -> None:
    require_refused(adapter(tmp_path / "lora", tensors, **settings), expected, VICUNA)


def test_half_an_adapter_is_not_passed_over(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "lora", PAIR)
    shutil.copy(TRAINED / "mm_projector.bin", folder)
    (folder / "non_lora_trainables.bin").rename(folder / "other.bin")
    require_refused(folder, "a part of a LoRA adapter, without non_lora_trainables.bin", VICUNA)
    (folder / "other.bin").rename(folder / "non_lora_trainables.bin")
    shutil.copy(NEWER / "pytorch_model.bin", folder)
    require_refused(folder, "a LoRA adapter and whole weights", VICUNA)


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("tokenizer.model", None, "cannot be read"),
        ("tokenizer.model", b"", "cannot be read"),
        ("tokenizer.model", b"version https://git-lfs.github.com\n", "cannot be read"),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {}}}', "not a SentencePiece"),
        ("chat_template.jinja", b"{{ '[INST] ' + messages[0].content }}", "another prompt than Vicuna's"),
        ("tokenizer_config.json", b'{"chat_template": "<|user|>"}', "another prompt than Vicuna's"),
    ],
)
def test_a_base_that_speaks_otherwise_is_refused(
    file: str, content: bytes | None, expected: str, tmp_path: Path
) -> None:
    folder = vicuna(tmp_path / "vicuna", {}, lambda weights: None)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(ModelError, match=expected):
        convert_llava_folder(PLAIN_TRAINED, tmp_path / "x", folder, CLIP)
    if "prompt" in expected:  # unless the user says which
        settings = ConversionSettings(prompt_style="v1")
        convert_llava_folder(PLAIN_TRAINED, tmp_path / "x", folder, CLIP, settings)


@pytest.mark.parametrize("name", ["Llama-2-7b-chat-hf", "llama_2_13b_chat"])
def test_a_base_called_llama_2_chat_is_asked_about(name: str, tmp_path: Path) -> None:
    """Its first files had no chat template; the original goes by its name."""
    folder = vicuna(tmp_path / name, {}, lambda weights: None)
    require_refused(PLAIN_TRAINED, f"{name} is of a model with another prompt", folder, output=tmp_path / "x")
    require_refused(folder, f"{name} is of a model with another prompt")
    named = vicuna(tmp_path / "base", {"_name_or_path": f"meta-llama/{name}"}, lambda weights: None)
    require_refused(PLAIN_TRAINED, f"{name} is of a model with another prompt", named, output=tmp_path / "x")


def test_another_image_encoder_is_refused(tmp_path: Path) -> None:
    require_refused(TRAINED, "model_type=llama is not supported", VICUNA, VICUNA, tmp_path / "x")
    other = tmp_path / "clip"
    shutil.copytree(CLIP, other)
    settings = read_json(CLIP / "config.json")
    settings["vision_config"]["num_hidden_layers"] = 2
    (other / "config.json").write_text(json.dumps(settings))
    write_folder(tmp_path / "llava", NEWER, {})
    require_refused(tmp_path / "llava", "no place for: model.vision_tower.encoder.layers.2", vision=other)
    (other / "model.safetensors").write_bytes(b"cut")
    require_refused(TRAINED, "model.safetensors cannot be read", VICUNA, other, tmp_path / "x")

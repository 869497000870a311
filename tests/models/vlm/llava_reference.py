"""LLaVA's network and tokenizing, computed from its own weights by plain products: to compare conversions with.

Written from docs/sources/llava.md (L9, L15, L16), without transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from torch import Tensor
from torch.nn import functional

IMAGE_PLACEHOLDER = -200


def reference_ids(prompt: str, tokenizer_model: Path, added: Mapping[str, int]) -> list[int]:
    """Token ids of a prompt with `<image>` in it, as 4.31's slow tokenizer and `tokenizer_image_token` make them.

    Args:
        prompt: the rendered text.
        tokenizer_model: a SentencePiece file.
        added: ids of LLaVA's tokens; blanks beside them are lost.
    """
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_model))
    special = {"<unk>": 0, "<s>": 1, "</s>": 2, **added}
    ids = [1]
    for number, part in enumerate(prompt.split("<image>")):
        ids += [IMAGE_PLACEHOLDER] if number else []
        runs = re.split("(" + "|".join(map(re.escape, special)) + ")", part)
        for place, run in enumerate(runs):
            if run in special:
                ids.append(special[run])
                continue
            text = run.lstrip() if place and runs[place - 1] in added else run
            text = text.rstrip() if place + 1 < len(runs) and runs[place + 1] in added else text
            ids += pieces.encode(text) if text else []
    return ids


def reference_logits(
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    clip: Mapping[str, Any],
    ids: list[int],
    pixels: Tensor,
) -> Tensor:
    """Logits [N, V] of one prompt and one image, fp32.

    Args:
        weights: of the whole LLaVA, its image encoder included, under its own names.
        config: its `config.json`.
        clip: the vision section of the encoder's.
        ids: of the prompt; IMAGE_PLACEHOLDER where the image stands.
        pixels: [3, H, W].
    """
    layers = encoder_outputs(weights, clip, pixels)
    seen = layers[config["mm_vision_select_layer"]]
    seen = seen if config["mm_vision_select_feature"] == "cls_patch" else seen[1:]
    seen = projected(weights, seen)
    table = weights["model.embed_tokens.weight"]
    place = ids.index(IMAGE_PLACEHOLDER)
    rows = torch.cat([table[ids[:place]], seen, table[ids[place + 1 :]]])
    head = table if config["tie_word_embeddings"] else weights["lm_head.weight"]
    return language_outputs(weights, config, rows) @ head.T


def projected(weights: Mapping[str, Tensor], seen: Tensor) -> Tensor:
    if "model.mm_projector.weight" in weights:
        return seen @ weights["model.mm_projector.weight"].T + weights["model.mm_projector.bias"]
    for number in (0, 2):
        name = f"model.mm_projector.{number}"
        if f"{name}.weight" in weights:
            seen = functional.gelu(seen) if number else seen
            seen = seen @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    return seen


def _attention(query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> Tensor:
    """[heads, N, d] each -> [N, heads · d]."""
    scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
    if causal:
        scores += torch.full_like(scores[0], float("-inf")).triu(1)
    return (scores.softmax(-1) @ value).transpose(0, 1).flatten(1)


def _heads(rows: Tensor, heads: int) -> Tensor:
    return rows.unflatten(1, (heads, -1)).transpose(0, 1)


def encoder_outputs(weights: Mapping[str, Tensor], clip: Mapping[str, Any], pixels: Tensor) -> list[Tensor]:
    """Of CLIP's embeddings and each of its layers: [1 + patches, D]."""
    prefix = "model.vision_tower.vision_tower.vision_model."
    w = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}

    def norm(rows: Tensor, name: str) -> Tensor:
        return functional.layer_norm(rows, rows.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    def linear(rows: Tensor, name: str) -> Tensor:
        return rows @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    patches = functional.conv2d(
        pixels[None], w["embeddings.patch_embedding.weight"], stride=clip["patch_size"]
    )
    rows = torch.cat([w["embeddings.class_embedding"][None], patches[0].flatten(1).T])
    rows = norm(rows + w["embeddings.position_embedding.weight"], "pre_layrnorm")
    outputs = [rows]
    for number in range(clip["num_hidden_layers"]):
        layer = f"encoder.layers.{number}"
        x = norm(rows, f"{layer}.layer_norm1")
        query, key, value = (
            _heads(linear(x, f"{layer}.self_attn.{n}_proj"), clip["num_attention_heads"]) for n in "qkv"
        )
        rows = rows + linear(_attention(query, key, value, causal=False), f"{layer}.self_attn.out_proj")
        x = linear(norm(rows, f"{layer}.layer_norm2"), f"{layer}.mlp.fc1")
        rows = rows + linear(x * torch.sigmoid(1.702 * x), f"{layer}.mlp.fc2")
        outputs.append(rows)
    return outputs


def language_outputs(weights: Mapping[str, Tensor], config: Mapping[str, Any], rows: Tensor) -> Tensor:
    """Llama's last hidden states [N, D]."""

    def norm(x: Tensor, name: str) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + config["rms_norm_eps"]) * weights[name]

    heads = config["num_attention_heads"]
    width = config["hidden_size"] // heads
    frequencies = config.get("rope_theta", 10000.0) ** (-torch.arange(0, width, 2).float() / width)
    scaling = config.get("rope_scaling") or {"factor": 1.0}
    angles = torch.outer(torch.arange(len(rows)) / scaling["factor"], frequencies).repeat(1, 2)

    def rotated(x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return x * angles.cos() + torch.cat([-second, first], -1) * angles.sin()

    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        x = norm(rows, f"{layer}.input_layernorm.weight")
        query, key, value = (
            _heads(x @ weights[f"{layer}.self_attn.{n}_proj.weight"].T, heads) for n in "qkv"
        )
        seen = _attention(rotated(query), rotated(key), value, causal=True)
        rows = rows + seen @ weights[f"{layer}.self_attn.o_proj.weight"].T
        x = norm(rows, f"{layer}.post_attention_layernorm.weight")
        gate = functional.silu(x @ weights[f"{layer}.mlp.gate_proj.weight"].T)
        up = x @ weights[f"{layer}.mlp.up_proj.weight"].T
        rows = rows + (gate * up) @ weights[f"{layer}.mlp.down_proj.weight"].T
    return norm(rows, "model.norm.weight")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file."""
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return settings

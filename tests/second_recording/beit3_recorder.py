"""Sizes of the second set of BEiT-3; draws of its weights and inputs."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests import parity
from tests.second_recording import beit3_reference as reference
from tests.second_recording.beit3_reference import State

WIDTH, HEADS, LAYERS, FFN, PATCH, SIDE, CLASSES, POSITIONS = 48, 3, 4, 160, 8, 40, 23, 1024
UNUSED_TOKENS, SPARE_ROWS = 6, 5  # ids that no text has; rows that belong to no id
SIZES = reference.Sizes(HEADS, PATCH)
SIDES = {24: 3, 40: 5, 56: 7}  # side -> patches along it


class Recorder:
    """Draws inputs and writes what the reference makes of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.generator = folder, torch.Generator().manual_seed(20)
        first = parity.json_of("config.json")
        self.ids = first["tokenizer_vocab"] + UNUSED_TOKENS
        self.mask, self.vocab = self.ids - 1, self.ids + SPARE_ROWS
        self.first = first

    def draw(self, *shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=self.generator) * scale

    def image(self, rows: int, side: int = SIDE) -> Tensor:
        return self.draw(rows, 3, side, side).half()  # stored in fp16, exactly

    def text(self, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """Ids framed by `<s>` and `</s>`, and where there is padding: every row another length."""
        ids = torch.randint(4, self.first["tokenizer_vocab"] - 1, (rows, length), generator=self.generator)
        padding = torch.zeros(rows, length, dtype=torch.long)
        for row in range(rows):
            real = length - 2 * row
            ids[row, 0], ids[row, real - 1], ids[row, real:], padding[row, real:] = 0, 2, 1, 1
        return ids, padding

    def labels(self, rows: int) -> Tensor:
        scores = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.3, 0.6, 0.9, 1.0])
        return scores[torch.randint(0, 8, (rows, CLASSES), generator=self.generator)]

    def tensors(self, name: str, **values: Tensor) -> None:
        save_file({key: value.detach().contiguous() for key, value in values.items()}, self.folder / name)

    def json(self, name: str, value: object) -> None:
        (self.folder / name).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")

    # ------------------------------------------------------------------------------ weights

    def _layer_norm(self, name: str, width: int) -> dict[str, Tensor]:
        return {
            f"{name}.weight": 1 + self.draw(width, scale=0.2),
            f"{name}.bias": self.draw(width, scale=0.1),
        }

    def _linear(self, name: str, outputs: int, inputs: int) -> dict[str, Tensor]:
        weight = self.draw(outputs, inputs, scale=1.2 * inputs**-0.5)
        return {f"{name}.weight": weight, f"{name}.bias": self.draw(outputs, scale=0.1)}

    def body(self, *, final_norm: bool) -> dict[str, Tensor]:
        w = {
            "beit3.text_embed.weight": self.draw(self.vocab, WIDTH),
            "beit3.vision_embed.mask_token": self.draw(1, 1, WIDTH),
            "beit3.vision_embed.cls_token": self.draw(1, 1, WIDTH),
            "beit3.vision_embed.proj.weight": self.draw(WIDTH, 3, PATCH, PATCH, scale=0.1),
            "beit3.vision_embed.proj.bias": self.draw(WIDTH, scale=0.1),
            "beit3.encoder.embed_positions.A.weight": self.draw(SIDES[SIDE] ** 2 + 3, WIDTH, scale=0.5),
            "beit3.encoder.embed_positions.B.weight": self.draw(POSITIONS, WIDTH, scale=0.5),
        }  # fmt: skip
        for layer in range(LAYERS):
            name = f"beit3.encoder.layers.{layer}"
            for projection in ("k", "v", "q", "out"):
                for letter in "AB":
                    w |= self._linear(f"{name}.self_attn.{projection}_proj.{letter}", WIDTH, WIDTH)
            for letter in "AB":
                w |= self._layer_norm(f"{name}.self_attn.inner_attn_ln.{letter}", WIDTH)
                w |= self._layer_norm(f"{name}.self_attn_layer_norm.{letter}", WIDTH)
                w |= self._linear(f"{name}.ffn.{letter}.fc1", FFN, WIDTH)
                w |= self._linear(f"{name}.ffn.{letter}.fc2", WIDTH, FFN)
                w |= self._layer_norm(f"{name}.ffn.{letter}.ffn_layernorm", FFN)
                w |= self._layer_norm(f"{name}.final_layer_norm.{letter}", WIDTH)
        for letter in "AB" if final_norm else "":
            w |= self._layer_norm(f"beit3.encoder.layer_norm.{letter}", WIDTH)
        return w

    def vqa_heads(self) -> dict[str, Tensor]:
        return {
            **self._layer_norm("pooler.norm", WIDTH), **self._linear("pooler.dense", WIDTH, WIDTH),
            **self._linear("head.0", 2 * WIDTH, WIDTH), **self._layer_norm("head.1", 2 * WIDTH),
            **self._linear("head.3", CLASSES, 2 * WIDTH),
        }  # fmt: skip

    def word_head(self) -> dict[str, Tensor]:
        """Rows that belong to no id are as good as impossible, as in the first set: the original would crash on one."""
        head = self._linear("mlm_head", self.vocab, WIDTH)
        head["mlm_head.bias"][self.ids :] = -20
        return head

    def other_heads(self) -> dict[str, Tensor]:
        heads = {
            "retrieval": {"language_head.weight": self.draw(WIDTH, WIDTH), "logit_scale": torch.tensor(2.6),
                          "vision_head.weight": self.draw(WIDTH, WIDTH)},
            "nlvr2": {**self._layer_norm("head.norm1", 4 * WIDTH), **self._linear("head.dense1", 2 * WIDTH, 4 * WIDTH),
                      **self._layer_norm("head.norm2", 2 * WIDTH), **self._linear("head.dense2", 2, 2 * WIDTH)},
            "image_classification": {**self._layer_norm("fc_norm", WIDTH), **self._linear("head", 7, WIDTH)},
        }  # fmt: skip
        return {f"{task}:{name}": t for task, named in heads.items() for name, t in named.items()}


def half(w: State) -> dict[str, Tensor]:
    return {name: tensor.half() for name, tensor in w.items()}


def whole(w: State) -> dict[str, Tensor]:
    return {name: tensor.float() for name, tensor in w.items()}

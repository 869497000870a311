"""Examples -> chats -> tensors, by the base model's own processor."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kovqa_core.data.example import Example
from kovqa_core.data.image_io import open_image
from kovqa_core.errors import KovqaError, ModelError
from kovqa_core.files import to_nfc
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.vlm import chat_template
from kovqa_core.models.vlm.chat_template import AnswerTokens, ChatTurn
from kovqa_core.models.vlm.config import ModelConfig

IGNORE_INDEX = -100  # a label that counts nothing


@dataclass(frozen=True)
class VlmItem:
    """One encoded example: a question, or a whole chat to learn from."""

    id: str
    turns: list[ChatTurn]  # empty: nothing to learn from
    target: AnswerTokens | None  # None: to be answered
    choices: Sequence[str] = ()


class VlmProcessor:
    """Pictures, questions and answers -> batches.

    Args:
        hf: the base model's processor.
        config: budgets and instruction.
        ends: tokens that end generation.
    """

    def __init__(self, hf: Any, config: ModelConfig, ends: Collection[int]) -> None:
        self.hf, self.config, self.ends = hf, config, frozenset(ends)

    def encode(self, example: Example, images: Path, *, train: bool, rng: np.random.Generator) -> VlmItem:
        """One example, to be learned with the best of its answers; errors name its id."""
        try:
            image = limit_pixels(open_image(images / example.image), self.config.max_pixels)
            turns = chat_template.user_message(
                to_nfc(example.question), self.config.instruction, image, example.choices
            )
            if not train:
                return VlmItem(example.id, turns, None, example.choices)
            answer = to_nfc(max(example.answers, key=lambda text: example.answers[text], default=""))
            if not answer:
                return VlmItem(example.id, [], None)
            target = chat_template.tokenize_answer(self.hf, turns, answer, self.ends)
            return VlmItem(example.id, chat_template.with_answer(turns, answer), target)
        except KovqaError as error:
            raise type(error)(f"id {example.id}: {error.message}", error.hint) from None

    def collate(self, items: Sequence[VlmItem]) -> ModelBatch:
        """Padded on the right. Rows to learn that are too long, or have no answer, are left out whole:
        a row cut off in the middle of its picture would be an error, or, worse, none.
        """
        rows = [item for item in items if item.turns]
        tensors = self._tensors(rows)
        lengths = [int(mask.sum()) for mask in tensors["attention_mask"]] if rows else []
        fits = [row.target is None or n <= self.config.max_text for row, n in zip(rows, lengths, strict=True)]
        if not all(fits):
            rows = [row for row, fit in zip(rows, fits, strict=True) if fit]
            tensors = self._tensors(rows)
        if rows:
            tensors |= _label_answers(tensors, [row.target for row in rows])
        ids = [row.id for row in rows]
        left_out = [item.id for item in items if item.id not in ids]
        return ModelBatch(tensors, ids, left_out, [row.choices for row in rows])

    def _tensors(self, rows: Sequence[VlmItem]) -> dict[str, Tensor]:
        """What the base model's processor makes of chats: only it knows the shape of its pictures."""
        if not rows:
            return {}
        made = self.hf.apply_chat_template(
            [row.turns for row in rows],
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "right"},
            **chat_template.template_arguments(self.hf, add_generation_prompt=rows[0].target is None),
        )
        return {name: value for name, value in made.items() if isinstance(value, Tensor)}


def _label_answers(tensors: dict[str, Tensor], targets: Sequence[AnswerTokens | None]) -> dict[str, Tensor]:
    """Where each prompt ends, and the labels of what is to be learned.

    Raises:
        ModelError: beside the picture the answer has other tokens than alone.
    """
    ids, lengths = tensors["input_ids"], tensors["attention_mask"].sum(1)
    prompts = lengths.clone()
    labels = torch.full_like(ids, IGNORE_INDEX)
    for row, target in enumerate(targets):
        if target is None:
            continue
        prompts[row] -= len(target.ids)
        start = int(prompts[row])
        if ids[row, start : lengths[row]].tolist() != target.ids:
            raise ModelError(
                "the base model's processor cuts an answer into other tokens than its tokenizer does",
                "the folder mixes files of two models: fetch it again",
            )
        end = start + target.counted
        labels[row, start:end] = ids[row, start:end]
    return {"prompt_lengths": prompts, "labels": labels}


def limit_pixels(image: Image.Image, max_pixels: int) -> Image.Image:
    """The picture with at most so many pixels, in its proportions."""
    scale = math.sqrt(max_pixels / (image.width * image.height))
    if scale >= 1:
        return image
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


_PER_TOKEN_SUFFIXES = ("_ids", "_mask")  # ends of names of tensors with one number a token


def left_pad_prompts(tensors: dict[str, Tensor], pad: int) -> dict[str, Tensor]:
    """The prompts alone, padded on the left: generation goes on at the right end.

    Padding on the right would give wrong texts without a word (docs/sources/llava.md, L27).
    """
    lengths, shape = tensors["prompt_lengths"], tensors["input_ids"].shape
    longest = int(lengths.max())
    places = torch.arange(longest, device=lengths.device) - (longest - lengths)[:, None]
    found = {}
    for name, value in tensors.items():
        if name in ("labels", "prompt_lengths"):
            continue
        if name.endswith(_PER_TOKEN_SUFFIXES) and value.shape == shape:
            value = value.gather(1, places.clamp(min=0))
            value = value.masked_fill(places < 0, pad if name == "input_ids" else 0)
        found[name] = value
    return found

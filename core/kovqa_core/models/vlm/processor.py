"""Examples -> chats -> tensors, by the base model's own processor."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from kovqa_core.data.decoding import CHOICE_LETTERS, DecodingOptions, find_choice
from kovqa_core.data.example import Example, image_source
from kovqa_core.data.image_io import open_image
from kovqa_core.data.question_prompts import NO_INSTRUCTION
from kovqa_core.errors import DataError, KovqaError, ModelError
from kovqa_core.files import to_nfc
from kovqa_core.messages import message
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.closed_folder import error_reason
from kovqa_core.models.vlm import chat_template
from kovqa_core.models.vlm.chat_template import AnswerTokens
from kovqa_core.models.vlm.choice_scores import BLANK_PREFIX
from kovqa_core.models.vlm.config import ModelConfig
from kovqa_core.models.vlm.hf_types import ChatTurn, ContentBlock, HfProcessor, PromptTensors

_LONG_ASPECT_RATIO = 50  # of sides; from 200 Qwen's processors refuse an image, others may do so earlier
_GREY = (127, 127, 127)
IGNORE_INDEX = -100  # a label that does not count in the loss; transformers' number for it

TOKEN_TYPES = (
    "mm_token_type_ids"  # transformers' name of numbers that tell tokens of images from those of text
)


@dataclass(frozen=True)
class VlmItem:
    """One encoded example.

    Attributes:
        id: the example's.
        turns: the question, with its answer where that is to be learned; empty: nothing to learn from.
        answer: tokens to learn; None: the question is to be answered.
        choices: answers to choose from.
    """

    id: str
    turns: list[ChatTurn]
    answer: AnswerTokens | None
    choices: Sequence[str] = ()


class VlmProcessor:
    """Images, questions and answers -> batches.

    Args:
        hf: the base model's processor.
        config: limits and instruction.
        eos_token_ids: tokens that end generation.
        makes_token_types: does the network take numbers that tell a token of an image from one of a text?

    Attributes:
        caption_prompt: asked of every image in place of its question and all else of its row; "": it captions nothing.
        list_choices: does a prompt list the choices of its row? Then an answer is the letter of one.
        offers_choices: is a question with choices answered with one of them, though its prompt may not list them?
        adds_blank_images: does a batch to be answered have every question beside an empty image, too?
        instruction: that a prompt ends with.
    """

    def __init__(
        self,
        hf: HfProcessor,
        config: ModelConfig,
        eos_token_ids: Collection[int],
        *,
        makes_token_types: bool = False,
    ) -> None:
        self._makes_token_types = makes_token_types
        self.hf, self.config, self.eos_token_ids = hf, config, frozenset(eos_token_ids)
        self.list_choices = self.offers_choices = config.choices
        self.adds_blank_images = False
        self.caption_prompt, self.instruction = "", config.instruction

    def set_decoding(self, decoding: DecodingOptions) -> None:
        """From now on questions to be answered are put in this way."""
        self.offers_choices = decoding.choices
        # Whole texts are compared as answers to the question alone, as a model that writes freely was trained.
        self.list_choices = decoding.choices and decoding.choice_score == "letter"
        self.adds_blank_images = decoding.calibrated

    def encode(self, example: Example, images: Path, *, train: bool, rng: np.random.Generator) -> VlmItem:
        """One example, to be learned with the best of its answers, or that one's letter; errors name its id."""
        instruction = self.instruction
        if self.caption_prompt:
            example = replace(example, question=self.caption_prompt, context="", choices=())
            instruction = NO_INSTRUCTION
        try:
            image = limit_pixels(
                open_image(image_source(example, images), as_stored=self.config.load_as_stored),
                self.config.max_pixels,
            )
            choices = example.choices if self.list_choices else ()
            if train and self.config.shuffle_choices and choices:
                choices = [choices[number] for number in rng.permutation(len(choices))]
            turns = chat_template.user_message(
                to_nfc(example.question), instruction, image, choices, to_nfc(example.context)
            )
            chat_template.require_plain_text(self.hf, turns)
            if max(image.size) > _LONG_ASPECT_RATIO * min(image.size):
                self._require_processable(VlmItem(example.id, turns, None, example.choices), image)
            if not train:
                return VlmItem(example.id, turns, None, example.choices if self.offers_choices else ())
            text = to_nfc(max(example.answers, key=lambda answer: example.answers[answer], default=""))
            if choices:
                number = find_choice(choices, text)
                text = "" if number is None else CHOICE_LETTERS[number]
            if not text:
                return VlmItem(example.id, [], None)
            chat_template.require_plain_text(self.hf, chat_template.with_answer([], text))
            answer = chat_template.tokenize_answer(self.hf, turns, text, self.eos_token_ids)
            return VlmItem(example.id, chat_template.with_answer(turns, text), answer, choices)
        except KovqaError as error:
            if not example.id:  # an image that was given by itself
                raise
            raise type(error)(
                message("vlm.example-unusable", "id {id}: {problem}", id=example.id, problem=error.message),
                error.hint,
            ) from None

    def _require_processable(self, item: VlmItem, image: Image.Image) -> None:
        """See that the base model's processor takes a long and narrow image: in a batch it would end the run.

        Raises:
            DataError: it does not.
        """
        try:
            self._processed([item])
        except ValueError as error:
            raise DataError(
                message(
                    "vlm.image-refused",
                    "image of {width} x {height} pixels: the base model's processor refuses it ({problem})",
                    width=image.width,
                    height=image.height,
                    problem=error,
                ),
                message("vlm.image-refused.hint", "leave it out, or cut it"),
            ) from None

    def collate(self, items: Sequence[VlmItem]) -> ModelBatch:
        """Padded on the right.

        Training rows that are too long, or have no answer, are left out whole: a row cut off in the middle of
        its image placeholders would be an error, or, worse, none (docs/sources/llava.md, L13 and L32).
        """
        rows = [item for item in items if item.turns]
        tensors = self._processed(rows)
        # Lengths are known only now: how many tokens an image becomes, the processor alone knows.
        lengths = [int(mask.sum()) for mask in tensors["attention_mask"]] if rows else []
        fits = [row.answer is None or n <= self.config.max_text for row, n in zip(rows, lengths, strict=True)]
        if not all(fits):
            # Processed again instead of cut: image tensors are not one row per example everywhere (L31).
            rows = [row for row, fit in zip(rows, fits, strict=True) if fit]
            tensors = self._processed(rows)
        if rows:
            tensors |= _label_answers(tensors, [row.answer for row in rows])
        if rows and self.adds_blank_images and rows[0].answer is None:
            blank = self._processed([_with_blank_image(row) for row in rows])
            blank |= _label_answers(blank, [None] * len(rows))
            tensors |= {f"{BLANK_PREFIX}{name}": value for name, value in blank.items()}
        ids = [row.id for row in rows]
        left_out = [item.id for item in items if item.id not in ids]
        return ModelBatch(tensors, ids, left_out, [row.choices for row in rows])

    def _processor_arguments(self) -> dict[str, object]:
        arguments: dict[str, object] = {"padding": True, "padding_side": "right"}
        # Not by the processor's own list of names: Cosmos 3's network needs them, and they are not made unless asked for;
        # MiniMax M3's does not take them.
        if self._makes_token_types and TOKEN_TYPES in self.hf.model_input_names:
            arguments[f"return_{TOKEN_TYPES}"] = True
        return arguments

    def _processed(self, rows: Sequence[VlmItem]) -> dict[str, Tensor]:
        """What the base model's processor makes of chats: token ids [B, N], and images in a shape of its own."""
        if not rows:
            return {}
        try:
            processed = self.hf.apply_chat_template(
                [row.turns for row in rows],
                return_tensors="pt",
                processor_kwargs=self._processor_arguments(),
                **chat_template.template_arguments(self.hf, add_generation_prompt=rows[0].answer is None),
            )
        except ValueError as error:
            if len(rows) == 1:
                raise
            raise ModelError(
                message(
                    "vlm.rows-not-together",
                    "the base model's processor cannot put {count} rows into one batch ({reason})",
                    count=len(rows),
                    reason=error_reason(error),
                ),
                message(
                    "vlm.rows-not-together.hint",
                    "use images of one shape, or take one row at a time",
                ),
            ) from error
        tensors = {name: value for name, value in processed.items() if isinstance(value, Tensor)}
        # Llama 4's images come in 16 bits, which a network in 32 does not take.
        return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}


def _with_blank_image(item: VlmItem) -> VlmItem:
    """The same question about an image of the same size that shows nothing."""
    asked, *others = item.turns
    content: list[ContentBlock] = []
    for block in asked["content"]:
        grey = Image.new("RGB", block["image"].size, _GREY) if block["type"] == "image" else None
        content.append({"type": "image", "image": grey} if grey else block)
    return replace(item, turns=[{**asked, "content": content}, *others])


def _label_answers(tensors: dict[str, Tensor], answers: Sequence[AnswerTokens | None]) -> dict[str, Tensor]:
    """Where each prompt ends [B], and the labels [B, N]: the answer's tokens and its end, IGNORE_INDEX elsewhere.

    Counted from the row's end: in front of the answer stand the image's placeholders, one in
    `tokenize_answer`, hundreds here.

    Raises:
        ModelError: beside the image the answer has other tokens than alone.
    """
    ids, lengths = tensors["input_ids"], tensors["attention_mask"].sum(1)
    prompt_lengths = lengths.clone()
    labels = torch.full_like(ids, IGNORE_INDEX)
    for row, answer in enumerate(answers):
        if answer is None:
            continue
        prompt_lengths[row] -= len(answer.ids)
        start = int(prompt_lengths[row])
        if ids[row, start : lengths[row]].tolist() != answer.ids:
            raise ModelError(
                message(
                    "vlm.answer-tokens-differ",
                    "the base model's processor splits an answer into other tokens than its tokenizer does",
                ),
                message(
                    "vlm.answer-tokens-differ.hint", "the folder mixes files of two models: fetch it again"
                ),
            )
        end = start + answer.loss_length
        labels[row, start:end] = ids[row, start:end]
    return {"prompt_lengths": prompt_lengths, "labels": labels}


def limit_pixels(image: Image.Image, max_pixels: int) -> Image.Image:
    """The image with at most so many pixels, in its proportions."""
    scale = math.sqrt(max_pixels / (image.width * image.height))
    if scale >= 1:
        return image
    size = (max(1, int(image.width * scale)), max(1, int(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


_PER_TOKEN_SUFFIXES = ("_ids", "_mask")  # ends of names of tensors with one number per token


def left_pad_prompts(tensors: dict[str, Tensor], pad_token_id: int) -> PromptTensors:
    """The prompts alone, padded on the left: generation goes on at the right end.

    Padding on the right would give wrong texts without a warning (docs/sources/llava.md, L27).

    Args:
        tensors: of a batch, padded on the right; `prompt_lengths` [B] says where the answers begin.
        pad_token_id: of the positions before a prompt.
    """
    lengths, shape = tensors["prompt_lengths"], tensors["input_ids"].shape
    longest = int(lengths.max())
    # [B, T]: position in the row that each position of the result takes its value from; negative: padding.
    positions = torch.arange(longest, device=lengths.device) - (longest - lengths)[:, None]
    prompts = {}
    for name, value in tensors.items():
        if name in ("labels", "prompt_lengths"):
            continue
        # A name's end is not enough: tensors of images may end in _ids, too, and have a shape of their own.
        if name.endswith(_PER_TOKEN_SUFFIXES) and value.shape[:2] == shape:
            value = value[torch.arange(len(value))[:, None], positions.clamp(min=0)]
            # Masks of some classes also say which images each token sees: [B, N, images, …].
            is_padding = (positions < 0).view(*positions.shape, *[1] * (value.ndim - 2))
            value = value.masked_fill(is_padding, pad_token_id if name == "input_ids" else 0)
        prompts[name] = value
    return prompts


def append_answers(
    tensors: dict[str, Tensor], answers: Sequence[Sequence[int]], pad_token_id: int
) -> PromptTensors:
    """The prompts, padded on the right, each with an answer behind it, as in training.

    Args:
        tensors: as of `left_pad_prompts`.
        answers: tokens of each prompt's answer.
        pad_token_id: of the positions after an answer.
    """
    lengths, shape, width = tensors["prompt_lengths"], tensors["input_ids"].shape, max(map(len, answers))
    positions = lengths[:, None] + torch.arange(width)  # [B, A]
    answer_ids = torch.tensor([[*ids, *[pad_token_id] * (width - len(ids))] for ids in answers])
    mask = torch.arange(width) < torch.tensor([len(ids) for ids in answers])[:, None]
    of_answers = {"input_ids": answer_ids, "attention_mask": mask.long()}
    rows = {}
    for name, value in tensors.items():
        if name in ("labels", "prompt_lengths"):
            continue
        if name.endswith(_PER_TOKEN_SUFFIXES) and value.shape == shape:
            padded = functional.pad(value, (0, width), value=pad_token_id if name == "input_ids" else 0)
            # Other numbers of a token tell images from text, which is 0.
            value = padded.scatter(
                1, positions, of_answers.get(name, torch.zeros_like(answer_ids)).to(value.dtype)
            )
        elif name.endswith(_PER_TOKEN_SUFFIXES) and value.shape[:2] == shape:
            # What a prompt's last token sees, those behind it see, too.
            indices = torch.arange(shape[1] + width).expand(len(lengths), -1).minimum(lengths[:, None] - 1)
            value = value[torch.arange(len(value))[:, None], indices]
        rows[name] = value
    return rows

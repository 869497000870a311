"""A question as a chat, and which of its tokens are the answer.

The model's own chat template writes the prompt; no template is known here. Pitfalls:
docs/sources/llava.md, L28 to L30.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from kovqa_core.errors import ModelError
from kovqa_core.models.vlm.config import worded

Turn = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """What follows the prompt in a training row.

    Attributes:
        ids: tokens of the answer, its end, and what the template writes after it.
        counted: how many of them, from the first on, count in the loss: the answer and its end.
    """

    ids: list[int]
    counted: int


def asked(question: str, instruction: str, image: Image.Image, choices: Sequence[str] = ()) -> list[Turn]:
    """One picture (RGB) and one question; instruction and choices as in `config.worded`."""
    text = {"type": "text", "text": worded(question, instruction, choices)}
    return [{"role": "user", "content": [{"type": "image", "image": image}, text]}]


def answered(turns: list[Turn], answer: str) -> list[Turn]:
    """The same chat with its answer."""
    return [*turns, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]


def rendering(processor: Any, **settings: Any) -> dict[str, Any]:
    """Arguments of every `apply_chat_template`: no thoughts, and marks in a question are plain text."""
    silent = {"enable_thinking": False} if "enable_thinking" in template_of(processor) else {}
    return {"tokenize": True, "return_dict": True, "sanitize_control_tokens": True, **silent, **settings}


def template_of(processor: Any) -> str:
    """The chat template of a processor or of its tokenizer.

    Raises:
        ModelError: there is none.
    """
    template = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if not template:
        raise ModelError(
            "the base model has no chat template: it does not say how a question is put",
            "use an instruction-tuned model, or put a chat_template.jinja into its folder",
        )
    return template


def target(processor: Any, turns: list[Turn], answer: str, ends: Collection[int]) -> Target:
    """The tokens that follow a prompt; the prompt's tokens must begin those of prompt and answer.

    Args:
        processor: the base model's.
        turns: the question.
        answer: the text to be learned.
        ends: tokens that end generation.

    Raises:
        ModelError: the template writes prompt and answer otherwise than prompt alone, or does not
            end the answer.
    """
    prompt = _ids(processor, turns, add_generation_prompt=True)
    whole = _ids(processor, answered(turns, answer))
    if whole[: len(prompt)] != prompt:
        place = next(i for i, (a, b) in enumerate(zip(prompt, [*whole, -1], strict=False)) if a != b)
        raise ModelError(
            "the chat template puts other tokens before an answer when it trains than when it answers: "
            f"token {place} is {_shown(processor, prompt, place)} in the prompt and "
            f"{_shown(processor, whole, place)} with the answer {answer!r}",
            "use the model's own chat template for training, or correct it",
        )
    rest = whole[len(prompt) :]
    last = max((i for i, token in enumerate(rest) if token in ends), default=None)
    if last is None:
        raise ModelError(
            f"the chat template ends an answer with none of {processor.tokenizer.convert_ids_to_tokens(sorted(ends))}: "
            "the model would never learn to stop",
            "name the token that ends an answer in the model's generation_config.json (eos_token_id)",
        )
    return Target(rest, last + 1)


def end_of(processor: Any, ends: Collection[int]) -> int:
    """The token the chat template ends an answer with.

    Raises:
        ModelError: see `target`.
    """
    found = target(processor, asked("?", "none", Image.new("RGB", (1, 1))), "1", ends)
    return found.ids[found.counted - 1]


def _ids(processor: Any, turns: list[Turn], **settings: Any) -> list[int]:
    """Tokens of a chat with the picture as one mark: no picture is read for this."""
    chosen = rendering(processor, chat_template=template_of(processor), **settings)
    return list(processor.tokenizer.apply_chat_template(turns, **chosen)["input_ids"])


def _shown(processor: Any, ids: list[int], place: int) -> str:
    return repr(processor.tokenizer.decode(ids[place : place + 3])) if place < len(ids) else "missing"

"""A question as a chat, and which of its tokens are the answer.

The model's own chat template writes the prompt; no template is known here. Pitfalls:
docs/sources/llava.md, L28 to L30.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from kovqa_core.data.question_prompts import build_prompt
from kovqa_core.errors import ModelError

ChatTurn = dict[str, Any]


@dataclass(frozen=True)
class AnswerTokens:
    """What follows the prompt in a training row.

    Attributes:
        ids: tokens of the answer, its end, and what the template writes after it.
        counted: how many of them, from the first on, count in the loss: the answer and its end.
    """

    ids: list[int]
    counted: int


def user_message(
    question: str, instruction: str, image: Image.Image, choices: Sequence[str] = ()
) -> list[ChatTurn]:
    """One picture (RGB) and one question; instruction and choices as in `config.worded`."""
    text = {"type": "text", "text": build_prompt(question, instruction, choices)}
    return [{"role": "user", "content": [{"type": "image", "image": image}, text]}]


def with_answer(turns: list[ChatTurn], answer: str) -> list[ChatTurn]:
    """The same chat with its answer."""
    return [*turns, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]


def template_arguments(processor: Any, **settings: Any) -> dict[str, Any]:
    """Arguments of every `apply_chat_template`: no thoughts, and marks in a question are plain text."""
    silent = {"enable_thinking": False} if "enable_thinking" in find_chat_template(processor) else {}
    return {"tokenize": True, "return_dict": True, "sanitize_control_tokens": True, **silent, **settings}


def find_chat_template(processor: Any) -> str:
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


def tokenize_answer(
    processor: Any, turns: list[ChatTurn], answer: str, ends: Collection[int]
) -> AnswerTokens:
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
    prompt = _tokenize_chat(processor, turns, add_generation_prompt=True)
    whole = _tokenize_chat(processor, with_answer(turns, answer))
    if whole[: len(prompt)] != prompt:
        place = next(i for i, (a, b) in enumerate(zip(prompt, [*whole, -1], strict=False)) if a != b)
        raise ModelError(
            "the chat template puts other tokens before an answer when it trains than when it answers: "
            f"token {place} is {_show_tokens(processor, prompt, place)} in the prompt and "
            f"{_show_tokens(processor, whole, place)} with the answer {answer!r}",
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
    return AnswerTokens(rest, last + 1)


def answer_eos_token_id(processor: Any, ends: Collection[int]) -> int:
    """The token the chat template ends an answer with.

    Raises:
        ModelError: see `target`.
    """
    found = tokenize_answer(processor, user_message("?", "none", Image.new("RGB", (1, 1))), "1", ends)
    return found.ids[found.counted - 1]


def _tokenize_chat(processor: Any, turns: list[ChatTurn], **settings: Any) -> list[int]:
    """Tokens of a chat with the picture as one mark: no picture is read for this."""
    chosen = template_arguments(processor, chat_template=find_chat_template(processor), **settings)
    return list(processor.tokenizer.apply_chat_template(turns, **chosen)["input_ids"])


def _show_tokens(processor: Any, ids: list[int], place: int) -> str:
    return repr(processor.tokenizer.decode(ids[place : place + 3])) if place < len(ids) else "missing"

"""A question as a chat, and which of its tokens are the answer.

The model's own chat template writes the prompt; no template is known here. Pitfalls:
docs/sources/llava.md, L28 to L30.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from kovqa_core.data.question_prompts import build_prompt
from kovqa_core.errors import DataError, ModelError
from kovqa_core.messages import message
from kovqa_core.models.closed_folder import error_reason
from kovqa_core.models.vlm.hf_types import ChatTurn, HfProcessor, HfTokenizer

_SHOWN_TOKENS = 3  # of a difference, in an error
# Processors that ask where letters lie among tokens, which sanitised texts do not tell (docs/surprises.md).
_UNSANITISED_PROCESSORS = ("Idefics3Processor",)


@dataclass(frozen=True)
class AnswerTokens:
    """What follows the prompt in a training row.

    Attributes:
        ids: tokens of the answer, its end, and what the template writes after it.
        loss_length: how many of them, from the first on, count in the loss: the answer and its end.
    """

    ids: list[int]
    loss_length: int


def user_message(
    question: str, instruction: str, image: Image.Image, choices: Sequence[str] = (), context: str = ""
) -> list[ChatTurn]:
    """A chat of one image (RGB) and one question; the texts as in `build_prompt`."""
    text = build_prompt(question, instruction, choices, context)
    return [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]}]


def with_answer(turns: Sequence[ChatTurn], answer: str) -> list[ChatTurn]:
    """The same chat with its answer."""
    return [*turns, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]


def template_arguments(processor: HfProcessor, **arguments: object) -> dict[str, object]:
    """Arguments of every `apply_chat_template`."""
    # Named, for some processors know only a template of their own and not their tokenizer's.
    template = find_chat_template(processor)
    # A model that thinks would write its thoughts before the answer, and use up the budget of tokens (L29).
    thinking = {"enable_thinking": False} if "enable_thinking" in template else {}
    # A question that holds `<image>` or `<|im_end|>` is text, not a token of the model's own (L30).
    return {
        "tokenize": True,
        "return_dict": True,
        "chat_template": template,
        "sanitize_control_tokens": _sanitises(processor),
        **thinking,
        **arguments,
    }


def _sanitises(processor: HfProcessor) -> bool:
    return type(processor).__name__ not in _UNSANITISED_PROCESSORS


def require_plain_text(processor: HfProcessor, turns: Sequence[ChatTurn]) -> None:
    """See that texts hold no token of the model's own, where its processor would take them for one.

    Raises:
        DataError: one does.
    """
    if _sanitises(processor):
        return
    text = " ".join(part["text"] for turn in turns for part in turn["content"] if part["type"] == "text")
    own = {*processor.tokenizer.all_special_tokens, *processor.tokenizer.get_added_vocab()}
    found = min((token for token in own if token in text), default=None)
    if found is not None:
        raise DataError(
            message(
                "vlm.text-holds-token",
                "the text holds {token!r}, which the base model's processor would take for a token of its own",
                token=found,
            ),
            message("vlm.text-holds-token.hint", "write it in another way"),
        )


def find_chat_template(processor: HfProcessor) -> str:
    """The chat template of a processor, or of its tokenizer.

    Raises:
        ModelError: there is none.
    """
    template = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
    if isinstance(template, dict):  # one by purpose: "default", "tool_use", …
        template = template.get("default")
    if not template:
        raise ModelError(
            message(
                "vlm.no-chat-template",
                "the base model has no chat template, which says how a question is put to it",
            ),
            message(
                "vlm.no-chat-template.hint",
                "use an instruction-tuned model, or put a chat_template.jinja into its folder",
            ),
        )
    return template


def tokenize_answer(
    processor: HfProcessor, turns: Sequence[ChatTurn], answer: str, eos_token_ids: Collection[int]
) -> AnswerTokens:
    """The tokens that follow a prompt.

    The prompt is rendered twice, alone and with the answer, and must give the same tokens both times: what a
    model learns to continue in training is then what it is given to continue when it answers (L29).

    Args:
        processor: the base model's.
        turns: the question.
        answer: the text to be learned.
        eos_token_ids: tokens that end generation.

    Raises:
        ModelError: the template renders a prompt differently when an answer follows, or does not end the answer.
    """
    prompt = tokenize_chat(processor, turns, add_generation_prompt=True)
    row = tokenize_chat(processor, with_answer(turns, answer))
    if row[: len(prompt)] != prompt:
        raise _prompts_differ_error(processor.tokenizer, prompt, row, answer)
    ids = row[len(prompt) :]
    # A line end after the end-of-turn token is the template's, not the answer's: nothing to learn (L29).
    last = max((i for i, token_id in enumerate(ids) if token_id in eos_token_ids), default=None)
    if last is None:
        tokens = processor.tokenizer.convert_ids_to_tokens(sorted(eos_token_ids))
        raise ModelError(
            message(
                "vlm.answer-never-ends",
                "the chat template ends an answer with none of {tokens}: the model would never learn to stop",
                tokens=tokens,
            ),
            message(
                "vlm.answer-never-ends.hint",
                "name the token that ends an answer in the model's generation_config.json (eos_token_id)",
            ),
        )
    return AnswerTokens(ids, last + 1)


def _prompts_differ_error(
    tokenizer: HfTokenizer, prompt: Sequence[int], row: Sequence[int], answer: str
) -> ModelError:
    """Names the first token that differs."""
    pairs = enumerate(zip(prompt, [*row, -1], strict=False))  # -1: the row may be shorter
    position = next(i for i, (in_prompt, in_row) in pairs if in_prompt != in_row)
    return ModelError(
        message(
            "vlm.prompts-differ",
            "the chat template writes a prompt differently in training: "
            "token {position} is {in_prompt} before an answer is generated and {in_row} with the answer {answer!r}",
            position=position,
            in_prompt=_show_tokens(tokenizer, prompt, position),
            in_row=_show_tokens(tokenizer, row, position),
            answer=answer,
        ),
        message("vlm.prompts-differ.hint", "use the model's own chat template for training, or correct it"),
    )


def answer_eos_token_id(processor: HfProcessor, eos_token_ids: Collection[int]) -> int:
    """The token that the chat template ends an answer with.

    Raises:
        ModelError: see `tokenize_answer`.
    """
    turns = user_message("?", "none", Image.new("RGB", (1, 1)))
    answer = tokenize_answer(processor, turns, "1", eos_token_ids)
    return answer.ids[answer.loss_length - 1]


def tokenize_chat(processor: HfProcessor, turns: Sequence[ChatTurn], **arguments: object) -> list[int]:
    """Tokens of a chat by the tokenizer alone: the image stays one placeholder and is not processed.

    Raises:
        ModelError: there is no template, or it fails.
    """
    template = find_chat_template(processor)
    arguments = template_arguments(processor, chat_template=template, **arguments)
    with _template_errors():
        return list(processor.tokenizer.apply_chat_template(turns, **arguments)["input_ids"])


def render_chat(
    processor: HfProcessor, turns: Sequence[ChatTurn], template: str | None = None, **arguments: object
) -> str:
    """A chat as text, before it becomes tokens; by another template than the processor's, if one is given.

    Raises:
        ModelError: there is no template, or it fails.
    """
    template = find_chat_template(processor) if template is None else template
    arguments = {
        **template_arguments(processor, chat_template=template, **arguments),
        "tokenize": False,
        "return_dict": False,
        "sanitize_control_tokens": False,  # a step of tokenising
    }
    with _template_errors():
        return str(processor.tokenizer.apply_chat_template(turns, **arguments))


@contextlib.contextmanager
def _template_errors() -> Iterator[None]:
    """Whatever a template raises, for it is a program, as a `ModelError`."""
    try:
        yield
    except Exception as error:
        raise ModelError(
            message(
                "vlm.template-fails",
                "the chat template of the base model cannot write a chat of an image and a question ({reason})",
                reason=error_reason(error),
            ),
            message(
                "vlm.template-fails.hint",
                "a turn's content is a list of an image and a text: put the model's own chat_template.jinja "
                "into its folder",
            ),
        ) from None


def _show_tokens(tokenizer: HfTokenizer, ids: Sequence[int], position: int) -> str:
    if position >= len(ids):
        return "missing"
    return repr(tokenizer.decode(ids[position : position + _SHOWN_TOKENS]))

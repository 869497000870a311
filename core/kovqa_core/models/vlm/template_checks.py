"""A chat template is tried out before any weights are read: what it gets wrong is said at the start.

Templates come from the base model's folder and are programs: one may print a list of blocks as Python shows it,
forget the image, write the role as part of the answer, or write today's date. Most of it fails at the first batch
or, worse, nowhere (docs/sources/llava.md, L28 to L30).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from PIL import Image

from kovqa_core.errors import ModelError
from kovqa_core.messages import Message, message
from kovqa_core.models.closed_folder import error_reason
from kovqa_core.models.vlm.chat_template import (
    find_chat_template,
    render_chat,
    template_arguments,
    tokenize_answer,
    tokenize_chat,
    user_message,
    with_answer,
)
from kovqa_core.models.vlm.hf_types import ChatTurn, HfProcessor

_PROBE_QUESTION = "Probe 12 무엇"
# Letters that a template could change, digits, Hangul, and a blank: each its own first token.
_PROBE_ANSWERS = ("Ab 12 가나", "가", "1", "a")
_PROBE_IMAGE_SIZE = 224  # pixels; large enough for every image processor
# Defined before a template, it takes the place of the function of this name that transformers offers.
_FIXED_DATE_MACRO = "{% macro strftime_now(format) %}A-DAY{% endmacro %}"


def require_image_chat(processor: HfProcessor) -> None:
    """See that a template and its processor can put a question about an image.

    Raises:
        ModelError: there is no template; it takes no image, or not in the form of today's templates; it fails.
    """
    turns = _probe_turns()
    prompt = render_chat(processor, turns, add_generation_prompt=True)
    hint = message(
        "vlm.template-without-image.hint",
        "a turn's content is a list of an image and a text, and the template must write a placeholder for the "
        "image: put the model's own chat_template.jinja into its folder",
    )
    if "'type': 'text'" in prompt or '"type": "text"' in prompt:
        raise ModelError(
            message(
                "vlm.template-of-plain-texts",
                "the chat template of the base model takes a turn's content for a plain text: it writes {text!r}",
                text=prompt,
            ),
            hint,
        )
    if _PROBE_QUESTION not in prompt:
        raise ModelError(
            message(
                "vlm.template-changes-questions",
                "the chat template of the base model writes the question {question!r} as {text!r}",
                question=_PROBE_QUESTION,
                text=prompt,
            ),
            hint,
        )
    if not _writes_placeholder(processor, turns, prompt):
        raise ModelError(
            message(
                "vlm.template-without-image",
                "the chat template of the base model writes no placeholder for the image: it writes {text!r}",
                text=prompt,
            ),
            hint,
        )


def _writes_placeholder(processor: HfProcessor, turns: list[ChatTurn], prompt: str) -> bool:
    """Do template and processor together have tokens for an image?

    Raises:
        ModelError: the template has something for it, and the processor cannot read that.
    """
    without_image: list[ChatTurn] = [{"role": "user", "content": turns[0]["content"][1:]}]
    ignores_image = render_chat(processor, without_image, add_generation_prompt=True) == prompt
    try:
        processed = _process_probe(processor, turns)
    except ModelError:
        if ignores_image:
            return False
        raise
    # Some processors put the placeholders in themselves: then there are more tokens than the template writes.
    return not ignores_image or len(processed) > len(
        tokenize_chat(processor, turns, add_generation_prompt=True)
    )


def _probe_turns() -> list[ChatTurn]:
    return user_message(
        _PROBE_QUESTION, "none", Image.new("RGB", (_PROBE_IMAGE_SIZE, _PROBE_IMAGE_SIZE), "gray")
    )


def _process_probe(processor: HfProcessor, turns: Sequence[ChatTurn]) -> list[int]:
    """Token ids of the probe with its image's placeholders.

    Raises:
        ModelError: the processor cannot read the chat that its template writes.
    """
    arguments = template_arguments(processor, add_generation_prompt=True, return_tensors="pt")
    try:
        processed = processor.apply_chat_template([list(turns)], **arguments)
    except Exception as error:  # a processor raises whatever its libraries do
        raise ModelError(
            message(
                "vlm.probe-failed",
                "the base model's processor cannot read a chat of an image and a question ({reason})",
                reason=error_reason(error),
            ),
            message(
                "vlm.probe-failed.hint",
                "template and processor must be of the same model: fetch its folder again",
            ),
        ) from None
    input_ids = processed["input_ids"]
    return [int(token_id) for token_id in input_ids[0]]  # type: ignore[index]


def require_learnable_answers(processor: HfProcessor, eos_token_ids: Collection[int]) -> None:
    """See that a template writes answers so that they, and nothing else, can be learned.

    Raises:
        ModelError: the template changes an answer, or writes something before it that the prompt does not end
            with; see `tokenize_answer`.
    """
    turns = _probe_turns()
    prompt = render_chat(processor, turns, add_generation_prompt=True)
    hint = message(
        "vlm.template-changes-answers.hint",
        "use the model's own chat template for training, or correct it: chat_template.jinja in its folder",
    )
    for answer in _PROBE_ANSWERS:
        row = render_chat(processor, with_answer(turns, answer))
        if row.startswith(prompt):  # else `tokenize_answer` says where they differ
            before, found, _ = row.removeprefix(prompt).partition(answer)
            if not found:
                raise ModelError(
                    message(
                        "vlm.template-changes-answers",
                        "the chat template of the base model writes the answer {answer!r} as {text!r}",
                        answer=answer,
                        text=row.removeprefix(prompt),
                    ),
                    hint,
                )
            if before.strip():
                raise ModelError(
                    message(
                        "vlm.template-without-generation-prompt",
                        "the chat template of the base model does not end a prompt with {text!r} "
                        "(add_generation_prompt): it would be learned as part of every answer",
                        text=before,
                    ),
                    hint,
                )
        tokenize_answer(processor, turns, answer, eos_token_ids)


def date_warning(processor: HfProcessor) -> Message | None:
    """What to say about a template that writes the date; None: it writes none."""
    turns = _probe_turns()
    plain = render_chat(processor, turns, add_generation_prompt=True)
    template = _FIXED_DATE_MACRO + find_chat_template(processor)
    if render_chat(processor, turns, template=template, add_generation_prompt=True) == plain:
        return None
    return message(
        "vlm.template-writes-date",
        "the chat template of the base model writes today's date into every prompt: on another day the same "
        "question may get another answer, and a training that is resumed then does not end with the same weights",
    )

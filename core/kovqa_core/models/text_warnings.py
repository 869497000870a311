"""What a family's tokenizer does not know or cuts of the texts that a model is to learn from or to answer."""

from __future__ import annotations

from collections.abc import Sequence

from kovqa_core.data.example import Example
from kovqa_core.data.left_out import is_worth_a_warning
from kovqa_core.messages import Message, message
from kovqa_core.models.batches import ExampleProcessor
from kovqa_core.models.family import load_family
from kovqa_core.models.token_count import describe_cut_texts, describe_unknown_text, sample_examples


def text_warnings(name: str, processor: ExampleProcessor, examples: Sequence[Example]) -> list[Message]:
    """By a sample: that a tokenizer hardly knows the training texts' language, or cuts more than 1 % of them."""
    count_texts = load_family(name).count_text_tokens
    if count_texts is None:
        return []
    count = count_texts(processor, sample_examples(examples))
    sampled = message("models.sampled-texts", "{texts:,} sampled training texts", texts=count.texts)
    cut = describe_cut_texts(count, sampled) if is_worth_a_warning(count.cut, count.texts) else None
    return [warning for warning in (describe_unknown_text(count), cut) if warning is not None]


def cut_questions_warning(
    name: str, processor: ExampleProcessor, questions: Sequence[Example]
) -> Message | None:
    """That questions to be answered are cut, and how many; None: none is."""
    count_texts = load_family(name).count_text_tokens
    if count_texts is None:
        return None
    asked = message("models.asked-questions", "{questions:,} questions", questions=len(questions))
    return describe_cut_texts(count_texts(processor, questions), asked)

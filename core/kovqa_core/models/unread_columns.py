"""Which columns of a row a model does not read: nothing that a data set brings is ignored without a word."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from kovqa_core.data.example import Example
from kovqa_core.messages import Message, message


def unread_columns_warning(family: str, read: Collection[str], examples: Sequence[Example]) -> Message | None:
    """That questions to be answered have a context, or choices, which the model is not shown; None: it is.

    Args:
        family: of the model, or what else answers.
        read: of "context" and "choices", what its prompts show.
        examples: the questions.
    """
    counts = {
        "context": sum(bool(example.context) for example in examples),
        "choices": sum(bool(example.choices) for example in examples),
    }
    return describe_unread_columns(family, read, counts["context"], counts["choices"])


def describe_unread_columns(
    family: str, read: Collection[str], contexts: int, choices: int
) -> Message | None:
    """One line on what a model is not shown; None: there is nothing that it is not shown.

    Args:
        family: of the model, or what else answers.
        read: of "context" and "choices", what its prompts show.
        contexts, choices: how many rows have them.
    """
    unread_contexts = contexts if "context" not in read else 0
    unread_choices = choices if "choices" not in read else 0
    if unread_contexts and unread_choices:
        return message(
            "models.unread-context-and-choices",
            "{family} reads neither the context of {contexts:,} rows nor the choices of {choices:,}",
            family=family,
            contexts=unread_contexts,
            choices=unread_choices,
        )
    if unread_contexts:
        return message(
            "models.unread-context",
            "{family} does not read the context of {contexts:,} rows",
            family=family,
            contexts=unread_contexts,
        )
    if unread_choices:
        return message(
            "models.unread-choices",
            "{family} is not shown the choices of {choices:,} rows",
            family=family,
            choices=unread_choices,
        )
    return None

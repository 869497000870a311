"""In which form the weights of a model that only answers are held. Loads nothing heavy."""

from __future__ import annotations

from kovqa_core.errors import SettingsError
from kovqa_core.messages import message

AUTO_FORM, FOUR_BIT_FORM = (
    "auto",
    "4bit",
)  # as the model was published or trained; the language model in 4 bits


def require_load_form(asked: str) -> str:
    """A form that exists.

    Raises:
        SettingsError: it does not.
    """
    if asked not in (AUTO_FORM, FOUR_BIT_FORM):
        raise SettingsError(
            message("models.unknown-load-form", "--load {asked}: there is no such form", asked=asked),
            message("models.unknown-load-form.hint", "use auto or 4bit"),
        )
    return asked

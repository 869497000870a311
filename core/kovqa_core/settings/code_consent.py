"""Whether Python code of a base model may run: what one command was told, which no file keeps.

`model.trust_remote_code` is typed like a setting. It goes to the workers of that command as a variable, and neither
to `run.yaml` nor to a checkpoint: whoever goes on with the run, or runs it again, says it anew.
"""

from __future__ import annotations

from collections.abc import Mapping

from kovqa_core.settings.recipe import Recipe

TRUST_KEY = "trust_remote_code"  # of `model`
TRUST_SETTING = f"model.{TRUST_KEY}"
TRUST_FLAG = "--trust-remote-code"
TRUST_VARIABLE = "KOVQA_TRUST_REMOTE_CODE"  # of workers, from the command that starts them


def trusts_code(recipe: Recipe) -> bool:
    """Does a recipe say that code of its base model may run?"""
    return bool(recipe.model.get(TRUST_KEY))


def set_code_consent(recipe: Recipe, *, trust_code: bool) -> Recipe:
    """A recipe by which code of its base model may run, or may not, whatever it said before."""
    if not trust_code and TRUST_KEY not in recipe.model:
        return recipe
    model = {key: value for key, value in recipe.model.items() if key != TRUST_KEY}
    return recipe.model_copy(update={"model": {**model, TRUST_KEY: True} if trust_code else model})


def code_consent_of(environ: Mapping[str, str]) -> bool:
    """Was the command that started this worker told that code may run?"""
    return environ.get(TRUST_VARIABLE) == "1"

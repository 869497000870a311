"""Keys of recipes and profiles that had another name once; the old names are still read.

To rename a key: rename the field, and add a line here. Files, --set, KOVQA_* variables, and the run.yaml and
config.json of earlier versions are read by these tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from kovqa_core.settings.overrides import RenamedKeys, apply_overrides, with_new_names
from kovqa_core.settings.strict_yaml import SettingsDocument

Kind = Literal["profiles", "recipes"]

PROFILE: RenamedKeys = {
    ("prologue",): "setup",
    ("wrap",): "command_prefix",
    ("interface",): "network_interface",
    ("hang_minutes",): "watchdog_minutes",
    ("slurm", "warn_seconds"): "signal_seconds",
}
RECIPE: RenamedKeys = {
    ("optim", "clip"): "max_grad_norm",
    ("optim", "ema"): "ema_decay",
    ("optim", "decay_vectors"): "decay_bias_and_norm",
    ("optim", "text_first_steps"): "freeze_vision_steps",
}
# Family -> keys of its `model:` part, which only the family itself can read.
MODEL: dict[str, RenamedKeys] = {
    "beit3": {
        ("image",): "image_size",
        ("patch",): "patch_size",
        ("vocab",): "vocab_size",
        ("classes",): "num_classes",
        ("fresh",): "reinit",
        ("caption", "beams"): "num_beams",
    },
    "fusion": {("image",): "image_size", ("hidden",): "hidden_size", ("classes",): "num_classes"},
}


def recipe_keys(family: object) -> RenamedKeys:
    """Old names in a recipe of a model family."""
    return {**RECIPE, **_below_key("model", MODEL.get(str(family), {}))}


def run_keys(family: object) -> RenamedKeys:
    """Old names in a `run.yaml`."""
    return {**_below_key("recipe", recipe_keys(family)), **_below_key("profile", PROFILE)}


def _below_key(key: str, renamed: RenamedKeys) -> RenamedKeys:
    return {(key, *old): name for old, name in renamed.items()}


def settings_keys(kind: Kind, document: SettingsDocument) -> RenamedKeys:
    """Old names in a profile, or in a recipe of the family it names."""
    return PROFILE if kind == "profiles" else recipe_keys(document.values.get("family"))


def rename_keys(kind: Kind, document: SettingsDocument) -> SettingsDocument:
    """A profile's or recipe's document, its keys by the names of today; see `with_new_names`."""
    return with_new_names(document, settings_keys(kind, document))


def override_settings(
    kind: Kind,
    document: SettingsDocument,
    assignments: Iterable[str],
    origin: str | Mapping[str, str],
    prefix: str = "",
) -> SettingsDocument:
    """`apply_overrides` to a profile or recipe, whose keys may be typed under their old names."""
    assignments = list(assignments)
    # The family decides how keys of the model are called, and may itself be among what is typed.
    changed = apply_overrides(document, assignments, origin, prefix)
    return apply_overrides(document, assignments, origin, prefix, settings_keys(kind, changed))

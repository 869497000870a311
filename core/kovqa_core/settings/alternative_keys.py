"""Keys that say one thing in two units, like epochs and steps: the one given last counts, and puts the other aside."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from kovqa_core.errors import SettingsError
from kovqa_core.messages import message
from kovqa_core.settings.overrides import put_value, value_at
from kovqa_core.settings.strict_yaml import (
    KeyPath,
    SettingsDocument,
    YamlValue,
    dotted_path,
    inline_yaml,
)

# A key -> the one that it puts aside, and the value by which that one says nothing.
_ALTERNATIVES: Mapping[KeyPath, tuple[KeyPath, YamlValue]] = {
    ("optim", "epochs"): (("optim", "steps"), None),
    ("optim", "steps"): (("optim", "epochs"), None),
    ("optim", "warmup_epochs"): (("optim", "warmup_steps"), 0),
    ("optim", "warmup_steps"): (("optim", "warmup_epochs"), 0),
    # Not the other way round: where both stand, every_steps counts by itself.
    ("eval", "every_epochs"): (("eval", "every_steps"), None),
}


@dataclass(frozen=True)
class ReplacedSetting:
    """A setting that was put aside, because the other unit was given later.

    Attributes:
        key: like optim.steps.
        value, place: what it was, and where that stands.
        new_value: by which it says nothing.
        by_place: where the other unit was given ("--set optim.epochs=3").
    """

    key: str
    value: YamlValue
    place: str
    new_value: YamlValue
    by_place: str

    @property
    def assignment(self) -> str:
        """What would put it aside in a file: optim.steps=null."""
        return f"{self.key}={inline_yaml(self.new_value)}"


def replace_alternatives(
    document: SettingsDocument, typed: Collection[str]
) -> tuple[SettingsDocument, list[ReplacedSetting]]:
    """A recipe's document without settings whose other unit was given in its last layer, and what they were.

    Args:
        document: with that layer applied (`apply_overrides`).
        typed: the places of the layer's values.

    Raises:
        SettingsError: one layer gives both units.
    """
    replaced = []
    for key, (other, nothing) in _ALTERNATIVES.items():
        value, other_value = value_at(document.values, key), value_at(document.values, other)
        place, other_place = document.where(key), document.where(other)
        if value is None or other_value in (None, nothing) or place not in typed:
            continue
        if other_place in typed:
            if value and other in _ALTERNATIVES:
                raise _given_twice(key, place, other, other_place)
            continue
        replaced.append(ReplacedSetting(dotted_path(other), other_value, other_place, nothing, place))
        document = put_value(document, other, nothing, place)
    return document, replaced


def _given_twice(key: KeyPath, place: str, other: KeyPath, other_place: str) -> SettingsError:
    return SettingsError(
        message(
            "settings.both-units",
            "{place} and {other_place}: {key} and {other} say the same in two units",
            place=place,
            other_place=other_place,
            key=dotted_path(key),
            other=dotted_path(other),
        ),
        message("settings.both-units.hint", "give one of the two: it replaces what the recipe says"),
    )

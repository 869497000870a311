"""Keys of settings as people look them up: dotted, with type, default, meaning and example.

All of it stands in the pydantic models already; it is read from their JSON schema, in which a family of somebody
else's looks like one of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kovqa_core.settings.overrides import RenamedKeys
from kovqa_core.settings.strict_yaml import KeyPath, StrictSettings, dotted_path, inline_yaml

JsonSchema = Mapping[str, Any]

_TYPE_NAMES = {"integer": "int", "number": "float", "string": "str", "boolean": "true, false", "null": "null"}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


@dataclass(frozen=True)
class SettingKey:
    """One key.

    Attributes:
        path: the way to it: ("optim", "lr").
        type: of its value, as a programmer writes it: `int ≥ 1`, `[str, …]`.
        choices: its values, where only some are good; else empty.
        default: as YAML on one line; "": it must be stated.
        meaning: in English; the text of the model's field.
        example: another value, as YAML on one line.
        old_names: what it was called once, dotted.
    """

    path: KeyPath
    type: str
    choices: tuple[str, ...]
    default: str
    meaning: str
    example: str
    old_names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The key as it is typed: `optim.lr`."""
        return dotted_path(self.path)


def setting_keys(
    settings: type[StrictSettings], prefix: KeyPath = (), renamed: RenamedKeys | None = None
) -> list[SettingKey]:
    """All keys of a settings class, those of nested ones in their place.

    Args:
        settings: the class.
        prefix: the way to it.
        renamed: its old names, as paths below `prefix`.
    """
    schema = settings.model_json_schema()
    return list(_keys_below(schema, schema, {}, prefix, _old_names(renamed or {}, prefix)))


def _old_names(renamed: RenamedKeys, prefix: KeyPath) -> dict[KeyPath, tuple[str, ...]]:
    """Path of a key today -> its old names."""
    names: dict[KeyPath, tuple[str, ...]] = {}
    for old, new in renamed.items():
        path = (*prefix, *old[:-1], new)
        names[path] = (*names.get(path, ()), dotted_path((*prefix, *old)))
    return names


def _keys_below(
    root: JsonSchema,
    schema: JsonSchema,
    defaults: JsonSchema,
    prefix: KeyPath,
    old_names: Mapping[KeyPath, tuple[str, ...]],
) -> Iterator[SettingKey]:
    """Keys of one object of a schema.

    Args:
        root: the whole schema, which has the definitions.
        schema: the object.
        defaults: of its values, where the object around it states others than its own.
        prefix: the way to it.
        old_names: by path.
    """
    for name, field in schema["properties"].items():
        path, has_default = (*prefix, name), name in defaults or "default" in field
        default = defaults.get(name, field.get("default"))
        inside = _object_of(root, field)
        if inside is None or "examples" in field:  # a section that may be stated by one value has a line, too
            choices = _choices(root, field)
            yield SettingKey(
                path, _type_text(root, field), choices, setting_text(default) if has_default else "",
                field.get("description", ""), _example(field, choices, default), old_names.get(path, ()),
            )  # fmt: skip
        if inside is not None:
            yield from _keys_below(root, inside, default or {}, path, old_names)


def _branches(root: JsonSchema, field: JsonSchema) -> list[JsonSchema]:
    """What a field may be: one schema, or several; references followed."""
    if "$ref" in field:
        return _branches(root, root["$defs"][field["$ref"].rpartition("/")[2]])
    return [inner for branch in field.get("anyOf", ()) for inner in _branches(root, branch)] or [field]


def _object_of(root: JsonSchema, field: JsonSchema) -> JsonSchema | None:
    """The object with keys of its own that a field may be."""
    return next((branch for branch in _branches(root, field) if "properties" in branch), None)


def _choices(root: JsonSchema, field: JsonSchema) -> tuple[str, ...]:
    """Values of a field that takes a few alone (an object besides, whose keys are listed by themselves)."""
    choices: list[str] = []
    for branch in _branches(root, field):
        if "enum" in branch or "const" in branch:
            choices += branch.get("enum") or [branch["const"]]
        elif branch.get("type") == "boolean":
            choices += ["true", "false"]
        elif "properties" not in branch:
            return ()
    return tuple(choices)


def _type_text(root: JsonSchema, field: JsonSchema) -> str:
    return " | ".join(dict.fromkeys(_branch_type(root, branch) for branch in _branches(root, field)))


def _branch_type(root: JsonSchema, branch: JsonSchema) -> str:
    if "enum" in branch or "const" in branch:
        return ", ".join(branch.get("enum") or [branch["const"]])
    kind: str = branch.get("type", "any")
    if kind == "array" and "prefixItems" in branch:
        return f"[{', '.join(_type_text(root, item) for item in branch['prefixItems'])}]"
    if kind == "array":
        return f"[{_type_text(root, branch.get('items', {}))}, …]"
    if kind == "object" and "properties" not in branch:
        value = branch.get("additionalProperties", True)
        return f"{{str: {_type_text(root, value) if isinstance(value, dict) else 'any'}}}"
    bounds = [f"{sign} {setting_text(branch[key])}" for key, sign in _BOUNDS.items() if key in branch]
    return f"{_TYPE_NAMES.get(kind, kind)} {', '.join(bounds)}".strip()


def _example(field: JsonSchema, choices: Sequence[str], default: object) -> str:
    """The model's own example; of a few values another one than the default."""
    if "examples" in field:
        return setting_text(field["examples"][0])
    usual = setting_text(default)
    return next((choice for choice in choices if choice != usual), "")


def setting_text(value: object) -> str:
    """A value as somebody types it: YAML on one line, 3e-5 and not 3e-05."""
    if value == "":
        return '""'
    return re.sub(r"(?<=\de-)0(?=\d)", "", inline_yaml(value)).replace("'", '"')

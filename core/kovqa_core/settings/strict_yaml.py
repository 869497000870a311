"""YAML text -> settings object, strictly: every mistake is named with file, line and column.

Reads the part of YAML 1.2 that people expect: `2e-5` is a number; `24:00:00`, `no` and `on` are text, which
YAML 1.1 and so PyYAML read otherwise (docs/sources/launching.md, R17); a key may not appear twice. Settings
are pydantic models: frozen, unknown keys forbidden.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from kovqa_core.errors import SettingsError, did_you_mean, unknown_name_error
from kovqa_core.files import read_text
from kovqa_core.messages import Message, message
from kovqa_core.settings.validation_texts import alternatives_text, validation_text

KeyPath = tuple[str | int, ...]  # ("optim", "lr"): the way to a value
YamlValue = None | bool | int | float | str | list["YamlValue"] | dict[str, "YamlValue"]
YamlMapping = dict[str, YamlValue]


class StrictSettings(BaseModel):
    """Base of everything read from a settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, validate_default=True)


_MAX_CHARS, _MAX_NODES, _MAX_DEPTH = 1 << 18, 20_000, 64
_MAX_INTEGER_DIGITS = 30  # no setting needs more
_KNOWN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")}
SettingsType = TypeVar("SettingsType", bound=StrictSettings)


@dataclass(frozen=True)
class SettingsDocument:
    """Values of a settings file, with the place each one came from."""

    values: YamlMapping
    origin: dict[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """Where a value, or the nearest thing around it, was written."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.origin:
                return self.origin[path[:length]]
        return "settings"


# ------------------------------------------------------------------------------ YAML to values


class _BeyondBoundsError(yaml.YAMLError):
    """YAML that would be expanded, or be nested, without end."""

    def __init__(self, problem: Message, mark: yaml.Mark) -> None:
        self.problem, self.mark = problem, mark


class _StrictLoader(yaml.SafeLoader):
    """Safe loader with the YAML 1.2 core rules for plain scalars, and bounds.

    What would be expanded, or nested without end, is refused as soon as the reader comes to it: before a value is
    made of anything.
    """

    _depth, _nodes = 0, 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        self._depth += 1
        self._nodes += 1
        if isinstance(event, yaml.AliasEvent):
            problem = message(
                "settings.yaml-alias",
                "aliases (*{name}) are not read: write the value out",
                name=event.anchor,
            )
        elif self._depth > _MAX_DEPTH:
            problem = message(
                "settings.too-deep", "nested too deeply, more than {most} levels", most=_MAX_DEPTH
            )
        elif self._nodes > _MAX_NODES:
            problem = message("settings.too-many-values", "more than {most:,} values", most=_MAX_NODES)
        else:
            problem = None
        if problem is not None:
            raise _BeyondBoundsError(problem, event.start_mark)
        try:
            node: yaml.Node | None = super().compose_node(parent, index)
            return node
        finally:
            self._depth -= 1


# From nothing, so without dates, `<<`, base-60 numbers, yes and no. The last argument lists first characters:
# PyYAML tries a pattern only on scalars that begin with one of them.
_StrictLoader.yaml_implicit_resolvers = {}
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|)$"), ["~", "n", ""])
_StrictLoader.add_implicit_resolver(
    # 010 stays text: YAML 1.1 means 8 by it, YAML 1.2 means 10.
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"),
    list("-+0123456789"),
)
_FLOAT_PATTERN = r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$"
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(_FLOAT_PATTERN), list("-+.0123456789")
)


def compose_yaml(text: str, name: str) -> yaml.Node | None:
    """The tree of a YAML text, whose nodes know their line and column; None of an empty one.

    Args:
        text: the YAML document.
        name: what to call it in errors (a path).

    Raises:
        SettingsError: not YAML, or beyond the bounds: 256 KiB, 20,000 values, 64 levels, no aliases.
    """
    if len(text) > _MAX_CHARS:
        raise SettingsError(
            message(
                "settings.too-long", "{place}: {size:,} characters, more than the {most:,} that settings may have",
                place=name, size=len(text), most=_MAX_CHARS,
            )
        )  # fmt: skip
    loader = None
    try:
        loader = _StrictLoader(text)  # refuses control characters already here
        # Nodes and not values: double keys are still in them.
        node: yaml.Node | None = loader.get_single_node()
        return node
    except _BeyondBoundsError as error:
        place = f"{name}:{error.mark.line + 1}:{error.mark.column + 1}"
        raise SettingsError(
            message("settings.beyond-bounds", "{place}: {problem}", place=place, problem=error.problem)
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SettingsError(
            message("settings.not-yaml", "{place}: not valid YAML ({problem})", place=place, problem=problem)
        ) from None
    finally:
        if loader is not None:
            loader.dispose()


def parse_yaml(text: str, name: str) -> SettingsDocument:
    """Read YAML text.

    Args:
        text: the YAML document, a mapping.
        name: what to call it in errors (a path).

    Raises:
        SettingsError: as of `compose_yaml`; not a mapping, a double key, a key that is not text, a foreign tag.
    """
    node = compose_yaml(text, name)
    if not isinstance(node, yaml.MappingNode):
        raise SettingsError(
            message("settings.no-mapping", "{place}: expected `key: value` lines", place=name)
        )
    origin: dict[KeyPath, str] = {(): name}
    return SettingsDocument(_mapping_value(node, (), name, origin), origin)


def _node_value(node: yaml.Node, path: KeyPath, name: str, origin: dict[KeyPath, str]) -> YamlValue:
    """The value of a node; the place of it and of everything in it is added to `origin`."""
    origin[path] = _node_location(node, name)
    if node.tag not in _KNOWN_TAGS:
        raise SettingsError(
            message(
                "settings.unknown-tag", "{place}: unknown tag {tag}: leave it out", place=origin[path], tag=node.tag
            )
        )  # fmt: skip
    if isinstance(node, yaml.MappingNode):
        return _mapping_value(node, path, name, origin)
    if isinstance(node, yaml.SequenceNode):
        return [_node_value(child, (*path, i), name, origin) for i, child in enumerate(node.value)]
    try:
        return _scalar_value(node)
    except (yaml.YAMLError, ValueError):
        raise SettingsError(
            message(
                "settings.wrong-tag",
                "{place}: '{value}' is not of the type {tag}",
                place=_node_location(node, name),
                value=node.value,
                tag=node.tag.rsplit(":", 1)[-1],
            )
        ) from None


def _mapping_value(
    node: yaml.MappingNode, path: KeyPath, name: str, origin: dict[KeyPath, str]
) -> YamlMapping:
    values: YamlMapping = {}
    for key_node, value_node in node.value:
        key, place = key_node.value, _node_location(key_node, name)
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
            raise SettingsError(
                message(
                    "settings.key-not-text", "{place}: a key must be text, not {key!r}", place=place, key=key
                )
            )
        if key in values:
            raise SettingsError(
                message("settings.double-key", "{place}: key '{key}' appears twice", place=place, key=key)
            )
        values[key] = _node_value(value_node, (*path, key), name, origin)
        origin[(*path, key)] = place  # of the key, not of its value: that is what one looks for
    return values


def _scalar_value(node: yaml.Node) -> YamlValue:
    if ":float" in node.tag:  # PyYAML's own reads 1:30.5 to the base 60, and so 1:30 as an integer
        return float(node.value)
    if ":int" in node.tag and (":" in node.value or len(node.value) > _MAX_INTEGER_DIGITS):
        raise ValueError
    value: YamlValue = yaml.constructor.SafeConstructor().construct_object(node)
    return value


def _node_location(node: yaml.Node, name: str) -> str:
    return f"{name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def read_yaml(path: Path) -> SettingsDocument:
    """Read a YAML file.

    Raises:
        SettingsError: it is missing, or as `parse_yaml`.
    """
    if not path.is_file():
        raise SettingsError(message("settings.no-file", "no such file: {file}", file=path))
    return parse_yaml(read_text(path, 4 * _MAX_CHARS), str(path))


# ------------------------------------------------------------------------- values to settings


def build_settings(
    settings_class: type[SettingsType], document: SettingsDocument, at: KeyPath = ()
) -> SettingsType:
    """Make a settings object of a document's values.

    Args:
        settings_class: what the values are to be.
        document: the values, and where each was written.
        at: path of these values inside the document (for places in errors).

    Raises:
        SettingsError: unknown key (with the nearest known one), wrong type, contradiction.
    """
    values: YamlValue = document.values
    for key in at:
        assert isinstance(values, dict)
        values = values[str(key)]
    try:
        return settings_class.model_validate(values)
    except ValidationError as error:
        raise _validation_failure(settings_class, document, at, error) from None


# What other programs call a recipe's or a profile's keys.
_OTHER_NAMES = {
    "learning_rate": ["optim.lr"], "batch_size": ["optim.global_batch"], "epoch": ["optim.epochs"],
    "num_epochs": ["optim.epochs"], "max_steps": ["optim.steps"], "precision": ["profile.precision"],
    "bf16": ["profile.precision"], "workers": ["profile.loader_workers"],
}  # fmt: skip


def _validation_failure(
    settings_class: type[StrictSettings], document: SettingsDocument, at: KeyPath, error: ValidationError
) -> SettingsError:
    errors = error.errors(include_url=False)
    # A misspelt key also leaves the right one missing: the misspelling is what to name.
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    path = at + tuple(first["loc"])
    place = document.where(path)
    if first["type"] == "extra_forbidden":
        key = str(path[-1])
        problem = message("settings.unknown-key", "{place}: unknown key '{key}'", place=place, key=key)
        inside = tuple(first["loc"])[:-1]
        deeper = [] if inside else _keys_called(settings_class, key) or _OTHER_NAMES.get(key, [])
        if deeper:  # lr, for optim.lr
            return SettingsError(did_you_mean(problem, deeper))
        return unknown_name_error(problem, key, _known_keys(settings_class, inside))
    text = validation_text(first)
    if first["type"] == "missing" and isinstance(path[-1], int):  # a list that ends too early
        text = message("settings.too-few-values", "too few values: {count} given", count=path[-1])
        path = path[:-1]
    elif first["type"] == "missing":
        text = message("settings.missing-key", "this key is missing")
    elif first["type"] not in ("missing", "value_error"):
        if path not in document.origin and path[:-1] in document.origin:
            text, path = alternatives_text(errors, first), path[:-1]
        text = message(
            "settings.wrong-value", "{problem} (given: {value!r})", problem=text, value=first["input"]
        )
    if not path:
        return SettingsError(message("settings.invalid", "{place}: {problem}", place=place, problem=text))
    return SettingsError(
        message(
            "settings.invalid-key",
            "{place}: {key}: {problem}",
            place=place,
            key=dotted_path(path),
            problem=text,
        )
    )


def dotted_path(path: KeyPath) -> str:
    """A way to a value as people type it: optim.lr."""
    return ".".join(map(str, path))


def _known_keys(settings_class: type[BaseModel], path: KeyPath) -> list[str]:
    """Keys a settings class knows at a path below it."""
    fields = settings_class.model_fields
    for key in path:
        inner = fields[str(key)].annotation if str(key) in fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        fields = inner.model_fields
    return list(fields)


def _keys_called(settings_class: type[BaseModel], name: str) -> list[str]:
    """Keys one level below that have a name."""
    return [
        f"{section}.{name}"
        for section in settings_class.model_fields
        if name in _known_keys(settings_class, (section,))
    ]


def is_known_key(settings_class: type[StrictSettings], path: KeyPath) -> bool:
    """Does a settings class have a key at a path? What stands below a mapping of free keys is not looked at."""
    known: Mapping[str, FieldInfo] = settings_class.model_fields
    for key in path:
        if str(key) not in known:
            return False
        inner = known[str(key)].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return True
        known = inner.model_fields
    return True


# -------------------------------------------------------------------------- settings to YAML


def dump_yaml(settings: StrictSettings | Mapping[str, object]) -> str:
    """Settings as YAML text that `parse_yaml` reads back."""
    values = settings.model_dump(mode="json") if isinstance(settings, BaseModel) else dict(settings)
    return yaml.dump(values, Dumper=_StrictDumper, allow_unicode=True, sort_keys=False, width=100)


def inline_yaml(value: object) -> str:
    """A value as YAML on one line, good inside braces too."""
    text = yaml.dump(
        [value],
        Dumper=_StrictDumper,
        allow_unicode=True,
        sort_keys=False,
        default_flow_style=True,
        width=1 << 30,  # never breaks a line
    )
    return text.strip()[1:-1]


class _StrictDumper(yaml.SafeDumper):
    """Dumper under the same rules as the loader: text stays text, and a value that two keys share is written twice."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_StrictDumper.yaml_implicit_resolvers = _StrictLoader.yaml_implicit_resolvers
_StrictDumper.add_representer(
    float, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:float", repr(value))
)

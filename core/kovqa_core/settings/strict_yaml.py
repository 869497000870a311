"""YAML text -> settings object, strictly: every mistake is named with file, line and column.

Reads the part of YAML 1.2 that people expect: `2e-5` is a number, `24:00:00`, `no` and `on`
are text, a key may not appear twice. Settings are pydantic models, frozen, unknown keys
forbidden.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from kovqa_core.errors import SettingsError, unknown_name_error
from kovqa_core.files import read_text
from kovqa_core.messages import message

KeyPath = tuple[str | int, ...]  # ("optim", "lr"): the way to a value
RenamedKeys = Mapping[KeyPath, str]  # the way to a key by its old name -> the name it has today


class StrictSettings(BaseModel):
    """Base of everything read from a settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, validate_default=True)


SettingsType = TypeVar("SettingsType", bound=StrictSettings)


@dataclass(frozen=True)
class SettingsDocument:
    """Values of a settings file, with the place each one came from."""

    values: dict[str, Any]
    origin: dict[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """Where a value, or the nearest thing around it, was written."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.origin:
                return self.origin[path[:length]]
        return "settings"


# ------------------------------------------------------------------------------ YAML to values


class _StrictLoader(yaml.SafeLoader):
    """Safe loader with the YAML 1.2 core rules for plain scalars."""


_StrictLoader.yaml_implicit_resolvers = {}
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|)$"), ["~", "n", ""])
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")
)
_FLOAT_PATTERN = r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$"
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(_FLOAT_PATTERN), list("-+.0123456789")
)


def parse_yaml(text: str, name: str) -> SettingsDocument:
    """Read YAML text.

    Args:
        text: the YAML document, a mapping.
        name: what to call it in errors (a path).

    Raises:
        SettingsError: not YAML, not a mapping, a double key, a key that is not text.
    """
    loader = None
    try:
        loader = _StrictLoader(text)  # refuses control characters already here
        node = loader.get_single_node()
    except RecursionError:
        raise SettingsError(f"{name}: nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SettingsError(f"{place}: not valid YAML ({problem})") from None
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(node, yaml.MappingNode):
        raise SettingsError(f"{name}: expected `key: value` lines")
    origin: dict[KeyPath, str] = {(): name}
    try:
        return SettingsDocument(_node_value(node, (), name, origin), origin)
    except RecursionError:  # an anchor that contains itself
        raise SettingsError(f"{name}: nested too deeply") from None


def _node_value(node: yaml.Node, path: KeyPath, name: str, origin: dict[KeyPath, str]) -> Any:
    origin[path] = _node_location(node, name) if path else name
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                raise SettingsError(f"{_node_location(key_node, name)}: a key must be text, not {key!r}")
            if key in values:
                raise SettingsError(f"{_node_location(key_node, name)}: key '{key}' appears twice")
            values[key] = _node_value(value_node, (*path, key), name, origin)
            origin[(*path, key)] = _node_location(key_node, name)
        return values
    if isinstance(node, yaml.SequenceNode):
        return [_node_value(child, (*path, i), name, origin) for i, child in enumerate(node.value)]
    try:
        return _scalar_value(node)
    except (yaml.YAMLError, ValueError):
        raise SettingsError(
            f"{_node_location(node, name)}: '{node.value}' is no {node.tag.rsplit(':', 1)[-1]}"
        ) from None


def _scalar_value(node: yaml.Node) -> Any:
    return (
        yaml.constructor.SafeConstructor().construct_object(node)
        if ":float" not in node.tag
        else float(node.value)
    )


def _node_location(node: yaml.Node, name: str) -> str:
    return f"{name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def read_yaml(path: Path) -> SettingsDocument:
    """Read a YAML file; `SettingsError` when it is missing or wrong."""
    if not path.is_file():
        raise SettingsError(f"no such file: {path}")
    return parse_yaml(read_text(path), str(path))


# -------------------------------------------------------------------------------- overrides


def apply_overrides(
    document: SettingsDocument,
    assignments: Iterable[str],
    origin: str,
    part: str = "",
    renamed: RenamedKeys | None = None,
) -> SettingsDocument:
    """A document with `a.b=value` texts applied, each value read as YAML.

    Args:
        document: what they change.
        assignments: the texts.
        origin: where they come from ("--set"), for errors and `where`.
        part: what stood before the keys when they were typed ("profile.").
        renamed: keys that may be typed under an old name; the document itself has the new ones.

    Raises:
        SettingsError: no `=`, the value is not YAML, or a key under its old and its new name.
    """
    values, places = _copy_nested(document.values), dict(document.origin)
    renamed, typed_as = renamed or {}, dict[KeyPath, tuple[KeyPath, str]]()
    for assignment in assignments:
        typed = f"{origin} {part}{assignment}"
        typed_path, value = _read_assignment(assignment, typed)
        path = tuple(map(str, renamed_path(typed_path, renamed)))
        before, place = typed_as.setdefault(path, (typed_path, typed))
        if before != typed_path:
            raise _named_twice(typed, place, part, path)
        alone = SettingsDocument(_nested(typed_path, value), {typed_path: typed})
        value = _at(with_new_names(alone, renamed, part).values, path)
        inside = values
        for step in path[:-1]:
            inside = inside.setdefault(step, {})
            if not isinstance(inside, dict):
                raise SettingsError(f"{typed}: '{step}' has no keys below it")
        inside[path[-1]] = value
        places = {known: place for known, place in places.items() if known[: len(path)] != path}
        places[path] = typed
    return SettingsDocument(values, places)


def _read_assignment(assignment: str, typed: str) -> tuple[tuple[str, ...], Any]:
    """Path and value of an `a.b=value` text."""
    key, sign, text = assignment.partition("=")
    if not sign or not key.strip():
        raise SettingsError(f"{typed}: expected key=value, like optim.lr=1e-5")
    return tuple(key.strip().split(".")), parse_yaml(f"value: {text}", typed).values["value"]


def _nested(path: KeyPath, value: Any) -> dict[str, Any]:
    """{"a": {"b": value}} for the path ("a", "b")."""
    for key in reversed(path):
        value = {key: value}
    return value


def _at(values: Any, path: KeyPath) -> Any:
    """What stands at a path; None where there is no such path."""
    for key in path:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def _copy_nested(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _copy_nested(value) if isinstance(value, Mapping) else value for key, value in values.items()
    }


# ----------------------------------------------------------------------- keys by their old names


def with_new_names(
    document: SettingsDocument, renamed: RenamedKeys, part: str = "", warn: bool = True
) -> SettingsDocument:
    """A document in which every key has the name of today.

    Each layer (file, variables, --set) is put through this before it meets the next, so that a new name
    typed over an old one in a file changes that value, and does not stand beside it.

    Args:
        document: as it was written.
        renamed: the old names.
        part: what stands before its keys in messages ("profile.").
        warn: say so on stderr, once for each place; not of files that kovqa wrote itself, for nobody
            can do anything about them.

    Raises:
        SettingsError: a key under its old and its new name.
    """
    for old, name in renamed.items():
        new, beside = (*old[:-1], name), _at(document.values, old[:-1])
        if not isinstance(beside, Mapping) or old[-1] not in beside:
            continue
        place = document.where(old)
        if name in beside:
            raise _named_twice(place, document.where(new), part, new)
        if warn:
            _warn_renamed(place, part + _dotted(old), part + _dotted(new))
        values = _with_new_name(document.values, old, name)
        document = SettingsDocument(
            values, {renamed_path(p, {old: name}): at for p, at in document.origin.items()}
        )
    return document


def renamed_path(path: KeyPath, renamed: RenamedKeys) -> KeyPath:
    """The way to a value by the names of today."""
    for old, name in renamed.items():
        if path[: len(old)] == old:
            return (*old[:-1], name, *path[len(old) :])
    return path


def _with_new_name(values: Mapping[str, Any], old: KeyPath, name: str) -> dict[str, Any]:
    first, rest = old[0], old[1:]
    if not rest:
        return {name if key == first else key: value for key, value in values.items()}
    return {
        key: _with_new_name(value, rest, name) if key == first else value for key, value in values.items()
    }


def _named_twice(place: str, other: str, part: str, new: KeyPath) -> SettingsError:
    return SettingsError(
        f"{place}: key '{part}{_dotted(new)}' is given twice, by its old and by its new name ({other})",
        "keep one of the two, best by its new name",
    )


_warned: set[str] = set()  # once in a process, however often a file is read


def _warn_renamed(place: str, old: str, new: str) -> None:
    line = f"kovqa: {place}: key '{old}' is now called '{new}'; the old name still works"
    if line not in _warned:
        _warned.add(line)
        print(line, file=sys.stderr)


def _dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))


# ------------------------------------------------------------------------- values to settings


def build_settings(kind: type[SettingsType], document: SettingsDocument, at: KeyPath = ()) -> SettingsType:
    """Make a settings object of a document's values.

    Args:
        kind: the settings class.
        at: path of these values inside the document (for places in errors).

    Raises:
        SettingsError: unknown key (with the nearest known one), wrong type, contradiction.
    """
    values: Any = document.values
    for step in at:
        values = values[step]
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _validation_failure(kind, document, at, error) from None


def _validation_failure(
    kind: type[StrictSettings], document: SettingsDocument, at: KeyPath, error: ValidationError
) -> SettingsError:
    errors = error.errors(include_url=False)
    # A misspelt key also leaves the right one missing: the misspelling is what to tell.
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    path = at + tuple(first["loc"])
    dotted = ".".join(str(step) for step in path)
    place = document.where(path)
    if first["type"] == "extra_forbidden":
        key = str(path[-1])
        problem = message("settings.unknown-key", "{place}: unknown key '{key}'", place=place, key=key)
        return unknown_name_error(problem, key, _known_keys(kind, tuple(first["loc"])[:-1]))
    what = first["msg"].removeprefix("Value error, ")
    given = "" if first["type"] in ("missing", "value_error") else f" (given: {first['input']!r})"
    return SettingsError(f"{place}: {dotted + ': ' if dotted else ''}{what}{given}")


def _known_keys(kind: type[StrictSettings], path: KeyPath) -> list[str]:
    """Names a settings class knows at a path below it."""
    fields = kind.model_fields
    for step in path:
        inner = fields[str(step)].annotation if str(step) in fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        fields = inner.model_fields
    return list(fields)


def dump_yaml(settings: StrictSettings | Mapping[str, Any]) -> str:
    """Settings as YAML text that `parse` reads back."""
    values = settings.model_dump(mode="json") if isinstance(settings, BaseModel) else dict(settings)
    return yaml.dump(values, Dumper=_StrictDumper, allow_unicode=True, sort_keys=False, width=100)


def inline_yaml(value: Any) -> str:
    """A value as YAML on one line, good inside braces too."""
    text = yaml.dump(
        [value],
        Dumper=_StrictDumper,
        allow_unicode=True,
        sort_keys=False,
        default_flow_style=True,
        width=1 << 30,
    )
    return text.strip()[1:-1]


class _StrictDumper(yaml.SafeDumper):
    """Dumper under the same scalar rules as the loader, so that text stays text."""


_StrictDumper.yaml_implicit_resolvers = _StrictLoader.yaml_implicit_resolvers
_StrictDumper.add_representer(
    float, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:float", repr(value))
)

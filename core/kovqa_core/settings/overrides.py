"""What changes a settings document: `a.b=c` texts, and keys that it has under an old name."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from kovqa_core.errors import SettingsError
from kovqa_core.messages import message
from kovqa_core.messages.languages import show_text
from kovqa_core.settings.strict_yaml import (
    KeyPath,
    SettingsDocument,
    YamlMapping,
    YamlValue,
    dotted_path,
    parse_yaml,
)

RenamedKeys = Mapping[KeyPath, str]  # the way to a key by its old name -> the name it has today


def apply_overrides(
    document: SettingsDocument,
    assignments: Iterable[str],
    origin: str | Mapping[str, str],
    prefix: str = "",
    renamed: RenamedKeys | None = None,
) -> SettingsDocument:
    """A document with `a.b=value` texts applied, each value read as YAML.

    Args:
        document: what they change.
        assignments: the texts.
        origin: where they come from ("--set"), for errors and `where`; or of each text what was typed.
        prefix: what stood before the keys when they were typed ("profile.").
        renamed: keys that may be typed under an old name; the document itself has the new ones.

    Raises:
        SettingsError: no `=`, the value is not YAML, or a key under its old and its new name.
    """
    values, places = _copy_nested(document.values), dict(document.origin)
    renamed, typed_as = renamed or {}, dict[KeyPath, tuple[KeyPath, str]]()
    for assignment in assignments:
        typed = f"{origin} {prefix}{assignment}" if isinstance(origin, str) else origin[assignment]
        typed_path, value = _read_assignment(assignment, typed)
        path = tuple(map(str, renamed_path(typed_path, renamed)))
        before, place = typed_as.setdefault(path, (typed_path, typed))
        if before != typed_path:
            raise _named_twice(typed, place, prefix, path)
        # Old names may stand inside of the value too: model={image: 224}.
        alone = SettingsDocument(_nest_value(typed_path, value), {typed_path: typed})
        value = value_at(with_new_names(alone, renamed, prefix).values, path)
        _put_in_place(values, path, value, typed)
        # Values below the path are replaced with it, and so is the memory of where they came from.
        places = {known: place for known, place in places.items() if known[: len(path)] != path}
        places[path] = typed
    return SettingsDocument(values, places)


def _read_assignment(assignment: str, typed: str) -> tuple[tuple[str, ...], YamlValue]:
    """Path and value of an `a.b=value` text."""
    key, sign, text = assignment.partition("=")
    if not sign or not key.strip():
        raise SettingsError(
            message(
                "settings.not-an-assignment", "{typed}: expected key=value, like optim.lr=1e-5", typed=typed
            )
        )
    # As the value of a key: by the rules of a file, where 1e-5 is a number and `on` is text.
    return tuple(key.strip().split(".")), parse_yaml(f"value: {text}", typed).values["value"]


def _put_in_place(values: YamlMapping, path: tuple[str, ...], value: YamlValue, typed: str) -> None:
    """Set a value in place, with the mappings on the way to it."""
    inside = values
    for key in path[:-1]:
        child = inside.setdefault(key, {})
        if not isinstance(child, dict):
            raise SettingsError(
                message(
                    "settings.no-keys-below", "{typed}: '{key}' has no keys below it", typed=typed, key=key
                )
            )
        inside = child
    inside[path[-1]] = value


def put_value(document: SettingsDocument, path: KeyPath, value: YamlValue, place: str) -> SettingsDocument:
    """A document with one value changed, which came from a place."""
    values = _copy_nested(document.values)
    _put_in_place(values, tuple(map(str, path)), value, place)
    return SettingsDocument(values, {**document.origin, path: place})


def _nest_value(path: tuple[str, ...], value: YamlValue) -> YamlMapping:
    """{"a": {"b": value}} for the path ("a", "b")."""
    *outer, last = path
    nested: YamlMapping = {last: value}
    for key in reversed(outer):
        nested = {key: nested}
    return nested


def value_at(values: YamlValue, path: KeyPath) -> YamlValue:
    """What stands at a path; None where there is no such path."""
    for key in path:
        values = values.get(str(key)) if isinstance(values, dict) else None
    return values


def _copy_nested(values: YamlMapping) -> YamlMapping:
    # Mappings alone: overrides replace lists as a whole, and never change one in place.
    return {key: _copy_nested(value) if isinstance(value, dict) else value for key, value in values.items()}


# ----------------------------------------------------------------------- keys by their old names


def with_new_names(
    document: SettingsDocument, renamed: RenamedKeys, prefix: str = "", *, warn: bool = True
) -> SettingsDocument:
    """A document in which every key has the name of today.

    Each layer (file, variables, --set) is put through this before it meets the next, so that a new name
    typed over an old one in a file changes that value, and does not stand beside it.

    Args:
        document: as it was written.
        renamed: the old names.
        prefix: what stands before its keys in messages ("profile.").
        warn: say so on stderr, once for each place; not of files that kovqa wrote itself, for nobody
            can do anything about them.

    Raises:
        SettingsError: a key under its old and its new name.
    """
    for old, name in renamed.items():
        new, siblings = (*old[:-1], name), value_at(document.values, old[:-1])
        if not isinstance(siblings, dict) or old[-1] not in siblings:
            continue
        place = document.where(old)
        if name in siblings:
            raise _named_twice(place, document.where(new), prefix, new)
        if warn:
            _warn_renamed(place, prefix + dotted_path(old), prefix + dotted_path(new))
        values = _with_new_name(document.values, old, name)
        document = SettingsDocument(
            values, {renamed_path(path, {old: name}): at for path, at in document.origin.items()}
        )
    return document


def renamed_path(path: KeyPath, renamed: RenamedKeys) -> KeyPath:
    """The way to a value by the names of today."""
    for old, name in renamed.items():
        if path[: len(old)] == old:
            return (*old[:-1], name, *path[len(old) :])
    return path


def _with_new_name(values: YamlMapping, old: KeyPath, name: str) -> YamlMapping:
    """The same values in the same order, one key called otherwise."""
    first, rest = old[0], old[1:]
    if not rest:
        return {name if key == first else key: value for key, value in values.items()}
    return {
        key: _with_new_name(value, rest, name) if key == first and isinstance(value, dict) else value
        for key, value in values.items()
    }


def _named_twice(place: str, other: str, prefix: str, new: KeyPath) -> SettingsError:
    return SettingsError(
        message(
            "settings.named-twice",
            "{place}: key '{key}' is given twice, by its old and by its new name ({other})",
            place=place,
            key=prefix + dotted_path(new),
            other=other,
        ),
        message("settings.named-twice.hint", "keep one of the two, best by its new name"),
    )


_warned: set[str] = set()  # once in a process, however often a file is read


def _warn_renamed(place: str, old: str, new: str) -> None:
    line = message(
        "settings.renamed-key",
        "kovqa: {place}: key '{old}' is now called '{new}'; the old name still works",
        place=place,
        old=old,
        new=new,
    )
    if line not in _warned:
        _warned.add(line)
        print(show_text(line), file=sys.stderr)

"""New profiles and recipes from old ones: a copy that keeps its comments, with some values changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from kovqa_core.errors import SettingsError
from kovqa_core.files import read_text, to_nfc, write_text
from kovqa_core.paths import kovqa_home, settings_files
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.renamed_keys import Kind, override_settings, rename_keys, settings_keys
from kovqa_core.settings.resolve import find_settings, is_settings_path
from kovqa_core.settings.strict_yaml import (
    RenamedKeys,
    SettingsDocument,
    apply_overrides,
    build_settings,
    inline_yaml,
    parse_yaml,
    read_yaml,
    renamed_path,
    with_new_names,
)

SETTINGS_CLASSES: dict[Kind, type[Profile] | type[Recipe]] = {"profiles": Profile, "recipes": Recipe}


def new_settings(
    kind: Kind,
    name: str,
    source: str,
    sets: Sequence[str] = (),
    *,
    force: bool = False,
    check: Callable[[SettingsDocument], object] | None = None,
) -> Path:
    """Write a profile or recipe of the user's own; nothing is written unless it can be read back.

    Args:
        kind: what it is.
        name: a name (the file goes to the user's folder, which is looked into first) or a path.
        source: name or path of the one it begins as.
        sets: `a.b=c` texts.
        force: replace a file that is there, or hide a shipped one of that name.
        check: more to see to before writing; raises where something is wrong.

    Raises:
        SettingsError: the name is taken, or what would be written is no valid profile or recipe.
    """
    old, stem = find_settings(kind, source), Path(name).stem if is_settings_path(name) else name
    asked = override_settings(kind, rename_keys(kind, read_yaml(old)), sets, "--set")
    document = SettingsDocument({**asked.values, "name": stem}, asked.origin)
    build_settings(SETTINGS_CLASSES[kind], document)
    if check:
        check(document)
    named = [f"name={inline_yaml(stem)}"] if "name" in asked.values else []
    head = " ".join(
        f"{source}{' with ' if sets else ''}{', '.join(sets)}".split()
    )  # one line, whatever was typed
    keys = settings_keys(kind, document)
    changed = edit_yaml_text(read_text(old), str(old), [*sets, *named], keys)
    return save_settings(kind, name, f"# {head}\n{changed}", force=force)


def save_settings(kind: Kind, name: str, text: str, *, force: bool = False) -> Path:
    """Keep the text of a profile or recipe as a file of the user's own.

    Raises:
        SettingsError: the name is taken (and not `force`), or the text is no valid profile or recipe.
    """
    path = _new_file_path(kind, to_nfc(name), force)
    found = parse_yaml(text, str(path))
    build_settings(
        SETTINGS_CLASSES[kind], SettingsDocument({"name": path.stem, **found.values}, found.origin)
    )
    write_text(path, text)
    return path


def _new_file_path(kind: Kind, name: str, force: bool) -> Path:
    """Where a new file goes; refuses what is there already."""
    if not is_settings_path(name) and not re.fullmatch(r"[\w.-]+", name):
        raise SettingsError(f"'{name}' is no name", "use letters, digits, dots and dashes, or give a path")
    path = Path(name).expanduser() if is_settings_path(name) else kovqa_home() / kind / f"{name}.yaml"
    if path.exists() and not force:
        raise SettingsError(f"{path} is there already", "choose another name, or replace it with --force")
    if name in settings_files(kind) and not force:
        raise SettingsError(
            f"'{name}' is a {kind.removesuffix('s')} that comes with kovqa; yours would hide it",
            "choose another name, or add --force",
        )
    return path


# ------------------------------------------------------------------------------ text, in place


def edit_yaml_text(text: str, name: str, sets: Sequence[str], renamed: RenamedKeys | None = None) -> str:
    """YAML text with `a.b=c` applied where the values stand; comments and order stay.

    Args:
        text: a mapping.
        name: what to call it in errors.
        sets: `a.b=c` texts.
        renamed: keys that stand there, or are typed, under an old name; they get the new one.

    Raises:
        SettingsError: not YAML, or a value that cannot be changed alone (one with an anchor).
    """
    renamed = renamed or {}
    wanted = apply_overrides(
        with_new_names(parse_yaml(text, name), renamed), sets, "--set", renamed=renamed
    ).values
    text = _with_new_keys(text, renamed)
    for assignment in sets:
        key, _, typed = assignment.partition("=")
        path = renamed_path(tuple(key.strip().split(".")), renamed)
        text = _set_yaml_value(text, [str(step) for step in path], _quote_if_needed(typed.strip()))
    text = _with_new_keys(text, renamed)  # those inside of values that were typed
    if parse_yaml(text, name).values != wanted:
        raise SettingsError(f"{name}: cannot apply {', '.join(sets)} in place", "write the new file by hand")
    return text


def _with_new_keys(text: str, renamed: RenamedKeys) -> str:
    """YAML text whose keys have the names of today, where they stand."""
    for old, name in renamed.items():
        node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
        key = None
        for step in old:
            entries = node.value if isinstance(node, yaml.MappingNode) else []
            key, node = next(((key, child) for key, child in entries if key.value == step), (None, None))
        if key is not None:
            text = text[: key.start_mark.index] + name + text[key.end_mark.index :]
    return text


def _quote_if_needed(typed: str) -> str:
    """A value as it was typed, where that means the same inside braces; else quoted as needed."""
    value = parse_yaml(f"value: {typed}", "--set").values["value"]
    try:
        same = parse_yaml(f"value: [{typed}]", "--set").values["value"] == [value]
    except SettingsError:
        same = False
    return typed if same else inline_yaml(value)


def _set_yaml_value(text: str, path: Sequence[str], value: str) -> str:
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for depth, step in enumerate(path):
        found = next((child for key, child in node.value if key.value == step), None)
        if found is None:
            for outer in reversed(path[depth + 1 :]):
                value = f"{{{inline_yaml(outer)}: {value}}}"
            return _insert_entry(text, node, f"{inline_yaml(step)}: {value}")
        node = found
    start, end = node.start_mark.index, _node_end(text, node)
    blank = " " if start == end else ""  # `key:` with nothing behind it
    return text[:start] + blank + value + text[end:]


def _insert_entry(text: str, node: yaml.MappingNode, entry: str) -> str:
    """Text with one more entry behind the last one of a mapping."""
    if not node.value:
        at = node.start_mark.index + 1
        return text[:at] + entry + text[at:]
    at = _node_end(text, node.value[-1][1])
    if node.flow_style:
        return text[:at] + ", " + entry + text[at:]
    line_end = text.find("\n", at)
    at = len(text) if line_end < 0 else line_end
    return f"{text[:at]}\n{' ' * node.start_mark.column}{entry}{text[at:]}"


def _node_end(text: str, node: yaml.Node) -> int:
    """Where a node's own text ends: PyYAML's mark lies behind the comments that follow a block."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _node_end(text, last[1] if isinstance(last, tuple) else last)
    return node.start_mark.index + len(text[node.start_mark.index : node.end_mark.index].rstrip())

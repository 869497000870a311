"""New profiles and recipes from old ones: a copy that keeps its comments, with some values changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from kovqa_core.errors import SettingsError
from kovqa_core.files import nfc, read_text, write_text
from kovqa_core.paths import home, names
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.renamed_keys import Kind, override_settings, rename_keys, settings_keys
from kovqa_core.settings.resolve import is_path, locate
from kovqa_core.settings.strict_yaml import (
    Document,
    RenamedKeys,
    build,
    flow,
    override,
    parse,
    read,
    renamed_path,
    with_new_names,
)

KINDS: dict[Kind, type[Profile] | type[Recipe]] = {"profiles": Profile, "recipes": Recipe}


def new_settings(
    kind: Kind,
    name: str,
    source: str,
    sets: Sequence[str] = (),
    force: bool = False,
    check: Callable[[Document], object] | None = None,
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
    old, stem = locate(kind, source), Path(name).stem if is_path(name) else name
    asked = override_settings(kind, rename_keys(kind, read(old)), sets, "--set")
    document = Document({**asked.values, "name": stem}, asked.origin)
    build(KINDS[kind], document)
    if check:
        check(document)
    named = [f"name={flow(stem)}"] if "name" in asked.values else []
    head = " ".join(
        f"{source}{' with ' if sets else ''}{', '.join(sets)}".split()
    )  # one line, whatever was typed
    keys = settings_keys(kind, document)
    changed = with_changes(read_text(old), str(old), [*sets, *named], keys)
    return keep_settings(kind, name, f"# {head}\n{changed}", force)


def keep_settings(kind: Kind, name: str, text: str, force: bool = False) -> Path:
    """Keep the text of a profile or recipe as a file of the user's own.

    Raises:
        SettingsError: the name is taken (and not `force`), or the text is no valid profile or recipe.
    """
    path = _place(kind, nfc(name), force)
    found = parse(text, str(path))
    build(KINDS[kind], Document({"name": path.stem, **found.values}, found.origin))
    write_text(path, text)
    return path


def _place(kind: Kind, name: str, force: bool) -> Path:
    """Where a new file goes; refuses what is there already."""
    if not is_path(name) and not re.fullmatch(r"[\w.-]+", name):
        raise SettingsError(f"'{name}' is no name", "use letters, digits, dots and dashes, or give a path")
    path = Path(name).expanduser() if is_path(name) else home() / kind / f"{name}.yaml"
    if path.exists() and not force:
        raise SettingsError(f"{path} is there already", "choose another name, or replace it with --force")
    if name in names(kind) and not force:
        raise SettingsError(
            f"'{name}' is a {kind.removesuffix('s')} that comes with kovqa; yours would hide it",
            "choose another name, or add --force",
        )
    return path


# ------------------------------------------------------------------------------ text, in place


def with_changes(text: str, name: str, sets: Sequence[str], renamed: RenamedKeys | None = None) -> str:
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
    wanted = override(with_new_names(parse(text, name), renamed), sets, "--set", renamed=renamed).values
    text = _with_new_keys(text, renamed)
    for assignment in sets:
        key, _, typed = assignment.partition("=")
        path = renamed_path(tuple(key.strip().split(".")), renamed)
        text = _put(text, [str(step) for step in path], _as_typed(typed.strip()))
    text = _with_new_keys(text, renamed)  # those inside of values that were typed
    if parse(text, name).values != wanted:
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


def _as_typed(typed: str) -> str:
    """A value as it was typed, where that means the same inside braces; else quoted as needed."""
    value = parse(f"value: {typed}", "--set").values["value"]
    try:
        same = parse(f"value: [{typed}]", "--set").values["value"] == [value]
    except SettingsError:
        same = False
    return typed if same else flow(value)


def _put(text: str, path: Sequence[str], value: str) -> str:
    node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    for depth, step in enumerate(path):
        found = next((child for key, child in node.value if key.value == step), None)
        if found is None:
            for outer in reversed(path[depth + 1 :]):
                value = f"{{{flow(outer)}: {value}}}"
            return _insert(text, node, f"{flow(step)}: {value}")
        node = found
    start, end = node.start_mark.index, _end(text, node)
    blank = " " if start == end else ""  # `key:` with nothing behind it
    return text[:start] + blank + value + text[end:]


def _insert(text: str, node: yaml.MappingNode, entry: str) -> str:
    """Text with one more entry behind the last one of a mapping."""
    if not node.value:
        at = node.start_mark.index + 1
        return text[:at] + entry + text[at:]
    at = _end(text, node.value[-1][1])
    if node.flow_style:
        return text[:at] + ", " + entry + text[at:]
    line_end = text.find("\n", at)
    at = len(text) if line_end < 0 else line_end
    return f"{text[:at]}\n{' ' * node.start_mark.column}{entry}{text[at:]}"


def _end(text: str, node: yaml.Node) -> int:
    """Where a node's own text ends: PyYAML's mark lies behind the comments that follow a block."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(text, last[1] if isinstance(last, tuple) else last)
    return node.start_mark.index + len(text[node.start_mark.index : node.end_mark.index].rstrip())

"""New profiles and recipes from old ones: a copy that keeps its comments, with some values changed.

PyYAML gives the place of each node in the text; the characters of a changed value are replaced there, and all
others stay as they are. ruamel.yaml could do this too, and was not taken: written back, a whole file gets its
indentation, line width and quotes; and it would be a second YAML library with scalar rules of its own, which
would have to agree with those of strict_yaml. What comes of a change is read back and compared with what
`apply_overrides` says: what cannot be changed in place (a value with an anchor) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

from kovqa_core.errors import SettingsError
from kovqa_core.files import read_bytes, read_text, to_nfc, write_text
from kovqa_core.messages import message, shell_quote
from kovqa_core.output_lock import output_lock
from kovqa_core.paths import kovqa_home, settings_files
from kovqa_core.progress import OnProgress, ignore_progress
from kovqa_core.settings.alternative_keys import replace_alternatives
from kovqa_core.settings.overrides import RenamedKeys, apply_overrides, renamed_path, with_new_names
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.renamed_keys import Kind, override_settings, rename_keys, settings_keys
from kovqa_core.settings.resolve import find_settings, is_settings_path
from kovqa_core.settings.strict_yaml import (
    SettingsDocument,
    build_settings,
    compose_yaml,
    inline_yaml,
    parse_yaml,
    read_yaml,
)
from kovqa_core.whole_folder import note_unchanged

SETTINGS_CLASSES: dict[Kind, type[Profile] | type[Recipe]] = {"profiles": Profile, "recipes": Recipe}


def new_settings(
    kind: Kind,
    name: str,
    source: str,
    sets: Sequence[str] = (),
    *,
    force: bool = False,
    check: Callable[[SettingsDocument], object] | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Path:
    """Write a profile or recipe of the user's own; nothing is written unless it can be read back.

    Args:
        kind: "profiles" or "recipes".
        name: a name (the file goes to the user's folder, which is searched first) or a path.
        source: name or path of the one that is copied.
        sets: `a.b=c` texts.
        force: replace a file that is there, or hide a shipped one of that name.
        check: further checks before writing; raises where something is wrong.
        on_progress: called with a note where the very same file is there already.

    Raises:
        SettingsError: the name is taken, or what would be written is not a valid profile or recipe.
    """
    source_file, stem = find_settings(kind, source), Path(name).stem if is_settings_path(name) else name
    changed = override_settings(kind, rename_keys(kind, read_yaml(source_file)), sets, "--set")
    if kind == "recipes":  # a copy with other epochs has no steps
        changed, replaced = replace_alternatives(changed, {f"--set {text}" for text in sets})
        in_file = [*sets, *(each.assignment for each in replaced)]
    else:
        in_file = list(sets)
    document = SettingsDocument({**changed.values, "name": stem}, changed.origin)
    build_settings(SETTINGS_CLASSES[kind], document)
    if check:
        check(document)
    new_name = [f"name={inline_yaml(stem)}"] if "name" in changed.values else []
    heading = f"{source}{' with ' if sets else ''}{', '.join(sets)}"
    heading = " ".join(heading.split())  # one line, whatever was typed
    renamed = settings_keys(kind, document)
    text = edit_yaml_text(read_text(source_file), str(source_file), [*in_file, *new_name], renamed)
    text = f"# {heading}\n{_with_new_use(text, kind, source, name)}"
    return save_settings(kind, name, text, force=force, on_progress=on_progress)


def _with_new_use(text: str, kind: Kind, source: str, name: str) -> str:
    """A copy whose comments say how it is used itself: `kovqa train --profile NAME`."""
    use = rf"(?m)^(#.* --{kind.removesuffix('s')} ){re.escape(source)}(?![\w.-])"
    return re.sub(use, lambda found: found[1] + shell_quote(name), text)


def save_settings(
    kind: Kind, name: str, text: str, *, force: bool = False, on_progress: OnProgress = ignore_progress
) -> Path:
    """Write the text of a profile or recipe as a file of the user's own; arguments as of `new_settings`.

    Raises:
        SettingsError: the name is taken (and not `force`), or the text is not a valid profile or recipe.
    """
    path = _new_file_path(kind, to_nfc(name))
    document = parse_yaml(text, str(path))
    with_name = SettingsDocument({"name": path.stem, **document.values}, document.origin)
    build_settings(SETTINGS_CLASSES[kind], with_name)
    with output_lock(path):
        if path.is_file() and read_bytes(path) == text.encode():
            note_unchanged(path, on_progress)
        else:
            if not force:
                _require_new_name(kind, name, path)
            write_text(path, text)
    return path


def _new_file_path(kind: Kind, name: str) -> Path:
    """Where a new file goes."""
    if not is_settings_path(name) and not re.fullmatch(r"[\w.-]+", name):
        raise SettingsError(
            message("settings.not-a-name", "'{name}' is not a name", name=name),
            message("settings.not-a-name.hint", "use letters, digits, dots and dashes, or give a path"),
        )
    return Path(name).expanduser() if is_settings_path(name) else kovqa_home() / kind / f"{name}.yaml"


def _require_new_name(kind: Kind, name: str, path: Path) -> None:
    """Refuse what is there already, or would hide what is shipped."""
    if path.exists():
        raise SettingsError(
            message("settings.file-exists", "{file} already exists", file=path),
            message("settings.file-exists.hint", "choose another name, or replace it with --force"),
        )
    if name in settings_files(kind):
        raise SettingsError(
            message("settings.shipped-name", "'{name}' comes with kovqa; yours would hide it", name=name),
            message("settings.shipped-name.hint", "choose another name, or add --force"),
        )


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
    document = with_new_names(parse_yaml(text, name), renamed)
    expected = apply_overrides(document, sets, "--set", renamed=renamed).values
    text = _with_new_keys(text, renamed)
    for assignment in sets:
        key, _, typed = assignment.partition("=")
        path = renamed_path(tuple(key.strip().split(".")), renamed)
        text = _set_yaml_value(text, [str(key) for key in path], _quote_if_needed(typed.strip()))
    text = _with_new_keys(text, renamed)  # inside of values that were typed
    if parse_yaml(text, name).values != expected:
        raise SettingsError(
            message(
                "settings.not-in-place",
                "{file}: cannot apply {changes} in place",
                file=name,
                changes=", ".join(sets),
            ),
            message("settings.not-in-place.hint", "write the new file by hand"),
        )
    return text


def _with_new_keys(text: str, renamed: RenamedKeys) -> str:
    """YAML text whose keys have the names of today, where they stand."""
    for old, new in renamed.items():
        node, key_node = compose_yaml(text, "--set"), None
        for key in old:
            key_node, node = _find_entry(node, str(key))
        if key_node is not None:
            text = text[: key_node.start_mark.index] + new + text[key_node.end_mark.index :]
    return text


def _find_entry(node: yaml.Node | None, key: str) -> tuple[yaml.Node, yaml.Node] | tuple[None, None]:
    """Key and value of a mapping's entry; two None where there is none."""
    entries = node.value if isinstance(node, yaml.MappingNode) else []
    return next(((key_node, child) for key_node, child in entries if key_node.value == key), (None, None))


def _quote_if_needed(typed: str) -> str:
    """A value as it was typed, where that means the same inside braces; else quoted as needed."""
    value = parse_yaml(f"value: {typed}", "--set").values["value"]
    try:
        same = parse_yaml(f"value: [{typed}]", "--set").values["value"] == [value]
    except SettingsError:
        same = False
    return typed if same else inline_yaml(value)


def _set_yaml_value(text: str, path: Sequence[str], value: str) -> str:
    """YAML text with one value replaced, or inserted with the mappings on the way to it."""
    node = compose_yaml(text, "--set")
    for depth, key in enumerate(path):
        _, child = _find_entry(node, key)
        if child is None:
            for outer in reversed(path[depth + 1 :]):
                value = f"{{{inline_yaml(outer)}: {value}}}"
            assert isinstance(node, yaml.MappingNode)  # apply_overrides has refused what has no keys
            return _insert_entry(text, node, f"{inline_yaml(key)}: {value}")
        node = child
    assert node is not None
    start, end = node.start_mark.index, _node_end(text, node)
    blank = " " if start == end else ""  # `key:` with nothing behind it
    return text[:start] + blank + value + text[end:]


def _insert_entry(text: str, node: yaml.MappingNode, entry: str) -> str:
    """Text with one more entry behind the last one of a mapping."""
    if not node.value:
        at = node.start_mark.index + 1  # behind the brace
        return text[:at] + entry + text[at:]
    at = _node_end(text, node.value[-1][1])
    if node.flow_style:
        return text[:at] + ", " + entry + text[at:]
    line_end = text.find("\n", at)
    at = len(text) if line_end < 0 else line_end  # behind a comment on that line
    return f"{text[:at]}\n{' ' * node.start_mark.column}{entry}{text[at:]}"


def _node_end(text: str, node: yaml.Node) -> int:
    """Where a node's own text ends: PyYAML's mark lies behind the comments that follow a block."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _node_end(text, last[1] if isinstance(last, tuple) else last)
    return node.start_mark.index + len(text[node.start_mark.index : node.end_mark.index].rstrip())

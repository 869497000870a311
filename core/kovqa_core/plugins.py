"""Plug-ins: data sets, model families, launchers and commands that other distributions bring, by their entry points.

Only what pip has installed for this Python counts: a `*.dist-info` in the folder where kovqa is started, in PYTHONPATH or
beside data and models asks for nothing, and a module is imported only from where its distribution was installed. Names
are read without importing anything, plug-ins without a name that is asked for are never loaded.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import site
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kovqa_core.errors import KovqaError, MachineError
from kovqa_core.messages import Message, message

PluginKind = Literal["source", "family", "launcher", "command"]
GROUPS: dict[PluginKind, str] = {
    "source": "kovqa.sources",
    "family": "kovqa.families",
    "launcher": "kovqa.launchers",
    "command": "kovqa.commands",
}
_MAX_BYTES = 1 << 18  # of a distribution's list of entry points


@dataclass(frozen=True)
class Plugin:
    """One entry point.

    Attributes:
        kind: of what.
        name: by which it is asked for.
        target: `module` or `module:object`.
        distribution: that brings it.
        version: of that.
        metadata_folder: its `*.dist-info`.
    """

    kind: PluginKind
    name: str
    target: str
    distribution: str
    version: str
    metadata_folder: Path

    @property
    def module(self) -> str:
        """The module of the target."""
        return self.target.partition(":")[0].strip()


@dataclass(frozen=True)
class FoundPlugins:
    """All plug-ins by kind and name, and what could not be read or is hidden by another: a line each."""

    plugins: dict[tuple[PluginKind, str], Plugin]
    problems: tuple[Message, ...]


# --------------------------------------------------------------------------------- by name


def plugin_names(kind: PluginKind, built_in: Collection[str] = ()) -> list[str]:
    """Names of a kind of plug-ins, without those of kovqa's own, which win."""
    return sorted(name for found, name in find_plugins().plugins if found == kind and name not in built_in)


def find_plugin(kind: PluginKind, name: str) -> Plugin | None:
    """The plug-in of a name; None: nobody has one."""
    return find_plugins().plugins.get((kind, name))


def clash_warnings(kind: PluginKind, built_in: Collection[str]) -> list[Message]:
    """That plug-ins are not used, since kovqa has something of their names itself."""
    return [
        message(
            "plugins.built-in-name",
            "plug-in {name} of {distribution} {version} is not used: kovqa has a {kind} of that name",
            name=plugin.name,
            distribution=plugin.distribution,
            version=plugin.version,
            kind=kind_text(kind),
        )
        for plugin in find_plugins().plugins.values()
        if plugin.kind == kind and plugin.name in built_in
    ]


def kind_text(kind: PluginKind) -> Message:
    """What a plug-in is, in a sentence."""
    texts = {
        "source": message("plugins.source", "data set"),
        "family": message("plugins.family", "model family"),
        "launcher": message("plugins.launcher", "launcher"),
        "command": message("plugins.command", "command"),
    }
    return texts[kind]


# -------------------------------------------------------------------------------- loading


def load_plugin(plugin: Plugin, required: Collection[str] = ()) -> Any:
    """What a plug-in's entry point names, imported.

    Args:
        plugin: which one.
        required: attributes that it must have.

    Raises:
        MachineError: it cannot be imported, lies elsewhere than its distribution, or lacks something: one line, which
            names the distribution.
    """
    value: Any = import_of_plugin(plugin, plugin.module)
    for name in filter(None, plugin.target.partition(":")[2].strip().split(".")):
        try:
            value = getattr(value, name)
        except AttributeError as error:
            raise broken_plugin(plugin, f"AttributeError: {error}") from None
    require_attributes(plugin, value, required)
    return value


def protocol_names(protocol: type) -> list[str]:
    """What a protocol asks of a module or object."""
    return [name for name in vars(protocol) if not name.startswith("_")]


def require_attributes(plugin: Plugin, value: object, required: Collection[str]) -> None:
    """See that a plug-in's object has what kovqa asks of it; raises as `load_plugin`."""
    if missing := [name for name in required if not hasattr(value, name)]:
        raise broken_plugin(plugin, f"AttributeError: {', '.join(missing)}")


def import_of_plugin(plugin: Plugin, module: str) -> Any:
    """A module of a plug-in's distribution; raises as `load_plugin`."""
    top = module.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError) as error:  # of an odd name, or a foreign finder
        raise broken_plugin(plugin, f"{type(error).__name__}: {error}") from None
    if spec is None:
        raise broken_plugin(plugin, f"ModuleNotFoundError: {top}")
    places = (
        [spec.origin] if spec.has_location and spec.origin else [*(spec.submodule_search_locations or [])]
    )
    if not places or not all(_is_installed(plugin, Path(place)) for place in places):
        raise MachineError(
            message(
                "plugins.elsewhere",
                "plug-in {name} of {distribution} {version} is not loaded: its module {module} was found in {place}, where "
                "that distribution is not installed",
                name=plugin.name, distribution=plugin.distribution, version=plugin.version, module=top,
                place=Path(places[0]).parent if places else str(spec.origin),
            ),
            message("plugins.elsewhere.hint", "start kovqa in another folder, and unset PYTHONPATH"),
        )  # fmt: skip
    try:
        return importlib.import_module(module)
    except KovqaError:  # an older kovqa says by itself what it lacks
        raise
    except (Exception, SystemExit) as error:
        raise broken_plugin(plugin, f"{type(error).__name__}: {error}") from error


def broken_plugin(plugin: Plugin, reason: str) -> MachineError:
    """The error of a plug-in that does not work; whose it is stands in it."""
    return MachineError(
        message(
            "plugins.broken",
            "plug-in {name} of {distribution} {version} does not work: {reason}",
            name=plugin.name,
            distribution=plugin.distribution,
            version=plugin.version,
            reason=reason,
        ),
        message(
            "plugins.broken.hint",
            "ask those who made it, or take it away: pip uninstall {distribution}",
            distribution=plugin.distribution,
        ),
    )


def _is_installed(plugin: Plugin, place: Path) -> bool:
    """Does a module lie where pip puts modules, or in the project that was installed by `pip install -e`?"""
    folders = [*site_folders(), *_editable_project(plugin)]
    return any(place.resolve().is_relative_to(folder.resolve()) for folder in folders)


def _editable_project(plugin: Plugin) -> Iterator[Path]:
    """The folder of a project installed with `pip install -e`, as its metadata says (PEP 610)."""
    from urllib.parse import urlsplit
    from urllib.request import url2pathname  # loads much

    from kovqa_core.bounded_json import parse_json

    file = plugin.metadata_folder / "direct_url.json"
    try:
        fields = parse_json(file.read_bytes())
        url = urlsplit(fields["url"])
        if fields["dir_info"]["editable"] is True and url.scheme == "file":
            yield Path(url2pathname(url.path))
    except (OSError, ValueError, KeyError, TypeError):  # mostly: there is no such file
        return


# -------------------------------------------------------------------------------- reading


def site_folders() -> list[Path]:
    """Folders that pip installs into, for this Python and its user: neither the working folder nor PYTHONPATH."""
    folders = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        folders = [site.getusersitepackages(), *folders]
    on_path = {os.path.realpath(folder) for folder in sys.path}
    return [Path(folder) for folder in dict.fromkeys(folders) if os.path.realpath(folder) in on_path]


@functools.cache
def find_plugins() -> FoundPlugins:
    """Every plug-in that is installed. Metadata is opened only of those: `importlib.metadata` takes long to load."""
    plugins: dict[tuple[PluginKind, str], Plugin] = {}
    problems: list[Message] = []
    seen: set[str] = set()
    for folder in _metadata_folders():
        try:
            found = _plugins_of(folder)
        except Exception as error:  # somebody's metadata must not keep kovqa from starting
            problems.append(
                message(
                    "plugins.unreadable",
                    "plug-ins of {distribution} cannot be read: {reason}",
                    distribution=folder.name.partition("-")[0],
                    reason=f"{type(error).__name__}: {error}",
                )
            )
            continue
        if not found or found[0].distribution in seen:  # what comes first on Python's path wins
            continue
        seen.add(found[0].distribution)
        for plugin in found:
            first = plugins.setdefault((plugin.kind, plugin.name), plugin)
            if first is not plugin:
                problems.append(_hidden_message(plugin, first))
    return FoundPlugins(plugins, tuple(problems))


def _metadata_folders() -> Iterator[Path]:
    """`*.dist-info` folders whose entry points name a group of ours; sorted, so that all machines choose alike."""
    for folder in site_folders():
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries)
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")) and _names_a_group(
                folder / name / "entry_points.txt"
            ):
                yield folder / name


def _names_a_group(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            text = opened.read(_MAX_BYTES)
    except OSError:
        return False
    return any(f"[{group}]".encode() in text for group in GROUPS.values())


def _plugins_of(folder: Path) -> list[Plugin]:
    """Plug-ins of one distribution."""
    from importlib.metadata import Distribution

    distribution = Distribution.at(folder)
    name, version = distribution.metadata["Name"], distribution.version
    if not name:
        raise ValueError("METADATA: Name")
    return [
        Plugin(kind, point.name, point.value, name, version, folder)
        for kind, group in GROUPS.items()
        for point in distribution.entry_points
        if point.group == group
    ]


def _hidden_message(plugin: Plugin, first: Plugin) -> Message:
    return message(
        "plugins.name-taken",
        "plug-in {name} of {distribution} {version} is not used: {other} {other_version} has a {kind} of that name",
        name=plugin.name,
        distribution=plugin.distribution,
        version=plugin.version,
        other=first.distribution,
        other_version=first.version,
        kind=kind_text(plugin.kind),
    )

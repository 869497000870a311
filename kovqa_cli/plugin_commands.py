"""Commands of plug-ins (`kovqa_core/plugins.py`): their names stand in --help, and one is loaded when it is typed."""

from __future__ import annotations

from typing import Any

import typer
from kovqa_core.errors import KovqaError
from kovqa_core.messages import message
from kovqa_core.messages.languages import translate
from kovqa_core.plugins import (
    Plugin,
    broken_plugin,
    clash_warnings,
    find_plugin,
    find_plugins,
    load_plugin,
    plugin_names,
)
from typer.core import TyperCommand

from kovqa_cli.output.console import print_warnings


class PluginCommand(TyperCommand):
    """A command that is there by its name until somebody types it."""

    plugin: Plugin

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        try:
            return load_command(self.plugin).make_context(info_name, args, parent=parent, **extra)
        except KovqaError:
            if not extra.get("resilient_parsing"):  # at a Tab nobody reads errors
                raise
            return super().make_context(info_name, args, parent=parent, **extra)


def add_plugin_commands(app: Any, language: str, *, warn: bool) -> None:
    """Put the commands of plug-ins behind those of kovqa, which keep their names.

    Args:
        app: the group of all commands, as `typer.main.get_command` makes it.
        language: of the help.
        warn: say which plug-ins are not used, and why.
    """
    own = list(app.commands)
    if warn:
        print_warnings([*find_plugins().problems, *clash_warnings("command", own)])
    for name in plugin_names("command", own):
        plugin = find_plugin("command", name)
        assert plugin is not None
        origin = message(
            "plugins.command-help",
            "Of the plug-in {distribution} {version}.",
            distribution=plugin.distribution,
            version=plugin.version,
        )
        command = PluginCommand(
            name=name, callback=None, help=translate(origin, language), rich_markup_mode=None
        )
        command.plugin = plugin
        app.add_command(command)


def load_command(plugin: Plugin) -> Any:
    """The command that a plug-in brings: a function with options, or a typer.Typer with commands of its own.

    Raises:
        MachineError: it does not work.
    """
    value = load_plugin(plugin)
    outer = typer.Typer(add_completion=False, rich_markup_mode=None)
    try:
        if isinstance(value, typer.Typer):
            outer.add_typer(value, name=plugin.name)
            group: Any = typer.main.get_command(outer)
            return group.commands[plugin.name]
        outer.command(plugin.name)(value)
        return typer.main.get_command(outer)
    except Exception as error:  # whatever Typer makes of a function that is none, or of odd options
        raise broken_plugin(plugin, f"{type(error).__name__}: {error}") from error

"""Options typed before a subcommand: `kovqa runs --root X show r1`."""

from __future__ import annotations

import typer
from kovqa_core.errors import SettingsError
from kovqa_core.messages import message
from typer.core import TyperGroup


def pass_group_options(context: typer.Context) -> bool:
    """Hand the options typed before a subcommand to it: `kovqa runs --root X show r1` is `kovqa runs show --root X r1`.

    Called first by a group's callback. If an option is typed behind the subcommand as well, that one counts.

    Args:
        context: of the group.

    Returns:
        Is there a subcommand, which does the work?

    Raises:
        SettingsError: the subcommand has no such option.
    """
    name = context.invoked_subcommand
    if name is None:
        return False
    group = context.command
    subcommand = group.get_command(context, name) if isinstance(group, TyperGroup) else None
    known = {option.name for option in subcommand.params} if subcommand else set()
    typed = [option for option in context.command.params if _is_typed(context, option.name)]
    for option in typed:
        if option.name not in known:
            command = f"{context.command_path} {name}"
            raise SettingsError(
                message(
                    "cli.no-such-group-option",
                    "{command} has no option {option}",
                    command=command,
                    option=option.opts[0],
                ),
                message("cli.no-such-group-option.hint", "see {command} --help", command=command),
            )
    # What a context's default_map says of a subcommand are the defaults of that one's options.
    context.default_map = {name: {option.name: context.params[option.name] for option in typed}}
    return True


def _is_typed(context: typer.Context, option: str | None) -> bool:
    source = context.get_parameter_source(option or "")
    return source is not None and source.name == "COMMANDLINE"

"""What Typer itself says: the frame of --help, and mistakes in what was typed, as messages of kovqa's own."""

from __future__ import annotations

import inspect
import re
from typing import Any

import typer
from kovqa_core.errors import SettingsError, did_you_mean
from kovqa_core.messages import Message, message
from kovqa_core.messages.languages import translate, translate_help

# The frame of a help page. Typer asks gettext for some of these, and has others in its code.
_FRAME_TEXTS = {
    "Arguments": message("usage.arguments", "Arguments"),
    "Options": message("usage.options", "Options"),
    "Commands": message("usage.commands", "Commands"),
    "required": message("usage.required", "required"),
}
_USAGE_PREFIX = message("usage.prefix", "Usage:")
_HELP_OPTION = message("usage.help-option", "Show this message and exit.")


def translate_help_pages(command: Any, language: str) -> None:
    """Put all help texts of a command, and of those below it, into a language; they are found by their English.

    Args:
        command: of Typer, as `typer.main.get_command` makes it.
        language: not English.
    """
    from typer import core as typer_core

    def frame_text(english: str) -> str:
        return (
            translate(_FRAME_TEXTS[english], language)
            if english in _FRAME_TEXTS
            else _template(english, language)
        )

    # Typer's own words in help come from this one function of gettext, whose catalogues would have to be compiled
    # files of a system-wide domain.
    typer_core._ = frame_text  # type: ignore[assignment,attr-defined]
    _translate_command(command, language)


def _template(english: str, language: str) -> str:
    """Typer's texts that it fills in later: the braces stay."""
    templates = {
        "default: {default}": message("usage.default", "default: {default}", default="{default}"),
        "env var: {var}": message("usage.variable", "env var: {var}", var="{var}"),
    }
    return translate(templates[english], language) if english in templates else english


def _translate_command(command: Any, language: str) -> None:
    if command.help:
        command.help = translate_help(inspect.cleandoc(command.help), language)
    if command.short_help:
        command.short_help = translate_help(command.short_help, language)
    for parameter in command.params:
        if getattr(parameter, "help", None):
            parameter.help = translate_help(parameter.help, language)
    command.get_help_option = _translated_help_option(command, language)
    command.format_usage = _translated_usage(command, language)
    for subcommand in getattr(command, "commands", {}).values():
        _translate_command(subcommand, language)


def _translated_help_option(command: Any, language: str) -> Any:
    get_help_option = command.get_help_option

    def get_translated(context: Any) -> Any:
        option = get_help_option(context)
        if option is not None:
            option.help = translate(_HELP_OPTION, language)
        return option

    return get_translated


def _translated_usage(command: Any, language: str) -> Any:
    def format_usage(context: Any, formatter: Any) -> None:
        words = " ".join(command.collect_usage_pieces(context))
        formatter.write_usage(context.command_path, words, prefix=f"{translate(_USAGE_PREFIX, language)} ")

    return format_usage


def usage_error(error: Any) -> SettingsError | None:
    """A mistake in what was typed, as one line of kovqa's; None for what is none (a page of help).

    Args:
        error: a usage error of Typer.
    """
    context = getattr(error, "ctx", None)
    kind = type(error).__name__
    if kind == "NoArgsIsHelpError":
        return None
    problem = _usage_message(error, kind, context)
    if context is None:  # of an option without its value Typer does not say where it stood
        return SettingsError(problem)
    return SettingsError(
        problem, message("usage.see-help", "see {command} --help", command=context.command_path)
    )


def _usage_message(error: Any, kind: str, context: Any) -> Message:
    if kind == "NoSuchOption":
        problem = message("usage.no-such-option", "no such option: {option}", option=error.option_name)
        return did_you_mean(problem, error.possibilities) if error.possibilities else problem
    if kind == "MissingParameter":
        return _missing_message(error.param)
    if kind == "BadParameter":
        names = " / ".join(getattr(error.param, "opts", [])) or str(
            getattr(error.param, "human_readable_name", "")
        )
        return message(
            "usage.bad-value", "{option}: {reason}", option=names, reason=_value_reason(error.message)
        )
    if kind == "BadOptionUsage":
        if "does not take" in error.message:
            return message("usage.takes-no-value", "{option} takes no value", option=error.option_name)
        return message("usage.needs-value", "{option} needs a value", option=error.option_name)
    if found := re.match(r"No such command '(.*?)'", error.message):
        return _no_such_command(found[1], context)
    if found := re.match(r"Got unexpected extra argument\(s\) \((.*)\)$", error.message, re.DOTALL):
        return message("usage.extra-words", "unexpected words: {words}", words=found[1])
    if error.message.startswith("Missing command"):
        return message("usage.missing-command", "a command is missing")
    return message("usage.other", "{reason}", reason=error.message)


def _missing_message(parameter: Any) -> Message:
    if parameter.param_type_name == "argument":
        return message("usage.missing-argument", "{name} is missing", name=parameter.display_name_raw)
    return message("usage.missing-option", "{option} is missing", option=" / ".join(parameter.opts))


def _no_such_command(name: str, context: Any) -> Message:
    import difflib

    problem = message("usage.no-such-command", "no such command: {name}", name=name)
    near = difflib.get_close_matches(name, list(context.command.commands), n=3)
    return did_you_mean(problem, near) if near else problem


def _value_reason(reason: str) -> str:
    """Why a value is refused: what pydantic says of numbers and choices, by key; else its own words."""
    if "valid integer" in reason:
        return message("usage.not-a-whole-number", "not a whole number")
    if "valid number" in reason:
        return message("usage.not-a-number", "not a number")
    if found := re.search(r"(greater|less) than (or equal to )?(\S+)$", reason):
        if found[1] == "greater":
            return message("usage.too-small", "must be at least {bound}", bound=found[3])
        return message("usage.too-large", "must be at most {bound}", bound=found[3])
    if found := re.search(r"(?:Value error, )?'(.*)' is not one of (.*)\.$", reason):
        return message(
            "usage.not-a-choice",
            "{value} is not one of {choices}",
            value=found[1],
            choices=found[2].replace("'", ""),
        )
    return reason


def run_command(app: typer.Typer, language: str) -> Any:
    """Run what was typed, with help in a language: the exit code of typer.Exit, else what a command returns.

    Args:
        app: the command line.
        language: of help pages.
    """
    command = typer.main.get_command(app)
    if language != "en":
        translate_help_pages(command, language)
    return command(standalone_mode=False)

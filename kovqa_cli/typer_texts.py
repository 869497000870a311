"""What Typer itself says: the frame of --help, and mistakes in what was typed, as messages of kovqa's own."""

from __future__ import annotations

import functools
import inspect
import os
import re
import sys
import unicodedata
from collections.abc import Sequence
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
    # Filled in by Typer: the braces stay.
    "default: {default}": message("usage.default", "default: {default}", default="{default}"),
    "env var: {var}": message("usage.variable", "env var: {var}", var="{var}"),
}
_USAGE_PREFIX = message("usage.prefix", "Usage:")
_HELP_OPTION = message("usage.help-option", "Show this message and exit.")
# Typer wraps lines by the number of characters, but a Hangul syllable takes two columns: behind each stands this one
# while lines are wrapped.
_SECOND_COLUMN = "\0"
_NO_COMMAND = re.compile(r"No such command '(.*?)'")
_EXTRA_WORDS = re.compile(r"Got unexpected extra argument\(s\) \((.*)\)$", re.DOTALL)

# Texts that may be empty, and are said to be where that is wrong.
_MAY_BE_EMPTY = {
    "question", "text", "fill", "fill_unreadable", "team", "memo", "instruction", "sets", "changes", "column", "grid",
}  # fmt: skip


def translate_help_pages(command: Any, language: str) -> None:
    """Put all help texts of a command, and of those below it, into a language; they are found by their English.

    Args:
        command: of Typer, as `typer.main.get_command` makes it.
        language: not English.
    """
    from typer import core as typer_core

    def frame_text(english: str) -> str:
        text = _FRAME_TEXTS.get(english)
        return translate(text, language) if text else english

    # Typer's own words in help come from this one function of gettext, whose catalogues would have to be compiled
    # files of a system-wide domain.
    typer_core._ = frame_text  # type: ignore[assignment,attr-defined]
    command.context_class.formatter_class = _wide_formatter(command.context_class.formatter_class, language)
    _translate_command(command, language)


def _translate_command(command: Any, language: str) -> None:
    if command.help:
        command.help = translate_help(inspect.cleandoc(command.help), language)
    for parameter in command.params:
        if getattr(parameter, "help", None):
            parameter.help = translate_help(parameter.help, language)
    for subcommand in getattr(command, "commands", {}).values():
        _translate_command(subcommand, language)


def _wide_formatter(formatter_class: Any, language: str) -> Any:
    """Typer's formatter of help pages, by columns of the terminal in place of characters."""

    class WideFormatter(formatter_class):  # a class of Typer's, known when this runs
        def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
            super().write_usage(prog, args, _widen(f"{translate(_USAGE_PREFIX, language)} "))

        def write_text(self, text: str) -> None:
            super().write_text(_widen(text))

        def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
            # The help of --help is Typer's own; it makes that option anew for every page.
            texts = [
                (name, translate(_HELP_OPTION, language) if text == _HELP_OPTION else text)
                for name, text in rows
            ]
            super().write_dl([(_widen(name), _widen(text)) for name, text in texts], col_max, col_spacing)

        def getvalue(self) -> str:
            return str(super().getvalue()).replace(_SECOND_COLUMN, "")

    return WideFormatter


def _widen(text: str) -> str:
    return "".join(
        letter + _SECOND_COLUMN if unicodedata.east_asian_width(letter) in "WF" else letter for letter in text
    )


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
        return SettingsError(
            problem, message("usage.add-help.hint", "the same command with --help says what it takes")
        )
    see_help = message("usage.see-help", "see {command} --help", command=context.command_path)
    return SettingsError(problem, _usage_hint(error, kind, context) or see_help)


def _usage_hint(error: Any, kind: str, context: Any) -> Message | None:
    """What to type in its place, where that can be guessed."""
    from kovqa_cli.typed_mistakes import command_hint, extra_words_hint, near_options, option_hint

    if kind == "NoSuchOption" and not near_options(error.option_name, context):
        return option_hint(error.option_name, context)
    if found := _NO_COMMAND.match(error.message):
        return command_hint(found[1], context)
    if found := _EXTRA_WORDS.match(error.message):
        return extra_words_hint(found[1], context)
    return None


def _usage_message(error: Any, kind: str, context: Any) -> Message:
    if kind == "NoSuchOption":
        problem = message("usage.no-such-option", "no such option: {option}", option=error.option_name)
        from kovqa_cli.typed_mistakes import near_options

        near = near_options(error.option_name, context)
        return did_you_mean(problem, near) if near else problem
    if kind == "MissingParameter":
        return _missing_message(error.param)
    if kind == "BadParameter":
        return message(
            "usage.bad-value", "{option}: {reason}",
            option=parameter_name(error.param) if error.param else "", reason=_value_reason(error.message),
        )  # fmt: skip
    if kind == "BadOptionUsage":
        if "does not take" in error.message:
            return message("usage.takes-no-value", "{option} takes no value", option=error.option_name)
        return message("usage.needs-value", "{option} needs a value", option=error.option_name)
    if found := _NO_COMMAND.match(error.message):
        return _no_such_command(found[1], context)
    if found := _EXTRA_WORDS.match(error.message):
        return message("usage.extra-words", "unexpected words: {words}", words=found[1])
    if error.message.startswith("Missing command"):
        return message("usage.missing-command", "a command is missing")
    return message("usage.other", "{reason}", reason=error.message)


def _missing_message(parameter: Any) -> Message:
    name = parameter_name(parameter)
    if parameter.param_type_name == "argument":
        return message("usage.missing-argument", "{name} is missing", name=name)
    return message("usage.missing-option", "{option} is missing", option=name)


def _no_such_command(name: str, context: Any) -> Message:
    from kovqa_cli.typed_mistakes import near_commands

    problem = message("usage.no-such-command", "no such command: {name}", name=name)
    near = near_commands(name, list(context.command.commands))
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
    if found := re.match(r"[Pp]ath '(.*)' is not (readable|writable)", reason):
        return message("usage.may-not-be-read", "{path} may not be opened: see ls -l", path=found[1])
    if found := re.search(r"(?:Value error, )?'(.*)' is not one of (.*)\.$", reason):
        return message(
            "usage.not-a-choice",
            "{value} is not one of {choices}",
            value=found[1],
            choices=found[2].replace("'", ""),
        )
    return reason


def refuse_empty_values(command: Any) -> None:
    """Let no option and no argument have the empty text for a value: as a path it would be the current folder.

    Args:
        command: of Typer, with all below it.
    """
    for parameter in command.params:
        if not getattr(parameter, "is_flag", False) and parameter.name not in _MAY_BE_EMPTY:
            parameter.process_value = functools.partial(_process_value, parameter, parameter.process_value)
    for subcommand in getattr(command, "commands", {}).values():
        refuse_empty_values(subcommand)


def _process_value(parameter: Any, process: Any, context: Any, value: Any) -> Any:
    is_empty = value == "" or (isinstance(value, (list, tuple)) and "" in value)
    if is_empty and parameter.default != value and not context.resilient_parsing:
        name = parameter_name(parameter)
        raise SettingsError(
            message("usage.empty-value", "{option} is empty", option=name),
            message(
                "usage.empty-value.hint",
                "give a value, or leave {option} out; was a variable of the shell empty?",
                option=name,
            ),
        )
    return process(context, value)


def parameter_name(parameter: Any) -> str:
    """As people type it: `--output / -o`; the name of an argument."""
    if parameter.param_type_name == "argument":
        return str(parameter.display_name_raw)
    return " / ".join(parameter.opts)


def run_command(app: typer.Typer, language: str) -> Any:
    """Run what was typed, with help in a language: the exit code of typer.Exit, else what a command returns.

    Args:
        app: the command line.
        language: of help pages.
    """
    command = typer.main.get_command(app)
    refuse_empty_values(command)
    if language != "en":
        translate_help_pages(command, language)
    completes = "_KOVQA_COMPLETE" in os.environ
    if completes:
        from kovqa_cli.shell_completion import suit_shells

        suit_shells(os.environ)
    first = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if completes or first not in getattr(
        command, "commands", {}
    ):  # whoever types a name of ours waits for nothing
        from kovqa_cli.plugin_commands import add_plugin_commands

        add_plugin_commands(command, language, warn=not completes)
    return command(standalone_mode=False)

"""The app, its commands, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from kovqa_core import __version__
from kovqa_core.errors import DataError, KovqaError, MachineError, SettingsError
from kovqa_core.messages import message, shell_quote
from kovqa_core.messages.languages import LANGUAGES, known_language, shown_language
from kovqa_core.process_limits import find_limit

from kovqa_cli.commands import (
    benchmark,
    caption,
    chat,
    demo,
    doctor,
    download,
    evaluate,
    explain,
    export_model,
    import_model,
    index,
    models,
    predict,
    profiles,
    recipes,
    runs,
    serve,
    submit,
    sweep,
    tokenizer,
    train,
    view,
    vote,
)
from kovqa_cli.output.console import error_line, print_note
from kovqa_cli.stop_signals import interrupt_on_signals
from kovqa_cli.typer_texts import run_command, usage_error
from kovqa_cli.utf8_mode import ensure_utf8_mode

# Variables that stand for options.
_OPTION_VARIABLES = (
    "KOVQA_RECIPE", "KOVQA_PROFILE", "KOVQA_DATA", "KOVQA_TOKENIZER", "KOVQA_MODEL", "KOVQA_ROOT",
)  # fmt: skip

app = typer.Typer(
    name="kovqa",
    help="Korean visual question answering: from raw data to a trained model, an answer and a submission.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.add_typer(tokenizer.tokenizer_app, name="tokenizer")
app.command("index")(index.index)
app.command("download")(download.download)
app.command("train")(train.train)
app.command("sweep")(sweep.sweep)
app.command("predict")(predict.predict)
app.command("caption")(caption.caption)
app.command("chat")(chat.chat)
app.command("vote")(vote.vote)
app.command("explain")(explain.explain)
app.command("import")(import_model.import_)
app.command("export")(export_model.export)
app.command("submit")(submit.submit)
app.command("evaluate")(evaluate.evaluate)
app.command("benchmark")(benchmark.benchmark)
app.command("serve")(serve.serve)
app.command("view")(view.view)
app.add_typer(profiles.profiles_app, name="profiles")
app.command("models")(models.models)
app.add_typer(recipes.recipes_app, name="recipes")
app.add_typer(runs.runs_app, name="runs")
app.command("doctor")(doctor.doctor)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"kovqa {__version__}")
        raise typer.Exit


@app.callback()
def global_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and leave.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Options before the command."""


def run() -> None:
    """Run the app; every user's mistake is one line and its exit code, never a traceback."""
    with interrupt_on_signals():
        ensure_utf8_mode()
        _check_engine()
        try:
            _check_language()
            # The exit code of typer.Exit; else what a command returns: None.
            code = run_command(app, shown_language())
        except typer.TyperException as error:
            code = _report_usage_error(error)
        except typer.Abort:  # a question without an answer
            print_note(message("cli.aborted", "Aborted!"))
            code = 1
        except Exception as error:
            code = _report_error(error)
        if code:
            sys.exit(code)


def _report_usage_error(error: typer.TyperException) -> int:
    if (mistake := usage_error(error)) is not None:
        return _report_error(mistake)
    error.show()  # type: ignore[attr-defined]  # a page of help: all that it raises are its ClickException
    return error.exit_code


def _check_language() -> None:
    """KOVQA_LANG is a language that kovqa speaks: whoever sets it wants to read that one."""
    asked = os.environ.get("KOVQA_LANG", "")
    if asked and not known_language(asked):
        raise SettingsError(
            message("cli.unknown-language", "KOVQA_LANG={language} is not known", language=asked),
            message(
                "cli.unknown-language.hint", "set it to one of {languages}", languages=", ".join(LANGUAGES)
            ),
        )


def _report_error(error: Exception) -> int:
    """Print an error as one line, or the limit of this machine that it came from; its exit code."""
    try:
        error = find_limit(error) or _missing_package(error) or error
    except MemoryError:  # what the failed command holds is still in its frames
        os.write(2, b"kovqa: not enough memory\n")
        return MachineError.exit_code
    # A folder that may not be looked into.
    if isinstance(error, PermissionError) and isinstance(error.filename, str):
        from kovqa_core.messages.system_reasons import system_reason

        error = DataError(
            message(
                "cli.no-permission",
                "cannot use {path}: {reason}",
                path=error.filename,
                reason=system_reason(error),
            ),
            message(
                "cli.no-permission.hint",
                "see who may read it: ls -ld {path}",
                path=shell_quote(error.filename),
            ),
        )
    if not isinstance(error, KovqaError):
        raise error  # a bug of ours keeps its traceback
    if os.environ.get("KOVQA_DEBUG"):
        raise error
    print_note(error_line(_name_variable(error.message), error.hint))
    return error.exit_code


def _name_variable(problem: str) -> str:
    """A problem of a value that was not typed, but stands in a variable, with that one's name."""
    for name in _OPTION_VARIABLES:
        value = os.environ.get(name)
        if value and value in problem and name not in problem and value not in " ".join(sys.argv[1:]):
            return message("cli.from-variable", "{problem} (from {variable})", problem=problem, variable=name)
    return problem


def _missing_package(error: Exception) -> MachineError | None:
    if isinstance(error, KovqaError):
        return None
    from kovqa_core.missing_packages import find_missing_package

    return find_missing_package(error)


def _check_engine() -> None:
    """The engine must lie beside this command line, not in the folder it was started from."""
    import kovqa_core

    engine = Path(kovqa_core.__file__ or "").resolve().parent
    here = Path(__file__).resolve().parent.parent
    if engine.parent not in (here, here / "core"):
        sys.exit(
            f"kovqa: the engine found in {engine} is not the one of {here}; unset PYTHONPATH and try again"
        )

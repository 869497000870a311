"""Options several commands share, and their completion, which parses and imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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


def complete_profile(incomplete: str) -> list[str]:
    """Profile names that begin like this."""
    return _settings_names("profiles", incomplete)


def complete_recipe(incomplete: str) -> list[str]:
    """Recipe names that begin like this."""
    return _settings_names("recipes", incomplete)


def complete_source(incomplete: str) -> list[str]:
    """Data sets that begin like this."""
    from kovqa_core.index.sources import DATA_SOURCES

    return [name for name in DATA_SOURCES if name.startswith(incomplete)]


def complete_asset(incomplete: str) -> list[str]:
    """Assets that begin like this."""
    from kovqa_core.download.find_asset import asset_names

    return [name for name in asset_names() if name.startswith(incomplete)]


def complete_run(incomplete: str) -> list[str]:
    """Run folders here that begin like this."""
    return sorted(
        str(p.parent) for p in Path("runs").glob("*/run.yaml") if str(p.parent).startswith(incomplete)
    )


def complete_run_name(incomplete: str) -> list[str]:
    """Names of runs here that begin like this, or run folders where a path is typed."""
    named = sorted(path.parent.name for path in Path("runs").glob("*/run.yaml"))
    return [name for name in named if name.startswith(incomplete)] or complete_run(incomplete)


def _settings_names(kind: str, incomplete: str) -> list[str]:
    from kovqa_core.paths import settings_files

    return [name for name in settings_files(kind) if name.startswith(incomplete)]


RecipeOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        "-r",
        metavar="NAME",
        help="Experiment: a name or a YAML file.",
        autocompletion=complete_recipe,
        envvar="KOVQA_RECIPE",
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        "-p",
        metavar="NAME",
        help="Machine: a name or a YAML file. [default: what this machine is]",
        autocompletion=complete_profile,
        envvar="KOVQA_PROFILE",
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Run Python code that lies in the folder of a vision language model. Read it first.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change one setting: optim.lr=1e-5 (recipe), profile.precision=fp32.",
        metavar="KEY=VALUE",
    ),
]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        "--model",
        metavar="DIR",
        help="Run folder, step folder or Hugging Face folder. [default: the newest finished run here]",
        autocompletion=complete_run,
        envvar="KOVQA_MODEL",
    ),
]
KindOption = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        metavar="NAME",
        help="Only questions of this kind (the table's column `kind`). Repeatable; all: every kind.",
    ),
]
ImageFolderOption = Annotated[
    Path | None,
    typer.Option("--images", metavar="DIR", help="Folder that the table's image paths start from."),
]
AnswerListOption = Annotated[
    Path | None,
    typer.Option(
        "--answers",
        metavar="FILE",
        help="Answer from a list only, by likelihood: one a line, or an index. Vision language models.",
    ),
]
TemperatureOption = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        metavar="N",
        min=0.0,
        help="Sample answers: 0.7 is usual. [default: the likeliest]",
    ),
]
SamplingSeedOption = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", help="Of --temperature: same seed, same answers."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Only the essential value.")]
RunArgument = Annotated[
    str, typer.Argument(help="Run: its name below runs/, or a path.", autocompletion=complete_run_name)
]
RunFolderOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="Run folder. [default: runs/RECIPE-DATE]"),
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", "-n", help="Check, prepare run.yaml, print the command; start nothing."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is there.")]

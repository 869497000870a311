"""kovqa profiles: the machines kovqa knows."""

from __future__ import annotations

from typing import Annotated

import typer

from kovqa_cli import completion, group_options, options

profiles_app = typer.Typer(
    help="List, show, write and detect profiles of machines.", invoke_without_command=True
)


@profiles_app.callback()
def list_profiles(
    context: typer.Context, *, json: options.JsonOption = False, quiet: options.QuietOption = False
) -> None:
    """List all profiles."""
    if group_options.pass_group_options(context):
        return
    from kovqa_core.launch.machine_check import gpu_warnings, profile_of_this_machine
    from kovqa_core.machine.detect_profile import load_profile_here
    from kovqa_core.paths import settings_files

    from kovqa_cli.output import console, settings

    profiles = [load_profile_here(name) for name in settings_files("profiles")]
    console.print_warnings(gpu_warnings())
    settings.print_profiles(profiles, profile_of_this_machine(), as_json=json, quiet=quiet)


@profiles_app.command("show")
def show_profile(
    name: Annotated[str, typer.Argument(help="Profile name.", autocompletion=completion.complete_profile)],
    *,
    json: options.JsonOption = False,
) -> None:
    """Print a profile's YAML, to be saved and changed."""
    from kovqa_core.launch.launchers import check_launcher
    from kovqa_core.settings.resolve import find_settings, load_profile

    from kovqa_cli.output import settings

    profile, path = load_profile(name), find_settings("profiles", name)
    check_launcher(profile, str(path))
    settings.print_settings("profile", profile, path, as_json=json)


@profiles_app.command("new")
def new_profile(
    name: Annotated[str, typer.Argument(help="Name of yours, or a YAML file to write.")],
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="NAME", help="Profile it begins as.", autocompletion=completion.complete_profile
        ),
    ],
    *,
    sets: options.SetOption = None,
    force: options.ForceOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Write a profile of your own: a copy with changes."""
    from kovqa_core.launch.launchers import check_launcher_of
    from kovqa_core.settings.new_files import new_settings

    from kovqa_cli.output import progress, settings

    changes = [text.removeprefix("profile.") for text in sets or []]
    with progress.show_progress(quiet or json) as on_progress:
        path = new_settings(
            "profiles", name, source, changes, force=force, check=check_launcher_of, on_progress=on_progress
        )
    settings.print_new_settings("profile", path, as_json=json, quiet=quiet)


@profiles_app.command("detect")
def detect_profile(
    *,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="NAME", help="Write it: a name of yours, or a YAML file."),
    ] = None,
    force: options.ForceOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Print a profile of this machine, or of its SLURM cluster."""
    from pathlib import Path

    from kovqa_core.launch.machine_check import local_profiles
    from kovqa_core.machine.detect_profile import detect_profile_text, find_slurm
    from kovqa_core.machine.hardware import find_gpus
    from kovqa_core.settings.new_files import save_settings
    from kovqa_core.settings.resolve import is_settings_path
    from kovqa_core.settings.strict_yaml import parse_yaml

    from kovqa_cli.output import console, progress, settings

    name = Path(output).stem if output and is_settings_path(output) else output or "here.yaml"
    text = detect_profile_text(name, local_profiles())
    problem = find_slurm().problem
    console.print_warnings([*find_gpus().problems, *([problem] if problem else [])])
    if output is None:
        profile = parse_yaml(text, name).values
        console.print_outcome(text.rstrip().splitlines(), {"profile": profile}, as_json=json, quiet=quiet)
        return
    with progress.show_progress(quiet or json) as on_progress:
        path = save_settings("profiles", output, text, force=force, on_progress=on_progress)
    settings.print_new_settings("profile", path, as_json=json, quiet=quiet)


@profiles_app.command("schema")
def show_schema(*, json: options.JsonOption = False) -> None:
    """Print a profile's JSON schema, for editors.

    A profile's first line then names it: # yaml-language-server: $schema=FILE.
    """
    from kovqa_core.launch.launchers import launcher_names
    from kovqa_core.settings.profile import Profile

    from kovqa_cli.output import settings

    schema = Profile.model_json_schema()
    schema["required"] = [
        key for key in schema["required"] if key != "name"
    ]  # a file's name is the profile's
    schema["properties"]["launcher"]["enum"] = launcher_names()
    settings.print_schema(schema, as_json=json)

"""kovqa profiles: the machines kovqa knows."""

from __future__ import annotations

from typing import Annotated

import typer

from kovqa_cli import options

profiles_app = typer.Typer(help="Machines: list them, show one, write one.", invoke_without_command=True)


@profiles_app.callback()
def list_profiles(
    context: typer.Context, json: options.JsonOption = False, quiet: options.QuietOption = False
) -> None:
    """List all profiles."""
    if options.pass_group_options(context):
        return
    from kovqa_core.machine.hardware import nearest_profile, visible_gpus
    from kovqa_core.paths import settings_files
    from kovqa_core.settings.resolve import load_profile

    from kovqa_cli.output import console

    profiles = [load_profile(name) for name in settings_files("profiles")]
    here = nearest_profile(visible_gpus())
    if json:
        console.print_json({"profiles": [p.model_dump(mode="json") for p in profiles], "this_machine": here})
    elif quiet:
        console.print_result("\n".join(p.name for p in profiles))
    else:
        console.print_table(
            [("name", "left"), ("GPU", "left"), ("nodes × processes", "right"), ("launcher", "left"),
             ("precision", "left"), ("", "left")],
            [
                [p.name, f"{p.gpu} {p.gpu_memory_gb} GB" if p.gpu else "-",
                 f"{p.nodes} × {p.processes_per_node}", p.launcher, p.precision,
                 "this machine" if p.name == here else ""]
                for p in profiles
            ],
        )  # fmt: skip


@profiles_app.command("show")
def show_profile(
    name: Annotated[str, typer.Argument(help="Profile name.", autocompletion=options.complete_profile)],
    json: options.JsonOption = False,
) -> None:
    """Print a profile's YAML, ready to be saved under another name and changed."""
    from kovqa_core.settings.resolve import find_settings, load_profile

    from kovqa_cli.output import settings

    settings.print_settings("profile", load_profile(name), find_settings("profiles", name), as_json=json)


@profiles_app.command("new")
def new_profile(
    name: Annotated[str, typer.Argument(help="Name of yours, or a YAML file to write.")],
    source: Annotated[
        str,
        typer.Option("--from", help="Profile it begins as.", autocompletion=options.complete_profile),
    ],
    sets: options.SetOption = None,
    force: options.ForceOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Write a profile of your own: a copy with its comments, and the changes of --set."""
    from kovqa_core.settings.new_files import new_settings

    from kovqa_cli.output import console

    changed = [text.removeprefix("profile.") for text in sets or []]
    console.print_new_settings("profile", new_settings("profiles", name, source, changed, force), json, quiet)


@profiles_app.command("detect")
def detect_profile(
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Write it: a name of yours, or a YAML file."),
    ] = None,
    force: options.ForceOption = False,
) -> None:
    """Print a profile of this machine: its GPUs, cores and memory, and SLURM's partitions."""
    from pathlib import Path

    from kovqa_core.machine.detect_profile import detect_profile_text
    from kovqa_core.settings.new_files import save_settings
    from kovqa_core.settings.resolve import is_settings_path

    from kovqa_cli.output import console

    if output is None:
        console.print_result(detect_profile_text("here.yaml").rstrip())
        return
    name = Path(output).stem if is_settings_path(output) else output
    console.print_new_settings(
        "profile", save_settings("profiles", output, detect_profile_text(name), force), False, False
    )


@profiles_app.command("schema")
def show_schema() -> None:
    """Print the JSON schema of a profile, for editors: # yaml-language-server: $schema=FILE."""
    import json

    from kovqa_core.settings.profile import Profile

    from kovqa_cli.output import console

    # A file's name is the profile's.
    schema = Profile.model_json_schema()
    schema["required"] = [key for key in schema["required"] if key != "name"]
    console.print_result(json.dumps(schema, ensure_ascii=False, indent=1))

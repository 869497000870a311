"""kovqa profiles: the machines kovqa knows."""

from __future__ import annotations

from typing import Annotated

import typer

from kovqa_cli import options

app = typer.Typer(help="Machines: list them, show one, write one.", invoke_without_command=True)


@app.callback()
def list_profiles(context: typer.Context, json: options.Json = False, quiet: options.Quiet = False) -> None:
    """List all profiles."""
    if context.invoked_subcommand:
        return
    from kovqa_core.machine.hardware import fitting_profile, gpus
    from kovqa_core.paths import names
    from kovqa_core.settings.resolve import load_profile

    from kovqa_cli.output import console

    profiles = [load_profile(name) for name in names("profiles")]
    here = fitting_profile(gpus())
    if json:
        console.document({"profiles": [p.model_dump(mode="json") for p in profiles], "this_machine": here})
    elif quiet:
        console.out("\n".join(p.name for p in profiles))
    else:
        console.table(
            [("name", "left"), ("GPU", "left"), ("nodes × processes", "right"), ("launcher", "left"),
             ("precision", "left"), ("", "left")],
            [
                [p.name, f"{p.gpu} {p.gpu_memory_gb} GB" if p.gpu else "-",
                 f"{p.nodes} × {p.processes_per_node}", p.launcher, p.precision,
                 "this machine" if p.name == here else ""]
                for p in profiles
            ],
        )  # fmt: skip


@app.command("show")
def show_profile(
    name: Annotated[str, typer.Argument(help="Profile name.", autocompletion=options.complete_profile)],
) -> None:
    """Print a profile's YAML, ready to be saved under another name and changed."""
    from kovqa_core.files import read_text
    from kovqa_core.settings.resolve import load_profile, locate

    from kovqa_cli.output import console

    load_profile(name)
    console.out(read_text(locate("profiles", name)).rstrip())


@app.command("new")
def new_profile(
    name: Annotated[str, typer.Argument(help="Name of yours, or a YAML file to write.")],
    source: Annotated[
        str,
        typer.Option("--from", help="Profile it begins as.", autocompletion=options.complete_profile),
    ],
    sets: options.Set = None,
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a profile of your own: a copy with its comments, and the changes of --set."""
    from kovqa_core.settings.new_files import new_settings

    from kovqa_cli.output import console

    changed = [text.removeprefix("profile.") for text in sets or []]
    console.new_settings("profile", new_settings("profiles", name, source, changed, force), json, quiet)


@app.command("detect")
def detect_profile(
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Write it: a name of yours, or a YAML file."),
    ] = None,
    force: options.Force = False,
) -> None:
    """Print a profile of this machine: its GPUs, cores and memory, and SLURM's partitions."""
    from pathlib import Path

    from kovqa_core.machine.detect_profile import detected
    from kovqa_core.settings.new_files import keep_settings
    from kovqa_core.settings.resolve import is_path

    from kovqa_cli.output import console

    if output is None:
        console.out(detected("here.yaml").rstrip())
        return
    name = Path(output).stem if is_path(output) else output
    console.new_settings("profile", keep_settings("profiles", output, detected(name), force), False, False)


@app.command("schema")
def show_schema() -> None:
    """Print the JSON schema of a profile, for editors: # yaml-language-server: $schema=FILE."""
    import json

    from kovqa_core.settings.profile import Profile

    from kovqa_cli.output import console

    # A file's name is the profile's.
    schema = Profile.model_json_schema()
    schema["required"] = [key for key in schema["required"] if key != "name"]
    console.out(json.dumps(schema, ensure_ascii=False, indent=1))

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
    from kovqa_core.machine import fitting_profile, gpus
    from kovqa_core.paths import names
    from kovqa_core.settings.find import load_profile

    from kovqa_cli import show

    profiles = [load_profile(name) for name in names("profiles")]
    here = fitting_profile(gpus())
    if json:
        show.document({"profiles": [p.model_dump(mode="json") for p in profiles], "this_machine": here})
    elif quiet:
        show.out("\n".join(p.name for p in profiles))
    else:
        show.table(
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
    from kovqa_core.settings.find import load_profile, locate

    from kovqa_cli import show

    load_profile(name)
    show.out(read_text(locate("profiles", name)).rstrip())


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
    from kovqa_core.settings.new import new_settings

    from kovqa_cli import show

    changed = [text.removeprefix("profile.") for text in sets or []]
    show.new_settings("profile", new_settings("profiles", name, source, changed, force), json, quiet)


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

    from kovqa_core.detect import detected
    from kovqa_core.settings.find import is_path
    from kovqa_core.settings.new import keep_settings

    from kovqa_cli import show

    if output is None:
        show.out(detected("here.yaml").rstrip())
        return
    name = Path(output).stem if is_path(output) else output
    show.new_settings("profile", keep_settings("profiles", output, detected(name), force), False, False)


@app.command("schema")
def show_schema() -> None:
    """Print the JSON schema of a profile, for editors: # yaml-language-server: $schema=FILE."""
    import json

    from kovqa_core.settings.profile import Profile

    from kovqa_cli import show

    # A file's name is the profile's.
    schema = Profile.model_json_schema()
    schema["required"] = [key for key in schema["required"] if key != "name"]
    show.out(json.dumps(schema, ensure_ascii=False, indent=1))

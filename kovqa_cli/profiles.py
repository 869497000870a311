"""kovqa profiles: the machines kovqa knows."""

from __future__ import annotations

from typing import Annotated

import typer

from kovqa_cli import options

app = typer.Typer(help="Machines: list them, show one.", invoke_without_command=True)


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
            [("name", "left"), ("GPU", "left"), ("processes", "right"), ("precision", "left"), ("", "left")],
            [
                [p.name, f"{p.gpu} {p.gpu_memory_gb} GB" if p.gpu else "-", str(p.processes), p.precision,
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

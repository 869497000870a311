"""kovqa recipes: the experiments kovqa knows."""

from __future__ import annotations

from typing import Annotated

import typer

from kovqa_cli import options

app = typer.Typer(help="Experiments: list them, show one, make one of your own.", invoke_without_command=True)


@app.callback()
def list_recipes(context: typer.Context, json: options.Json = False, quiet: options.Quiet = False) -> None:
    """List all recipes."""
    if context.invoked_subcommand:
        return
    from kovqa_core.files import read_text
    from kovqa_core.paths import names
    from kovqa_core.settings.resolve import load_recipe

    from kovqa_cli.output import console

    found = {name: (load_recipe(name), read_text(path)) for name, path in names("recipes").items()}
    if json:
        console.document({"recipes": [recipe.model_dump(mode="json") for recipe, _ in found.values()]})
    elif quiet:
        console.out("\n".join(found))
    else:
        console.table(
            [("name", "left"), ("family", "left"), ("task", "left"), ("batch", "right"), ("what", "text")],
            [
                [name, r.family, r.task, str(r.optim.global_batch), text.splitlines()[0].lstrip("# ")]
                for name, (r, text) in found.items()
            ],
        )


@app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(help="Recipe name.", autocompletion=options.complete_recipe)],
) -> None:
    """Print a recipe's YAML."""
    from kovqa_core.files import read_text
    from kovqa_core.settings.resolve import load_recipe, locate

    from kovqa_cli.output import console

    load_recipe(name)
    console.out(read_text(locate("recipes", name)).rstrip())


@app.command("new")
def new_recipe(
    name: Annotated[str, typer.Argument(help="Name of yours, or a YAML file to write.")],
    source: Annotated[
        str,
        typer.Option("--from", help="Recipe it begins as.", autocompletion=options.complete_recipe),
    ],
    sets: options.Set = None,
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a recipe of your own: a copy with its comments, and the changes of --set."""
    from kovqa_core.plan.training import model_config
    from kovqa_core.settings.new_files import new_settings

    from kovqa_cli.output import console

    path = new_settings("recipes", name, source, sets or [], force, model_config)
    console.new_settings("recipe", path, json, quiet)

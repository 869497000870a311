"""kovqa recipes: the experiments kovqa knows."""

from __future__ import annotations

from typing import Annotated

import typer

from kovqa_cli import completion, group_options, options

recipes_app = typer.Typer(help="List, show and write recipes of experiments.", invoke_without_command=True)


@recipes_app.callback()
def list_recipes(
    context: typer.Context, *, json: options.JsonOption = False, quiet: options.QuietOption = False
) -> None:
    """List all recipes."""
    if group_options.pass_group_options(context):
        return
    from kovqa_core.files import read_text
    from kovqa_core.paths import settings_files
    from kovqa_core.settings.resolve import load_recipe

    from kovqa_cli.output import settings

    recipes = {name: (load_recipe(name), read_text(path)) for name, path in settings_files("recipes").items()}
    settings.print_recipes(recipes, as_json=json, quiet=quiet)


@recipes_app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(help="Recipe name.", autocompletion=completion.complete_recipe)],
    *,
    json: options.JsonOption = False,
) -> None:
    """Print a recipe's YAML."""
    from kovqa_core.settings.resolve import find_settings, load_recipe

    from kovqa_cli.output import settings

    settings.print_settings("recipe", load_recipe(name), find_settings("recipes", name), as_json=json)


@recipes_app.command("new")
def new_recipe(
    name: Annotated[str, typer.Argument(help="Name of yours, or a YAML file to write.")],
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="NAME", help="Recipe it begins as.", autocompletion=completion.complete_recipe
        ),
    ],
    *,
    sets: options.SetOption = None,
    force: options.ForceOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Write a recipe of your own: a copy with changes."""
    from kovqa_core.models.config import read_model_settings
    from kovqa_core.settings.new_files import new_settings

    from kovqa_cli.output import progress, settings

    with progress.show_progress(quiet or json) as on_progress:
        path = new_settings(
            "recipes", name, source, sets or [],
            force=force, check=read_model_settings, on_progress=on_progress,
        )  # fmt: skip
    settings.print_new_settings("recipe", path, as_json=json, quiet=quiet)


@recipes_app.command("schema")
def show_schema(*, json: options.JsonOption = False) -> None:
    """Print a recipe's JSON schema, for editors.

    A recipe's first line then names it: # yaml-language-server: $schema=FILE. Which keys `model` has depends on `family`.
    """
    from kovqa_core.errors import KovqaError
    from kovqa_core.models import family_names, family_part
    from kovqa_core.models.recipe_keys import recipe_schema

    from kovqa_cli.output import console, settings

    families = []
    for family in family_names():
        try:
            family_part(family, "ModelConfig")
        except KovqaError as error:  # of a plug-in; the others have their keys all the same
            console.print_warnings([error.message])
        else:
            families.append(family)
    settings.print_schema(recipe_schema(families), as_json=json)

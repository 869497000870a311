"""What `kovqa profiles` and `kovqa recipes` print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kovqa_cli.output import console

if TYPE_CHECKING:
    from kovqa_core.settings.profile import Profile
    from kovqa_core.settings.recipe import Recipe

SettingsName = Literal["profile", "recipe"]


def print_settings(name: SettingsName, settings: Profile | Recipe, path: Path, *, as_json: bool) -> None:
    """One profile or recipe: its file as it stands, or its values with every default."""
    from kovqa_core.files import read_text

    if as_json:
        console.print_json({name: settings.model_dump(mode="json"), "path": str(path)})
    else:
        console.print_result(read_text(path).rstrip())

"""What completion offers; it parses and imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

import typer


def complete_profile(incomplete: str) -> list[str]:
    """Profile names that begin like this."""
    return _settings_names("profiles", incomplete)


def complete_recipe(incomplete: str) -> list[str]:
    """Recipe names that begin like this."""
    return _settings_names("recipes", incomplete)


def complete_setting(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Keys of recipes and profiles, or values of a key, that begin like this; with what they mean."""
    from kovqa_cli.setting_completion import setting_completions, settings_of_command

    return setting_completions(settings_of_command(context), incomplete)


def complete_source(incomplete: str) -> list[str]:
    """Data sets that begin like this."""
    from kovqa_core.index.sources import source_names

    return [name for name in source_names() if name.startswith(incomplete)]


def complete_benchmark_sets(incomplete: str) -> list[str]:
    """Published sets, of names with commas between them the last."""
    from kovqa_core.data.benchmark_sets import BENCHMARK_SETS

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in (*BENCHMARK_SETS, "all") if name.startswith(last)]


def complete_asset(incomplete: str) -> list[str]:
    """Assets that begin like this."""
    from kovqa_core.download.find_asset import asset_names

    return [name for name in asset_names() if name.startswith(incomplete)]


def complete_explain_method(incomplete: str) -> list[str]:
    """Ways to explain an answer that begin like this."""
    from kovqa_core.explain import METHODS

    return [name for name in METHODS if name.startswith(incomplete)]


def complete_choice_score(incomplete: str) -> list[str]:
    """Ways to compare choices that begin like this."""
    from kovqa_core.data.decoding import CHOICE_SCORES

    return [name for name in CHOICE_SCORES if name.startswith(incomplete)]


def complete_run(incomplete: str) -> list[str]:
    """Run folders here that begin like this."""
    return sorted(str(folder) for folder in _launched_runs() if str(folder).startswith(incomplete))


def complete_model(incomplete: str) -> list[str]:
    """Run folders here, and models of the hub on this machine, that begin like this."""
    from kovqa_core.download.hub_copies import hub_models_here

    models = {name for name in hub_models_here() if name.startswith(incomplete)}
    return [*complete_run(incomplete), *sorted(models)]


def complete_run_name(incomplete: str) -> list[str]:
    """Names of runs here that begin like this, or run folders where a path is typed."""
    named = sorted(folder.name for folder in _launched_runs())
    return [name for name in named if name.startswith(incomplete)] or complete_run(incomplete)


def _launched_runs() -> list[Path]:
    """Runs here in which something was started."""
    from kovqa_core.runs.folder import was_launched

    return [path.parent for path in Path("runs").glob("*/run.yaml") if was_launched(path.parent)]


def _settings_names(kind: str, incomplete: str) -> list[str]:
    from kovqa_core.paths import settings_files

    return [name for name in settings_files(kind) if name.startswith(incomplete)]

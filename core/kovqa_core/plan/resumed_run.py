"""What `kovqa train --resume` goes on with: the run's own experiment, on a machine that may be another.

Machine settings (-p, --set profile.…, KOVQA_PROFILE__…) apply. Settings of the experiment stay as the run has
them: whatever says otherwise is refused by name. Rate, clipping and length alone may be changed on the way, by
`--change`; each change is kept in `run.yaml` with the step from which it counts.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from kovqa_core.download.hub_copies import is_same_hub_model
from kovqa_core.errors import SettingsError
from kovqa_core.machine.detect_profile import load_profile_document
from kovqa_core.messages import Message, join_messages, message, shell_quote
from kovqa_core.plan.input_checks import require_falling_rate
from kovqa_core.runs import manifest
from kovqa_core.runs.resume_point import find_resume_point
from kovqa_core.runs.step_folders import step_number
from kovqa_core.runs.summary import flatten_settings
from kovqa_core.settings.code_consent import set_code_consent, trusts_code
from kovqa_core.settings.overrides import apply_overrides, renamed_path
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.renamed_keys import recipe_keys
from kovqa_core.settings.resolve import (
    FlagValue,
    ResolvedSettings,
    is_typed,
    load_document,
    override_documents,
)
from kovqa_core.settings.run import RecipeChange, Run, part_origin, setting_origin
from kovqa_core.settings.strict_yaml import (
    KeyPath,
    SettingsDocument,
    build_settings,
    dotted_path,
    inline_yaml,
    is_known_key,
)

# What a run may be given on the way: neither the model nor the data, nor what its optimizer has kept, depends on it.
CHANGEABLE_KEYS = ("optim.lr", "optim.min_lr", "optim.max_grad_norm", "optim.steps", "optim.epochs")
TRACK_KEY = "train.track"  # who watches is no part of the experiment: another one may from any resume on
_LENGTH_KEYS = ("optim.steps", "optim.epochs")
_MAX_NAMED_SETTINGS = 4  # in one message


@dataclass(frozen=True)
class TypedSettings:
    """What was typed of settings; None: nothing.

    Attributes:
        recipe, profile: names or paths.
        sets: `a.b=c` texts.
        flags: explicit flags, as recipe keys.
        changes: `a.b=c` texts of --change.
    """

    recipe: str | None = None
    profile: str | None = None
    sets: Sequence[str] = ()
    flags: Mapping[str, FlagValue] | None = None
    changes: Sequence[str] = ()


@dataclass(frozen=True)
class _OtherSetting:
    """A setting of the experiment that is not the run's."""

    key: str
    run_value: object
    typed_value: object
    place: str  # where it was typed or written


def resume_settings(
    run: Run, folder: Path, typed: TypedSettings, environ: Mapping[str, str] = os.environ
) -> tuple[ResolvedSettings, list[RecipeChange]]:
    """Settings with which a run goes on, and all its changes so far, those typed now included.

    Args:
        run: as it is stored.
        folder: of the run, as it was typed.
        typed: what was typed now.
        environ: variables.

    Raises:
        SettingsError: the experiment is another than the run's (each setting, and who set it, is named); a
            change of what cannot be changed.
    """
    run, changes = _change_recipe(run, folder, typed.changes)
    stored = _stored_document(run, "recipe")
    profile = load_profile_document(typed.profile) if typed.profile else _stored_document(run, "profile")
    requested = override_documents(stored, profile, typed.sets, typed.flags or {}, environ)
    changed_now = set(_changed_keys(run, typed.changes))
    others = list(_other_recipe_file(run, typed.recipe, environ))
    for other in _other_settings(run, requested):
        if other.key not in changed_now:
            others.append(other)
        # What the run had before is its first command typed again; a variable that stands since then gives way.
        elif other.place.startswith("--") and not any(
            other.key == change.key and other.typed_value == change.before for change in changes
        ):
            raise _set_and_changed_error(run, other)
    if others:
        raise _other_settings_error(run, folder, others)
    origin = {key: place for key, place in run.origin.items() if not key.startswith("profile.")}
    # The profile is the one of now, and so is where its values came from.
    origin |= {key: place for key, place in requested.origin.items() if key.startswith("profile.")}
    track_place = requested.origin.get(f"recipe.{TRACK_KEY}")
    origin |= {f"recipe.{TRACK_KEY}": track_place} if track_place else {}
    recipe = _moved_data(run.recipe, requested.recipe)
    # Of this command alone: the run does not keep it, so it is neither the run's nor another.
    recipe = set_code_consent(recipe, trust_code=trusts_code(requested.recipe))
    return ResolvedSettings(recipe, requested.profile, origin), changes


def _stored_document(run: Run, part: str) -> SettingsDocument:
    """The recipe or profile of a run, with the places it came from."""
    settings: Recipe | Profile = run.recipe if part == "recipe" else run.profile
    return SettingsDocument(settings.model_dump(mode="json"), part_origin(run.origin, part))


# ------------------------------------------------------------------------ what is not the run's


def _other_settings(run: Run, requested: ResolvedSettings) -> Iterator[_OtherSetting]:
    """Typed settings that differ from the run's own recipe."""
    then, now = map(_flat_settings, (run.recipe, requested.recipe))
    for key in sorted({*then, *now}):
        if key == TRACK_KEY or _is_same_value(then.get(key), now.get(key)):
            continue
        if not _is_moved(run, key, now.get(key)):
            place = setting_origin(requested.origin, f"recipe.{key}")
            yield _OtherSetting(key, then.get(key), now.get(key), place)


def _other_recipe_file(run: Run, recipe: str | None, environ: Mapping[str, str]) -> Iterator[_OtherSetting]:
    """What the file of `-r` says otherwise: the recipe's name, or values that the run once took from it.

    What was typed when the run began is not compared: without it the file says something else, as it did then.
    """
    if recipe is None:
        return
    document = load_document("recipes", recipe)
    place = f"KOVQA_RECIPE={recipe}" if environ.get("KOVQA_RECIPE") == recipe else f"-r {recipe}"
    if document.values["name"] != run.recipe.name:
        yield _OtherSetting("recipe", run.recipe.name, document.values["name"], place)
        return
    in_file, in_run = map(_flat_settings, (build_settings(Recipe, document), run.recipe))
    for key in sorted({*in_file, *in_run}):
        if key == TRACK_KEY or is_typed(setting_origin(run.origin, f"recipe.{key}")):
            continue
        if not _is_same_value(in_run.get(key), in_file.get(key)):
            where = document.where(tuple(key.split(".")))
            yield _OtherSetting(key, in_run.get(key), in_file.get(key), where)


def _flat_settings(recipe: Recipe) -> dict[str, object]:
    """What a run keeps of a recipe, by dotted keys."""
    return flatten_settings(set_code_consent(recipe, trust_code=False).model_dump(mode="json"))


def _is_same_value(then: object, now: object) -> bool:
    """Equal; or two names of one file or folder, of two files with the same bytes, or of one model of the hub."""
    if then == now:
        return True
    if not isinstance(then, str) or not isinstance(now, str):
        return False
    if is_same_hub_model(then, now):
        return True
    paths = Path(then).expanduser(), Path(now).expanduser()
    try:
        if all(path.is_file() for path in paths):
            return filecmp.cmp(*paths, shallow=False)
        return all(path.is_dir() for path in paths) and paths[0].samefile(paths[1])
    except OSError:
        return False


def _is_moved(run: Run, key: str, place: object) -> bool:
    """Does the run's own data lie there now? Where data lies is a matter of the machine."""
    if not isinstance(place, str):
        return False
    if key == "data.index":
        fingerprint = manifest.index_facts(place).fingerprint
        return fingerprint is not None and fingerprint == manifest.learned_fingerprint(run)
    before = run.recipe.data.images
    return key == "data.images" and not (before and Path(before).is_dir())


def _moved_data(stored: Recipe, requested: Recipe) -> Recipe:
    """The run's recipe, with its data where it lies now, and watched as is typed now; all else was found equal."""
    places = {"index": requested.data.index, "images": requested.data.images}
    return stored.model_copy(update={"data": stored.data.model_copy(update=places), "train": requested.train})


def _other_settings_error(run: Run, folder: Path, others: Sequence[_OtherSetting]) -> SettingsError:
    named: Message = join_messages("; ", [_describe(run, other) for other in others[:_MAX_NAMED_SETTINGS]])
    if len(others) > _MAX_NAMED_SETTINGS:
        named = message(
            "plan.and-more-settings",
            "{named}; and {count} more",
            named=named,
            count=len(others) - _MAX_NAMED_SETTINGS,
        )
    changeable = [
        other
        for other in others
        if (other.key in CHANGEABLE_KEYS and other.key not in _LENGTH_KEYS) or other.key == _length_key(run)
    ]
    if len(changeable) == len(others):
        hint = message(
            "plan.change-setting.hint",
            "leave it out; or change it from here on: kovqa train --resume -o {folder} {changes}",
            folder=shell_quote(folder),
            changes=" ".join(
                f"--change {other.key}={inline_yaml(other.typed_value)}" for other in changeable
            ),
        )
    else:
        hint = message(
            "plan.other-recipe.hint", "leave that out to go on, or choose another -o to begin a new run"
        )
    return SettingsError(
        message(
            "plan.other-recipe",
            "{folder} was started with other settings: {difference}",
            folder=folder,
            difference=named,
        ),
        hint,
    )


def _describe(run: Run, other: _OtherSetting) -> Message:
    change = next((change for change in reversed(run.changes) if change.key == other.key), None)
    if change is not None:
        return message(
            "plan.changed-key-since",
            "{key} is {old} since step {step}, and {new} by {place}",
            key=other.key,
            old=inline_yaml(other.run_value),
            step=change.step,
            new=inline_yaml(other.typed_value),
            place=other.place,
        )
    return message(
        "plan.changed-key",
        "{key} is {old} there, and {new} by {place}",
        key=other.key,
        old=inline_yaml(other.run_value),
        new=inline_yaml(other.typed_value),
        place=other.place,
    )


# --------------------------------------------------------------------------------- what changes


def _changed_keys(run: Run, texts: Sequence[str]) -> list[str]:
    """Keys that `--change` names, by their names of today."""
    renamed = recipe_keys(run.recipe.family)
    return [dotted_path(renamed_path(tuple(t.partition("=")[0].strip().split(".")), renamed)) for t in texts]


def _set_and_changed_error(run: Run, other: _OtherSetting) -> SettingsError:
    return SettingsError(
        message(
            "plan.set-and-changed",
            "{key} is given twice: {change} by {changed_by}, {value} by {place}",
            key=other.key,
            change=inline_yaml(other.run_value),
            changed_by=setting_origin(run.origin, f"recipe.{other.key}"),
            value=inline_yaml(other.typed_value),
            place=other.place,
        ),
        message("plan.set-and-changed.hint", "keep --change alone: it counts from here on"),
    )


def _change_recipe(run: Run, folder: Path, texts: Sequence[str]) -> tuple[Run, list[RecipeChange]]:
    """The run with changed settings, and all its changes; a value that it has already changes nothing."""
    if not texts:
        return run, list(run.changes)
    # By checksums, as the workers will choose it: a change counts from the step they go on from.
    checkpoint = find_resume_point(folder, checksums=True).step
    step = step_number(checkpoint.name) if checkpoint else 0
    before = _stored_document(run, "recipe")
    typed = {text: f"--change {text}" for text in texts}
    document = apply_overrides(before, typed, typed, "", recipe_keys(run.recipe.family))
    for path, place in document.origin.items():  # before values are read: of a wrong key none is right
        if place in typed.values():
            if not is_known_key(Recipe, path):
                raise _unknown_change(document, path, place)
            _require_changeable(run, dotted_path(path))  # of a whole mapping (optim={…}) its own name
    recipe = build_settings(Recipe, document)
    then, now = (flatten_settings(r.model_dump(mode="json")) for r in (run.recipe, recipe))
    keys = [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]
    # Where the last checkpoint is older than an earlier change (step folders were removed), that one counts
    # from there, too.
    earlier = [change.model_copy(update={"step": min(change.step, step)}) for change in run.changes]
    new = [
        RecipeChange(
            step=step,
            key=key,
            before=cast("int | float | None", then.get(key)),
            value=cast("int | float | None", now.get(key)),
        )
        for key in keys
    ]
    places = {f"recipe.{key}": document.where(tuple(key.split("."))) for key in keys}
    changed = run.model_copy(update={"recipe": recipe, "origin": {**run.origin, **places}})
    if keys:
        require_falling_rate(recipe, changed.origin)
    return changed, [*earlier, *new]


def _unknown_change(document: SettingsDocument, path: KeyPath, place: str) -> SettingsError:
    """The error for a key that no recipe has: of the machine, or misspelt."""
    if path[0] == "profile":
        return SettingsError(
            message(
                "plan.change-of-machine",
                "{place}: the machine's settings may be others at every --resume, without --change",
                place=place,
            ),
            message(
                "plan.change-of-machine.hint",
                "use {option} instead",
                option=f"--set {shell_quote(place.removeprefix('--change '))}",
            ),
        )
    try:
        build_settings(Recipe, document)
    except SettingsError as error:
        return error
    raise AssertionError(path)  # unknown keys are forbidden


def _require_changeable(run: Run, key: str) -> None:
    if key == TRACK_KEY:
        raise SettingsError(
            message(
                "plan.change-of-trackers",
                "--change {key}: trackers may be others at every --resume, without --change",
                key=key,
            ),
            message("plan.change-of-machine.hint", "use {option} instead", option=f"--set {key}=[…]"),
        )
    if key not in CHANGEABLE_KEYS:
        raise SettingsError(
            message("plan.not-changeable", "--change {key}: only a new run can have another one", key=key),
            message(
                "plan.not-changeable.hint",
                "on the way only these change: {keys}; begin a new run with another -o",
                keys=", ".join(CHANGEABLE_KEYS),
            ),
        )
    used = _length_key(run)
    if key in _LENGTH_KEYS and key != used:
        raise SettingsError(
            message("plan.other-length", "--change {key}: this run's length is {used}", key=key, used=used),
            message("plan.other-length.hint", "change that one: --change {used}=N", used=used),
        )


def _length_key(run: Run) -> str:
    """By which of both units a run knows its length."""
    return "optim.steps" if run.recipe.optim.steps else "optim.epochs"

"""What a training needs as input: index, images, tokenizer, weights; and settings that contradict each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from kovqa_core.errors import SettingsError
from kovqa_core.evaluate.metrics import require_metric
from kovqa_core.index.reader import open_index
from kovqa_core.messages import Message, message
from kovqa_core.missing_packages import FAMILY_PACKAGES, missing_package_error, missing_packages
from kovqa_core.models.config import read_model_settings
from kovqa_core.plan.batch_notes import count_training_rows, require_loss_micro_batch, require_whole_batch
from kovqa_core.settings.code_consent import TRUST_FLAG, TRUST_SETTING, set_code_consent, trusts_code
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.resolve import ResolvedSettings, is_typed
from kovqa_core.settings.run import RUN_FILE, Run, part_origin, setting_origin
from kovqa_core.settings.strict_yaml import SettingsDocument, inline_yaml


def input_checks(settings: ResolvedSettings) -> list[Callable[[], object]]:
    """Checks of index, images, tokenizer and weights: done now, on paper, not later on a GPU.

    Raises:
        SettingsError: at once, where the settings themselves are wrong.
    """
    recipe = settings.recipe
    origin = {**part_origin(settings.origin, "recipe"), (): recipe_place(recipe)}
    document = SettingsDocument(recipe.model_dump(mode="json"), origin)
    config = read_model_settings(document)
    require_metric(recipe.eval.metric, recipe.task)
    require_loss_micro_batch(recipe, config)
    if recipe.data.index is None:
        raise SettingsError(
            message("plan.no-index", "no index named"),
            message("plan.no-index.hint", "give one: --data DIR (write it with kovqa index)"),
        )
    images = Path(recipe.data.images) if recipe.data.images and not left_to_node_setup(settings) else None
    return [
        partial(_check_index, Path(recipe.data.index), images, recipe),
        *config.required_files(),
    ]


def require_packages(family: str, trackers: Sequence[str]) -> None:
    """See that what trains a family's models is installed, with the files of the default tracker; nothing is imported.

    Raises:
        MachineError: it is not; names all of it at once.
    """
    files = ("tensorboardX",) if "tensorboard" in trackers else ()
    missing = missing_packages((*FAMILY_PACKAGES.get(family, ("torch",)), *files))
    if missing:
        raise missing_package_error(missing)


def recipe_place(recipe: Recipe) -> Message:
    """Where a setting stands that nobody typed."""
    return message("plan.recipe-place", "recipe {name}", name=recipe.name)


def left_to_node_setup(settings: ResolvedSettings) -> list[Message]:
    """What is not here and will be on the nodes, for a node's setup copies it there."""
    images = settings.recipe.data.images
    if images is None or Path(images).is_dir() or not settings.profile.slurm.node_setup:
        return []
    return [
        message(
            "plan.images-on-nodes",
            "images {images} are not here: slurm.node_setup is to bring them to each node",
            images=images,
        )
    ]


def _check_index(folder: Path, images: Path | None, recipe: Recipe) -> None:
    index = open_index(folder, images)
    if recipe.task == "vqa":
        index.answers()
    index.check_first_images()
    require_whole_batch(folder, count_training_rows(index, recipe.data), recipe.optim.global_batch)


def require_typed_code_consent(settings: ResolvedSettings) -> None:
    """See that code of a base model runs because of what was typed, and not because a recipe says so.

    Raises:
        SettingsError: `model.trust_remote_code` stands in a recipe's file alone.
    """
    place = setting_origin(settings.origin, f"recipe.{TRUST_SETTING}")
    if trusts_code(settings.recipe) and not is_typed(place):
        raise SettingsError(
            message(
                "plan.recipe-trusts-code",
                "{place}: model.trust_remote_code: Python code of the base model would run, which no file decides",
                place=place or recipe_place(settings.recipe),
            ),
            message(
                "plan.recipe-trusts-code.hint", "if you have read that code and trust it: --trust-remote-code"
            ),
        )


def without_stored_consent(run: Run) -> Run:
    """A run as it is stored, without the permission to run code that earlier versions kept in `run.yaml`."""
    return run.model_copy(update={"recipe": set_code_consent(run.recipe, trust_code=False)})


def stored_consent_notes(stored: Run, settings: ResolvedSettings) -> list[Message]:
    """That a permission which an earlier version kept is not followed, unless it was typed again."""
    if not trusts_code(stored.recipe) or trusts_code(settings.recipe):
        return []
    return [
        message(
            "plan.stored-code-consent",
            "{file}: model.trust_remote_code is not followed: if the base model needs code of its own, add {flag}",
            file=stored.folder / RUN_FILE,
            flag=TRUST_FLAG,
        )
    ]


def replaced_notes(settings: ResolvedSettings) -> list[Message]:
    """Which settings of the recipe do not count, because their other unit was typed: steps by epochs, and so on."""
    return [
        message(
            "plan.replaced-setting",
            "{by} replaces {key} {value} ({place})",
            by=each.by_place,
            key=each.key,
            value=inline_yaml(each.value),
            place=each.place,
        )
        for each in settings.replaced
    ]


def require_falling_rate(recipe: Recipe, origin: Mapping[str, str]) -> None:
    """See that the learning rate does not end above its peak.

    Not a rule of the settings themselves: runs of earlier versions that have it so stay readable.

    Args:
        recipe: of a run that begins, or that was changed.
        origin: where each setting came from (`Run.origin`).

    Raises:
        SettingsError: `optim.min_lr` is above `optim.lr`.
    """
    optim = recipe.optim
    if optim.min_lr <= optim.lr:
        return
    places = [setting_origin(origin, f"recipe.optim.{key}") for key in ("min_lr", "lr")]
    # Whichever was typed; a default of min_lr comes from nowhere.
    place = next(filter(is_typed, places), next(filter(None, places), recipe_place(recipe)))
    raise SettingsError(
        message(
            "plan.rising-rate",
            "{place}: optim.min_lr, with which a run ends, is {min_lr:g}, above optim.lr, {lr:g}",
            place=place,
            min_lr=optim.min_lr,
            lr=optim.lr,
        ),
        message("plan.rising-rate.hint", "lower optim.min_lr too, to {lr:g} at most", lr=optim.lr),
    )

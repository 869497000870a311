"""What a run takes: steps, epochs, hours, room on the disk, energy. On paper, as far as somebody knows.

`known_speeds.yaml` holds the speeds that were measured or counted, each with its source. Where it has none the time is
not known until the first steps are made: `train/meter.py` then says it, by the clock.
"""

from __future__ import annotations

import functools
import shutil
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from kovqa_core.errors import KovqaError
from kovqa_core.index.reader import open_training_index
from kovqa_core.messages import Message, message
from kovqa_core.models.config import recipe_model_config
from kovqa_core.models.memory import StepMemory
from kovqa_core.plan.batch_notes import count_training_rows
from kovqa_core.runs.events import TrainStepEvent
from kovqa_core.runs.log_file import read_logged_events
from kovqa_core.runs.step_folders import list_step_folders
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.run import Run
from kovqa_core.settings.strict_yaml import StrictSettings, build_settings, read_yaml

MEASURED_STEPS = 50  # of a launch, after which its own clock says how long it takes
_OWN_LINES = 20  # lines of a run's log whose speed counts
_TABLE = Path(__file__).with_name("known_speeds.yaml")


class TrainingSpeed(StrictSettings):
    """A speed of the table: of one process on one machine, with one model."""

    machine: str
    device: Literal["cpu", "cuda"]
    gpu: str = ""
    precision: str
    family: str
    task: str
    model: dict[str, str | int] = Field({}, description="settings of the model that must be equal")
    recipes: tuple[str, ...] = ()
    examples_per_second: float
    how: Literal["measured", "counted"]
    source: str


class BoardPower(StrictSettings):
    """What a board may draw."""

    gpu: str
    watts: int
    source: str


class SpeedTable(StrictSettings):
    """The whole table."""

    machines: dict[str, str]
    speeds: tuple[TrainingSpeed, ...]
    boards: tuple[BoardPower, ...]


@dataclass(frozen=True)
class KnownSpeed:
    """A speed that a run may be expected to have.

    Attributes:
        examples_per_second: of all its processes.
        how: "own": as this run had it before; else as the table has it.
        machine: on which.
        source: of the figure.
    """

    examples_per_second: float
    how: Literal["own", "measured", "counted"]
    machine: str = ""
    source: str = ""


@dataclass(frozen=True)
class RunLength:
    """What a run takes.

    Attributes:
        steps: optimizer steps in all; None: the index is not here.
        epochs: as many; None: not known.
        done: steps that are made already.
        speed: that may be expected; None: nobody has measured one.
        seconds: for the steps that are left, without evaluations; None: not known.
        checkpoint_bytes: of one checkpoint; None: it cannot be counted.
        disk_bytes: that checkpoints take beyond what there is, at their fullest.
        free_bytes: on the disk of the run folder; None: not known.
        energy_kwh: that the boards of its GPUs may draw in that time; None: not known.
        watts: of one board.
    """

    steps: int | None = None
    epochs: float | None = None
    done: int = 0
    speed: KnownSpeed | None = None
    seconds: float | None = None
    checkpoint_bytes: int | None = None
    disk_bytes: int | None = None
    free_bytes: int | None = None
    energy_kwh: float | None = None
    watts: int | None = None

    @property
    def disk_warning(self) -> Message | None:
        """That the disk has too little room; None where it has, or nobody knows."""
        if self.disk_bytes is None or self.free_bytes is None or self.disk_bytes <= self.free_bytes:
            return None
        return message(
            "plan.disk-too-small",
            "checkpoints will take {needed:.1f} GB, and {free:.1f} GB are free → save fewer: --set save.keep=1, or "
            "choose an -o on another disk",
            needed=self.disk_bytes / 1e9,
            free=self.free_bytes / 1e9,
        )


def count_run_length(run: Run, step: StepMemory | None, *, done: int = 0) -> RunLength:
    """What a planned run takes.

    Args:
        run: the run.
        step: what a step of its model holds; None: it cannot be counted.
        done: steps of the checkpoint that it goes on from.
    """
    recipe, rows = run.recipe, _training_rows(run.recipe)
    steps = recipe.optim.steps or (recipe.optim.count_steps(rows) if rows else None)
    per_epoch = rows // recipe.optim.global_batch if rows else 0
    speed = _own_speed(run) if done else None
    speed = speed or _table_speed(recipe, run.profile)
    left = max(0, steps - done) if steps is not None else None
    seconds = None
    if speed is not None and left is not None:
        seconds = left * recipe.optim.global_batch / speed.examples_per_second
    checkpoint = _checkpoint_bytes(step, has_ema=recipe.optim.ema_decay > 0) if step else None
    return RunLength(
        steps=steps,
        epochs=steps / per_epoch if steps and per_epoch else None,
        done=done,
        speed=speed,
        seconds=seconds,
        checkpoint_bytes=checkpoint,
        disk_bytes=_disk_bytes(run, checkpoint, left) if checkpoint else None,
        free_bytes=_free_bytes(run.folder),
        energy_kwh=energy_bound(run.profile, seconds),
        watts=board_watts(run.profile),
    )


def _training_rows(recipe: Recipe) -> int | None:
    try:
        return count_training_rows(open_training_index(recipe.data), recipe.data)
    except KovqaError:  # the index is not here
        return None


# ---------------------------------------------------------------------------------------- time


@functools.cache
def speed_table() -> SpeedTable:
    """The figures that are known."""
    return build_settings(SpeedTable, read_yaml(_TABLE))


def _table_speed(recipe: Recipe, profile: Profile) -> KnownSpeed | None:
    """The figure of the table for a recipe on a profile; of several processes, so many times that of one."""
    table = speed_table()
    for each in table.speeds:
        if _is_of_machine(each, profile) and _is_of_recipe(each, recipe):
            return KnownSpeed(
                each.examples_per_second * profile.processes,
                each.how,
                table.machines[each.machine],
                each.source,
            )
    return None


def _is_of_machine(speed: TrainingSpeed, profile: Profile) -> bool:
    is_same_gpu = speed.gpu in profile.gpu if speed.gpu else not profile.gpu
    # Several processes of a CPU share what one of them had alone.
    is_alone = profile.processes == 1 or profile.device == "cuda"
    return (speed.device, speed.precision) == (profile.device, profile.precision) and is_same_gpu and is_alone


def _is_of_recipe(speed: TrainingSpeed, recipe: Recipe) -> bool:
    if (speed.family, speed.task) != (recipe.family, recipe.task):
        return False
    if speed.recipes:
        return recipe.name in speed.recipes
    try:
        config = recipe_model_config(recipe).model_dump(mode="json")
    except KovqaError:  # the settings' own check says more
        return False
    return all(config.get(key) == value for key, value in speed.model.items())


def _own_speed(run: Run) -> KnownSpeed | None:
    """The speed of a run's last lines in its log."""
    events = [event for event in read_logged_events(run.folder) if isinstance(event, TrainStepEvent)]
    rates = [event.examples_per_second for event in events[-_OWN_LINES:] if event.examples_per_second > 0]
    return KnownSpeed(statistics.median(rates), "own") if rates else None


# -------------------------------------------------------------------------------------- energy


def board_watts(profile: Profile) -> int | None:
    """What one board of a profile may draw; None: not known."""
    if not profile.gpu:
        return None
    return next((each.watts for each in speed_table().boards if each.gpu in profile.gpu), None)


def energy_bound(profile: Profile, seconds: float | None) -> float | None:
    """Kilowatt hours that a profile's boards draw at most in so many seconds; None: not known."""
    watts = board_watts(profile)
    return None if watts is None or seconds is None else watts * profile.processes * seconds / 3.6e6


# ---------------------------------------------------------------------------------------- disk


def _checkpoint_bytes(step: StepMemory, *, has_ema: bool) -> int:
    """Bytes of one checkpoint: the model, AdamW's two moments in fp32, and the plain weights beside averaged ones."""
    # Of a model of which a small part learns, that part alone is kept.
    model = step.weights if 2 * step.learned >= step.parameters else 4.0 * step.learned
    return round(model * (2 if has_ema else 1) + 8.0 * step.learned)


def _disk_bytes(run: Run, checkpoint: int, left: int | None) -> int:
    """What checkpoints will take beyond those that there are: `keep`, the best, and one that is being written."""
    most = run.recipe.save.keep + 2
    if left is not None:
        most = min(most, max(1, left))
    return max(0, most - len(list_step_folders(run.folder))) * checkpoint


def _free_bytes(folder: Path) -> int | None:
    for place in (folder, *folder.parents):
        try:
            return shutil.disk_usage(place).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None

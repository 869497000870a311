"""What a run tells its trackers: settings, commits, versions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from kovqa_core.data.image_io import open_image
from kovqa_core.files import atomic_file
from kovqa_core.machine.versions import GitState
from kovqa_core.paths import without_home
from kovqa_core.runs.folder import LOG_FILE
from kovqa_core.runs.manifest import read_launches
from kovqa_core.runs.validation_samples import SAMPLES_FILE, ValidationSample
from kovqa_core.settings.run import Run
from kovqa_core.tracking.tracked_run import TrackedRun, flat_config, image_copy

_SHOWN_SIDE = 320  # pixels
# Of a profile: what may hold keys, and says nothing of the experiment.
_PRIVATE = ("env", "setup", "command_prefix", "slurm", "python", "rendezvous")


def describe_run(run: Run) -> TrackedRun:
    """A run as its trackers see it: no variables, no shell lines, and ~ for the home folder."""
    profile = run.profile.model_dump(mode="json", exclude=set(_PRIVATE))
    settings = {
        "recipe": run.recipe.model_dump(mode="json"),
        "profile": profile,
        "micro_batch": run.micro_batch,
        "accumulate": run.accumulate,
    }
    config = {
        key: without_home(value) if isinstance(value, str) else value for key, value in flat_config(settings)
    }
    files = run.folder / LOG_FILE, run.folder / SAMPLES_FILE
    return TrackedRun(run.folder, *files, config, dict(_tags(run.folder)))


def copy_sample_images(run: Run, images: Path, samples: Sequence[ValidationSample]) -> None:
    """Make the small copies of validation images that trackers show: those that are not there yet.

    Args:
        run: what is trained.
        images: the folder of the index's images.
        samples: the examples.

    Raises:
        KovqaError, OSError: one cannot be read or written.
    """
    if set(run.recipe.train.track) <= {"tensorboard"}:  # which shows none
        return
    for sample in samples:
        copy = image_copy(run.folder, sample.image)
        if not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            pixels = open_image(images / sample.image, _SHOWN_SIDE)
            pixels.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
            with atomic_file(copy) as stream:
                pixels.save(stream, "JPEG", quality=90)


def _tags(folder: Path) -> Iterator[tuple[str, str]]:
    """Commits and versions of the launch that has just begun."""
    launches = read_launches(folder)
    if not launches:
        return
    git = launches[-1].git
    if git is not None:
        for name, state in (("engine", git.engine), ("folder", git.folder)):
            if state is not None:
                yield f"git.{name}", _commit_text(state)
    for name, version in launches[-1].versions.items():
        yield f"version.{name}", version


def _commit_text(state: GitState) -> str:
    return state.commit + {True: " with changes", False: "", None: ""}[state.dirty]

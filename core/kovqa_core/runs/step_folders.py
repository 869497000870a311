"""Step folders of a run, and whether one is whole. Reads names and small files only."""

from __future__ import annotations

import re
from pathlib import Path

from kovqa_core.files import read_json, write_json

FILE_LIST = "files.json"  # in trainer/: the files of the step folder when it was written
# What resuming needs of every family. A list of files, which earlier versions did not write, says it all.
_ALWAYS_NEEDED = ("kovqa.json", "trainer/state.json", "trainer/optimizer.safetensors")
_STEP_NAME = re.compile(r"step-(\d{6,})")
_WEIGHT_SUFFIXES = (".safetensors", ".bin")


def list_step_folders(folder: Path) -> list[Path]:
    """The step folders of a run, oldest first; none that is half written or half replaced."""
    # By number: of a million steps the name has a digit more.
    found = [(int(match[1]), path) for path in folder.glob("step-*") if (match := _step_name(path.name))]
    return [path for _, path in sorted(found) if path.is_dir()]


def _step_name(name: str) -> re.Match[str] | None:
    return _STEP_NAME.fullmatch(name)


def is_step_name(name: str) -> bool:
    """Is it the name of a step folder? What a damaged pointer says may be anything."""
    return _step_name(name) is not None


def write_file_list(step: Path) -> None:
    """Note in `trainer/` which files a step folder has, with the sizes of those that are never written again.

    Args:
        step: the folder, complete but for this file.
    """
    sizes = {
        path.relative_to(step).as_posix(): path.stat().st_size if path.suffix == ".safetensors" else None
        for path in sorted(step.rglob("*"))
        if path.is_file()
    }
    write_json(step / "trainer" / FILE_LIST, {"schema": 1, "files": sizes})


def missing_checkpoint_files(step: Path) -> list[str]:
    """What a step folder lacks to be resumed from: names of files (cut-off ones too); empty if it is whole.

    Raises:
        DataError: its list of files is damaged.
    """
    if not (step / "trainer").is_dir():
        return ["trainer/"]
    listed = step / "trainer" / FILE_LIST
    sizes: dict[str, int | None] = dict.fromkeys(_ALWAYS_NEEDED)
    if listed.is_file():
        sizes |= read_json(listed)["files"]
    elif not any(path.suffix in _WEIGHT_SUFFIXES for path in _model_files(step)):
        sizes["model.safetensors"] = None
    return [name for name, size in sizes.items() if not _is_whole(step / name, size)]


def _model_files(step: Path) -> list[Path]:
    return [path for path in step.rglob("*") if "trainer" not in path.relative_to(step).parts[:1]]


def _is_whole(path: Path, size: int | None) -> bool:
    return path.is_file() and size in (None, path.stat().st_size)

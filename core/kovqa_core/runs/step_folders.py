"""Step folders of a run, and whether one is whole. Reads names and small files only (`checksums.py` reads all)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kovqa_core.errors import DataError
from kovqa_core.files import read_json, write_json
from kovqa_core.messages import message

FILE_LIST = "files.json"  # in trainer/: the files of the step folder, their sizes and checksums
TRAIN_STATE = "trainer/state.json"
# What an evaluation writes again, as the score comes after the checkpoint.
WRITTEN_AGAIN = ("kovqa.json", TRAIN_STATE)
# What resuming needs of every family. A list of files, which earlier versions did not write, says it all.
_ALWAYS_NEEDED = ("kovqa.json", TRAIN_STATE, "trainer/optimizer.safetensors")
_FILE_LIST_SCHEMA = 2  # 1, of earlier versions, has no checksums
_STEP_NAME = re.compile(r"step-(\d{6,})")
_WEIGHT_SUFFIXES = (".safetensors", ".bin")
_POINTER_BYTES = 256  # of a pointer so much is read: a damaged one may be anything


def list_step_folders(folder: Path) -> list[Path]:
    """The step folders of a run, oldest first; none that is half written or half replaced."""
    # By number: of a million steps the name has a digit more.
    found = [(int(match[1]), path) for path in folder.glob("step-*") if (match := _step_name(path.name))]
    return [path for _, path in sorted(found) if _is_folder(path)]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except PermissionError:  # in a run folder whose names may be read, and nothing else
        return False


def _step_name(name: str) -> re.Match[str] | None:
    return _STEP_NAME.fullmatch(name)


def is_step_name(name: str) -> bool:
    """Is it the name of a step folder? What a damaged pointer says may be anything."""
    return _step_name(name) is not None


def step_number(name: str) -> int:
    """Optimizer steps of a step folder, by its name; -1 for any other name."""
    match = _step_name(name)
    return int(match[1]) if match else -1


def read_train_state(step: Path) -> Mapping[str, object]:
    """What the training state of a step folder says, unchecked; nothing where it is not a JSON object.

    Raises:
        DataError: it cannot be read, or is not JSON.
    """
    values = read_json(step / TRAIN_STATE)
    return values if isinstance(values, dict) else {}


def read_pointer(folder: Path, pointer: str) -> str | None:
    """What stands in `last` or `best`, whatever it is; None: there is no such file, or it cannot be read."""
    file = folder / pointer
    try:
        if not file.is_file():
            return None
        with file.open("rb") as stream:
            return stream.read(_POINTER_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return None


@dataclass(frozen=True)
class FileList:
    """The files of a step folder when it was written.

    Attributes:
        sizes: in bytes by name; None for files that are written again.
        checksums: SHA-256 by name; of a file that is written again each that it may have: killed between two
            writes, a folder has the one or the other.
        has_checksums: earlier versions wrote none.
    """

    sizes: Mapping[str, int | None]
    checksums: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    has_checksums: bool = False


def write_file_list(step: Path, files: FileList) -> None:
    """Write the list of a step folder's files into its `trainer/`."""
    values: dict[str, object] = {"schema": 1, "files": dict(files.sizes)}
    if files.has_checksums:
        checksums = {name: list(of_file) for name, of_file in files.checksums.items()}
        values = {**values, "schema": _FILE_LIST_SCHEMA, "sha256": checksums}
    write_json(step / "trainer" / FILE_LIST, values)


def read_file_list(step: Path) -> FileList | None:
    """The list of a step folder's files; None: an earlier version wrote none.

    Raises:
        DataError: it is damaged, or of a later version.
    """
    path = step / "trainer" / FILE_LIST
    if not path.is_file():
        return None
    values = read_json(path)
    if not isinstance(values, dict) or not _is_table_of_sizes(values.get("files")):
        raise _bad_list(path)
    has_checksums = "sha256" in values or values.get("schema") != 1
    checksums = values.get("sha256", {})
    if has_checksums and not (
        values.get("schema") == _FILE_LIST_SCHEMA and _is_table_of_checksums(checksums, values["files"])
    ):
        raise _bad_list(path)
    return FileList(
        values["files"], {name: tuple(of_file) for name, of_file in checksums.items()}, has_checksums
    )


def _is_table_of_sizes(values: object) -> bool:
    return isinstance(values, dict) and all(size is None or type(size) is int for size in values.values())


def _is_table_of_checksums(values: object, sizes: Mapping[str, object]) -> bool:
    return (
        isinstance(values, dict)
        and values.keys() == sizes.keys()
        and all(isinstance(of_file, list) and of_file for of_file in values.values())
        and all(isinstance(one, str) for of_file in values.values() for one in of_file)
    )


def _bad_list(path: Path) -> DataError:
    return DataError(
        message("runs.bad-file-list", "{file} is damaged, or of a later version", file=path),
        message("runs.bad-file-list.hint", "copy the step folder again, or update kovqa"),
    )


def missing_checkpoint_files(step: Path) -> list[str]:
    """What a step folder lacks to be resumed from: names of files (cut-off ones too); empty if it is whole.

    Raises:
        DataError: its list of files is damaged.
    """
    if not (step / "trainer").is_dir():
        return ["trainer/"]
    files = read_file_list(step)
    sizes: dict[str, int | None] = dict.fromkeys(_ALWAYS_NEEDED)
    if files is not None:
        sizes |= files.sizes
    elif not any(path.suffix in _WEIGHT_SUFFIXES for path in _model_files(step)):
        sizes["model.safetensors"] = None
    return [name for name, size in sizes.items() if not _is_whole(step / name, size)]


def _model_files(step: Path) -> list[Path]:
    return [path for path in step.rglob("*") if "trainer" not in path.relative_to(step).parts[:1]]


def _is_whole(path: Path, size: int | None) -> bool:
    return path.is_file() and size in (None, path.stat().st_size)

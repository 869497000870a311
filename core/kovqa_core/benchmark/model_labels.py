"""Short names of models: folders of a benchmark's predictions, and rows of its table."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from kovqa_core.errors import SettingsError
from kovqa_core.messages import message
from kovqa_core.runs.step_folders import is_step_name

NEWEST_RUN, SERVED_MODEL = "newest-run", "served"  # labels of models that the user does not name


def label_models(models: Sequence[Path | None], *, served: bool) -> list[str]:
    """A name of each model that no other has: the end of its path, as long as needed; OWNER--NAME of the hub.

    Args:
        models: as a user names them.
        served: are they names on a server? Such a name is one, whatever lies on the disk.

    Raises:
        SettingsError: one is there twice.
    """
    parts = [_label_parts(model, served=served) for model in models]
    lengths = [2 if is_step_name(each[-1]) else 1 for each in parts]
    for _ in range(max(map(len, parts))):
        labels = ["--".join(each[-length:]) for each, length in zip(parts, lengths, strict=True)]
        times = Counter(labels)
        if len(times) == len(labels):
            return labels
        lengths = [length + (times[label] > 1) for label, length in zip(labels, lengths, strict=True)]
    repeated = next(model for model, each in zip(models, parts, strict=True) if parts.count(each) > 1)
    raise SettingsError(
        message("benchmark.model-twice", "--model {model} is there twice", model=repeated),
        message("benchmark.model-twice.hint", "name each model once"),
    )


def _label_parts(model: Path | None, *, served: bool) -> tuple[str, ...]:
    if model is None:
        return (SERVED_MODEL if served else NEWEST_RUN,)
    if served:
        return (f"{_safe_name(str(model))}--{SERVED_MODEL}",)
    if not os.path.lexists(model):  # a name of the hub
        return (_safe_name(str(model)),)
    path = model.absolute()
    return tuple(part for part in Path(os.path.normpath(path)).parts if part != os.sep) or ("root",)


def _safe_name(name: str) -> str:
    return re.sub(r"[/\\:]+", "--", name.removeprefix("hf:")).strip(".-") or "model"

"""What training asks a family for whose model has frozen parts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FeatureRequest:
    """What a run asks its family for before it trains: features of frozen parts, computed once an image.

    Attributes:
        list_images: all images of the run, each once.
        folder: where a file of them may be kept: the run's.
        batch: images at once.
        precision: of the profile.
        autocast: context of the forward passes.
        stop_requested: True once the process was asked to stop.
        on_progress: called with how many of how many images are done.
    """

    list_images: Callable[[], list[Path]]
    folder: Path
    batch: int
    precision: str
    autocast: Callable[[], AbstractContextManager[object]]
    stop_requested: Callable[[], bool]
    on_progress: Callable[[int, int], None]

"""TensorBoard files of a run, written without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

TENSORBOARD_FOLDER = "tensorboard"  # in the run folder


class TensorBoardFiles:
    """Scalars of a run over its optimizer steps.

    Args:
        folder: of the run.
        step: the step it goes on from: TensorBoard hides what an interrupted run wrote beyond it.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=step + 1)

    def add_scalars(self, group: str, step: int, values: Mapping[str, object]) -> None:
        """Curves `group/NAME`, of those values that are floats."""
        for name, value in values.items():
            if isinstance(value, float):
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def close(self) -> None:
        """Hand everything to the disk."""
        self._writer.close()

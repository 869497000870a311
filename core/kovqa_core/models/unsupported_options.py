"""Errors for options of a command that a model's family does not have."""

from __future__ import annotations

from pathlib import Path

from kovqa_core.errors import SettingsError
from kovqa_core.messages import message
from kovqa_core.models.checkpoint_info import CheckpointInfo


def one_way_error(folder: Path, info: CheckpointInfo) -> SettingsError:
    """The error for a way to answer that a family does not have."""
    return SettingsError(
        message(
            "models.one-way-to-answer",
            "{folder} is of family {family}, which answers in one way only",
            folder=folder,
            family=info.family,
        ),
        message(
            "models.one-way-to-answer.hint",
            "leave out --answers, --temperature, --choices-by and --calibrate, or name a vision language model with "
            "--model",
        ),
    )


def no_beams_error(folder: Path, info: CheckpointInfo) -> SettingsError:
    """The error for a number of beams where none are searched."""
    return SettingsError(
        message(
            "models.no-beams",
            "{folder} is of family {family}, which has no beam search",
            folder=folder,
            family=info.family,
        ),
        message("models.no-beams.hint", "leave out --beams"),
    )


def no_four_bit_error(folder: Path, info: CheckpointInfo) -> SettingsError:
    """The error for 4 bits where a family's weights have no such form."""
    return SettingsError(
        message(
            "models.no-four-bit",
            "{folder} is of family {family}, whose models are small and have no 4-bit form",
            folder=folder,
            family=info.family,
        ),
        message("models.no-four-bit.hint", "leave out --load 4bit"),
    )

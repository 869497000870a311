"""TensorBoard files of a run, written without TensorFlow.

In the training process itself: a file in the run folder can be as slow or as full as the log beside it is, and
no slower. Not by tensorboardX's own `SummaryWriter`: where the disk is full its thread ends, and the tenth record
after that waits for it for ever (docs/surprises.md).
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kovqa_core.messages import Message, message

TENSORBOARD_FOLDER = "tensorboard"  # in the run folder


def destination(folder: Path, environ: Mapping[str, str]) -> Message:
    """Where its records go."""
    return message(
        "tracking.tensorboard-files", "tensorboard: files in {folder}", folder=folder / TENSORBOARD_FOLDER
    )


class TensorBoardFiles:
    """Curves of a run over its optimizer steps.

    Args:
        folder: of the run.
        step: the step it goes on from: TensorBoard hides what an interrupted run wrote beyond it.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX.proto.event_pb2 import SessionLog

        path = folder / TENSORBOARD_FOLDER
        path.mkdir(exist_ok=True)
        file = path / f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
        self._stream = file.open("ab", buffering=0)  # a killed run keeps what it has written
        self._write_event(step + 1, file_version="brain.Event:2")
        self._write_event(step + 1, session_log=SessionLog(status=SessionLog.START))

    def add_values(self, step: int, values: Mapping[str, float]) -> None:
        """Points of curves, by their names."""
        from tensorboardX.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write_event(step, summary=Summary(value=points))

    def close(self) -> None:
        """Nothing more will come."""
        self._stream.close()

    def _write_event(self, step: int, **content: Any) -> None:
        """Append a record: its length and its bytes, each with a checksum (TFRecord)."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import masked_crc32c

        event = Event(wall_time=time.time(), step=step, **content).SerializeToString()
        length = struct.pack("<Q", len(event))
        checksums = [struct.pack("<I", masked_crc32c(part)) for part in (length, event)]
        self._stream.write(length + checksums[0] + event + checksums[1])

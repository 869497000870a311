"""What a process does, as others hear it, and which process is the one that hangs."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kovqa_core.errors import LostError, WorkerError
from kovqa_core.messages import Message, join_messages, message

HEARTBEAT_INTERVAL = 1.0  # seconds: the length of a round
_LAUNCHER_GRACE = 30.0  # seconds a launcher has to act on a process that ended
PROCESS_ENDED = "it ended"  # what `lost` says of a closed connection
_JOIN_TIMEOUT = 60.0  # seconds joining may take
# Reading a model and writing one report no steps in between: they may take so many times longer.
_SLOW_PHASE_FACTOR = 10
PHASE_NAMES = ("joining", "preparing", "reading a batch", "computing", "evaluating", "saving")
_SLOW_PHASES = ("preparing", "saving")


class Heartbeat(NamedTuple):
    """What a process does.

    (step, phase) is compared as a pair: within a step phases follow each other in the order of their
    numbers, so the smaller pair is the process that is behind.

    Attributes:
        step: the optimizer step it works on, from 1; 0 before the first.
        phase: number in PHASE_NAMES.
        waiting: does it wait for other processes, in a collective?
        sequence: grows with every change, so that a process that does the same again and again (batches
            of an evaluation) is seen to be alive.
    """

    step: int = 0
    phase: int = 0
    waiting: bool = False
    sequence: int = 0

    def describe(self) -> Message:
        """In words: the step and the phase."""
        phase = _phase_text(PHASE_NAMES[self.phase])
        if self.waiting:
            phase = message("distributed.phase-waiting", "{phase}, waiting for the others", phase=phase)
        if not self.step:
            return phase
        return message("distributed.step-phase", "step {step}: {phase}", step=self.step, phase=phase)


def _phase_text(name: str) -> Message:
    return {
        "joining": message("distributed.joining", "joining"),
        "preparing": message("distributed.preparing", "preparing"),
        "reading a batch": message("distributed.reading-batch", "reading a batch"),
        "computing": message("distributed.computing", "computing"),
        "evaluating": message("distributed.evaluating", "evaluating"),
        "saving": message("distributed.saving", "saving"),
    }[name]


NO_HEARTBEAT = Heartbeat()


@dataclass
class WatchedPeer:
    """A process that is watched, as it was last heard.

    Attributes:
        rank, host: which process, and where.
        connection: to it; None: it is this process itself.
        heartbeat: the latest.
        unchanged_seconds: since the heartbeat changed, counted in rounds.
        silent_seconds: since anything was heard, counted in rounds.
        lost: why the connection is gone; "" as long as it stands.
        receive_buffer: the beginning of a message.
    """

    rank: int
    host: str
    connection: socket.socket | None = None
    heartbeat: Heartbeat = NO_HEARTBEAT
    unchanged_seconds: float = 0.0
    silent_seconds: float = 0.0
    lost: str = ""
    receive_buffer: bytes = b""

    def describe(self) -> Message:
        """In words: which process, and where."""
        return message("distributed.rank-on-host", "rank {rank} on {host}", rank=self.rank, host=self.host)


def find_lost_peer(peers: Sequence[WatchedPeer]) -> LostError | None:
    """The other process that is gone, or whose host is."""
    for peer in peers:
        # The launcher of a process that ended knows its exit code: it gets some time to report it.
        if peer.lost == PROCESS_ENDED and peer.silent_seconds >= _LAUNCHER_GRACE:
            return LostError(
                message(
                    "distributed.process-ended",
                    "{peer} is lost: its process ended (last: {heartbeat})",
                    peer=peer.describe(),
                    heartbeat=peer.heartbeat.describe(),
                )
            )
        if peer.lost and peer.lost != PROCESS_ENDED:
            return LostError(
                message(
                    "distributed.host-lost",
                    "{peer} is lost: its host does not answer, {error} (last: {heartbeat})",
                    peer=peer.describe(),
                    error=peer.lost,
                    heartbeat=peer.heartbeat.describe(),
                )
            )
    return None


def find_silent_peer(peers: Sequence[WatchedPeer], limit: float) -> WorkerError | None:
    """The other process that stands still, though its host answers: silent for `limit` seconds."""
    for peer in peers:
        if not peer.lost and peer.silent_seconds >= max(limit, 3 * HEARTBEAT_INTERVAL):
            return WorkerError(
                message(
                    "distributed.silent-rank",
                    "{peer} hangs: nothing heard for {minutes:.2g} minutes (last: {heartbeat})",
                    peer=peer.describe(),
                    minutes=peer.silent_seconds / 60,
                    heartbeat=peer.heartbeat.describe(),
                )
            )
    return None


def find_hung_ranks(peers: Sequence[WatchedPeer], limit: float) -> WorkerError | None:
    """Of all processes those that are behind the others and make no progress for `limit` seconds.

    Where all of them wait for each other (different collectives: a bug, or a broken network), all are named.
    """
    busy = [peer for peer in peers if not peer.heartbeat.waiting]
    furthest_behind = min((peer.heartbeat[:2] for peer in busy), default=None)
    slowest = [peer for peer in busy if peer.heartbeat[:2] == furthest_behind] or peers
    if any(peer.unchanged_seconds < phase_timeout(peer.heartbeat, limit) for peer in slowest):
        return None
    minutes = slowest[0].unchanged_seconds / 60
    heartbeat = slowest[0].heartbeat
    if len(slowest) == 1:
        return WorkerError(
            message(
                "distributed.hung-rank",
                "{peer} hangs: no progress for {minutes:.2g} minutes ({heartbeat})",
                peer=slowest[0].describe(),
                minutes=minutes,
                heartbeat=heartbeat.describe(),
            )
        )
    return WorkerError(
        message(
            "distributed.hung-ranks",
            "{peers} hang: no progress for {minutes:.2g} minutes ({heartbeat})",
            peers=join_messages(", ", [peer.describe() for peer in slowest]),
            minutes=minutes,
            heartbeat=heartbeat.describe(),
        )
    )


def phase_timeout(heartbeat: Heartbeat, limit: float) -> float:
    """Seconds that what a process does may take, where `limit` is what a step may."""
    phase = PHASE_NAMES[heartbeat.phase]
    if phase == "joining":
        return _JOIN_TIMEOUT
    return limit * (_SLOW_PHASE_FACTOR if phase in _SLOW_PHASES else 1)

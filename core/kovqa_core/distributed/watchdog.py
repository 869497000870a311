"""A rank that hangs is named, and the run ends, instead of waiting for ever.

Every process stamps what it does (`doing`) and has a thread that tells the first process its stamp once
a second, over a line of its own; the first process tells every other its own. Each judges who it hears:

* a rank that is behind all others and whose stamp has not changed for `profile.watchdog_minutes`: it hangs;
* a rank not heard of for so long, though its host answers: its process stands still;
* a line the system gives up (the host is down, or its network is cut): known within a minute;
* a line that was closed: the process ended. Whoever started it acts on that, and is given some time.

Time is counted in rounds of this thread, not by a clock: a machine that slept, or a job that was
suspended, raises no alarm. Who is waiting for others is never the one that hangs.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kovqa_core.errors import LostError, WorkerError

_HEARTBEAT_INTERVAL = 1.0  # seconds between two words
_TCP_TIMEOUT = 60  # seconds the system tries to reach a host that does not answer
_LAUNCHER_GRACE = 30.0  # seconds a launcher has to act on a process that ended
_PROCESS_ENDED = "it ended"
_JOIN_TIMEOUT = 60.0  # seconds joining may take
_SLOW_PHASE_FACTOR = (
    10  # so many times longer may take what has no steps to be seen: reading a model, writing it
)

PHASE_NAMES = ("joining", "preparing", "reading a batch", "computing", "evaluating", "saving")


class Heartbeat(NamedTuple):
    """What a process does: in this order it is compared with others'."""

    step: int = 0
    phase: int = 0  # of PHASES
    waiting: bool = False  # for other processes
    stamps: int = 0  # so far: changes whenever something happened

    def __str__(self) -> str:
        place = f"step {self.step}: " if self.step else ""
        return f"{place}{PHASE_NAMES[self.phase]}{', waiting for the others' if self.waiting else ''}"


_NO_HEARTBEAT = Heartbeat()


@dataclass
class WatchedPeer:
    """A process that is watched, as it was last heard."""

    rank: int
    host: str
    line: socket.socket | None = None  # None: this process itself
    stamp: Heartbeat = _NO_HEARTBEAT
    unchanged: float = 0.0  # seconds
    silent: float = 0.0  # seconds
    lost: str = ""  # what the system said when it gave the line up
    heard: bytes = b""  # the beginning of a message

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host}"


@dataclass(frozen=True)
class WatchdogConfig:
    """How a process is watched.

    Args:
        rank: its place.
        minutes: how long a rank may be without progress.
        alarm: called with what is wrong before the process ends with 6.
        warn: called with what is worth a word.
    """

    rank: int
    minutes: float
    alarm: Callable[[WorkerError], object]
    warn: Callable[[str], object]


_current_heartbeat = _NO_HEARTBEAT
_shutting_down = threading.Event()


def set_phase(phase: str, step: int | None = None) -> None:
    """Stamp what this process does from now on.

    Args:
        phase: one of `PHASES`.
        step: the step it belongs to; None: the same as before.
    """
    global _current_heartbeat
    _current_heartbeat = Heartbeat(
        _current_heartbeat.step if step is None else step,
        PHASE_NAMES.index(phase),
        False,
        _current_heartbeat.stamps + 1,
    )


@contextlib.contextmanager
def waiting_for_peers() -> Iterator[None]:
    """Inside, this process waits for others."""
    global _current_heartbeat
    _current_heartbeat = _current_heartbeat._replace(waiting=True, stamps=_current_heartbeat.stamps + 1)
    yield
    _current_heartbeat = _current_heartbeat._replace(waiting=False, stamps=_current_heartbeat.stamps + 1)


# ---------------------------------------------------------------------------------- lines


def listen_for_peers(callers: int) -> socket.socket:
    """A free port on all addresses: many a host resolves its own name to a loopback address."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=callers)
    return socket.create_server(("", 0), backlog=callers)


def accept_peers(server: socket.socket, number: int, secret: str, patience: float) -> list[WatchedPeer]:
    """The lines of so many processes that call.

    Raises:
        OSError: they do not all call within `patience` seconds.
    """
    end, peers = time.monotonic() + patience, list[WatchedPeer]()
    while len(peers) < number:
        server.settimeout(max(0.01, end - time.monotonic()))
        line, _ = server.accept()
        line.settimeout(5)
        try:
            hello = json.loads(line.makefile("rb").readline(500))
            if hello.pop("secret") == secret:
                peers.append(WatchedPeer(**hello, line=_enable_keepalive(line)))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            line.close()  # somebody who tries doors
    return peers


def connect_to_main(host: str, port: int, secret: str, rank: int, patience: float) -> WatchedPeer:
    """The line to the first process.

    Raises:
        OSError: it does not answer within `patience` seconds.
    """
    line = socket.create_connection((host, port), patience)
    hello = {"rank": rank, "host": socket.gethostname(), "secret": secret}
    line.sendall(json.dumps(hello).encode() + b"\n")
    return WatchedPeer(0, host, _enable_keepalive(line))


def _enable_keepalive(line: socket.socket) -> socket.socket:
    """A line whose other end is asked for by the system itself, so that a vanished host is noticed."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wanted = {
        "TCP_KEEPIDLE": 15,
        "TCP_KEEPINTVL": 15,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": _TCP_TIMEOUT * 1000,
    }
    for name, value in wanted.items():
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    line.setblocking(False)
    return line


# ---------------------------------------------------------------------------------- watching


def start_watchdog(watch: WatchdogConfig, peers: list[WatchedPeer]) -> None:
    """Watch this process and its peers until `stop`."""
    threading.Thread(target=_watchdog_loop, args=(watch, peers), name="watchdog", daemon=True).start()


def stop_watchdog() -> None:
    """Whatever ends from now on is no alarm."""
    _shutting_down.set()


def _watchdog_loop(watch: WatchdogConfig, peers: list[WatchedPeer]) -> None:
    me = WatchedPeer(watch.rank, socket.gethostname())
    limit = 60 * watch.minutes
    while True:
        # Should this thread be held up by something that does not let go of Python, its stack is told anyway.
        faulthandler.dump_traceback_later(limit + 30, file=sys.stderr)
        _receive_heartbeats(peers)
        _send_to_peers(peers, json.dumps(_current_heartbeat))
        _advance_timers([me, *peers])
        wrong = (
            find_lost_peer(peers)
            or find_silent_peer(peers, limit)
            or (find_hung_ranks([me, *peers], limit) if me.rank == 0 else None)
        )
        if _shutting_down.is_set():
            return faulthandler.cancel_dump_traceback_later()
        if wrong:
            watch.alarm(wrong)
            _send_to_peers(peers, json.dumps(wrong.message))
            _dump_stacks_and_exit(wrong.message)


def _advance_timers(peers: Sequence[WatchedPeer]) -> None:
    """One round more for everybody, none for what has changed."""
    for peer in peers:
        peer.unchanged += _HEARTBEAT_INTERVAL
        peer.silent += _HEARTBEAT_INTERVAL
        if peer.line is None and not peer.lost:
            peer.silent = 0.0
            if peer.stamp != _current_heartbeat:
                peer.stamp, peer.unchanged = _current_heartbeat, 0.0


def _receive_heartbeats(peers: list[WatchedPeer]) -> None:
    """Read for the length of a round."""
    end = time.monotonic() + _HEARTBEAT_INTERVAL
    while (left := end - time.monotonic()) > 0:
        lines = [peer.line for peer in peers if peer.line is not None and not peer.lost]
        readable = select.select(lines, [], [], left)[0]
        for peer in peers:
            if peer.line in readable:
                _read_peer(peer)


def _read_peer(peer: WatchedPeer) -> None:
    assert peer.line is not None
    try:
        data = peer.line.recv(65536)
        peer.lost = "" if data else _PROCESS_ENDED
    except BlockingIOError:
        return
    except ConnectionResetError:
        peer.lost = _PROCESS_ENDED
    except OSError as error:
        peer.lost = error.strerror or str(error)
    if peer.lost:
        peer.silent = 0.0
        return
    *messages, peer.heard = (peer.heard + data).split(b"\n")
    for message in map(json.loads, messages):
        if isinstance(message, str):
            _dump_stacks_and_exit(message)  # somebody is known to hang; it may be us
        peer.silent = 0.0
        if (stamp := Heartbeat(*message)) != peer.stamp:
            peer.stamp, peer.unchanged = stamp, 0.0


def _send_to_peers(peers: Sequence[WatchedPeer], message: str) -> None:
    for peer in peers:
        if peer.line is not None and not peer.lost:
            try:
                peer.line.send(message.encode() + b"\n")
            except BlockingIOError:
                pass  # it does not read: its silence will tell
            except OSError:
                pass  # the next read says what is wrong


def find_lost_peer(peers: Sequence[WatchedPeer]) -> LostError | None:
    """Which other process, or its host, is gone."""
    for peer in peers:
        if peer.lost == _PROCESS_ENDED and peer.silent >= _LAUNCHER_GRACE:
            return LostError(f"{peer} is lost: its process ended (last: {peer.stamp})")
        if peer.lost and peer.lost != _PROCESS_ENDED:
            return LostError(f"{peer} is lost: its host does not answer, {peer.lost} (last: {peer.stamp})")
    return None


def find_silent_peer(peers: Sequence[WatchedPeer], limit: float) -> WorkerError | None:
    """Which other process stands still, though its host answers: silent for `limit` seconds."""
    for peer in peers:
        if not peer.lost and peer.silent >= max(limit, 3 * _HEARTBEAT_INTERVAL):
            return WorkerError(
                f"{peer} hangs: nothing heard for {_format_minutes(peer.silent)} (last: {peer.stamp})"
            )
    return None


def find_hung_ranks(peers: Sequence[WatchedPeer], limit: float) -> WorkerError | None:
    """Which of all processes is behind the others and makes no progress for `limit` seconds."""
    busy = [peer for peer in peers if not peer.stamp.waiting]
    behind = min((peer.stamp[:2] for peer in busy), default=None)
    slowest = [peer for peer in busy if peer.stamp[:2] == behind] or peers
    if any(peer.unchanged < phase_timeout(peer.stamp, limit) for peer in slowest):
        return None
    names, since = ", ".join(map(str, slowest)), f"no progress for {_format_minutes(slowest[0].unchanged)}"
    return WorkerError(f"{names} hang{'s' if len(slowest) == 1 else ''}: {since} ({slowest[0].stamp})")


def _format_minutes(seconds: float) -> str:
    return f"{seconds / 60:.2g} minutes"


def phase_timeout(stamp: Heartbeat, limit: float) -> float:
    """Seconds that what a process does may take."""
    if PHASE_NAMES[stamp.phase] == "joining":
        return _JOIN_TIMEOUT
    return limit * (_SLOW_PHASE_FACTOR if PHASE_NAMES[stamp.phase] in ("preparing", "saving") else 1)


def _dump_stacks_and_exit(wrong: str) -> None:
    """Leave this process's stacks in its log, and end: nothing else would, it may be held up anywhere."""
    print(f"kovqa: {wrong}; the stacks of this process:", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(sys.stderr, all_threads=True)
    os._exit(6)

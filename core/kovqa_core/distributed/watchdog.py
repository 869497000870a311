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

_ROUND = 1.0  # seconds between two words
_LOST = 60  # seconds the system tries to reach a host that does not answer
_GRACE = 30.0  # seconds a launcher has to act on a process that ended
_ENDED = "it ended"
_MEETING = 60.0  # seconds joining may take
_LONG = 10  # so many times longer may take what has no steps to be seen: reading a model, writing it

PHASES = ("joining", "preparing", "reading a batch", "computing", "evaluating", "saving")


class Stamp(NamedTuple):
    """What a process does: in this order it is compared with others'."""

    step: int = 0
    phase: int = 0  # of PHASES
    waiting: bool = False  # for other processes
    stamps: int = 0  # so far: changes whenever something happened

    def __str__(self) -> str:
        place = f"step {self.step}: " if self.step else ""
        return f"{place}{PHASES[self.phase]}{', waiting for the others' if self.waiting else ''}"


_NOTHING = Stamp()


@dataclass
class Peer:
    """A process that is watched, as it was last heard."""

    rank: int
    host: str
    line: socket.socket | None = None  # None: this process itself
    stamp: Stamp = _NOTHING
    unchanged: float = 0.0  # seconds
    silent: float = 0.0  # seconds
    lost: str = ""  # what the system said when it gave the line up
    heard: bytes = b""  # the beginning of a message

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host}"


@dataclass(frozen=True)
class Watch:
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


_now = _NOTHING
_leaving = threading.Event()


def doing(phase: str, step: int | None = None) -> None:
    """Stamp what this process does from now on.

    Args:
        phase: one of `PHASES`.
        step: the step it belongs to; None: the same as before.
    """
    global _now
    _now = Stamp(_now.step if step is None else step, PHASES.index(phase), False, _now.stamps + 1)


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Inside, this process waits for others."""
    global _now
    _now = _now._replace(waiting=True, stamps=_now.stamps + 1)
    yield
    _now = _now._replace(waiting=False, stamps=_now.stamps + 1)


# ---------------------------------------------------------------------------------- lines


def listen(callers: int) -> socket.socket:
    """A free port on all addresses: many a host resolves its own name to a loopback address."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=callers)
    return socket.create_server(("", 0), backlog=callers)


def accept(server: socket.socket, number: int, secret: str, patience: float) -> list[Peer]:
    """The lines of so many processes that call.

    Raises:
        OSError: they do not all call within `patience` seconds.
    """
    end, peers = time.monotonic() + patience, list[Peer]()
    while len(peers) < number:
        server.settimeout(max(0.01, end - time.monotonic()))
        line, _ = server.accept()
        line.settimeout(5)
        try:
            hello = json.loads(line.makefile("rb").readline(500))
            if hello.pop("secret") == secret:
                peers.append(Peer(**hello, line=_kept_alive(line)))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            line.close()  # somebody who tries doors
    return peers


def call(host: str, port: int, secret: str, rank: int, patience: float) -> Peer:
    """The line to the first process.

    Raises:
        OSError: it does not answer within `patience` seconds.
    """
    line = socket.create_connection((host, port), patience)
    hello = {"rank": rank, "host": socket.gethostname(), "secret": secret}
    line.sendall(json.dumps(hello).encode() + b"\n")
    return Peer(0, host, _kept_alive(line))


def _kept_alive(line: socket.socket) -> socket.socket:
    """A line whose other end is asked for by the system itself, so that a vanished host is noticed."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wanted = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": _LOST * 1000}
    for name, value in wanted.items():
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    line.setblocking(False)
    return line


# ---------------------------------------------------------------------------------- watching


def start(watch: Watch, peers: list[Peer]) -> None:
    """Watch this process and its peers until `stop`."""
    threading.Thread(target=_watch, args=(watch, peers), name="watchdog", daemon=True).start()


def stop() -> None:
    """Whatever ends from now on is no alarm."""
    _leaving.set()


def _watch(watch: Watch, peers: list[Peer]) -> None:
    me = Peer(watch.rank, socket.gethostname())
    limit = 60 * watch.minutes
    while True:
        # Should this thread be held up by something that does not let go of Python, its stack is told anyway.
        faulthandler.dump_traceback_later(limit + 30, file=sys.stderr)
        _hear(peers)
        _say(peers, json.dumps(_now))
        _count([me, *peers])
        wrong = loss(peers) or silence(peers, limit) or (hang([me, *peers], limit) if me.rank == 0 else None)
        if _leaving.is_set():
            return faulthandler.cancel_dump_traceback_later()
        if wrong:
            watch.alarm(wrong)
            _say(peers, json.dumps(wrong.message))
            _end(wrong.message)


def _count(peers: Sequence[Peer]) -> None:
    """One round more for everybody, none for what has changed."""
    for peer in peers:
        peer.unchanged += _ROUND
        peer.silent += _ROUND
        if peer.line is None and not peer.lost:
            peer.silent = 0.0
            if peer.stamp != _now:
                peer.stamp, peer.unchanged = _now, 0.0


def _hear(peers: list[Peer]) -> None:
    """Read for the length of a round."""
    end = time.monotonic() + _ROUND
    while (left := end - time.monotonic()) > 0:
        lines = [peer.line for peer in peers if peer.line is not None and not peer.lost]
        readable = select.select(lines, [], [], left)[0]
        for peer in peers:
            if peer.line in readable:
                _read(peer)


def _read(peer: Peer) -> None:
    assert peer.line is not None
    try:
        data = peer.line.recv(65536)
        peer.lost = "" if data else _ENDED
    except BlockingIOError:
        return
    except ConnectionResetError:
        peer.lost = _ENDED
    except OSError as error:
        peer.lost = error.strerror or str(error)
    if peer.lost:
        peer.silent = 0.0
        return
    *messages, peer.heard = (peer.heard + data).split(b"\n")
    for message in map(json.loads, messages):
        if isinstance(message, str):
            _end(message)  # somebody is known to hang; it may be us
        peer.silent = 0.0
        if (stamp := Stamp(*message)) != peer.stamp:
            peer.stamp, peer.unchanged = stamp, 0.0


def _say(peers: Sequence[Peer], message: str) -> None:
    for peer in peers:
        if peer.line is not None and not peer.lost:
            try:
                peer.line.send(message.encode() + b"\n")
            except BlockingIOError:
                pass  # it does not read: its silence will tell
            except OSError:
                pass  # the next read says what is wrong


def loss(peers: Sequence[Peer]) -> LostError | None:
    """Which other process, or its host, is gone."""
    for peer in peers:
        if peer.lost == _ENDED and peer.silent >= _GRACE:
            return LostError(f"{peer} is lost: its process ended (last: {peer.stamp})")
        if peer.lost and peer.lost != _ENDED:
            return LostError(f"{peer} is lost: its host does not answer, {peer.lost} (last: {peer.stamp})")
    return None


def silence(peers: Sequence[Peer], limit: float) -> WorkerError | None:
    """Which other process stands still, though its host answers: silent for `limit` seconds."""
    for peer in peers:
        if not peer.lost and peer.silent >= max(limit, 3 * _ROUND):
            return WorkerError(
                f"{peer} hangs: nothing heard for {_minutes(peer.silent)} (last: {peer.stamp})"
            )
    return None


def hang(peers: Sequence[Peer], limit: float) -> WorkerError | None:
    """Which of all processes is behind the others and makes no progress for `limit` seconds."""
    busy = [peer for peer in peers if not peer.stamp.waiting]
    behind = min((peer.stamp[:2] for peer in busy), default=None)
    slowest = [peer for peer in busy if peer.stamp[:2] == behind] or peers
    if any(peer.unchanged < patience(peer.stamp, limit) for peer in slowest):
        return None
    names, since = ", ".join(map(str, slowest)), f"no progress for {_minutes(slowest[0].unchanged)}"
    return WorkerError(f"{names} hang{'s' if len(slowest) == 1 else ''}: {since} ({slowest[0].stamp})")


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.2g} minutes"


def patience(stamp: Stamp, limit: float) -> float:
    """Seconds that what a process does may take."""
    if PHASES[stamp.phase] == "joining":
        return _MEETING
    return limit * (_LONG if PHASES[stamp.phase] in ("preparing", "saving") else 1)


def _end(wrong: str) -> None:
    """Leave this process's stacks in its log, and end: nothing else would, it may be held up anywhere."""
    print(f"kovqa: {wrong}; the stacks of this process:", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(sys.stderr, all_threads=True)
    os._exit(6)

"""A rank that hangs is named, and the run ends, instead of waiting for ever.

A hanging rank stops all others in their next collective, and NCCL's timeout would name those that wait.
So every process notes what it does (`set_phase`: its heartbeat), and a thread sends the heartbeat to the
first process once a second, over a connection of its own; the first process sends its own to every other.
Each judges the processes that it hears:

* a rank that is behind all others and whose heartbeat has not changed for `profile.watchdog_minutes`: it hangs;
* a rank not heard for so long, though its host answers: its process stands still (stopped by a signal, or by a debugger);
* a connection that the system gives up (the host is down, or its network is cut): known within a minute;
* a connection that was closed: the process ended. Its launcher acts on that, and gets some time to.

Time is counted in rounds of this thread, not by a clock: a machine that slept, or a job that was
suspended, raises no alarm. A process that waits for others is never the one that hangs.
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

from kovqa_core.bounded_json import parse_json
from kovqa_core.distributed.heartbeat import (
    HEARTBEAT_INTERVAL,
    NO_HEARTBEAT,
    PHASE_NAMES,
    PROCESS_ENDED,
    Heartbeat,
    WatchedPeer,
    find_hung_ranks,
    find_lost_peer,
    find_silent_peer,
)
from kovqa_core.errors import WorkerError
from kovqa_core.messages import Message
from kovqa_core.messages.system_reasons import system_reason

_TCP_TIMEOUT = 60  # seconds the system tries to reach a host that does not answer
_HELLO_TIMEOUT, _MAX_HELLO_BYTES = 5, 500  # seconds and bytes of the first line on a connection


@dataclass(frozen=True)
class WatchdogConfig:
    """How a process is watched.

    Attributes:
        rank: its place.
        minutes: how long a rank may be without progress.
        alarm: called with what is wrong before the process ends with 6.
        warn: called with a warning; the work goes on.
    """

    rank: int
    minutes: float
    alarm: Callable[[WorkerError], object]
    warn: Callable[[Message], object]


# Written by the main thread, read by the watchdog's: replaced as a whole (one reference), so no lock is needed,
# which a hanging main thread could hold.
_current_heartbeat = NO_HEARTBEAT
_shutting_down = threading.Event()


def set_phase(phase: str, step: int | None = None) -> None:
    """Note what this process does from now on.

    Args:
        phase: one of PHASE_NAMES.
        step: the step it belongs to; None: the same as before.
    """
    global _current_heartbeat
    before = _current_heartbeat
    _current_heartbeat = Heartbeat(
        before.step if step is None else step, PHASE_NAMES.index(phase), False, before.sequence + 1
    )


def note_progress() -> None:
    """Note that this process is alive, in the phase it is in."""
    global _current_heartbeat
    before = _current_heartbeat
    _current_heartbeat = before._replace(sequence=before.sequence + 1)


@contextlib.contextmanager
def waiting_for_peers() -> Iterator[None]:
    """Inside, this process waits for others.

    Without `finally`: a collective that raises has nothing to say any more, and its process ends.
    """
    _set_waiting(waiting=True)
    yield
    _set_waiting(waiting=False)


def _set_waiting(*, waiting: bool) -> None:
    global _current_heartbeat
    before = _current_heartbeat
    _current_heartbeat = before._replace(waiting=waiting, sequence=before.sequence + 1)


# ---------------------------------------------------------------------------------- connections


def listen_for_peers(callers: int) -> socket.socket:
    """A free port on all addresses: many a host resolves its own name to a loopback address."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=callers)
    return socket.create_server(("", 0), backlog=callers)


def accept_peers(server: socket.socket, number: int, secret: str, timeout: float) -> list[WatchedPeer]:
    """The connections of so many processes.

    Args:
        server: of `listen_for_peers`.
        number: how many will connect.
        secret: that their first line must hold.
        timeout: seconds in which all of them must have connected.

    Raises:
        OSError: they did not.
    """
    end, peers = time.monotonic() + timeout, list[WatchedPeer]()
    while len(peers) < number:
        server.settimeout(max(0.01, end - time.monotonic()))
        connection, _ = server.accept()
        connection.settimeout(_HELLO_TIMEOUT)
        try:
            hello = parse_json(connection.makefile("rb").readline(_MAX_HELLO_BYTES))
            if hello.pop("secret") == secret:
                peers.append(WatchedPeer(**hello, connection=_enable_keepalive(connection)))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            connection.close()  # a port scanner
    return peers


def connect_to_main(host: str, port: int, secret: str, rank: int, timeout: float) -> WatchedPeer:
    """The connection to the first process.

    Raises:
        OSError: it does not answer within `timeout` seconds.
    """
    connection = socket.create_connection((host, port), timeout)
    hello = {"rank": rank, "host": socket.gethostname(), "secret": secret}
    connection.sendall(json.dumps(hello).encode() + b"\n")
    return WatchedPeer(0, host, _enable_keepalive(connection))


def _enable_keepalive(connection: socket.socket) -> socket.socket:
    """Let the system itself probe the other end, so that a vanished host is noticed within _TCP_TIMEOUT.

    Keepalive probes an idle connection (15 s + 3 × 15 s), TCP_USER_TIMEOUT bounds how long sent bytes may stay
    without an answer: a heartbeat on its way suspends keepalive's probes, so both are needed.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        "TCP_KEEPIDLE": 15,
        "TCP_KEEPINTVL": 15,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": _TCP_TIMEOUT * 1000,
    }
    for name, value in options.items():
        if hasattr(socket, name):  # not every system has all of them
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    connection.setblocking(False)
    return connection


# ---------------------------------------------------------------------------------- watching


def start_watchdog(watch: WatchdogConfig, peers: list[WatchedPeer]) -> None:
    """Watch this process and its peers until `stop_watchdog`."""
    threading.Thread(target=_watchdog_loop, args=(watch, peers), name="watchdog", daemon=True).start()


def stop_watchdog() -> None:
    """Whatever ends from now on raises no alarm."""
    _shutting_down.set()


def _watchdog_loop(watch: WatchdogConfig, peers: list[WatchedPeer]) -> None:
    own = WatchedPeer(watch.rank, socket.gethostname())
    limit = 60 * watch.minutes
    while True:
        # C code that holds the GIL for good (a broken driver) stops this thread, too. faulthandler's own timer
        # thread needs no GIL: rearmed each round, it dumps the stacks when rounds cease.
        faulthandler.dump_traceback_later(limit + 30, file=sys.stderr)
        _receive_heartbeats(peers)
        _send_to_peers(peers, json.dumps(_current_heartbeat))
        _advance_timers([own, *peers])
        error = (
            find_lost_peer(peers)
            or find_silent_peer(peers, limit)
            # The first process alone hears all ranks, and can say who is behind.
            or (find_hung_ranks([own, *peers], limit) if own.rank == 0 else None)
        )
        if _shutting_down.is_set():
            return faulthandler.cancel_dump_traceback_later()
        if error:
            watch.alarm(error)
            _send_to_peers(peers, json.dumps(error.message))  # a text instead of a heartbeat: end, too
            _dump_stacks_and_exit(error.message)


def _advance_timers(peers: Sequence[WatchedPeer]) -> None:
    """One more round for every timer; this process's own heartbeat is read here, not received."""
    for peer in peers:
        peer.unchanged_seconds += HEARTBEAT_INTERVAL
        peer.silent_seconds += HEARTBEAT_INTERVAL
        if peer.connection is None and not peer.lost:
            peer.silent_seconds = 0.0
            if peer.heartbeat != _current_heartbeat:
                peer.heartbeat, peer.unchanged_seconds = _current_heartbeat, 0.0


def _receive_heartbeats(peers: list[WatchedPeer]) -> None:
    """Read for the length of a round."""
    end = time.monotonic() + HEARTBEAT_INTERVAL
    while (seconds_left := end - time.monotonic()) > 0:
        connections = [peer.connection for peer in peers if peer.connection is not None and not peer.lost]
        readable = select.select(connections, [], [], seconds_left)[0]
        for peer in peers:
            if peer.connection in readable:
                _read_peer(peer)


def _read_peer(peer: WatchedPeer) -> None:
    assert peer.connection is not None
    try:
        data = peer.connection.recv(65536)
        peer.lost = "" if data else PROCESS_ENDED
    except BlockingIOError:
        return
    except ConnectionResetError:
        peer.lost = PROCESS_ENDED
    except OSError as error:
        peer.lost = system_reason(error)
    if peer.lost:
        peer.silent_seconds = 0.0  # from now on: how long it is gone
        return
    *lines, peer.receive_buffer = (peer.receive_buffer + data).split(b"\n")
    for line in map(parse_json, lines):
        if isinstance(line, str):
            _dump_stacks_and_exit(line)  # a rank is known to hang; it may be this one
        peer.silent_seconds = 0.0
        if (heartbeat := Heartbeat(*line)) != peer.heartbeat:
            peer.heartbeat, peer.unchanged_seconds = heartbeat, 0.0


def _send_to_peers(peers: Sequence[WatchedPeer], line: str) -> None:
    for peer in peers:
        if peer.connection is not None and not peer.lost:
            try:
                peer.connection.send(line.encode() + b"\n")
            except BlockingIOError:
                pass  # it does not read: its silence is what we judge by
            except OSError:
                pass  # the next read says what is wrong


def _dump_stacks_and_exit(problem: str) -> None:
    """Leave this process's stacks in its log, and end.

    os._exit: the main thread hangs in a collective or a driver, where no exception and no signal handler of
    Python's reaches it, and an orderly exit would wait for it.
    """
    print(f"kovqa: {problem}; the stacks of this process:", file=sys.stderr, flush=True)
    faulthandler.dump_traceback(sys.stderr, all_threads=True)
    os._exit(6)

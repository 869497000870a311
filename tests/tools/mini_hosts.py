#!/usr/bin/env python3
"""A few "machines" on one machine, for tests of multi-node programs.

Every host is a network + UTS + mount + PID namespace of its own: own address, own
hostname, own /etc/hosts, own process table, and a bridge between them.  Files are shared
(like a cluster's shared file system).  No host name, route or address of the real machine
is touched; everything vanishes with `down`, or when the hosts' pid 1 are killed.
Needs root, util-linux and iproute2.  Standard library only.

  mini_hosts.py up --dir D --hosts 2
  mini_hosts.py exec --dir D --on h1 -- torchrun ...       # foreground, exit status passed on
  mini_hosts.py kill --dir D h2        # machine crash: every process of h2 gets SIGKILL
  mini_hosts.py start --dir D h2       # boot it again
  mini_hosts.py cut --dir D h2         # pull its network cable
  mini_hosts.py heal --dir D h2        # ... and plug it in again
  mini_hosts.py slow --dir D h2 10mbit # throttle its link ("off" undoes it)
  mini_hosts.py down --dir D

From Python:
  with MiniHosts("some-folder", ["h1", "h2"]) as net:
      a = net.popen(["torchrun", ...], on="h1"); net.kill("h2"); net.cut("h1")
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
NET = "10.77.0."

# pid 1 of a host.  It reaps orphans (a zombie would confuse whoever waits for a process
# group to vanish) and outlives the daemon it may be given, so that "the daemon crashed" and
# "the machine crashed" stay two things.  $1 hostname, $2 hosts file, $3 file that appears
# once the network is up, $4... the daemon, if any.
INIT = r"""
set -e
hostname "$1"; mount --bind "$2" /etc/hosts; ip link set lo up
flag=$3; shift 3
while [ ! -e "$flag" ]; do sleep 0.02; done
set +e
if [ $# -gt 0 ]; then "$@" & fi
while :; do wait -n || sleep 0.2; done
"""


def alive(pid: int) -> bool:
    """True while the process exists and is no zombie."""
    try:
        with Path(f"/proc/{pid}/stat").open() as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def stop(pid: int, sig: int = signal.SIGTERM, wait: float = 5.0) -> None:
    """Signal one process, by pid, and wait until it is gone; SIGKILL at the end."""
    for s, t in ((sig, wait), (signal.SIGKILL, 2.0)):
        if not alive(pid):
            return
        try:
            os.kill(pid, s)
        except ProcessLookupError:
            return
        end = time.monotonic() + t
        while alive(pid) and time.monotonic() < end:
            time.sleep(0.02)


def children(pid: int) -> list[int]:
    out = []
    for d in Path("/proc").iterdir():
        if d.name.isdigit():
            try:
                if int((d / "stat").read_text().rsplit(")", 1)[1].split()[1]) == pid:
                    out.append(int(d.name))
            except (OSError, ValueError):
                pass
    return out


def possible() -> bool:
    return (
        os.geteuid() == 0
        and subprocess.run(
            ["unshare", "-n", "-u", "-m", "-p", "-f", "--mount-proc", "true"], stderr=subprocess.DEVNULL
        ).returncode
        == 0
    )


class MiniHosts:
    """`login` (10.77.0.1) carries the bridge and keeps the real PID namespace; the hosts are
    10.77.0.11, .12, ... in the order given."""

    def __init__(self, dir, hosts=("h1", "h2"), daemons: dict[str, list[str]] | None = None, login="login"):
        self.dir = Path(dir).resolve()
        self.hosts = list(hosts)
        self.login = login
        self.daemons = daemons or {}
        self.pids: dict[str, int] = {}

    # ---- state on disk: `up` and `down` may be separate commands
    def save(self) -> None:
        (self.dir / "hosts.json").write_text(
            json.dumps({"hosts": self.hosts, "login": self.login, "daemons": self.daemons, "pids": self.pids})
        )

    @classmethod
    def load(cls, dir) -> MiniHosts:
        d = json.loads((Path(dir) / "hosts.json").read_text())
        pids = d.pop("pids")
        c = cls(dir, **d)
        c.pids = pids
        return c

    def addr(self, name: str) -> str:
        return NET + ("1" if name == self.login else str(11 + self.hosts.index(name)))

    def enter(self, name: str) -> list[str]:
        """Command prefix that runs the rest inside a host, in the current directory."""
        pidns = [] if name == self.login else ["-p"]
        return ["nsenter", "-t", str(self.pids[name]), "-n", "-u", "-m", *pidns, "env", "-C", str(Path.cwd())]

    def run(self, cmd, on: str | None = None, **kw) -> subprocess.CompletedProcess:
        return subprocess.run([*self.enter(on or self.login), *map(str, cmd)], **kw)

    def popen(self, cmd, on: str | None = None, **kw) -> subprocess.Popen:
        return subprocess.Popen([*self.enter(on or self.login), *map(str, cmd)], **kw)

    def _ip(self, name: str, *args: str) -> None:
        subprocess.run(["nsenter", "-t", str(self.pids[name]), "-n", "ip", *args], check=True)

    # ---- life cycle
    def up(self) -> MiniHosts:
        if (self.dir / "hosts.json").exists():
            raise RuntimeError(f"{self.dir} is in use: `down` first")
        self.dir.mkdir(parents=True, exist_ok=True)
        (self.dir / "hosts").write_text(
            "127.0.0.1 localhost\n" + "".join(f"{self.addr(h)} {h}\n" for h in [self.login, *self.hosts])
        )
        try:
            for h in [self.login, *self.hosts]:
                self.start(h)
        except BaseException:
            self.down()
            raise
        return self

    def start(self, name: str) -> None:
        flag = self.dir / f"net.{name}"
        flag.unlink(missing_ok=True)
        own_pids = [] if name == self.login else ["--pid", "--fork", "--mount-proc", "--kill-child"]
        with (self.dir / f"init.{name}.log").open("ab") as log:
            p = subprocess.Popen(
                [
                    "unshare",
                    "--net",
                    "--uts",
                    "--mount",
                    *own_pids,
                    "bash",
                    "-c",
                    INIT,
                    "init",
                    name,
                    str(self.dir / "hosts"),
                    str(flag),
                    *self.daemons.get(name, []),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + 10
        while True:  # until the init itself is inside its namespaces
            pid = p.pid if name == self.login else next(iter(children(p.pid)), 0)
            try:
                if pid and all(
                    Path(f"/proc/{pid}/ns/{k}").readlink() != Path(f"/proc/self/ns/{k}").readlink()
                    for k in ("net", "uts", "mnt")
                ):
                    break
            except OSError:
                pass
            if time.monotonic() > end or p.poll() is not None:
                raise RuntimeError(
                    f"host {name} did not start: {(self.dir / f'init.{name}.log').read_text()[-500:]}"
                )
            time.sleep(0.01)
        self.pids[name] = pid
        if name == self.login:
            self._ip(name, "link", "add", "br0", "type", "bridge")
            self._ip(name, "addr", "add", f"{NET}1/24", "dev", "br0")
            self._ip(name, "link", "set", "br0", "up")
        else:
            subprocess.run(
                ["nsenter", "-t", str(self.pids[self.login]), "-n", "ip", "link", "del", f"v-{name}"],
                stderr=subprocess.DEVNULL,
            )
            self._ip(
                self.login,
                "link",
                "add",
                f"v-{name}",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                str(pid),
            )
            self._ip(self.login, "link", "set", f"v-{name}", "master", "br0", "up")
            self._ip(name, "addr", "add", f"{self.addr(name)}/24", "dev", "eth0")
            self._ip(name, "link", "set", "eth0", "up")
        flag.touch()
        self.save()

    def kill(self, name: str) -> None:
        """The machine and all its processes are gone at once; peers get no FIN, no RST."""
        self.cut(name)  # first the cable, or the dying sockets would say good-bye
        os.kill(self.pids[name], signal.SIGKILL)
        while alive(self.pids[name]):
            time.sleep(0.01)

    def cut(self, name: str) -> None:
        self._ip(self.login, "link", "set", f"v-{name}", "down")

    def heal(self, name: str) -> None:
        self._ip(self.login, "link", "set", f"v-{name}", "up")

    def slow(self, name: str, rate: str) -> None:
        base = ["nsenter", "-t", str(self.pids[self.login]), "-n", "tc", "qdisc"]
        subprocess.run([*base, "del", "dev", f"v-{name}", "root"], stderr=subprocess.DEVNULL)
        if rate != "off":
            subprocess.run(
                [
                    *base,
                    "add",
                    "dev",
                    f"v-{name}",
                    "root",
                    "tbf",
                    "rate",
                    rate,
                    "burst",
                    "64kbit",
                    "latency",
                    "400ms",
                ],
                check=True,
            )

    def down(self) -> None:
        for h in self.hosts:
            if self.pids.get(h):
                stop(self.pids[h], signal.SIGKILL)
        if self.pids.get(self.login):
            for c in children(self.pids[self.login]):
                stop(c)
            stop(self.pids[self.login], signal.SIGKILL)
        (self.dir / "hosts.json").unlink(missing_ok=True)

    def __enter__(self) -> MiniHosts:
        return self.up()

    def __exit__(self, *exc) -> None:
        self.down()


def split_argv() -> tuple[list[str], list[str]]:
    """Everything after the first -- is a command to run."""
    argv = sys.argv[1:]
    if "--" not in argv:
        return argv, []
    i = argv.index("--")
    return argv[:i], argv[i + 1 :]


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("verb", choices=["up", "down", "exec", "kill", "start", "cut", "heal", "slow"])
    ap.add_argument("host", nargs="?")
    ap.add_argument("rate", nargs="?")
    ap.add_argument("--dir", required=True)
    ap.add_argument("--hosts", type=int, default=2)
    ap.add_argument("--on", help="exec: the host (default: login)")
    argv, rest = split_argv()
    a = ap.parse_intermixed_args(argv)
    if a.verb == "up":
        MiniHosts(a.dir, [f"h{i + 1}" for i in range(a.hosts)]).up()
        return 0
    net = MiniHosts.load(a.dir)
    if a.verb == "exec":
        return net.run(rest, on=a.on).returncode
    if a.verb == "down":
        net.down()
    elif a.verb == "slow":
        net.slow(a.host, a.rate)
    else:
        getattr(net, a.verb)(a.host)
    return 0


if __name__ == "__main__":
    if not shutil.which("nsenter"):
        sys.exit("needs util-linux (nsenter, unshare) and iproute2 (ip)")
    sys.exit(main())

#!/usr/bin/env python3
"""A real, throw-away SLURM cluster on one machine, for tests.

It runs the distribution's own slurmctld, slurmd and munged (nothing is mocked) below one
directory, without systemd and without touching /etc, the system's munge or the network.
Standard library only; needs mini_hosts.py beside it.

  mini_slurm.py up   --dir D [--mode auto|netns|loopback] [--nodes 2] [--cpus 4] [--gpus 4]
  mini_slurm.py exec --dir D -- srun -N2 -n2 hostname      # on the login host; --on n1: on a node
  mini_slurm.py kill-node  --dir D n2      # the whole "machine" dies at once (netns mode)
  mini_slurm.py start-node --dir D n2      # and comes back
  mini_slurm.py cut|heal   --dir D n2      # its network cable (netns mode)
  mini_slurm.py down --dir D

Two ways of making nodes:
  netns     each node is a "machine" of mini_hosts.py: own address, own hostname, own process
            table, names resolvable from every node.  Needs root.
  loopback  each node is one more slurmd on 127.0.0.1 with its own port.  Works without root
            (jobs then run as the calling user only), but node names do not resolve and all
            nodes share one hostname.

"GPUs" are copies of /dev/null handed to SLURM's gpu GRES: the scheduler counts, places and
binds them (CUDA_VISIBLE_DEVICES, --gpus-per-node, --gres, --gpus-per-task) as it would real
ones; there is just nothing behind them.

Partitions: main (default, preemptible: REQUEUE after a grace time) and urgent (preempts main).

From Python:   with MiniSlurm("some-folder") as c: c.run(["srun", "-N2", "hostname"])

Debian 12:  apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from mini_hosts import MiniHosts, alive, possible, split_argv, stop


def _free_ports(n: int) -> list[int]:
    socks = [socket.socket() for _ in range(n)]
    for s in socks:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in socks]
    for s in socks:
        s.close()
    return ports


class MiniSlurm:
    def __init__(self, dir, mode="auto", nodes=2, cpus=4, gpus=0, mem_mb=4000, extra_conf=""):
        self.dir = Path(dir).resolve()
        self.mode, self.n, self.cpus, self.gpus, self.mem = mode, nodes, cpus, gpus, mem_mb
        self.extra = extra_conf
        self.pids: dict[str, int] = {}
        self.names = [f"n{i + 1}" for i in range(nodes)]
        self.net: MiniHosts | None = None

    # ---- state on disk: `up` and `down` may be separate commands
    @property
    def _state(self) -> Path:
        return self.dir / "cluster.json"

    def _save(self) -> None:
        self._state.write_text(
            json.dumps(
                {
                    "mode": self.mode,
                    "nodes": self.n,
                    "cpus": self.cpus,
                    "gpus": self.gpus,
                    "mem_mb": self.mem,
                    "pids": self.pids,
                }
            )
        )

    @classmethod
    def load(cls, dir) -> MiniSlurm:
        d = json.loads((Path(dir) / "cluster.json").read_text())
        pids = d.pop("pids")
        c = cls(dir, **d)
        c.pids = pids
        if c.mode == "netns":
            c.net = MiniHosts.load(c.dir)
        return c

    # ---- configuration
    def _write_conf(self) -> None:
        d = self.dir
        for sub in ("munge", "state", "log", "gpu", *(f"spool.{n}" for n in self.names)):
            (d / sub).mkdir(parents=True, exist_ok=True)
        user = pwd.getpwuid(os.geteuid()).pw_name
        if self.mode == "loopback":
            ctl_port, *ports = _free_ports(1 + self.n)
            ctl = f"{socket.gethostname().split('.')[0]}(127.0.0.1)"
        else:
            ctl_port, ports = 6817, [6818] * self.n
            ctl = f"ctl({self.net.addr('ctl')})"
        lines = [
            "ClusterName=mini",
            f"SlurmctldHost={ctl}",
            f"SlurmctldPort={ctl_port}",
            # cred_expire is also the time that a requeued job has to wait: 120 s by default.
            "AuthType=auth/munge",
            "CredType=cred/munge",
            f"AuthInfo=socket={d}/munge/sock,cred_expire=5",
            f"SlurmUser={user}",
            f"SlurmdUser={user}",
            f"StateSaveLocation={d}/state",
            f"SlurmdSpoolDir={d}/spool.%n",
            f"SlurmctldPidFile={d}/slurmctld.pid",
            f"SlurmdPidFile={d}/slurmd.%n.pid",
            f"SlurmctldLogFile={d}/log/slurmctld.log",
            f"SlurmdLogFile={d}/log/slurmd.%n.log",
            # No cgroups: the hierarchy of a container or microVM is usually not ours to manage.
            "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none",
            "JobAcctGatherType=jobacct_gather/none",
            "AccountingStorageType=accounting_storage/none",
            "MpiDefault=none",
            "MailProg=/bin/true",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_CPU",
            "SlurmdParameters=config_overrides",  # nodes may claim more CPUs than the machine has
            "ReturnToService=2",  # a node that comes back is idle, not "down"
            # Everything fast, because tests wait for it.
            "SchedulerType=sched/backfill",
            "SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0,bf_interval=1",
            "KillWait=5",
            "SlurmdTimeout=20",
            "InactiveLimit=0",
            "MessageTimeout=10",
            "MinJobAge=300",
            # Requeue and preemption, as production clusters have them.
            "JobRequeue=1",
            "PreemptType=preempt/partition_prio",
            "PreemptMode=REQUEUE",
        ]
        gres = ""
        if self.gpus:
            lines.append("GresTypes=gpu")
            gres = f" Gres=gpu:{self.gpus}"
            dev = f"{d}/gpu/fake"  # SLURM insists on device files
            try:
                for i in range(self.gpus):
                    if not Path(f"{dev}{i}").exists():
                        os.mknod(f"{dev}{i}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            except PermissionError:
                dev = "/dev/tty"
            (d / "gres.conf").write_text(
                "".join(f"NodeName={n} Name=gpu File={dev}[0-{self.gpus - 1}]\n" for n in self.names)
            )
        for n, port in zip(self.names, ports, strict=True):
            addr = self.net.addr(n) if self.net else "127.0.0.1"
            lines.append(
                f"NodeName={n} NodeHostname={n} NodeAddr={addr} Port={port} "
                f"CPUs={self.cpus} RealMemory={self.mem}{gres} State=UNKNOWN"
            )
        every = ",".join(self.names)
        lines += [
            f"PartitionName=main Nodes={every} Default=YES MaxTime=INFINITE State=UP PriorityTier=10 GraceTime=5",
            f"PartitionName=urgent Nodes={every} MaxTime=INFINITE State=UP PriorityTier=100 PreemptMode=OFF",
        ]
        if self.extra:
            lines.append(self.extra)
        (d / "slurm.conf").write_text("\n".join(lines) + "\n")

    @property
    def conf(self) -> str:
        return str(self.dir / "slurm.conf")

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": self.conf}

    # ---- life cycle
    def up(self, timeout: float = 30.0) -> MiniSlurm:
        missing = [b for b in ("slurmctld", "slurmd", "srun", "munged") if not shutil.which(b)]
        if missing:
            raise RuntimeError("not installed: " + ", ".join(missing))
        if self._state.exists():
            raise RuntimeError(f"{self.dir} already holds a cluster: `down` it first")
        if self.mode == "auto":
            self.mode = "netns" if possible() else "loopback"
        if len(str(self.dir)) > 80:
            raise RuntimeError("--dir is too long for a unix socket below it")
        if self.mode == "netns":
            self.net = MiniHosts(
                self.dir,
                self.names,
                login="ctl",
                daemons={
                    "ctl": ["slurmctld", "-D", "-c", "-f", self.conf],
                    **{n: ["slurmd", "-D", "-f", self.conf, "-N", n] for n in self.names},
                },
            )
        self._write_conf()
        m = self.dir / "munge"
        (m / "key").unlink(missing_ok=True)
        (m / "key").write_bytes(os.urandom(1024))
        (m / "key").chmod(0o600)
        subprocess.run(
            [
                "munged",
                "--force",
                f"--key-file={m}/key",
                f"--socket={m}/sock",
                f"--pid-file={m}/pid",
                f"--log-file={m}/log",
                f"--seed-file={m}/seed",
            ],
            check=True,
        )
        self.pids["munged"] = self._pidfile("munge/pid")
        self._save()
        try:
            if self.net:
                self.net.up()
            else:
                subprocess.run(["slurmctld", "-c", "-f", self.conf], check=True)
                self.pids["slurmctld"] = self._pidfile("slurmctld.pid")
                for n in self.names:
                    self.start_node(n, wait=False)
            self._save()
            self.wait_idle(self.names, timeout)
        except BaseException:
            self.down()
            raise
        return self

    def _pidfile(self, name: str, timeout: float = 10) -> int:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            try:
                return int((self.dir / name).read_text())
            except (OSError, ValueError):
                time.sleep(0.02)
        raise RuntimeError(f"{name} did not appear, see {self.dir}/log")

    def start_node(self, name: str, wait: bool = True) -> None:
        if self.net:
            self.net.start(name)
        else:
            (self.dir / f"slurmd.{name}.pid").unlink(missing_ok=True)
            subprocess.run(["slurmd", "-f", self.conf, "-N", name], check=True)
            self.pids[name] = self._pidfile(f"slurmd.{name}.pid")
            self._save()
        if wait:
            self.wait_idle([name])

    def kill_node(self, name: str) -> None:
        """netns mode: the machine and all its processes; loopback mode: only its slurmd."""
        if self.net:
            self.net.kill(name)
        else:
            stop(self.pids[name], signal.SIGKILL)

    def wait_idle(self, names, timeout: float = 30.0) -> None:
        end = time.monotonic() + timeout
        out = ""
        while time.monotonic() < end:
            r = self.run(["sinfo", "-h", "-N", "-o", "%N %T"], capture_output=True, text=True)
            out = r.stdout + r.stderr
            if set(names) <= {
                line.split()[0]
                for line in r.stdout.splitlines()
                if line.split()[-1] in ("idle", "mixed", "allocated")
            }:
                return
            time.sleep(0.05)
        raise TimeoutError(f"nodes not idle after {timeout:g} s:\n{out}\nlogs: {self.dir}/log")

    def run(self, cmd, on: str = "ctl", **kw) -> subprocess.CompletedProcess:
        """Run a command on the login host (or on node `on`) with SLURM_CONF set."""
        kw.setdefault("env", self.env)
        return subprocess.run([*(self.net.enter(on) if self.net else []), *map(str, cmd)], **kw)

    def popen(self, cmd, on: str = "ctl", **kw) -> subprocess.Popen:
        kw.setdefault("env", self.env)
        return subprocess.Popen([*(self.net.enter(on) if self.net else []), *map(str, cmd)], **kw)

    def out(self, *cmd) -> str:
        return self.run(cmd, capture_output=True, text=True, check=True).stdout.strip()

    def wait_job(self, job, state: str, timeout: float = 60.0) -> float:
        """Wait until the job is in the state (RUNNING, PENDING, COMPLETED, FAILED, ...)."""
        t0 = time.monotonic()
        have = ""
        while time.monotonic() - t0 < timeout:
            have = self.run(
                ["squeue", "-h", "-t", "all", "-j", str(job), "-o", "%T"], capture_output=True, text=True
            ).stdout.strip()
            if have == state:
                return time.monotonic() - t0
            time.sleep(0.1)
        raise TimeoutError(f"job {job} is {have or 'unknown'}, not {state}, after {timeout:g} s")

    def down(self) -> None:
        if not self.net:
            if alive(self.pids.get("slurmctld", -1)):
                subprocess.run(
                    ["scancel", "-u", pwd.getpwuid(os.geteuid()).pw_name],
                    env=self.env,
                    stderr=subprocess.DEVNULL,
                )
                time.sleep(0.5)
            for k in ("slurmctld", *self.names):
                if self.pids.get(k):
                    stop(self.pids[k])
        else:
            self.net.down()
        if self.pids.get("munged"):
            stop(self.pids["munged"])
        self._state.unlink(missing_ok=True)

    def __enter__(self) -> MiniSlurm:
        return self.up()

    def __exit__(self, *exc) -> None:
        self.down()


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("verb", choices=["up", "down", "exec", "kill-node", "start-node", "cut", "heal"])
    ap.add_argument("node", nargs="?")
    ap.add_argument("--dir", required=True, help="the cluster's directory (short: a unix socket lies in it)")
    ap.add_argument("--mode", choices=["auto", "netns", "loopback"], default="auto")
    ap.add_argument("--nodes", type=int, default=2)
    ap.add_argument("--cpus", type=int, default=4, help="CPUs that each node claims to have")
    ap.add_argument("--gpus", type=int, default=0, help="pretended GPUs of each node")
    ap.add_argument("--on", default="ctl", help="exec: run on this node")
    argv, rest = split_argv()
    a = ap.parse_intermixed_args(argv)
    if a.verb == "up":
        t = time.monotonic()
        c = MiniSlurm(a.dir, a.mode, a.nodes, a.cpus, a.gpus).up()
        print(
            f"{c.mode} cluster of {c.n} nodes up in {time.monotonic() - t:.2f} s; export SLURM_CONF={c.conf}",
            file=sys.stderr,
        )
        return 0
    c = MiniSlurm.load(a.dir)
    if a.verb == "exec":
        return c.run(rest, on=a.on).returncode
    if a.verb == "kill-node":
        c.kill_node(a.node)
    elif a.verb == "start-node":
        c.start_node(a.node)
    elif a.verb in ("cut", "heal"):
        getattr(c.net, a.verb)(a.node)
    else:
        c.down()
    return 0


if __name__ == "__main__":
    sys.exit(main())

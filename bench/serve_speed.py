"""`kovqa serve` under load: 64 clients on loopback against `kovqa predict` on the same rows, and against one by one.

    python bench/serve_speed.py RUN TABLE IMAGES [--clients 64] [--seconds 120]

TABLE is an index's .jsonl. Every answer is compared with predict's for its id, by text and by score: one that belongs
to another question shows. Clients are one process that only writes bytes made before and reads replies, so that
server and model have the cores; each asks again when it has its answer. Then SIGTERM comes while all of them ask: what
was sent before must be answered.

Predict's rate is without its start: (rows - 1) / (time for all rows - time for one). The bound of a request's time is
what so many clients would wait at half of that rate, and for others: 2 * clients / rate + --max-wait-ms. On a machine
with other work compare the CPU time of a row, which such work hardly changes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

MAX_WAIT_MS = 5.0
REPEATS = 7  # of the table, for predict
KOVQA = [sys.executable, "-m", "kovqa_cli"]


@dataclass(frozen=True)
class Asked:
    """A row as the bytes of its request, and what predict says."""

    request: bytes
    answer: str
    score: float


@dataclass
class Load:
    """What clients saw."""

    seconds: list[float] = field(default_factory=list)
    mixed_up: int = 0
    refused: int = 0
    lost: int = 0  # no reply, or none of 200, though sent before the end
    unsent: int = 0  # sent after SIGTERM, and not answered: not accepted


def predict(
    run: Path, table: Path, images: Path, folder: Path
) -> tuple[dict[str, dict[str, object]], float, float]:
    """Predictions by id, rows a second, and CPU seconds a row."""
    lines = table.read_text("utf-8").splitlines()
    (folder / "one.jsonl").write_text(lines[0] + "\n", "utf-8")
    # So many that the start, which varies by seconds, does not matter; the first round has the table's own ids.
    rounds = [json.loads(line) for line in lines] * (1 + REPEATS)
    for number, row in enumerate(rounds[len(lines) :]):
        rounds[len(lines) + number] = {**row, "id": f"{row['id']}/{number}"}
    (folder / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rounds), "utf-8")
    took, used = [], []
    for name in ("one", "all"):
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        output = folder / f"{name}.predictions.jsonl"
        files = ["--input", folder / f"{name}.jsonl", "--images", images, "-o", output]
        words = ["predict", *files, "--model", run, "-q"]
        subprocess.run([*KOVQA, *map(str, words)], check=True, stdout=subprocess.DEVNULL)
        took.append(time.monotonic() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    rows = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    more = len(rounds) - 1
    return {row["id"]: row for row in rows}, more / (took[1] - took[0]), (used[1] - used[0]) / more


def make_requests(
    table: Path, images: Path, predictions: dict[str, dict[str, object]], host: str
) -> list[Asked]:
    """Every row's request as a form."""
    asked = []
    for line in table.read_text("utf-8").splitlines():
        row = json.loads(line)
        form = httpx2.Request(
            "POST", f"http://{host}/v1/vqa", data={"question": row["question"]},
            files={"image": ("a.png", (images / row["image"]).read_bytes())},
        )  # fmt: skip
        body = form.read()
        head = (
            f"POST /v1/vqa HTTP/1.1\r\nHost: {host}\r\nContent-Type: {form.headers['content-type']}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        predicted = predictions[row["id"]]
        asked.append(Asked(head.encode() + body, str(predicted["answer"]), float(str(predicted["score"]))))
    return asked


async def ask_for(
    asked: Sequence[Asked], host: str, clients: int, seconds: float, end: asyncio.Event | None = None
) -> Load:
    """So many clients for so long; or until the server closes its connections, after `end`."""
    load, until = Load(), time.monotonic() + seconds
    name, _, port = host.partition(":")

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(name, int(port))
        while time.monotonic() < until:
            number = (number + 37) % len(asked)
            began, was_ended = time.monotonic(), end is not None and end.is_set()
            try:
                writer.write(asked[number].request)
                status, body = await read_reply(reader)
            except (OSError, asyncio.IncompleteReadError):
                load.unsent, load.lost = load.unsent + was_ended, load.lost + (not was_ended)
                break
            load.seconds.append(time.monotonic() - began)
            if status != 200:
                load.refused += 1
                continue
            reply = json.loads(body)
            is_own = (
                reply["answer"] == asked[number].answer and abs(reply["score"] - asked[number].score) < 1e-4
            )
            load.mixed_up += not is_own
        writer.close()

    await asyncio.gather(*(client(n * 101) for n in range(clients)))
    return load


async def read_reply(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
    return int(head.split(b" ", 2)[1]), await reader.readexactly(length)


def cpu_seconds(process: int) -> float:
    """Of a process until now."""
    fields = Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(process: int) -> float:
    """Memory of a process that is in use."""
    status = Path(f"/proc/{process}/status").read_text("ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


async def measure(options: argparse.Namespace, process: subprocess.Popen[str], host: str, rate: float) -> int:
    """All measurements of a running server; prints them. Returns what is wrong: 0 for nothing."""
    asked = make_requests(options.table, options.images, options.predictions, host)
    await ask_for(asked, host, 1, 3)  # first batches are slower
    alone = await ask_for(asked, host, 1, min(20, options.seconds))
    one_by_one = len(alone.seconds) / sum(alone.seconds)
    await ask_for(asked, host, options.clients, 5)
    before, used, began = resident_mb(process.pid), cpu_seconds(process.pid), time.monotonic()
    load = await ask_for(asked, host, options.clients, options.seconds)
    took, after = time.monotonic() - began, resident_mb(process.pid)
    used = (cpu_seconds(process.pid) - used) / len(load.seconds)
    served = len(load.seconds) / took
    spans = statistics.quantiles(load.seconds, n=100)
    bound = 2 * options.clients / rate + MAX_WAIT_MS / 1000
    print(f"predict --input  {rate:8.1f} rows/s  {1000 * options.cpu:.1f} ms of CPU a row")
    print(f"one by one       {one_by_one:8.1f} rows/s  p50 {1000 * statistics.median(alone.seconds):.0f} ms")
    print(
        f"{options.clients} clients       {served:8.1f} rows/s  {served / rate:.2f} of predict, {took:.0f} s"
    )
    print(
        f"time             p50 {1000 * spans[49]:.0f} ms, p95 {1000 * spans[94]:.0f} ms (bound {1000 * bound:.0f} ms)"
    )
    print(
        f"requests         {len(load.seconds)}, lost {load.lost}, refused {load.refused}, mixed up {load.mixed_up}"
    )
    print(f"memory           {before:.0f} MB before, {after:.0f} MB after")
    end = asyncio.Event()
    asking = asyncio.ensure_future(ask_for(asked, host, options.clients, 60, end))
    await asyncio.sleep(3)
    process.send_signal(signal.SIGTERM)
    end.set()
    last = await asking
    code = await asyncio.to_thread(process.wait, 60)
    print(
        f"SIGTERM          {len(last.seconds)} answered, {last.lost} lost, {last.unsent} sent afterwards and refused, "
        f"{last.mixed_up} mixed up, exit code {code}"
    )
    wrong = load.lost + load.refused + load.mixed_up + last.lost + last.mixed_up + (code != 143)
    return wrong + (served < rate / 2) + (served < one_by_one) + (spans[94] > bound)


def main() -> None:
    """Measure, print, and end with 1 if a bound does not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    options = parser.parse_args()
    print(f"load average     {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        options.predictions, rate, options.cpu = predict(
            options.run, options.table, options.images, Path(folder)
        )
        words = ["serve", "--model", options.run, "--port", 0, "--max-wait-ms", MAX_WAIT_MS, "-q"]
        with subprocess.Popen([*KOVQA, *map(str, words)], stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                host = process.stdout.readline().strip().removeprefix("http://")
                wrong = asyncio.run(measure(options, process, host, rate))
            finally:
                process.kill()
    print(f"load average     {os.getloadavg()[0]:.1f}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

"""What `kovqa train` costs before the first step: beside the same worker started by plain torchrun.

    python bench/launch_cost.py [--rounds 5]

Each round starts one training of one step both ways, one after the other and in changing order, and
takes the seconds until the first step stands in log.jsonl. Aim: at most 0.5 s more.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kovqa_core.demo.dataset import write_demo_dataset
from kovqa_core.index.build import build_index
from kovqa_core.tokenizer.train import train_tokenizer

KOVQA = [sys.executable, "-P", "-m", "kovqa_cli"]
AIM = 0.5  # seconds
SMALL = (
    "model.size=custom", "model.custom=[32, 2, 2, 64]", "model.image_size=32", "model.max_text=24",
    "optim.global_batch=8", "optim.warmup_steps=0", "optim.steps=1", "log_every=1", "profile.threads=1",
)  # fmt: skip


def train_command(folder: Path) -> list[str]:
    """`kovqa train …` of a small model on drawn scenes."""
    write_demo_dataset(folder / "raw", 24, 9, 3)
    build_index("aihub", folder / "raw", None, folder / "index")
    train_tokenizer([folder / "raw" / "text.txt"], folder / "tokenizer.model", 500)
    files = ["--data", str(folder / "index"), "--tokenizer", str(folder / "tokenizer.model")]
    return [*KOVQA, "train", "-r", "tiny", "-p", "cpu", *files, *(w for s in SMALL for w in ("--set", s))]


def seconds_to_first_step(argv: list[str], env: dict[str, str], run: Path) -> float:
    """Seconds from the start of a command to the first step in the run's log."""
    began = time.perf_counter()
    process = subprocess.Popen(
        argv, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    log = run / "log.jsonl"
    while not (log.exists() and '"train"' in log.read_text("utf-8")):
        if process.poll() not in (None, 0):
            sys.exit(f"{argv[:4]} … ended with {process.returncode}")
        time.sleep(0.005)
    took = time.perf_counter() - began
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        process.wait()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = train_command(folder)
        took: dict[str, list[float]] = {"kovqa train": [], "torchrun": []}
        for number in range(rounds + 1):
            dry = [*train, "-o", str(folder / f"t{number}"), "--dry-run", "--json"]
            plan = json.loads(subprocess.run(dry, capture_output=True, text=True, check=True).stdout)
            run_file = (
                folder / f"t{number}" / "run.yaml"
            )  # which that command reads, and a plan does not write
            run_file.parent.mkdir()
            run_file.write_text(json.dumps(plan["run"]), encoding="utf-8")
            ways = {
                "kovqa train": ([*train, "-o", str(folder / f"k{number}")], {}, folder / f"k{number}"),
                "torchrun": (plan["argv"], plan["env"], folder / f"t{number}"),
            }
            for way in sorted(ways, reverse=bool(number % 2)):
                seconds = seconds_to_first_step(*ways[way])
                if number:  # the first round warms the disk's cache
                    took[way].append(seconds)
        for way, way_seconds in took.items():
            print(f"{way:12} median {statistics.median(way_seconds):.2f} s, best {min(way_seconds):.2f} s")
        difference = statistics.median(k - t for k, t in zip(*took.values(), strict=True))
        print(f"kovqa train takes {difference:.2f} s more (median of {rounds} pairs; aim: at most {AIM} s)")
        sys.exit(difference > AIM)


if __name__ == "__main__":
    main()

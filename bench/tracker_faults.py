"""What trackers cost a run: its bits, its CPU time and its time, with real libraries and servers that fail.

    python bench/tracker_faults.py INDEX TOKENIZER FOLDER [STEPS] [ROUNDS] [CASES]

Servers are local: nothing listens ("down"), every reply is an error ("500"), a reply takes 3 s ("slow"), or none ever
comes ("hangs"). Runs of all cases follow one another, round by round, so that a busy machine is busy for all.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

SERVER = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        if sys.argv[1] == "hangs": time.sleep(10_000)
        if sys.argv[1] == "slow": time.sleep(3)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(500); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"{}")
    do_GET = do_POST = do_PUT = do_PATCH = answer
    def log_message(self, *words): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
TRAIN = """
import sys, time, json
from pathlib import Path
import torch
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.settings.resolve import resolve_settings
from kovqa_core.settings.run import make_run, write_run
from kovqa_core.train.loop import run_training
index, tokenizer, folder, steps, track = sys.argv[1:]
torch.set_num_threads(1)
sets = ["model.size=custom", "model.custom=[64, 2, 2, 128]", "model.image_size=32", "model.max_text=24",
    "optim.global_batch=8", "optim.warmup_steps=2", "optim.epochs=null", f"optim.steps={steps}",
    f"eval.every_steps={steps}", "log_every=5", "profile.threads=1", f"train.track={track}"]
settings = resolve_settings("tiny", "cpu", sets, {"data.index": index, "model.tokenizer": tokenizer})
Path(folder).mkdir(parents=True)
run = make_run(settings.recipe, settings.profile, Path(folder), [])
write_run(run)
from kovqa_core.tracking.guarded_tracker import RunTrackers
close, closing = RunTrackers.close, []
def timed_close(self, outcome):
    began = time.monotonic()
    close(self, outcome)
    closing.append(time.monotonic() - began)
RunTrackers.close = timed_close
cpu = time.process_time()
run_training(run, RankInfo(0, 0, 1), torch.device("cpu"), lambda: False)
print(json.dumps({"cpu": time.process_time() - cpu, "end": closing[0]}))
"""
REMOTE = {
    "wandb": lambda url: {
        "WANDB_MODE": "online",
        "WANDB_BASE_URL": url,
        "WANDB_API_KEY": "local-" + "0" * 40,
    },
    "mlflow": lambda url: {"MLFLOW_TRACKING_URI": url},
    "trackio": lambda url: {"TRACKIO_SERVER_URL": url + "/?write_token=0123456789abcdef"},
}
FAULTS = ("down", "500", "slow", "hangs")


def main(
    index: str, tokenizer: str, folder: Path, steps: str = "300", rounds: str = "3", wanted: str = ""
) -> None:
    servers = {fault: start_server(fault) for fault in FAULTS[1:]}
    urls = {
        "down": "http://127.0.0.1:9",
        **{fault: f"http://127.0.0.1:{port}" for fault, (_, port) in servers.items()},
    }
    cases: dict[str, tuple[str, dict[str, str]]] = {
        "none": ("[]", {}),
        "none again": ("[]", {}),
        "tensorboard": ("[tensorboard]", {}),
        "all, offline": ("[tensorboard, wandb, mlflow, trackio]", {}),
    }
    for name, variables in REMOTE.items():
        cases |= {f"{name} {fault}": (f"[{name}]", variables(urls[fault])) for fault in FAULTS}
    cases = {name: case for name, case in cases.items() if wanted in name or case == ("[]", {})}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    digests = set()
    try:
        for number in range(int(rounds)):
            for name, (track, variables) in cases.items():
                run = folder / f"{name.replace(' ', '-').replace(',', '')}-{number}"
                done = subprocess.run(
                    [sys.executable, "-c", TRAIN, index, tokenizer, str(run), steps, track],
                    capture_output=True, text=True, check=True, env={**os.environ, **variables, "OMP_NUM_THREADS": "1"},
                )  # fmt: skip
                result = json.loads(done.stdout)
                result["train"] = json.loads((run / "result.json").read_text())["seconds"]
                results[name].append(result)
                digests.add(digest(run))
                if number == 0:
                    print(
                        *(line for line in done.stderr.splitlines() if line.startswith("warning")), sep="\n"
                    )
                    print(f"{name}: {result}", flush=True)
    finally:
        for process, _ in servers.values():
            process.kill()
    assert len(digests) == 1, digests
    print(f"\none checkpoint, {digests.pop()}; load {os.getloadavg()}\n")
    print("| trackers | CPU of the run, s | training, s | end, s |\n|---|---|---|---|")
    for name, each in results.items():
        # The least CPU time: whatever else runs here only adds to it.
        cpu = min(result["cpu"] for result in each)
        train, end = (statistics.median(result[key] for result in each) for key in ("train", "end"))
        print(f"| {name} | {cpu:.2f} | {train:.1f} | {end:.1f} |")


def start_server(fault: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen([sys.executable, "-c", SERVER, fault], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def digest(run: Path) -> str:
    step = run / (run / "last").read_text().strip()
    found = hashlib.sha256()
    for file in sorted(step.glob("*.safetensors")):
        found.update(file.read_bytes())
    return found.hexdigest()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])

"""Training steps of real models on a GPU that is not there: what they move, and how fast that should be.

    python -m bench.gpu_simulation [CASE …] [--compile no|yes|both] [--json FILE] [--lines]

From the root of the repository, with a torch that is built with CUDA (pip install torch: no GPU and no driver are
needed, but a C compiler). FakeTensors of device cuda go through the engine's own training loop under CUDA's
autocast, forward and backward, and each operation's bytes are counted; where compiled, those of the kernels that
inductor would generate. Where only a CPU build of torch can be installed, this cannot run: devices, dtypes and waits
are then held by tests/models/test_cuda_autocast.py and tests/models/test_simulated_cuda.py, on small models.

About a minute a case. Times are of a model (time_model.py), not measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from bench.gpu_simulation.fake_gpu import torch_has_cuda, use_fake_gpu


def main() -> None:
    """Print one line a case, as soon as it is counted."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu_simulation",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("case", nargs="*", help="as in cases.py; none: all")
    parser.add_argument("--compile", choices=("no", "yes", "both"), default="both")
    parser.add_argument("--micro-batch", type=int, help="of another size than the case's")
    parser.add_argument("--json", type=Path, help="also write the counts there")
    parser.add_argument(
        "--lines", action="store_true", help="which line waits, and which operation moves how much"
    )
    options = parser.parse_args()
    if not torch_has_cuda():
        raise SystemExit(
            "this torch is built without CUDA; the checks of devices and dtypes are in tests/models"
        )
    use_fake_gpu(["-m", "bench.gpu_simulation", *sys.argv[1:]])
    _print_table(options)


def _print_table(options: argparse.Namespace) -> None:
    # Only now: torch must find the driver when it is loaded.
    from bench.gpu_simulation.cases import CASES, NEIGHBOURS
    from bench.gpu_simulation.time_model import CARDS, PUBLISHED, examples_per_second, launch_limit
    from bench.gpu_simulation.training_step import count_step

    known, rows = {**CASES, **NEIGHBOURS}, []
    if unknown := [name for name in options.case if name not in known]:
        raise SystemExit(f"no case {unknown[0]}; there are {', '.join(known)}")
    print(
        "| model | micro-batch | kernels | MB outside products | MB in products | GFLOP | waits a step | graphs "
        f"| memory GB | {' | '.join(f'{card}, examples/s' for card in CARDS)} | launches allow |\n"
        f"|{'---|' * (10 + len(CARDS))}"
    )
    for name in options.case or known:
        case = known[name]
        modes = [False, True] if options.compile == "both" else [options.compile == "yes"]
        for compile in modes if name in CASES else [False]:
            counts = count_step(case, compile=compile, micro_batch=options.micro_batch)
            size = options.micro_batch or case.micro_batch
            speeds = [examples_per_second(card, counts.other_mb, counts.gflop) for card in CARDS.values()]
            limit = launch_limit(counts.kernels, size)
            label = f"{name}{', compiled' if compile else ''}"
            print(
                f"| {label} | {size} | {counts.kernels:,} | {counts.other_mb:,.0f} | {counts.product_mb:,.0f} | "
                f"{counts.gflop:,.0f} | {sum(counts.waits.values())} | {counts.graphs} | {counts.peak_gb:.1f} | "
                f"{' | '.join(f'{speed:,.0f}' for speed in speeds)} | {limit:,.0f} |",
                flush=True,
            )
            if name in PUBLISHED:
                expected = examples_per_second(CARDS["RTX 3090"], counts.other_mb, counts.gflop)
                print(
                    f"  calibration: {expected:.0f} on an RTX 3090, published {PUBLISHED[name]}",
                    file=sys.stderr,
                )
            if options.lines:
                for line, number in counts.waits.items():
                    print(f"  waits {number}: {line}", file=sys.stderr)
                for operation, moved in sorted(counts.by_operation.items(), key=lambda pair: -pair[1])[:10]:
                    print(f"  {moved / size / 1e6:8.1f} MB {operation}", file=sys.stderr)
            rows.append({"case": name, "compiled": compile, "micro_batch": size, **asdict(counts)})
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1) + "\n")


main()

"""How fast kovqa is on a GPU, beside its peers, in one command of some minutes.

    python bench/gpu_speed.py [--budget 300] [--rows 0,1,3] [--output FILE] [--device cuda]

Rows come in the order of what they tell. A row is begun only if it fits into what is left of the budget (its
usual time on an H100, longer in proportion on a slower card), and the file is written anew after every row: whole
or not at all, so that a run that is cut off leaves what it has measured. Without --output it goes into
docs/gpu/CARD.json, of which `bench/gpu_table.py` makes the table of docs/measured.md. docs/gpu/README.md says what each row
means. With --device cpu all shapes are tiny: no figure of that means anything, but everything still runs.
"""

from __future__ import annotations

import argparse
import platform
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from gpu_contestants import Bench
from gpu_other_rows import nia_row, vlm_row, whole_run_row
from gpu_rows import (
    RowResult,
    answers_row,
    batch_sizes_row,
    captions_row,
    ceilings,
    compiled_row,
    lengths_row,
    timm_row,
    training_row,
)
from gpu_timing import free_memory
from kovqa_core.files import write_json
from kovqa_core.machine.versions import engine_git_state, machine_facts, package_versions

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "gpu"
H100_PRODUCT = 790e12  # FLOP/s of row 0's product there; the rows' usual seconds are of that card


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        number: as docs/gpu/README.md explains it.
        title: what is measured.
        seconds: that it takes on an H100.
        measure: does it.
    """

    number: int
    title: str
    seconds: float
    measure: Callable[[Bench], RowResult]


ROWS = (
    Row(0, "ceilings: an 8192³ product in bf16, a copy", 4, ceilings),
    Row(
        1,
        "training, large 224, micro-batch 128",
        35,
        partial(training_row, size="large", image=224, micro_batch=128),
    ),
    Row(
        2,
        "training, base 480, micro-batch 64",
        25,
        partial(training_row, size="base", image=480, micro_batch=64),
    ),
    Row(3, "answers, base 224 and large 480", 20, answers_row),
    Row(4, "answers, base 224, by batch size", 8, batch_sizes_row),
    Row(5, "training, large 224, compiled", 50, compiled_row),
    Row(6, "training, large 224, beside timm's ViT-L", 18, timm_row),
    Row(7, "24 new text lengths, by order of attention kernels", 15, lengths_row),
    Row(
        8,
        "training, large 480, micro-batch 16",
        25,
        partial(training_row, size="large", image=480, micro_batch=16),
    ),
    Row(9, "captions, base 480, 3 beams, 20 tokens", 30, captions_row),
    Row(10, "training, nia, micro-batch 64", 12, nia_row),
    Row(11, "a vision language model of 0.8 billion parameters", 30, vlm_row),
    Row(12, "a whole kovqa train, large 224", 60, whole_run_row),
)


def card_facts(device: torch.device) -> dict[str, Any]:
    """What the figures are of."""
    is_gpu = device.type == "cuda"
    state, facts = engine_git_state(), machine_facts()
    return {
        "schema": 1,
        "card": torch.cuda.get_device_name(device) if is_gpu else f"CPU ({platform.machine()})",
        "memory_bytes": torch.cuda.get_device_properties(device).total_memory if is_gpu else 0,
        "driver": facts.driver,
        "cuda": torch.version.cuda,
        "cores": facts.cores,
        "versions": package_versions(("kovqa", "torch", "triton", "transformers", "timm", "torchscale")),
        "commit": state.commit if state else None,
        "changed": state.dirty if state else None,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def card_file(card: str) -> Path:
    """docs/gpu/CARD.json, the card's name in letters, digits and dashes."""
    return RESULTS / (re.sub(r"[^A-Za-z0-9]+", "-", card).strip("-") + ".json")


def run_rows(bench: Bench, rows: list[Row], budget: float, output: Path) -> dict[str, Any]:
    """Measure rows while they fit into the budget; the file is written after each."""
    began, slower = time.monotonic(), 1.0
    report = {
        **card_facts(bench.device),
        "tiny": bench.tiny,
        "budget_seconds": budget,
        "rows": {},
        "left_out": {},
    }
    for row in rows:
        left = budget - (time.monotonic() - began)
        needs = 0.0 if bench.tiny else row.seconds * slower
        if needs > left:
            report["left_out"][str(row.number)] = f"{left:.0f} s are left, it takes about {needs:.0f}"
        else:
            report["rows"][str(row.number)] = _measure(bench, row)
        product = report["rows"].get("0", {}).get("numbers", {}).get("product_flops_per_second")
        if product and not bench.tiny:
            slower = max(1.0, H100_PRODUCT / product)
        write_json(output, report)
    return report


def _measure(bench: Bench, row: Row) -> dict[str, Any]:
    began = time.monotonic()
    try:
        result = row.measure(bench)
    except Exception as error:  # whatever it is, the other rows can still be measured
        if bench.tiny:
            raise
        said = (str(error).splitlines() or [""])[0][:300]
        result = RowResult(notes=[f"failed: {type(error).__name__}: {said}"])
    free_memory(bench.device)
    seconds = round(time.monotonic() - began, 1)
    _print_row(row, result, seconds)
    return {"title": row.title, "took_seconds": seconds, **asdict(result)}


def _print_row(row: Row, result: RowResult, seconds: float) -> None:
    print(f"{row.number:>2}  {row.title} ({seconds:.0f} s)", flush=True)
    for one in result.contestants:
        low, middle, high = one["seconds"]  # type: ignore[misc]
        spread = f"{middle * 1e3:.1f} ms ({low * 1e3:.1f}-{high * 1e3:.1f})"  # type: ignore[has-type]
        peak = int(str(one["peak_bytes"])) / 2**30
        print(f"      {one['name']!s:<32}{one['examples_per_second']:>10} /s   {spread:<32}{peak:6.1f} GiB")
    for name, value in result.numbers.items():
        print(f"      {name:<48}{value:.4g}")
    for note in result.notes:
        print(f"      {note}", flush=True)


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--budget", type=float, default=300.0, help="seconds for all rows")
    parser.add_argument("--rows", default="", help="only these, like 0,1,3")
    parser.add_argument("--output", type=Path, help="JSON file; docs/gpu/CARD.json if left out")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        sys.exit(
            "torch sees no GPU here: kovqa doctor --deep says why; --device cpu shows that everything runs"
        )
    if asked.device == "cpu" and asked.output is None:
        sys.exit(
            "--device cpu needs --output: its figures are of tiny shapes and do not belong into docs/gpu"
        )
    bench = Bench(torch.device(asked.device), asked.device == "cpu", 0.0 if asked.device == "cpu" else 4.0)
    wanted = {int(number) for number in asked.rows.split(",") if number}
    rows = [row for row in ROWS if not wanted or row.number in wanted]
    output = asked.output or card_file(card_facts(bench.device)["card"])
    output.parent.mkdir(parents=True, exist_ok=True)
    report = run_rows(bench, rows, asked.budget, output)
    for number, why in report["left_out"].items():
        print(f"{number:>2}  left out: {why}")
    print(f"written: {output}")


if __name__ == "__main__":
    main()

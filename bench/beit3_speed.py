"""BEiT-3 for VQA: ours against the original, and against the bare matrix products.

    python bench/beit3_speed.py [--size base] [--image 224] [--batch 8] [--device cpu|cuda]

Both models hold the same weights and see the same questions and pictures. The check that they
give the same logits comes first. Then all contestants are timed in turns, each repeat with
another batch and another order, and every ratio is taken inside one repeat, so that a busy
machine disturbs both sides alike. With `--threads 1` on a CPU the clock is the process's own CPU
time, so what else runs there hardly counts. The original reads text padded to 64 tokens with its mask, as
the published code does; ours reads it as long as the longest question of the batch.

The floor is the time of the matrix products that the step cannot do without, alone: no
attention softmax, no LayerNorm, no activation, no bias, no optimizer.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from floor import Floor
from kovqa_core.models.beit3.config import ModelConfig
from kovqa_core.models.beit3.network import Beit3VqaNet
from kovqa_core.models.beit3.new_weights import init_weights
from original import OriginalVqa, difference, original_like
from torch import Tensor, nn
from torch.nn import functional

CLASSES, VOCAB, TEXT = 3129, 64010, 64
# Tokens per question, start and end token included: the 288 questions of the photo set under
# KoBEiT3's tokenizer (mean 14.6), as {length: questions}.
LENGTHS = {9: 8, 10: 12, 11: 14, 12: 16, 13: 94, 14: 56, 15: 40, 22: 48}
BATCHES = 8  # different batches, used in turn
TOLERANCE = 1e-4

Step = Callable[[int], object]  # number of the repeat -> anything


@dataclass(frozen=True)
class Batch:
    """Images, questions padded to TEXT, and soft answers."""

    image: Tensor
    tokens: Tensor
    padding: Tensor
    labels: Tensor
    longest: int

    @property
    def original(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the original reads."""
        return self.image, self.tokens, self.padding

    @property
    def ours(self) -> tuple[Tensor, Tensor, Tensor]:
        """What ours reads."""
        return self.image, self.tokens[:, : self.longest], self.padding[:, : self.longest]


def make_batch(config: ModelConfig, size: int, seed: int, device: str) -> Batch:
    """A batch whose questions are as long as real ones."""
    lengths = random.Random(seed).choices(list(LENGTHS), list(LENGTHS.values()), k=size)
    random_ = torch.Generator().manual_seed(seed)
    image = torch.rand(size, 3, config.image_size, config.image_size, generator=random_) * 2 - 1
    tokens = torch.randint(4, config.vocab_size or VOCAB, (size, TEXT), generator=random_)
    padding = torch.arange(TEXT) >= torch.tensor(lengths)[:, None]
    tokens = tokens.masked_fill(padding, 1)
    labels = torch.zeros(size, config.num_classes or CLASSES)
    labels[torch.arange(size), torch.randint(0, labels.shape[1], (size,), generator=random_)] = 1.0
    tensors = (x.to(device) for x in (image, tokens, padding, labels))
    return Batch(*tensors, longest=max(lengths))


# ---------------------------------------------------------------- timing


@dataclass(frozen=True)
class Row:
    """One comparison of the table."""

    title: str
    original: str
    ours: str
    floor: str


def sync(device: str) -> None:
    """Wait until the device has finished."""
    if device == "cuda":
        torch.cuda.synchronize()


def take_turns(steps: dict[str, Step], repeats: int, device: str) -> dict[str, list[float]]:
    """Seconds of every step, one list entry per repeat; the order rotates."""
    names = list(steps)
    alone = device == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in names}
    # A round warms up; on a GPU one of every batch, as each shape may need kernels or plans of its own.
    for repeat in range(-BATCHES if device == "cuda" else -1, repeats):
        shift = repeat % len(names)
        for name in names[shift:] + names[:shift]:
            sync(device)
            start = clock()
            steps[name](repeat % BATCHES)
            sync(device)
            if repeat >= 0:
                seconds[name].append(clock() - start)
    return seconds


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def ratios(above: list[float], below: list[float]) -> tuple[float, float, float]:
    """Quartiles of the ratios inside each repeat."""
    return quartiles([a / b for a, b in zip(above, below, strict=True)])


def print_table(rows: list[Row], seconds: dict[str, list[float]], batch: int) -> None:
    """The comparison, one line per row."""
    head = ("", "original s", "ours s", "ratio (quartiles)", "original/s", "ours/s", "of the floor")
    print(f"\n{head[0]:<50}{head[1]:>11}{head[2]:>9}{head[3]:>22}{head[4]:>12}{head[5]:>9}{head[6]:>14}")
    for row in rows:
        theirs, own = (statistics.median(seconds[name]) for name in (row.original, row.ours))
        low, ratio, high = ratios(seconds[row.original], seconds[row.ours])
        share = ratios(seconds[row.floor], seconds[row.ours])[1]
        spread = f"{ratio:.2f} ({low:.2f}-{high:.2f})"
        print(
            f"{row.title:<50}{theirs:>11.3f}{own:>9.3f}{spread:>22}"
            f"{batch / theirs:>12.1f}{batch / own:>9.1f}{share:>13.0%}"
        )


# ---------------------------------------------------------------- contestants


class Bench:
    """Both models, their batches and the steps that are timed."""

    def __init__(self, size: str, image: int, batch: int, device: str) -> None:
        self.config = ModelConfig.model_validate(
            {"size": size, "image_size": image, "max_text": TEXT, "vocab_size": VOCAB, "num_classes": CLASSES}
        )
        self.device = device
        self.batches = [make_batch(self.config, batch, seed, device) for seed in range(BATCHES)]
        torch.manual_seed(0)
        self.ours = Beit3VqaNet(self.config)
        init_weights(self.ours, torch.Generator().manual_seed(0))
        self.original = original_like(self.ours, OriginalVqa(self.config)).to(device)
        self.ours.to(device)

    def autocast(self, on: bool) -> Any:
        """bf16 autocast, or nothing."""
        return torch.autocast(self.device, torch.bfloat16) if on else nullcontext()

    def check(self) -> float:
        """Largest difference of the logits over all batches."""
        self.ours.eval()
        self.original.eval()
        return max(difference(self.original, self.ours, b.original, b.ours) for b in self.batches)

    def floor(self, dtype: torch.dtype) -> Floor:
        """The floor at the batches' mean text length."""
        middle = sorted(self.batches, key=lambda b: b.longest)[len(self.batches) // 2]
        return Floor(self.ours, middle.image, middle.longest, dtype)

    def answer(self, net: nn.Module, side: str, dtype: torch.dtype, autocast: bool = False) -> Step:
        """A forward pass without gradients."""

        @torch.no_grad()
        def step(number: int) -> Tensor:
            image, tokens, padding = getattr(self.batches[number], side)
            with self.autocast(autocast):
                return net(image.to(dtype), tokens, padding)

        return step

    def train(self, net: nn.Module, side: str, optimizer: torch.optim.Optimizer, autocast: bool) -> Step:
        """A full training step."""

        def step(number: int) -> None:
            batch = self.batches[number]
            optimizer.zero_grad()
            with self.autocast(autocast):
                logits = net(*getattr(batch, side))
            loss = functional.binary_cross_entropy_with_logits(logits.float(), batch.labels)
            (loss * batch.labels.shape[1]).backward()
            optimizer.step()

        return step

    def forward_steps(self) -> tuple[dict[str, Step], list[Row], list[Floor]]:
        """Contestants and rows of the forward pass."""
        floors = [self.floor(torch.float32), self.floor(torch.bfloat16)]
        half, float_ = torch.bfloat16, torch.float32
        their_half = OriginalVqa(self.config).to(self.device, half).eval()
        their_half.load_state_dict(self.original.state_dict())
        our_half = Beit3VqaNet(self.config).to(self.device, half).eval()
        our_half.load_state_dict(self.ours.state_dict())
        steps = {
            "original fp32": self.answer(self.original, "original", float_),
            "ours fp32": self.answer(self.ours, "ours", float_),
            "floor fp32": floors[0].forward,
            "original autocast": self.answer(self.original, "original", float_, autocast=True),
            "ours bf16": self.answer(our_half, "ours", half),
            "floor bf16": floors[1].forward,
            "original bf16": self.answer(their_half, "original", half),
        }
        rows = [
            Row("forward, fp32", "original fp32", "ours fp32", "floor fp32"),
            Row("forward, ours bf16 weights, original fp32", "original fp32", "ours bf16", "floor bf16"),
            Row(
                "forward, ours bf16 weights, original autocast",
                "original autocast",
                "ours bf16",
                "floor bf16",
            ),
            Row("forward, both bf16 weights", "original bf16", "ours bf16", "floor bf16"),
        ]
        return steps, rows, floors

    def train_steps(self) -> tuple[dict[str, Step], list[Row], list[Floor]]:
        """Contestants and rows of the training step."""
        floors = [self.floor(torch.float32), self.floor(torch.bfloat16)]
        self.original.train()
        self.ours.train()
        theirs = torch.optim.AdamW(self.original.parameters(), lr=1e-5, weight_decay=0.01)
        learning = [p for p in self.ours.parameters() if p.requires_grad]
        own = torch.optim.AdamW(learning, lr=1e-5, weight_decay=0.01, fused=True)
        steps = {
            "original fp32": self.train(self.original, "original", theirs, autocast=False),
            "ours fp32": self.train(self.ours, "ours", own, autocast=False),
            "floor fp32": floors[0].step,
            "original autocast": self.train(self.original, "original", theirs, autocast=True),
            "ours autocast": self.train(self.ours, "ours", own, autocast=True),
            "floor bf16": floors[1].step,
        }
        rows = [
            Row("training step, fp32", "original fp32", "ours fp32", "floor fp32"),
            Row(
                "training step, ours autocast, original fp32", "original fp32", "ours autocast", "floor bf16"
            ),
            Row("training step, both autocast", "original autocast", "ours autocast", "floor bf16"),
        ]
        return steps, rows, floors


# ---------------------------------------------------------------- where the time goes

GROUPS = {
    "matrix products of the linear layers": (
        "addmm",
        "mm",
        "linear",
        "matmul",
        "bmm",
        "mkldnn",
        "convolution",
    ),
    "attention: scores, softmax, weighted sum": ("scaled_dot_product", "attention", "softmax", "baddbmm"),
    "LayerNorm": ("layer_norm",),
    "GELU": ("gelu",),
    "optimizer": ("adamw", "adam", "addcdiv", "addcmul", "lerp", "sqrt"),
    "text table: lookup and gradient": ("embedding", "index_select"),
    "streams joined and cut": ("cat", "split", "narrow"),
    "copies, casts, layouts": ("copy", "clone", "contiguous", "to", "select_backward", "slice_backward"),
    "residual and bias additions": ("add", "sum"),
    "fills": ("zero", "fill", "zeros", "ones", "empty"),
}


def group_of(operation: str) -> str:
    """The readable name of a profiled operation."""
    name = operation.removeprefix("aten::").removeprefix("mkldnn::").strip("_").lower()
    for group, words in GROUPS.items():
        if any(name == word or (len(word) > 3 and word in name) for word in words):
            return group
    return "everything else"


def breakdown(step: Step, device: str, repeats: int) -> dict[str, float]:
    """Seconds per step of each group of operations, largest first."""
    activity = torch.profiler.ProfilerActivity
    activities = [activity.CPU, activity.CUDA] if device == "cuda" else [activity.CPU]
    step(0)
    with torch.profiler.profile(activities=activities) as profile:
        for repeat in range(repeats):
            step(repeat % BATCHES)
        sync(device)
    totals: dict[str, float] = {}
    for event in profile.key_averages():
        spent = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        group = group_of(event.key)
        totals[group] = totals.get(group, 0.0) + spent / 1e6 / repeats
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


def print_breakdown(title: str, seconds: dict[str, float], floor: float) -> None:
    """Where a step's time goes."""
    total = sum(seconds.values())
    print(f"\nwhere the time goes: {title}")
    print(f"  {total:.3f} s under the profiler; the bare products take {floor:.3f} s")
    for group, value in seconds.items():
        if value / total >= 0.001:
            print(f"  {group:<44}{value:>8.3f} s{value / total:>7.1%}")


# ---------------------------------------------------------------- command


def machine(device: str) -> str:
    """What it ran on, for the record."""
    name = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} CPU threads"
    load = os.getloadavg()[0]
    return f"torch {torch.__version__}, {name}, load {load:.1f}"


def print_peak(floors: list[Floor], rows: list[Row], seconds: dict[str, list[float]], peak: float) -> None:
    """Share of the chip's peak that each of our steps reaches."""
    for row in rows:
        floor = floors["bf16" in row.floor]
        rate = floor.flops("training" in row.title) / statistics.median(seconds[row.ours]) / 1e12
        print(f"  {row.title:<50}{rate:>8.2f} TFLOP/s{rate / peak:>8.1%} of the peak")


def run_part(bench: Bench, part: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Time, print and return one half: `forward` or `train`."""
    steps, rows, floors = bench.forward_steps() if part == "forward" else bench.train_steps()
    seconds = take_turns(steps, arguments.repeats, bench.device)
    print_table(rows, seconds, arguments.batch)
    if arguments.peak_tflops:
        print_peak(floors, rows, seconds, arguments.peak_tflops)
    report: dict[str, Any] = {"seconds": seconds, "rows": [asdict(row) for row in rows], "where": {}}
    for name in [n for n in steps if n.startswith("ours")]:
        floor = "floor fp32" if name == "ours fp32" else "floor bf16"
        parts = breakdown(steps[name], bench.device, 3)
        report["where"][name] = parts
        print_breakdown(f"{part}, {name}", parts, statistics.median(seconds[floor]))
    return report


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="BEiT-3 VQA speed: ours, the original, and the floor.")
    parser.add_argument("--size", default="base", choices=("tiny", "base", "large"))
    parser.add_argument("--image", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, help="CPU threads; default: as torch chooses")
    parser.add_argument("--parts", nargs="+", default=("forward", "train"), choices=("forward", "train"))
    parser.add_argument("--peak-tflops", type=float, help="the chip's dense bf16 peak, for shares of it")
    parser.add_argument("--json", type=Path, help="write all timings here")
    return parser.parse_args()


def main() -> None:
    """Check, time, explain."""
    arguments = parse()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    bench = Bench(arguments.size, arguments.image, arguments.batch, arguments.device)
    longest = [b.longest for b in bench.batches]
    sizes = f"BEiT-3 {arguments.size} at {arguments.image}, batch {arguments.batch}"
    print(f"{sizes}; {machine(arguments.device)}")
    print(f"longest question of each batch: {longest}")
    gap = bench.check()
    print(f"same weights, same inputs: logits differ by {gap:.1e} at most (fp32)")
    if arguments.device == "cpu" and gap > TOLERANCE:
        raise SystemExit(f"the two models disagree by more than {TOLERANCE}: nothing was timed")
    report = {"machine": machine(arguments.device), "difference": gap}
    for part in arguments.parts:
        report[part] = run_part(bench, part, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

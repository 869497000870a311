"""Contestants of one row of `gpu_speed.py`, timed in turns on one device.

Every shape is visited twice before the clock: kernels are loaded, chosen and compiled by then, and the allocator has
its blocks. Then the contestants take turns; a turn runs all shapes once, back to back, between two CUDA events, so
that the CPU may run ahead as it does in training.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import torch

VISITS = 2  # of every shape before the clock
MIN_TURNS, MAX_TURNS = 3, 12

Step = Callable[[int], object]  # number of the batch -> anything


@dataclass(frozen=True)
class Contestant:
    """One way to do a row's work.

    Attributes:
        name: as the table shows it.
        examples: of one step.
        step: does the batch of this number.
        held_bytes: of the device, that its weights and batches take.
    """

    name: str
    examples: int
    step: Step
    held_bytes: int = 0


@dataclass(frozen=True)
class Measured:
    """What came of a contestant.

    Attributes:
        name: of the contestant.
        examples_per_second: at the median.
        seconds: of one step: lower quartile, median, upper quartile.
        turns: that were timed.
        warm_up_seconds: of the visits before the clock, compilation included.
        peak_bytes: of the device at the fullest moment of its steps, without what other contestants hold.
        flops: of its products in one step, counted by torch on the mean shape; None: not counted.
    """

    name: str
    examples_per_second: float
    seconds: tuple[float, float, float]
    turns: int
    warm_up_seconds: float
    peak_bytes: int
    flops: float | None = None

    def to_json(self) -> dict[str, object]:
        """As it stands in the file."""
        return asdict(self)


@dataclass
class _Clock:
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    warm_up_seconds: float = 0.0


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def held_bytes(device: torch.device) -> int:
    """Bytes of the device that tensors take now; 0 on a CPU, where torch does not count them."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def free_memory(device: torch.device) -> None:
    """Give back what the last row left."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def seconds_of(steps: Callable[[], object], device: torch.device) -> float:
    """Seconds that some steps take: by CUDA events on a GPU, by the clock on the wall elsewhere."""
    wait_for(device)
    if device.type != "cuda":
        began = time.perf_counter()
        steps()
        return time.perf_counter() - began
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    steps()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3


def time_in_turns(
    contestants: Sequence[Contestant],
    shapes: int,
    device: torch.device,
    seconds: float,
    count_flops: Sequence[str] = (),
) -> list[Measured]:
    """Time contestants in turns, each turn in another order.

    Args:
        contestants: of one row.
        shapes: batches 0 … shapes - 1 of each.
        device: they run on.
        seconds: after which no further turn is begun; `MIN_TURNS` are made in any case, of tiny shapes (0 seconds) two.
        count_flops: names of those whose products are counted, in one more step of each shape.
    """
    clocks = {one.name: _Clock() for one in contestants}
    for one in contestants:
        began = time.perf_counter()
        for _ in range(VISITS if seconds else 1):
            _turn(one, shapes)
        wait_for(device)
        clocks[one.name].warm_up_seconds = time.perf_counter() - began
    began = time.perf_counter()
    for turn in range(MAX_TURNS):
        if turn >= (MIN_TURNS if seconds else 2) and time.perf_counter() - began > seconds:
            break
        shift = turn % len(contestants)
        for one in (*contestants[shift:], *contestants[:shift]):
            _time_turn(one, shapes, device, clocks[one.name])
    flops = {one.name: _count_flops(one, shapes) for one in contestants if one.name in count_flops}
    return [_measured(one, clocks[one.name], flops.get(one.name)) for one in contestants]


def _turn(one: Contestant, shapes: int) -> None:
    for number in range(shapes):
        one.step(number)


def _time_turn(one: Contestant, shapes: int, device: torch.device, clock: _Clock) -> None:
    before = held_bytes(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    clock.seconds.append(seconds_of(lambda: _turn(one, shapes), device) / shapes)
    if device.type == "cuda":
        own = torch.cuda.max_memory_allocated(device) - before + one.held_bytes
        clock.peak_bytes = max(clock.peak_bytes, own)


def _count_flops(one: Contestant, shapes: int) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        _turn(one, shapes)
    return counter.get_total_flops() / shapes


def _measured(one: Contestant, clock: _Clock, flops: float | None) -> Measured:
    low, middle, high = statistics.quantiles(clock.seconds, n=4, method="inclusive")
    return Measured(
        one.name,
        round(one.examples / middle, 2),
        (low, middle, high),
        len(clock.seconds),
        round(clock.warm_up_seconds, 2),
        clock.peak_bytes,
        flops,
    )


def multiply_rate(device: torch.device, size: int, repeats: int) -> float:
    """FLOP/s of a bf16 matrix product, size × size × size, of random numbers: zeros would be faster."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    result = torch.empty_like(left)
    product = Contestant("product", 1, lambda _: torch.mm(left, right, out=result))
    (measured,) = time_in_turns([product], repeats, device, 1.0)
    return 2 * size**3 / measured.seconds[1]


def copy_rate(device: torch.device, size: int, repeats: int) -> float:
    """Bytes a second of a copy inside the device's memory, those read and those written."""
    source = torch.randint(0, 255, (size,), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    copy = Contestant("copy", 1, lambda _: target.copy_(source))
    (measured,) = time_in_turns([copy], repeats, device, 1.0)
    return 2 * size / measured.seconds[1]

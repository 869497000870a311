"""What nvidia-smi says of this machine's NVIDIA GPUs. Whatever it says, nothing here raises."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache

from kovqa_core.messages import Message, message
from kovqa_core.messages.system_reasons import system_reason
from kovqa_core.system_support import end_process_group

DEVICE_ORDER_VARIABLE = "CUDA_DEVICE_ORDER"
VISIBLE_DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"
PCI_ORDER = "PCI_BUS_ID"  # nvidia-smi's order; CUDA's own default is FASTEST_FIRST

# Eight GPUs without persistence mode take over 20 s, because the driver is loaded for each query.
QUERY_SECONDS = 60.0

_CARD_QUERY = (
    "--query-gpu=name,memory.total,compute_cap",
    "--format=csv,noheader,nounits",
)  # in PCI order, as -L
_OLD_CARD_QUERY = ("--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
_UNKNOWN_FIELD = "is not a valid field"  # drivers before 510 do not know compute_cap
_DRIVER_QUERY = ("--query-gpu=driver_version", "--format=csv,noheader,nounits")
_LIST_QUERY = ("-L",)

# GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-5d5ba0d6-…)
#   MIG 1g.10gb     Device  0: (UUID: MIG-c6d4f1ef-…)
_LISTED_CARD = re.compile(r"GPU \d+: .*\(UUID: (GPU-[^)]+)\)")
# NVIDIA GeForce RTX 3090, 24576, 8.6
_CARD_ROW = re.compile(
    r"\s*(\S.*?)\s*,\s*([\d.]+|\[[^\]]*\]|N/A|ERR!)(?:\s*,\s*(\d+\.\d+|\[[^\]]*\]|N/A|ERR!))?\s*"
)
# What torch says of each GPU, in PCI order, whichever are hidden from this process.
_TORCH_CAPABILITIES = (
    "import torch; [print('{}.{}'.format(*torch.cuda.get_device_capability(i))) "
    "for i in range(torch.cuda.device_count())]"
)
_LISTED_SLICE = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-[^)]+)\)")


@dataclass(frozen=True)
class MigSlice:
    """A part of a GPU that is used like a GPU (MIG): its size, like `1g.10gb`, and its UUID."""

    size: str
    uuid: str

    @property
    def memory_gb(self) -> int | None:
        """Its own memory, which its size names."""
        memory = re.search(r"(\d+)gb", self.size)
        return int(memory[1]) if memory else None


@dataclass(frozen=True)
class NvidiaCard:
    """A whole GPU; its memory in GB, None where nvidia-smi does not say (`[N/A]`: shared with the CPU)."""

    name: str
    memory_gb: int | None
    uuid: str = ""
    slices: tuple[MigSlice, ...] = ()
    compute_capability: tuple[int, int] | None = None  # like (8, 6)


@dataclass(frozen=True)
class NvidiaReport:
    """All that nvidia-smi says.

    Attributes:
        cards: in the order of the PCI bus; lost ones are left out.
        driver: its version.
        problem: that nvidia-smi fails, takes too long, or misses a GPU; with its own line.
    """

    cards: tuple[NvidiaCard, ...] = ()
    driver: str | None = None
    problem: Message | None = None


def nvidia_report() -> NvidiaReport:
    """What nvidia-smi says; empty where there is none. Asked once in a process."""
    tool = shutil.which("nvidia-smi")
    return _ask_nvidia_smi(tool) if tool else NvidiaReport()


@lru_cache(maxsize=8)
def _ask_nvidia_smi(tool: str) -> NvidiaReport:
    # Side by side: where one query takes 25 s, the three together take hardly more.
    with ThreadPoolExecutor(3) as pool:
        rows, listed, versions = pool.map(
            lambda query: _run_query(tool, *query), (_CARD_QUERY, _LIST_QUERY, _DRIVER_QUERY)
        )
    is_old = _UNKNOWN_FIELD in rows.output
    if is_old:
        rows = _run_query(tool, *_OLD_CARD_QUERY)
    cards = _parse_cards(rows.output.splitlines())
    present = [card for card in cards if not _is_lost(card[1])]
    words = versions.output.split() if not versions.failure else []
    found = [
        NvidiaCard(name, _parse_memory(memory), compute_capability=_parse_capability(capability))
        for name, memory, capability in present
    ]
    if is_old:
        found = _with_torch_capabilities(found)
    return NvidiaReport(
        tuple(_with_uuids(found, listed.output)),
        words[0] if words else None,
        _problem(rows, cards, len(present)),
    )


def _problem(rows: _Answer, cards: list[tuple[str, str, str]], present: int) -> Message | None:
    if rows.failure:
        return rows.failure
    if present < len(cards):
        lost = next(f"{name}, {memory}" for name, memory, _ in cards if _is_lost(memory))
        return message("machine.gpu-lost", "nvidia-smi: {row}", row=lost)
    if not cards and not rows.output.strip():
        return message("machine.smi-silent", "nvidia-smi is here, but prints nothing")
    if not cards:
        return message("machine.smi-no-gpu", "nvidia-smi shows no GPU: {line}", line=_first_line(rows.output))
    return None


def _parse_cards(lines: list[str]) -> list[tuple[str, str, str]]:
    """Rows of name, memory and compute capability ("" where it was not asked for); complaints stand among them."""
    rows = (_CARD_ROW.fullmatch(line) for line in lines)
    return [(row[1], row[2], row[3] or "") for row in rows if row]


def _is_lost(cell: str) -> bool:
    return "lost" in cell.lower() or "reset" in cell.lower()  # [GPU is lost], [GPU requires reset]


def _parse_memory(cell: str) -> int | None:
    """MiB, as nvidia-smi prints them, in GB; None where it prints something else."""
    try:
        return round(float(cell) / 1024)
    except (ValueError, OverflowError):
        return None


def _parse_capability(cell: str) -> tuple[int, int] | None:
    major, dot, minor = cell.partition(".")
    return (int(major), int(minor)) if dot and major.isdecimal() and minor.isdecimal() else None


def _with_torch_capabilities(cards: list[NvidiaCard]) -> list[NvidiaCard]:
    """Cards with the compute capabilities that torch reports; as they are where the two do not agree."""
    hidden = (VISIBLE_DEVICES_VARIABLE, DEVICE_ORDER_VARIABLE)
    environ = {name: value for name, value in os.environ.items() if name not in hidden}
    answer = _run_query(
        sys.executable, "-P", "-c", _TORCH_CAPABILITIES, environ={**environ, DEVICE_ORDER_VARIABLE: PCI_ORDER}
    )
    lines = answer.output.split()
    if answer.failure or len(lines) != len(cards):
        return cards
    return [
        replace(card, compute_capability=_parse_capability(line))
        for card, line in zip(cards, lines, strict=True)
    ]


def _with_uuids(cards: list[NvidiaCard], listed: str) -> Iterator[NvidiaCard]:
    """Cards with the UUIDs and slices of `nvidia-smi -L`; as they are where the two do not agree."""
    uuids: list[str] = []
    slices: list[list[MigSlice]] = []
    for line in listed.splitlines():
        if card := _LISTED_CARD.match(line):
            uuids.append(card[1])
            slices.append([])
        elif (part := _LISTED_SLICE.match(line)) and slices:
            slices[-1].append(MigSlice(part[1], part[2]))
    if len(uuids) != len(cards):
        yield from cards
        return
    for known, uuid, own in zip(cards, uuids, slices, strict=True):
        yield replace(known, uuid=uuid, slices=tuple(own))


# --------------------------------------------------------------------------------- one query


@dataclass(frozen=True)
class _Answer:
    output: str
    failure: Message | None = None


def _run_query(tool: str, *options: str, environ: Mapping[str, str] | None = None) -> _Answer:
    try:
        process = subprocess.Popen(
            [tool, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            env=environ,
        )
    except OSError as error:
        return _Answer(
            "",
            message("machine.smi-not-started", "{tool}: {problem}", tool=tool, problem=system_reason(error)),
        )
    try:
        output, errors = process.communicate(timeout=QUERY_SECONDS)
    except subprocess.TimeoutExpired:
        end_process_group(process)
        # Not waited for without an end: a query that hangs in the driver cannot even be killed.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        return _Answer(
            "",
            message(
                "machine.smi-too-slow", "nvidia-smi is here, but did not answer within {seconds:g} s",
                seconds=QUERY_SECONDS,
            ),
        )  # fmt: skip
    if process.returncode:
        return _Answer(
            output,
            message(
                "machine.smi-fails", "nvidia-smi is here, but fails with {code}: {line}",
                code=process.returncode, line=_first_line(output) or _first_line(errors),
            ),
        )  # fmt: skip
    return _Answer(output)


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")

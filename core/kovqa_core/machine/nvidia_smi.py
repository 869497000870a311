"""What nvidia-smi says of this machine's NVIDIA GPUs. Whatever it says, nothing here raises."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

from kovqa_core.messages import Message, message

# Eight GPUs without persistence mode take over 20 s, because the driver is loaded for each query.
QUERY_SECONDS = 60.0

_CARD_QUERY = ("--query-gpu=name,memory.total", "--format=csv,noheader,nounits")  # in PCI order, as -L
_DRIVER_QUERY = ("--query-gpu=driver_version", "--format=csv,noheader,nounits")
_LIST_QUERY = ("-L",)

# GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-5d5ba0d6-…)
#   MIG 1g.10gb     Device  0: (UUID: MIG-c6d4f1ef-…)
_LISTED_CARD = re.compile(r"GPU \d+: .*\(UUID: (GPU-[^)]+)\)")
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
    cards = _parse_cards(rows.output.splitlines())
    present = [card for card in cards if not _is_lost(card[1])]
    words = versions.output.split() if not versions.failure else []
    return NvidiaReport(
        tuple(_with_uuids([NvidiaCard(name, _parse_memory(cell)) for name, cell in present], listed.output)),
        words[0] if words else None,
        _problem(rows, cards, len(present)),
    )


def _problem(rows: _Answer, cards: list[tuple[str, str]], present: int) -> Message | None:
    if rows.failure:
        return rows.failure
    if present < len(cards):
        lost = next(f"{name}, {cell}" for name, cell in cards if _is_lost(cell))
        return message("machine.gpu-lost", "nvidia-smi: {row}", row=lost)
    if not cards:
        return message("machine.smi-no-gpu", "nvidia-smi shows no GPU: {line}", line=_first_line(rows.output))
    return None


def _parse_cards(lines: list[str]) -> list[tuple[str, str]]:
    """Rows of name and memory. Complaints stand among them, so a row is what ends in a number or in brackets."""
    rows = []
    for line in lines:
        name, comma, cell = (word.strip() for word in line.rpartition(","))
        if comma and name and (_parse_memory(cell) is not None or re.fullmatch(r"\[.*\]|N/A|ERR!", cell)):
            rows.append((name, cell))
    return rows


def _is_lost(cell: str) -> bool:
    return "lost" in cell.lower() or "reset" in cell.lower()  # [GPU is lost], [GPU requires reset]


def _parse_memory(cell: str) -> int | None:
    """MiB, as nvidia-smi prints them, in GB; None where it prints something else."""
    try:
        return round(float(cell) / 1024)
    except (ValueError, OverflowError):
        return None


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
        yield NvidiaCard(known.name, known.memory_gb, uuid, tuple(own))


# --------------------------------------------------------------------------------- one query


@dataclass(frozen=True)
class _Answer:
    output: str
    failure: Message | None = None


def _run_query(tool: str, *options: str) -> _Answer:
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
        )
    except OSError as error:
        return _Answer(
            "",
            message("machine.smi-not-started", "{tool}: {problem}", tool=tool, problem=error.strerror),
        )
    try:
        output, errors = process.communicate(timeout=QUERY_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
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

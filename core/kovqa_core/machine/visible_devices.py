"""CUDA_VISIBLE_DEVICES: which of a machine's GPUs CUDA shows to a process.

Read as torch reads it (`torch.cuda._parse_visible_devices`, torch 2.13), which follows CUDA: an entry that is
not there ends the list, a repeated one empties it, numbers and UUIDs do not mix, and the first letters of a
UUID will do. Numbers are those of nvidia-smi, because kovqa sets CUDA_DEVICE_ORDER=PCI_BUS_ID where nothing
else is set.

Of the slices of MIG a process sees one, and beside it no whole GPU (NVIDIA's MIG User Guide, "CUDA Device
Enumeration").
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kovqa_core.machine.nvidia_smi import MigSlice, NvidiaCard
from kovqa_core.messages import Message, message

MIG_MARK = "MIG"  # in the name of a part of a GPU


@dataclass(frozen=True)
class GpuInfo:
    """One visible GPU, NVIDIA's or Apple's; its memory in GB, None where nobody says."""

    name: str
    memory_gb: int | None
    compute_capability: tuple[int, int] | None = None  # NVIDIA's, like (8, 6); None where nobody says

    @property
    def memory_text(self) -> str:
        """Its memory, for people."""
        if self.memory_gb is None:
            return message("machine.memory-unknown", "memory not known")
        return f"{self.memory_gb} GB"


def visible_cards(
    cards: Sequence[NvidiaCard], visible: str | None, order: str | None
) -> tuple[list[GpuInfo], Message | None]:
    """The GPUs that CUDA shows, and what is wrong with the list of those wanted.

    Args:
        cards: of the machine, as nvidia-smi lists them.
        visible: CUDA_VISIBLE_DEVICES; None: not set.
        order: CUDA_DEVICE_ORDER; None: not set.
    """
    # nvidia-smi does not say which is the fastest; the one with the most memory mostly is.
    if order == "FASTEST_FIRST":
        cards = sorted(cards, key=lambda card: -(card.memory_gb or 0))
    if visible is None:
        return _gpus_of(cards), None
    entries = [entry.strip() for entry in visible.split(",")]
    if entries[0].startswith("MIG-"):
        return _visible_slices(cards, visible, entries)
    if entries[0].startswith("GPU-") and not any(card.uuid for card in cards):
        return _unlisted_gpus(cards, entries), None
    numbers, problem = _card_numbers(cards, visible, entries)
    return _gpus_of([cards[number] for number in numbers]), problem


def _card_numbers(
    cards: Sequence[NvidiaCard], visible: str, entries: list[str]
) -> tuple[list[int], Message | None]:
    by_uuid = entries[0].startswith("GPU-")
    numbers: list[int] = []
    for entry in entries:
        if by_uuid:
            found = [
                n for n, card in enumerate(cards) if entry.startswith("GPU-") and card.uuid.startswith(entry)
            ]
            number = found[0] if len(found) == 1 else None
        else:
            digits = re.match(r"\+?\d+", entry)  # CUDA reads it with strtoul: "1gpu" is 1
            number = int(digits[0]) if digits else None
            if number is None and (not entry or entry.startswith("-")):
                return numbers, None  # the usual way to hide the rest, or all
        if number is None or number >= len(cards):
            return numbers, _no_such_gpu(visible, entry, len(cards))
        if number in numbers:
            return [], _repeated_gpu(visible)
        numbers.append(number)
    return numbers, None


def _visible_slices(
    cards: Sequence[NvidiaCard], visible: str, entries: list[str]
) -> tuple[list[GpuInfo], Message | None]:
    if len({*entries}) < len(entries):
        return [], _repeated_gpu(visible)
    slices = [(card, part) for card in cards for part in card.slices]
    found = [(card, part) for card, part in slices if part.uuid.startswith(entries[0])]
    if found:
        return [_slice_info(*found[0])], None
    if slices:
        return [], _no_such_gpu(visible, entries[0], len(cards))
    # nvidia-smi lists no slice, as inside of some containers: then neither whose it is nor its size is known.
    return [GpuInfo(f"{cards[0].name} {MIG_MARK}", None, cards[0].compute_capability)] if cards else [], None


def _unlisted_gpus(cards: Sequence[NvidiaCard], entries: list[str]) -> list[GpuInfo]:
    """UUIDs, and an nvidia-smi that names none: known only where all cards are alike."""
    count = min(len(entries), len(cards))
    gpus = {_card_info(card) for card in cards}
    return [*gpus] * count if len(gpus) == 1 else [GpuInfo("NVIDIA GPU", None)] * count


def _gpus_of(cards: Sequence[NvidiaCard]) -> list[GpuInfo]:
    for card in cards:
        if card.slices:
            return [_slice_info(card, card.slices[0])]
    return [_card_info(card) for card in cards]


def _card_info(card: NvidiaCard) -> GpuInfo:
    return GpuInfo(card.name, card.memory_gb, card.compute_capability)


def _slice_info(card: NvidiaCard, part: MigSlice) -> GpuInfo:
    return GpuInfo(f"{card.name} {MIG_MARK} {part.size}", part.memory_gb, card.compute_capability)


def _no_such_gpu(visible: str, entry: str, count: int) -> Message:
    return message(
        "machine.no-such-visible-gpu",
        "CUDA_VISIBLE_DEVICES={visible}: there is no {entry} among the {count} GPUs here; CUDA shows only "
        "those before it",
        visible=visible, entry=entry, count=count,
    )  # fmt: skip


def _repeated_gpu(visible: str) -> Message:
    return message(
        "machine.repeated-visible-gpu",
        "CUDA_VISIBLE_DEVICES={visible} names a GPU twice; CUDA then shows none",
        visible=visible,
    )

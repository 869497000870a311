"""A model answers many examples: batches of this process's rows, in inference mode.

A GPU is given the next batch before the answers to the last are read, so that it never waits for what becomes of
them. A batch that does not fit into memory is halved, and so are those after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from kovqa_core.data.example import Answer, Example
from kovqa_core.distributed import watchdog
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import DataError, MachineError
from kovqa_core.messages import message
from kovqa_core.models.batches import ExampleProcessor, ModelBatch, iterate_batches
from kovqa_core.models.device_memory import forget_tensors, out_of_memory_text, release_memory
from kovqa_core.models.family import FamilyModel, ReadAnswers
from kovqa_core.progress import OnProgress, Progress, ignore_progress
from kovqa_core.runs.events import report_warning


def answer_examples(
    model: FamilyModel,
    processor: ExampleProcessor,
    examples: Sequence[Example],
    image_folder: Path,
    rank: RankInfo,
    device: torch.device,
    batch: int,
    workers: int = 0,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    on_progress: OnProgress = ignore_progress,
    on_fault: Callable[[int, DataError], None] | None = None,
) -> Iterator[tuple[int, Answer]]:
    """Answers of this process's rows, every world-th, as they come.

    Args:
        model: of any family; left in the mode (training or not) it came in.
        processor: makes its batches.
        examples: all rows, those of other processes too.
        image_folder: folder that image paths start from.
        rank: place of this process.
        device: where the model is.
        batch: rows at once; halved, and said once, where so many do not fit into memory.
        workers: loader processes.
        autocast: context of the forward passes.
        on_progress: called after every batch.
        on_fault: called with the number of an example that cannot be used, and what is wrong with it.

    Yields:
        (number of the example, answer).

    Raises:
        DataError: an example cannot be used, and there is no `on_fault`; names its id.
        MachineError: not even one row fits into memory.
    """
    numbers = range(rank.rank, len(examples), rank.world_size)
    done, tried, was_training = 0, batch, model.training
    model.eval()
    answering = _Answering(model, autocast, device, depth=1 if device.type == "cuda" else 0)
    try:
        while done < len(numbers):
            # Epoch 0 for all: what an example's random numbers depend on stays the same from run to run.
            keys = [[(0, n) for n in numbers[i : i + batch]] for i in range(done, len(numbers), batch)]
            batches = iterate_batches(
                iter(keys), examples, image_folder, processor, train=False, workers=workers,
                pin=device.type == "cuda", keep_faults=on_fault is not None,
                prefetch=min(4, max(1, _PREFETCHED_ROWS // batch)),
            )  # fmt: skip
            sizes = [len(each) for each in keys]
            for answered in _answer_batches(answering, zip(sizes, batches, strict=True)):
                if isinstance(answered, str):
                    batch = halve_batch(min(batch, len(numbers) - done), answered)
                    release_memory(device)
                    break
                if batch < tried:  # once, however often it was halved before it fitted
                    report_warning(_smaller_batch(tried, batch))
                    tried = batch
                of_batch = numbers[done : done + answered.rows]
                for place, fault in answered.faults.items():
                    assert on_fault is not None
                    on_fault(of_batch[place], fault)
                usable = [number for place, number in enumerate(of_batch) if place not in answered.faults]
                yield from zip(usable, answered.answers, strict=True)
                done += answered.rows
                if usable:
                    on_progress(Progress(message("answer.evaluation", "evaluation"), done, len(numbers)))
    finally:
        model.train(was_training)


_PREFETCHED_ROWS = 128  # that a loader process prepares ahead: they lie in shared memory


@dataclass(frozen=True)
class _Answering:
    """How batches are answered; `depth` of them wait to be read while the next one is given to the device."""

    model: FamilyModel
    autocast: Callable[[], AbstractContextManager[object]]
    device: torch.device
    depth: int


@dataclass(frozen=True)
class _AnsweredBatch:
    """So many rows, what is wrong with some of them by their place, and the answers of the others."""

    rows: int
    faults: Mapping[int, DataError]
    answers: Sequence[Answer]


def _answer_batches(
    answering: _Answering, batches: Iterator[tuple[int, ModelBatch]]
) -> Iterator[_AnsweredBatch | str]:
    """Batches in their order; where one does not fit into memory, that error's text in its place, and no more."""
    begun = deque[tuple[int, Mapping[int, DataError], ReadAnswers]]()
    copies = torch.cuda.Stream(answering.device) if answering.device.type == "cuda" else None
    failure = ""
    for rows, batch in batches:
        watchdog.set_phase("evaluating")
        try:
            begun.append((rows, batch.faults, _begin_answers(answering, batch, copies)))
        except (RuntimeError, MemoryError) as error:
            failure = out_of_memory_text(error)
            if not failure:
                raise
            forget_tensors(error)
            break
        if len(begun) > answering.depth:
            yield _read_answers(*begun.popleft())
    while begun:
        yield _read_answers(*begun.popleft())
    if failure:
        yield failure


def _begin_answers(answering: _Answering, batch: ModelBatch, copies: torch.cuda.Stream | None) -> ReadAnswers:
    if not batch.ids:  # none of its rows can be used
        return list
    # Left before every yield: a generator shares its caller's thread, whose mode this would set.
    with torch.inference_mode(), answering.autocast():
        return answering.model.begin_answers(_copy_batch(batch, answering.device, copies))


def _copy_batch(batch: ModelBatch, device: torch.device, copies: torch.cuda.Stream | None) -> ModelBatch:
    """The batch on the device; on a GPU in a queue of its own, beside the computation of the batch before."""
    if copies is None:
        return batch.to(device)
    with torch.cuda.stream(copies):
        copied = batch.to(device)
    current = torch.cuda.current_stream(device)
    current.wait_stream(copies)
    for tensor in copied.tensors.values():
        if (
            tensor is not None
        ):  # its memory was taken by the other queue, which must not have it back too early
            tensor.record_stream(current)
    return copied


def _read_answers(rows: int, faults: Mapping[int, DataError], read: ReadAnswers) -> _AnsweredBatch:
    return _AnsweredBatch(rows, faults, read())


def halve_batch(tried: int, failure: str) -> int:
    """Half of the rows that did not fit into memory.

    Args:
        tried: so many at once.
        failure: what the memory's owner said.

    Raises:
        MachineError: that was one row.
    """
    if tried == 1:
        raise MachineError(
            message(
                "answer.one-row-too-large",
                "not even one row fits into this machine's memory ({error})",
                error=failure,
            ),
            message(
                "answer.one-row-too-large.hint",
                "end what else uses the memory, take a smaller model, or compute in 16 bits (--precision bf16; in training "
                "--set profile.precision=bf16)",
            ),
        )
    return tried // 2


def _smaller_batch(tried: int, batch: int) -> str:
    return message(
        "answer.smaller-batch",
        "memory ran out with {tried} rows at once: going on with {batch}; no answer is lost",
        tried=tried,
        batch=batch,
    )

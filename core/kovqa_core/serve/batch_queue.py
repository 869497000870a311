"""What waits for the models of a server, and the one thread in which they answer.

One thread for all models: they share one device, where a second batch at the same time would take its memory twice
and end no sooner. Questions to one model that wait together are answered as one batch. Nobody waits longer for
others than `max_wait_seconds`; the model whose first question has waited longest is next.
"""

from __future__ import annotations

import asyncio
import collections
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from kovqa_core.answer.ask_model import ImageQuestion
from kovqa_core.answer.partial_file import RowFault
from kovqa_core.data.example import Answer
from kovqa_core.messages import Message, message
from kovqa_core.serve.metrics import Metrics
from kovqa_core.web.http_errors import RefusedRequest

AnswerBatch = Callable[[str, Sequence[ImageQuestion]], Sequence[Answer | RowFault]]
ResultType = TypeVar("ResultType")
_RECENT_REQUESTS = 200  # that the time to wait is reckoned from
_MAX_RETRY_SECONDS = 60


@dataclass(frozen=True)
class QueueLimits:
    """How long questions wait, and how many may.

    Attributes:
        max_batch: questions answered at once.
        max_wait_seconds: that a question waits for others while the models have nothing to do.
        max_waiting: questions that wait; one more is refused.
        timeout_seconds: from a request's arrival to its answer.
    """

    max_batch: int = 32
    max_wait_seconds: float = 0.005
    max_waiting: int = 256
    timeout_seconds: float = 60.0


@dataclass(frozen=True)
class Done(Generic[ResultType]):
    """A result, and the seconds that it waited and took."""

    result: ResultType
    queue_seconds: float
    seconds: float


@dataclass(frozen=True, eq=False)
class _Entry:
    """A question, or a function that the thread of the models calls."""

    work: ImageQuestion | Callable[[], object]
    future: asyncio.Future[Done[Any]]
    arrived: float


class BatchQueue:
    """Questions in, answers out; between `start` and `stop`, both called in the event loop.

    Args:
        answer_batch: answers questions to one model, in their order.
        limits: of waiting.
        metrics: what is counted.
    """

    def __init__(self, answer_batch: AnswerBatch, limits: QueueLimits, metrics: Metrics) -> None:
        self._answer_batch, self._limits, self._metrics = answer_batch, limits, metrics
        self._entries: dict[str, collections.deque[_Entry]] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._recent: collections.deque[float] = collections.deque(maxlen=_RECENT_REQUESTS)
        # A daemon: a second signal does not wait for what it computes.
        self._thread = threading.Thread(target=self._answer_all, name="kovqa-models", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """End, once nothing waits."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    def waiting(self) -> int:
        """How many questions wait."""
        return sum(map(len, list(self._entries.values())))

    def require_room(self) -> None:
        """See that one more question may wait.

        Raises:
            RefusedRequest: too many do; it says when to come again.
        """
        if (waiting := self.waiting()) >= self._limits.max_waiting:
            raise RefusedRequest(
                429,
                message("serve.busy", "{waiting} requests are waiting; try again later", waiting=waiting),
                {"Retry-After": str(self._retry_seconds(waiting))},
            )

    def _retry_seconds(self, waiting: int) -> int:
        """How long those that wait will take, at the pace of the last ones."""
        if len(self._recent) < 2:
            return 1
        pace = (time.monotonic() - self._recent[0]) / len(self._recent)
        return min(max(1, round(waiting * pace)), _MAX_RETRY_SECONDS)

    async def ask(self, model: str, question: ImageQuestion) -> Done[Answer]:
        """The answer of a model; raises as `call`, and as `require_answer`."""
        done = await self._wait_for(model, question)
        return Done(require_answer(done.result), done.queue_seconds, done.seconds)

    async def call(self, model: str, function: Callable[[], ResultType]) -> Done[ResultType]:
        """What a function returns that is called where the models answer.

        Raises:
            RefusedRequest: too many wait (429), or it took too long (504).
        """
        return await self._wait_for(model, function)

    async def _wait_for(self, model: str, work: ImageQuestion | Callable[[], object]) -> Done[Any]:
        self.require_room()
        entry = _Entry(work, self._loop.create_future(), time.monotonic())
        with self._changed:
            self._entries.setdefault(model, collections.deque()).append(entry)
            self._changed.notify()
        try:
            async with asyncio.timeout(self._limits.timeout_seconds):
                return await entry.future
        except TimeoutError:  # its future is cancelled: if it still waits, it is passed over
            raise RefusedRequest(
                504,
                message(
                    "serve.timeout", "no answer within {seconds:g} s", seconds=self._limits.timeout_seconds
                ),
            ) from None

    # ------------------------------------------------------------------- the thread of the models

    def _answer_all(self) -> None:
        while (taken := self._take_batch()) is not None:
            model, entries = taken
            began = time.monotonic()
            results: Sequence[object]
            try:
                results = self._results(model, entries)
            except Exception as error:  # of whatever kind: those who asked get it, and the thread goes on
                results = [error] * len(entries)
            seconds = time.monotonic() - began
            self._metrics.count_batch(model, len(entries), seconds)
            self._loop.call_soon_threadsafe(self._deliver, entries, results, began, seconds)

    def _results(self, model: str, entries: Sequence[_Entry]) -> Sequence[object]:
        questions = [entry.work for entry in entries if isinstance(entry.work, ImageQuestion)]
        if questions:
            return self._answer_batch(model, questions)
        return [entry.work() for entry in entries if not isinstance(entry.work, ImageQuestion)]

    def _take_batch(self) -> tuple[str, Sequence[_Entry]] | None:
        """What is next: questions to one model, or one function; None: the end."""
        with self._changed:
            while True:
                waiting = {model: entries for model, entries in self._entries.items() if entries}
                if not waiting:
                    if self._stopping:
                        return None
                    self._changed.wait()
                    continue
                model = min(waiting, key=lambda name: waiting[name][0].arrived)
                entries, first = waiting[model], waiting[model][0]
                left = first.arrived + self._limits.max_wait_seconds - time.monotonic()
                is_question = isinstance(first.work, ImageQuestion)
                if is_question and len(entries) < self._limits.max_batch and left > 0 and not self._stopping:
                    self._changed.wait(left)
                    continue
                batch = self._pop_batch(entries)
                if batch:
                    return model, batch

    def _pop_batch(self, entries: collections.deque[_Entry]) -> Sequence[_Entry]:
        """The first questions, or the first function; those that nobody waits for any longer are dropped."""
        batch: list[_Entry] = []
        while entries and len(batch) < self._limits.max_batch:
            is_question = isinstance(entries[0].work, ImageQuestion)
            if batch and not is_question:
                break
            entry = entries.popleft()
            if entry.future.done():
                continue
            batch.append(entry)
            if not is_question:
                break
        return batch

    def _deliver(
        self, entries: Sequence[_Entry], results: Sequence[object], began: float, seconds: float
    ) -> None:
        for entry, result in zip(entries, results, strict=True):
            self._recent.append(time.monotonic())
            if entry.future.done():
                continue
            if isinstance(result, Exception):
                entry.future.set_exception(result)
            else:
                entry.future.set_result(Done(result, began - entry.arrived, seconds))


def require_answer(result: Answer | RowFault) -> Answer:
    """The answer to a question.

    Raises:
        RefusedRequest: 400: it has none; says why.
    """
    if isinstance(result, Answer):
        return result
    text = result.problem
    if not isinstance(text, Message):
        text = message("serve.no-answer", "{problem}", problem=text)
    raise RefusedRequest(400, text)

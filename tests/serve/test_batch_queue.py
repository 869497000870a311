"""Batches of what waits: none lost, none mixed up, none waits longer than it must."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from kovqa_core.answer.ask_model import ImageQuestion
from kovqa_core.answer.partial_file import RowFault
from kovqa_core.data.example import Answer
from kovqa_core.serve.batch_queue import AnswerBatch, BatchQueue, QueueLimits
from kovqa_core.serve.metrics import Metrics
from kovqa_core.web.http_errors import RefusedRequest

LIMITS = QueueLimits(max_batch=4, max_wait_seconds=0.05, max_waiting=100, timeout_seconds=5)


def asked(question: str) -> ImageQuestion:
    return ImageQuestion(b"", question)


@asynccontextmanager
async def running(answer: AnswerBatch, limits: QueueLimits = LIMITS) -> AsyncIterator[BatchQueue]:
    queue = BatchQueue(answer, limits, Metrics())
    queue.start()
    yield queue
    await queue.stop()


def repeat(seconds: float = 0.0, batches: list[tuple[str, int]] | None = None) -> AnswerBatch:
    """A model that says its name and the question."""

    def answer(model: str, questions: Sequence[ImageQuestion]) -> list[Answer | RowFault]:
        if batches is not None:
            batches.append((model, len(questions)))
        time.sleep(seconds)
        return [Answer(f"{model} {question.question}", 1) for question in questions]

    return answer


def test_questions_that_wait_together_are_one_batch_and_keep_their_answers() -> None:
    async def run() -> None:
        batches: list[tuple[str, int]] = []
        async with running(repeat(0.005, batches)) as queue:
            asks = [queue.ask(f"m{n % 3}", asked(str(n))) for n in range(60)]
            replies = await asyncio.gather(*asks)
        assert [done.result.text for done in replies] == [f"m{n % 3} {n}" for n in range(60)]
        assert sum(size for _, size in batches) == 60
        assert {size for _, size in batches} == {4}  # whole ones, each of one model
        # By turns: the model whose first question waits longest is next.
        assert [model for model, _ in batches[:6]] == ["m0", "m1", "m2"] * 2

    asyncio.run(run())


def test_one_question_waits_for_others_no_longer_than_it_is_told_to() -> None:
    async def run() -> None:
        async with running(repeat()) as queue:
            done = await queue.ask("m", asked("혼자"))
            assert LIMITS.max_wait_seconds <= done.queue_seconds < 0.5
            full = await asyncio.gather(*(queue.ask("m", asked(str(n))) for n in range(4)))
            assert max(each.queue_seconds for each in full) < LIMITS.max_wait_seconds
            # A function is no question: it waits for nobody.
            called = await queue.call("m", lambda: "불림")
            assert (called.result, called.queue_seconds < LIMITS.max_wait_seconds) == ("불림", True)

    asyncio.run(run())


def test_a_full_queue_says_when_to_come_again() -> None:
    async def run() -> None:
        begun, hold = threading.Event(), threading.Event()

        def answer(model: str, questions: Sequence[ImageQuestion]) -> list[Answer | RowFault]:
            begun.set()
            hold.wait(5)
            return repeat()(model, questions)  # type: ignore[return-value]

        limits = QueueLimits(max_batch=1, max_wait_seconds=0, max_waiting=3, timeout_seconds=5)
        async with running(answer, limits) as queue:
            asks = [asyncio.create_task(queue.ask("m", asked("0")))]
            await asyncio.to_thread(begun.wait, 5)  # it is being answered
            asks += [asyncio.create_task(queue.ask("m", asked(str(n)))) for n in range(1, 4)]
            await asyncio.sleep(0)
            assert queue.waiting() == 3
            with pytest.raises(RefusedRequest) as busy:
                await queue.ask("m", asked("하나 더"))
            assert busy.value.status == 429
            assert 1 <= int(busy.value.headers["Retry-After"]) <= 60
            hold.set()
            assert [(await ask).result.text for ask in asks] == [f"m {n}" for n in range(4)]

    asyncio.run(run())


def test_a_question_that_nobody_waits_for_any_longer_is_not_answered() -> None:
    async def run() -> None:
        batches: list[tuple[str, int]] = []
        limits = QueueLimits(max_batch=1, max_wait_seconds=0, max_waiting=9, timeout_seconds=0.1)
        async with running(repeat(0.25, batches), limits) as queue:
            asks = [queue.ask("m", asked(str(n))) for n in range(3)]
            for result in await asyncio.gather(*asks, return_exceptions=True):
                assert isinstance(result, RefusedRequest)
                assert result.status == 504
        assert batches == [("m", 1)]

    asyncio.run(run())


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError(), KeyError("y")])
def test_an_error_goes_to_those_who_asked_and_the_queue_goes_on(error: Exception) -> None:
    async def run() -> None:
        def answer(model: str, questions: Sequence[ImageQuestion]) -> list[Answer | RowFault]:
            if model == "broken":
                raise error
            return [
                RowFault("글 파일입니다") if q.question == "bad" else Answer(q.question, 1) for q in questions
            ]

        async with running(answer) as queue:
            names = ["broken", "good", "broken"]
            results = await asyncio.gather(
                *(queue.ask(name, asked("q")) for name in names), queue.ask("good", asked("bad")),
                return_exceptions=True,
            )  # fmt: skip
            assert results[0] is results[2] is error
            assert not isinstance(results[1], BaseException)
            assert isinstance(results[3], RefusedRequest)  # and its neighbour has its answer
            assert (results[3].status, str(results[3])) == (400, "글 파일입니다")

    asyncio.run(run())


def test_stop_answers_all_that_wait() -> None:
    async def run() -> None:
        queue = BatchQueue(repeat(0.01), LIMITS, Metrics())
        queue.start()
        asks = [asyncio.create_task(queue.ask("m", asked(str(n)))) for n in range(20)]
        await asyncio.sleep(0)
        await queue.stop()
        assert len([(await ask).result.text for ask in asks]) == 20

    asyncio.run(run())

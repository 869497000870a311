"""What `/metrics` says, in Prometheus' text format 0.0.4: a few lines, for which no library is needed.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import bisect
import re
import threading
from collections import Counter
from collections.abc import Iterator

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds


class Metrics:
    """Counts of a server since it began; written by the event loop and by the thread of the models."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._replies: Counter[tuple[str, int]] = Counter()
        self._rows: Counter[str] = Counter()
        self._batches: Counter[str] = Counter()
        self._batch_seconds: Counter[str] = Counter()
        self._buckets = [0] * (len(_BUCKETS) + 1)
        self._reply_seconds = 0.0

    def count_reply(self, path: str, status: int, seconds: float) -> None:
        """One reply; the path is that of a route, not what a client made up."""
        with self._lock:
            self._replies[path, status] += 1
            self._buckets[bisect.bisect_left(_BUCKETS, seconds)] += 1
            self._reply_seconds += seconds

    def count_batch(self, model: str, rows: int, seconds: float) -> None:
        """One batch that a model answered."""
        with self._lock:
            self._rows[model] += rows
            self._batches[model] += 1
            self._batch_seconds[model] += seconds  # type: ignore[assignment]  # a Counter adds floats as well

    def text(self, waiting: int) -> str:
        """All counts.

        Args:
            waiting: requests that wait now.
        """
        with self._lock:
            return "\n".join(self._lines(waiting)) + "\n"

    def _lines(self, waiting: int) -> Iterator[str]:
        yield from _head("kovqa_requests_total", "counter", "Replies by path and status.")
        for (path, status), count in sorted(self._replies.items()):
            yield f'kovqa_requests_total{{path="{_escape(path)}",status="{status}"}} {count}'
        yield from _head(
            "kovqa_request_seconds", "histogram", "Seconds from a request's head to its whole reply."
        )
        total = 0
        for bound, count in zip((*_BUCKETS, "+Inf"), self._buckets, strict=True):
            total += count
            yield f'kovqa_request_seconds_bucket{{le="{bound}"}} {total}'
        yield f"kovqa_request_seconds_sum {self._reply_seconds:.6f}"
        yield f"kovqa_request_seconds_count {total}"
        yield from _head("kovqa_queue_length", "gauge", "Requests that wait for a model.")
        yield f"kovqa_queue_length {waiting}"
        for name, text, counts in (
            ("kovqa_rows_total", "Questions and images that a model has worked on.", self._rows),
            ("kovqa_batches_total", "Batches that they came in.", self._batches),
            ("kovqa_batch_seconds_total", "Seconds that the model took for them.", self._batch_seconds),
        ):
            yield from _head(name, "counter", text)
            for model, count in sorted(counts.items()):
                yield f'{name}{{model="{_escape(model)}"}} {count:.6g}'


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _escape(text: str) -> str:
    return re.sub(r'[\\"\n]', lambda found: {"\\": r"\\", '"': r"\"", "\n": r"\n"}[found[0]], text)

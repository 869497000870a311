"""Bounds of chat templates: they are programs of whoever made a model folder.

transformers renders them in jinja2's sandbox, which bounds what they reach and the length of one `range`, but neither
time nor size, nor a single operation, some of which are computed before anything is rendered.
A template of a chat takes milliseconds and some kilobytes, so the bounds are far above what any needs.
"""

from __future__ import annotations

import _thread
import contextlib
import re
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from jinja2 import Template
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kovqa_core.messages import message

MAX_SECONDS = 10.0  # of one rendering, by the wall clock
# Letters of what is rendered, and of a repeated text; also the largest number of a product.
MAX_LENGTH = 1_000_000
_MAX_POWER = 16
# In the source, in a text of it too: a width of `format` or `center`, which C code would fill without a pause.
_LARGE_NUMBER = re.compile(r"\d(?:_?\d){6,}")


class BoundedTemplate(Template):
    """A template whose rendering ends."""

    def render(self, *args: object, **kwargs: object) -> str:
        """As jinja2's.

        Raises:
            SecurityError: it takes too long, or writes too much.
        """
        with _time_limit():
            text = super().render(*args, **kwargs)
        if len(text) > MAX_LENGTH:
            raise SecurityError(
                message(
                    "vlm.template-too-long", "it writes {letters:,} letters, more than {most:,}",
                    letters=len(text), most=MAX_LENGTH,
                )
            )  # fmt: skip
        return text


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, in which single operations are bounded, too: no clock interrupts those."""

    template_class: type[Template] = BoundedTemplate
    intercepted_binops = frozenset(("*", "**", "%"))

    def from_string(self, source: object, *args: object, **kwargs: object) -> Template:
        """As jinja2's.

        Raises:
            SecurityError: a number in it is too large, or it takes too long to be read.
        """
        if isinstance(source, str) and (found := _LARGE_NUMBER.search(source)):
            raise SecurityError(
                message(
                    "vlm.template-number", "it holds the number {number}, more than {most:,}",
                    number=found[0][:20], most=MAX_LENGTH,
                )
            )  # fmt: skip
        with _time_limit():
            return super().from_string(source, *args, **kwargs)  # type: ignore[arg-type]

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        """As jinja2's.

        Raises:
            SecurityError: what comes out is too large.
        """
        if not _is_small(operator, left, right):
            raise SecurityError(f"it computes too much with {operator}")
        return super().call_binop(context, operator, left, right)


def _is_small(operator: str, left: object, right: object) -> bool:
    if operator == "%":
        return isinstance(left, int | float)  # of a text it is formatting, by widths
    a, b = (len(each) if isinstance(each, str | list | tuple) else each for each in (left, right))
    if not isinstance(a, int | float) or not isinstance(b, int | float):
        return True  # jinja2 says what is wrong with it
    return abs(a) <= MAX_LENGTH and abs(b) <= _MAX_POWER if operator == "**" else abs(a * b) <= MAX_LENGTH


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    """Ends what is done within after `MAX_SECONDS`.

    By a signal, which only the main thread gets: elsewhere nothing is bounded. Every template is rendered in the
    main thread first, when its model is opened.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise SecurityError(
            message("vlm.template-too-slow", "it does not end within {seconds:g} s", seconds=MAX_SECONDS)
        )

    if hasattr(signal, "setitimer"):
        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        return
    # Windows: a thread says it, by a signal that nobody else sends there.
    before = signal.signal(signal.SIGABRT, stop)
    timer = threading.Timer(MAX_SECONDS, _thread.interrupt_main, (signal.SIGABRT,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGABRT, before)

"""How far a command is: bars with rate and time left, on stderr, only where somebody watches."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator

from kovqa_core.messages import Message, message
from kovqa_core.messages.languages import show_text
from kovqa_core.progress import OnProgress, Progress, ignore_progress

from kovqa_cli.output.console import make_console, plain_text, print_note


def is_interactive() -> bool:
    """Does somebody look at stderr?"""
    return sys.stderr.isatty() and os.environ.get("CI", "") in ("", "false")


@contextlib.contextmanager
def show_progress(quiet: bool = False, *, announce: bool = False) -> Iterator[OnProgress]:
    """Shows a command's progress while it lasts: a bar with count, rate and time left, one stage after the other.

    Args:
        quiet: show nothing at all.
        announce: where nobody watches, print each new stage as a line (downloads: what is waited for).
    """
    stage, began, done_before = "", time.monotonic(), 0

    def print_stage(progress: Progress) -> None:
        nonlocal stage
        if progress.is_note or (announce and progress.stage != stage):
            print_note(progress.stage)
        if not progress.is_note:
            stage = progress.stage

    if quiet:
        yield ignore_progress
        return
    if not is_interactive():
        yield print_stage
        return
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}", markup=False), bars.BarColumn(),
        bars.TextColumn("{task.fields[count]}", markup=False), bars.TimeRemainingColumn(),
    )  # fmt: skip
    with bars.Progress(*columns, console=make_console(stderr=True), transient=True) as display:
        task = display.add_task("", total=None, count="")

        def update_bar(progress: Progress) -> None:
            nonlocal stage, began, done_before
            if progress.is_note:
                display.console.print(plain_text(progress.stage))
                return
            fraction = progress.fraction_done
            if (
                progress.stage != stage
            ):  # a rate of its own, without what was done before (a resumed download)
                stage, began, done_before = progress.stage, time.monotonic(), progress.done
                display.reset(task, description=show_text(stage))
            count = show_text(format_count(progress, time.monotonic() - began, done_before))
            display.update(
                task, completed=fraction or 0, total=1 if fraction is not None else None, count=count
            )

        yield update_bar


def format_count(progress: Progress, seconds: float, done_before: int = 0) -> str:
    """What is done, of how many, and how fast: `1,200 of 5,000 rows · 240/s`; "" where nothing is counted."""
    if not progress.done:
        return ""
    rate = (progress.done - done_before) / max(seconds, 1e-3)
    if progress.unit == "bytes":
        return _format_byte_count(progress, rate)
    unit = _unit_text(progress.unit)
    if progress.total:
        return message(
            "cli.count-of", "{done:,} of {total:,} {unit} · {rate:,.0f}/s",
            done=progress.done, total=progress.total, unit=unit, rate=rate,
        )  # fmt: skip
    return message("cli.count", "{done:,} {unit} · {rate:,.0f}/s", done=progress.done, unit=unit, rate=rate)


def _format_byte_count(progress: Progress, rate: float) -> Message:
    from kovqa_core.download.checks import format_bytes

    done, speed = format_bytes(progress.done), format_bytes(rate)
    if progress.total:
        total = format_bytes(progress.total)
        return message("cli.bytes-of", "{done} of {total} · {rate}/s", done=done, total=total, rate=speed)
    return message("cli.bytes", "{done} · {rate}/s", done=done, rate=speed)


def _unit_text(unit: str) -> str:
    """What is counted, as a message: the engine names it by its English word."""
    return {
        "rows": message("cli.unit-rows", "rows"),
        "images": message("cli.unit-images", "images"),
        "lines": message("cli.unit-lines", "lines"),
        "texts": message("cli.unit-texts", "texts"),
        "runs": message("cli.unit-runs", "runs"),
        "pages": message("cli.unit-pages", "pages"),
        "steps": message("cli.unit-steps", "steps"),
        "libraries": message("cli.unit-libraries", "libraries"),
    }.get(unit, unit)

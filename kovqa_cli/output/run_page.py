"""What `kovqa runs page` prints, and the small curves of `kovqa runs show`."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kovqa_core.messages import Message, message
from kovqa_core.messages.languages import show_text

from kovqa_cli.output.console import (
    make_console,
    print_note,
    print_outcome,
    print_text,
    short_path,
)

if TYPE_CHECKING:
    from kovqa_core.runs.run_page import WrittenPage
    from kovqa_core.runs.summary import RunDetails

_BLOCKS, _ASCII = "▁▂▃▄▅▆▇█", "_.-:=+*#"
_MAX_WIDTH = 60


def print_written_page(written: WrittenPage, *, as_json: bool, quiet: bool) -> None:
    """Where the page is, and what it had to leave out."""
    for name, problem in written.problems:  # also where little is wanted: the page lacks something
        print_note(message("runs.page-problem", "warning: {run}: {problem}", run=name, problem=problem))
    fields = {
        "page": str(written.path),
        "runs": [
            {"name": run.name, "folder": str(run.details.summary.folder), "state": run.details.summary.state,
             "steps": len(run.steps), "evaluations": len(run.evaluations), "samples": len(run.samples)}
            for run in written.runs
        ],
        "problems": [{"run": name, "problem": problem} for name, problem in written.problems],
    }  # fmt: skip
    path = str(written.path) if quiet else short_path(written.path)
    print_outcome(path, fields, as_json=as_json, quiet=quiet)


def print_small_curves(details: RunDetails) -> None:
    """Loss and score of a run, a line each; nothing for what has fewer than two values."""
    from kovqa_core.runs.events import TrainStepEvent
    from kovqa_core.runs.log_file import read_logged_events
    from kovqa_core.runs.run_curves import in_step_order
    from kovqa_core.web.chart_scale import format_short

    events = read_logged_events(details.summary.folder)
    steps = in_step_order(event for event in events if isinstance(event, TrainStepEvent))
    losses = [event.loss for event in steps if math.isfinite(event.loss)]
    scores = [event.score for event in in_step_order(details.scores) if math.isfinite(event.score)]
    width = make_console().width
    if len(losses) > 1:
        text = message(
            "runs.loss-curve",
            "{first} → {last}",
            first=format_short(losses[0]),
            last=format_short(losses[-1]),
        )
        _print_curve(message("runs.curve-loss", "loss"), losses, text, width)
    if len(scores) > 1:
        first, last = (_score_text(details, score) for score in (scores[0], scores[-1]))
        text = message("runs.score-curve", "{first} → {last}", first=first, last=last)
        _print_curve(message("runs.curve-score", "score"), scores, text, width)


def _score_text(details: RunDetails, score: float) -> str:
    from kovqa_core.evaluate.metrics import format_metric_value

    run = details.summary
    return format_metric_value(run.metric, run.task, score) if run.task else f"{score:.4g}"


def _print_curve(name: Message, values: Sequence[float], text: str, width: int) -> None:
    from rich.cells import set_cell_size

    label = set_cell_size(show_text(name), 5)  # as wide as both names, in English as in Korean
    room = min(_MAX_WIDTH, width - 5 - len(text) - 4)
    if room >= 2:
        print_text(f"{label} {sparkline(values, room)}  {text}")


def sparkline(values: Sequence[float], width: int) -> str:
    """Finite values as a line of blocks, from the lowest to the highest; of letters where stdout has no blocks.

    Args:
        values: at least one.
        width: of more values, each block is the mean of its neighbours.
    """
    count = min(width, len(values))
    ends = [round(number * len(values) / count) for number in range(count + 1)]
    means = [math.fsum(values[a:b]) / (b - a) for a, b in itertools.pairwise(ends)]
    low, high = min(means), max(means)
    levels = _BLOCKS if _can_write(_BLOCKS) else _ASCII
    if not high > low:
        return levels[0] * count
    return "".join(levels[min(7, int(8 * (value - low) / (high - low)))] for value in means)


def _can_write(text: str) -> bool:
    """Has the encoding of stdout these letters? That of a Korean Windows console (CP949) has no eighths of blocks."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True

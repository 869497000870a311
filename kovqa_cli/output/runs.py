"""What `kovqa runs` prints: a table of runs, all about one, two side by side."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kovqa_core.messages import join_messages, message

from kovqa_cli.output.console import (
    print_note,
    print_report,
    print_text,
    short_path,
)
from kovqa_cli.output.next_commands import next_commands, split_rows
from kovqa_cli.output.run_page import print_small_curves
from kovqa_cli.output.run_words import (
    checkpoint_marks,
    engine_text,
    launch_text,
    machine_text,
    section_word,
    state_text,
)
from kovqa_cli.output.table import print_table

if TYPE_CHECKING:
    from kovqa_core.runs.compare import RunComparison
    from kovqa_core.runs.left_out import RunLeftOut
    from kovqa_core.runs.manifest import RunLaunch
    from kovqa_core.runs.summary import RunDetails, RunSummary

MAX_SCORE_ROWS = 16  # of a table of scores
RowType = TypeVar("RowType")


# ---------------------------------------------------------------------------------- list


def print_runs(runs: Sequence[RunSummary], root: Path, *, as_json: bool, quiet: bool) -> None:
    """The runs below a folder; `quiet`: their names."""
    print_report(
        [run.folder.name for run in runs],
        {"runs": [_summary_fields(run) for run in runs]},
        lambda: _print_runs_table(runs, root),
        as_json=as_json,
        quiet=quiet,
    )


def _print_runs_table(runs: Sequence[RunSummary], root: Path) -> None:
    if not runs:
        print_note(
            message(
                "runs.none-here",
                "no runs in {folder}/ → start one with kovqa train, or look elsewhere with --root DIR",
                folder=root,
            )
        )
        return
    print_table(
        [(message("runs.column-name", "name"), "left"), (message("runs.column-recipe", "recipe"), "left", 1),
         (message("runs.column-task", "task"), "left", 4), (message("runs.column-data", "data"), "left", 3),
         (message("runs.column-steps", "steps"), "right"), (message("runs.column-best", "best"), "right"),
         (message("runs.column-launched", "launched"), "left", 2), (message("runs.column-state", "state"), "text")],
        [[run.folder.name, run.recipe, run.task, run.data, _steps_cell(run), _score_cell(run, run.best),
          _date_cell(run.begun), state_text(run)] for run in runs],
    )  # fmt: skip


# ---------------------------------------------------------------------------------- show


def print_run_details(details: RunDetails, *, as_json: bool, quiet: bool) -> None:
    """All about one run; `quiet`: its state."""
    print_report(
        details.summary.state,
        _details_fields(details),
        lambda: _print_details_text(details),
        as_json=as_json,
        quiet=quiet,
    )


def _details_fields(details: RunDetails) -> dict[str, Any]:
    from kovqa_core.runs.events import event_fields
    from kovqa_core.runs.manifest import launch_fields

    left_out = _left_out(details)
    return {
        "next": next_commands(details.summary, split_rows(details.launches)),
        "summary": _summary_fields(details.summary),
        "run": details.run.model_dump(mode="json") if details.run else None,
        "changed": None if details.changed is None else [asdict(change) for change in details.changed],
        "scores": [event_fields(event) for event in details.scores],
        "checkpoints": [asdict(checkpoint) for checkpoint in details.checkpoints],
        "launches": [launch_fields(launch) for launch in details.launches],
        "detail": details.detail,
        "problems": list(details.problems),
        "left_out": left_out.json_fields() if left_out else None,
    }


def _print_details_text(details: RunDetails) -> None:
    run = details.summary
    print_text(
        message(
            "runs.folder-state", "{folder}: {state}", folder=short_path(run.folder), state=state_text(run)
        )
    )
    if details.detail:
        print_text(*details.detail.splitlines())
    for problem in details.problems:
        print_note(message("runs.problem", "warning: {problem}", problem=problem))
    if run.recipe:
        print_text(
            message(
                "runs.settings",
                "recipe {recipe} ({family}, {task}) on profile {profile}, data {data}",
                recipe=run.recipe,
                family=run.family,
                task=run.task,
                profile=run.profile,
                data=run.data or "-",
            )
        )
        print_text(
            message(
                "runs.progress",
                "steps {steps}, best score {score}",
                steps=_steps_cell(run),
                score=_score_cell(run, run.best) or "-",
            )
        )
    print_small_curves(details)
    _print_data(details.launches)
    if left_out := _left_out(details):
        for line in left_out.lines():
            print_text(line)
    _print_changes(details)
    _print_changes_on_the_way(details)
    _print_scores(details)
    _print_checkpoints(details)
    _print_launches(details)
    for command in next_commands(run, split_rows(details.launches)):
        print_text(message("runs.next", "next: {command}", command=command))


def _left_out(details: RunDetails) -> RunLeftOut | None:
    from kovqa_core.runs.left_out import read_run_left_out

    return read_run_left_out(details.summary.folder, details.run) if details.run else None


def _print_data(launches: Sequence[RunLaunch]) -> None:
    data = launches[-1].data if launches else None
    if data and data.fingerprint:
        rows = join_messages(", ", [
            message("runs.split-rows", "{split} {count:,} rows", split=split, count=count)
            for split, count in (data.rows or {}).items()
        ])  # fmt: skip
        print_text(
            message("runs.data", "data {fingerprint:.12}: {rows}", fingerprint=data.fingerprint, rows=rows)
        )


def _print_changes(details: RunDetails) -> None:
    if details.changed is None and details.run:
        print_note(
            message(
                "runs.nothing-to-compare",
                "its recipe or profile is not here to compare with; all its settings: --json",
            )
        )
    if details.changed:
        print_table(
            [
                (message("runs.column-setting", "setting"), "left"),
                (message("runs.column-usually", "usually"), "text"),
                (message("runs.column-here", "here"), "text"),
                (message("runs.column-from", "from"), "text", 1),
            ],
            [
                [change.key, _value_cell(change.usual), _value_cell(change.value), change.origin]
                for change in details.changed
            ],
        )


def _print_changes_on_the_way(details: RunDetails) -> None:
    if details.run and details.run.changes:
        print_table(
            [
                (message("runs.column-changed-from", "changed from step"), "right"),
                (message("runs.column-setting", "setting"), "left"),
                (message("runs.column-before", "before"), "text"),
                (message("runs.column-since", "since then"), "text"),
            ],
            [
                [f"{change.step + 1:,}", change.key, _value_cell(change.before), _value_cell(change.value)]
                for change in details.run.changes
            ],
        )


def _print_scores(details: RunDetails) -> None:
    if not details.scores:
        return
    run, events = details.summary, _spread_rows(details.scores)
    print_table(
        [
            (message("runs.column-step", "step"), "right"),
            (message("runs.column-score", "score"), "right"),
            (message("runs.column-best-so-far", "best so far"), "right"),
        ],
        [
            [f"{event.step:,}", _score_cell(run, event.score), _score_cell(run, event.best)]
            for event in events
        ],
    )
    _note_hidden_rows(details.scores, events)


def _print_checkpoints(details: RunDetails) -> None:
    if details.checkpoints:
        print_table(
            [
                (message("runs.column-checkpoint", "checkpoint"), "left"),
                (message("runs.column-size", "size"), "right"),
                ("", "left"),
            ],
            [
                [checkpoint.name, f"{checkpoint.size / 1e6:,.1f} MB", checkpoint_marks(checkpoint)]
                for checkpoint in details.checkpoints
            ],
        )


def _print_launches(details: RunDetails) -> None:
    if not details.launches:
        return
    running = details.launches[-1] if details.summary.state == "running" else None
    print_table(
        [(message("runs.column-launched", "launched"), "left"), (message("runs.column-ended", "ended"), "left", 3),
         (message("runs.column-steps", "steps"), "right"), (message("runs.column-how", "how"), "text"),
         (message("runs.column-machine", "machine"), "text", 1), (message("runs.column-engine", "engine"), "left", 2)],
        [[_time_cell(launch.began), _time_cell(launch.ended), _launch_steps_cell(launch),
          launch_text(launch, details.summary, is_running=launch is running), machine_text(launch), engine_text(launch)]
         for launch in details.launches],
    )  # fmt: skip


# ---------------------------------------------------------------------------------- diff


def print_comparison(a: Path, b: Path, comparison: RunComparison, *, as_json: bool, quiet: bool) -> None:
    """Two runs side by side; `quiet`: the names of what differs."""
    print_report(
        [f"{difference.section}.{difference.key}" for difference in comparison.differences],
        {"a": str(a), "b": str(b), **asdict(comparison)},
        lambda: _print_comparison_tables(a, b, comparison),
        as_json=as_json,
        quiet=quiet,
    )


def _print_comparison_tables(a: Path, b: Path, comparison: RunComparison) -> None:
    names = (a.name, b.name) if a.name != b.name else (short_path(a), short_path(b))
    if comparison.differences:
        print_table(
            [
                ("", "left"),
                (message("runs.column-differs", "what differs"), "left"),
                (names[0], "text"),
                (names[1], "text"),
            ],
            [
                [
                    section_word(difference.section),
                    difference.key,
                    _value_cell(difference.a),
                    _value_cell(difference.b),
                ]
                for difference in comparison.differences
            ],
        )
    else:
        print_text(message("runs.no-difference", "no setting, version or data differs"))
    if comparison.scores:
        shared = [row for row in comparison.scores if None not in row] or comparison.scores
        rows = _spread_rows(shared)
        rows += [row for row in comparison.scores[-1:] if row not in rows]
        print_table(
            [(message("runs.column-step", "step"), "right"), (names[0], "right"), (names[1], "right")],
            [[f"{step:,}", _number_cell(score_a), _number_cell(score_b)] for step, score_a, score_b in rows],
        )
        _note_hidden_rows(comparison.scores, rows)


# --------------------------------------------------------------------------------- cells


def _summary_fields(run: RunSummary) -> dict[str, Any]:
    """A run in one line as a JSON object: paths as text, times as people write them."""
    begun = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(run.begun))
    return {**asdict(run), "folder": str(run.folder), "begun": begun}


def _spread_rows(rows: Sequence[RowType]) -> list[RowType]:
    """As many rows as fit on a screen, evenly spread, the last one among them."""
    every = -(-len(rows) // MAX_SCORE_ROWS)
    return list(rows[::-1][::every][::-1])


def _note_hidden_rows(rows: Sequence[object], printed: Sequence[object]) -> None:
    if len(printed) < len(rows):
        print_note(
            message(
                "runs.hidden-rows",
                "{printed} of {count} evaluations; all of them: --json",
                printed=len(printed),
                count=len(rows),
            )
        )


def _steps_cell(run: RunSummary) -> str:
    if run.state == "broken":
        return ""
    return f"{run.steps:,}/{run.total:,}" if run.total is not None else f"{run.steps:,}"


def _score_cell(run: RunSummary, value: float | None) -> str:
    """A score as the run's metric shows it; four digits where the run's settings cannot be read."""
    from kovqa_core.evaluate.metrics import format_metric_value

    if value is None:
        return ""
    return format_metric_value(run.metric, run.task, value) if run.task else f"{value:.4g}"


def _number_cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _date_cell(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _time_cell(text: str | None) -> str:
    """A manifest's time to the minute, without its offset."""
    return (text or "")[:16].replace("T", " ")


def _value_cell(value: object) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _launch_steps_cell(launch: RunLaunch) -> str:
    return f"{launch.from_step} – {'?' if launch.step is None else launch.step}"

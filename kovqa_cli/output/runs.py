"""What `kovqa runs` shows: tables of runs, all about one, two side by side."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kovqa_cli.output.console import print_json, print_note, print_result, print_table, short_path

if TYPE_CHECKING:
    from kovqa_core.runs.compare import RunComparison
    from kovqa_core.runs.summary import RunDetails, RunSummary

MAX_SCORE_ROWS = 16  # of a table of scores
RowType = TypeVar("RowType")


def print_runs(found: Sequence[RunSummary], root: Path, as_json: bool, quiet: bool) -> None:
    """The table of runs."""
    if as_json:
        print_json({"runs": [_json_values(asdict(each)) for each in found]})
        return
    if quiet:
        print_result("\n".join(each.folder.name for each in found))
        return
    if not found:
        print_note(f"no runs in {root}/ → kovqa train begins one, --root DIR looks elsewhere")
        return
    print_table(
        [("name", "left"), ("recipe", "left"), ("task", "left"), ("data", "left"), ("steps", "right"),
         ("best", "right"), ("begun", "left"), ("state", "text")],
        [[each.folder.name, each.recipe, each.task, each.data, _steps_cell(each), _score_cell(each.task, each.best),
          _date_cell(each.begun), _state_text(each)] for each in found],
    )  # fmt: skip


def print_run_details(found: RunDetails, as_json: bool, quiet: bool) -> None:
    """All about one run."""
    about = found.summary
    if as_json:
        settings = found.run.model_dump(mode="json") if found.run else None
        print_json({"next": next_commands(about), **_json_values(asdict(found)), "run": settings})
        return
    if quiet:
        print_result(about.state)
        return
    print_result(f"{short_path(about.folder)}: {_state_text(about)}")
    if found.detail:
        print_result(found.detail)
    if about.recipe:
        print_result(
            f"recipe {about.recipe} ({about.family}, {about.task}) on profile {about.profile}, data {about.data or '-'}"
        )
        print_result(f"steps {_steps_cell(about)}, best score {_score_cell(about.task, about.best) or '-'}")
    if found.launches and (data := found.launches[-1].get("data") or {}).get("fingerprint"):
        rows = ", ".join(f"{split} {count:,} rows" for split, count in (data.get("rows") or {}).items())
        print_result(f"data {data['fingerprint'][:12]}: {rows}")
    _print_changes(found)
    _print_scores(found)
    _print_checkpoints(found)
    _print_launches(found)
    for command in next_commands(about):
        print_result(f"next: {command}")


def _print_changes(found: RunDetails) -> None:
    if found.changed is None and found.run:
        print_note("its recipe or profile is not here to compare with; all settings: --json")
    if found.changed:
        print_table(
            [("setting", "left"), ("usually", "text"), ("here", "text"), ("from", "text")],
            [[c.key, _value_cell(c.usual), _value_cell(c.value), c.origin] for c in found.changed],
        )  # fmt: skip


def _print_scores(found: RunDetails) -> None:
    if found.scores:
        task = found.summary.task
        shown = _spread_rows(found.scores)
        print_table(
            [("step", "right"), ("score", "right"), ("best so far", "right")],
            [[f"{r['step']:,}", _score_cell(task, r["score"]), _score_cell(task, r["best"])] for r in shown],
        )
        _note_hidden_rows(found.scores, shown)


def _print_checkpoints(found: RunDetails) -> None:
    if found.checkpoints:
        print_table(
            [("checkpoint", "left"), ("size", "right"), ("", "left")],
            [
                [
                    c.name,
                    f"{c.size / 1e6:,.1f} MB",
                    _checkpoint_marks(last=c.last, best=c.best, resumable=c.resumable),
                ]
                for c in found.checkpoints
            ],
        )


def _print_launches(found: RunDetails) -> None:
    if found.launches:
        print_table(
            [("launched", "left"), ("ended", "left"), ("steps", "right"), ("how", "text"), ("machine", "text"),
             ("engine", "left")],
            [[_time_cell(each.get("began")), _time_cell(each.get("ended")),
              f"{each.get('from_step', 0)} – {each.get('step', '?')}",
              _outcome_cell(each, found.summary.state == "running" and each is found.launches[-1]), _machine_cell(each), _engine_cell(each)]
             for each in found.launches],
        )  # fmt: skip


def print_comparison(a: Path, b: Path, found: RunComparison, as_json: bool, quiet: bool) -> None:
    """Two runs side by side."""
    if as_json:
        print_json({"a": str(a), "b": str(b), **asdict(found)})
        return
    if quiet:
        print_result("\n".join(f"{each.section}.{each.key}" for each in found.differences))
        return
    names = (a.name, b.name) if a.name != b.name else (short_path(a), short_path(b))
    if found.differences:
        print_table(
            [("", "left"), ("what differs", "left"), (names[0], "text"), (names[1], "text")],
            [
                [each.section, each.key, _value_cell(each.a), _value_cell(each.b)]
                for each in found.differences
            ],
        )
    else:
        print_result("no setting, version or data differs")
    if found.scores:
        shared = [row for row in found.scores if None not in row] or found.scores
        shown = _spread_rows(shared)
        shown += [row for row in found.scores[-1:] if row not in shown]
        print_table(
            [("step", "right"), (names[0], "right"), (names[1], "right")],
            [[f"{step:,}", _number_cell(one), _number_cell(other)] for step, one, other in shown],
        )
        _note_hidden_rows(found.scores, shown)


def next_commands(about: RunSummary) -> list[str]:
    """What one would type next."""
    folder = _shell_quote(short_path(about.folder))
    if about.state in ("stopped", "failed", "planned"):
        return [f"kovqa train --resume -o {folder}"]
    if about.state != "finished":
        return []
    if about.task == "caption":
        return [f"kovqa caption -i PICTURE --model {folder}"]
    written = _shell_quote(f"{about.folder.name}.jsonl")
    test = _shell_quote(f"{about.data}/test.jsonl")
    return [
        f"kovqa predict -i PICTURE --question '…' --model {folder}",
        f"kovqa predict --input {test} -o {written} --model {folder}",
        f"kovqa evaluate {written} --index {test}",
    ]


# ----------------------------------------------------------------------------------- words


def _spread_rows(rows: Sequence[RowType]) -> list[RowType]:
    """So many rows as a screen holds, evenly spread, the last one among them."""
    every = -(-len(rows) // MAX_SCORE_ROWS)
    return list(rows[::-1][::every][::-1])


def _note_hidden_rows(rows: Sequence[object], shown: Sequence[object]) -> None:
    if len(shown) < len(rows):
        print_note(f"{len(shown)} of {len(rows)} evaluations; all of them: --json")


def _json_values(values: dict[str, Any]) -> dict[str, Any]:
    """Paths as text, all the way down; times as people write them."""
    plain = json.loads(json.dumps(values, default=str))
    for about in (plain, plain.get("summary")):
        if about and "begun" in about:
            about["begun"] = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(about["begun"]))
    return plain


def _shell_quote(text: str) -> str:
    """For a shell; Hangul needs no quotes."""
    return text if re.fullmatch(r"[\w@%+=:,./-]+", text) else shlex.quote(text)


def _state_text(about: RunSummary) -> str:
    return f"{about.state}: {about.error}" if about.error else about.state


def _steps_cell(about: RunSummary) -> str:
    if about.state == "broken":
        return ""
    return f"{about.steps:,}/{about.total:,}" if about.total is not None else f"{about.steps:,}"


def _score_cell(task: str, value: float | None) -> str:
    """Questions count in percent, captions in CIDEr."""
    if value is None:
        return ""
    return f"{value:.3f}" if task == "caption" else f"{value:.2%}"


def _number_cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _date_cell(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _time_cell(written: str | None) -> str:
    return (written or "")[:16].replace("T", " ")


def _value_cell(value: Any) -> str:
    return (
        "-" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    )


def _checkpoint_marks(**marks: bool) -> str:
    return ", ".join(name for name, true in marks.items() if true)


def _outcome_cell(launch: dict[str, Any], running: bool) -> str:
    if "outcome" not in launch:
        return "running" if running else "killed"
    return f"{launch['outcome']}: {launch['error']}" if launch.get("error") else str(launch["outcome"])


def _machine_cell(launch: dict[str, Any]) -> str:
    machine = launch.get("machine") or {}
    gpus = machine.get("gpus") or []
    what = f"{len(gpus)} × {gpus[0]}" if gpus else f"{machine.get('cores', '?')} cores"
    torch = (launch.get("versions") or {}).get("torch", "?")
    return f"{machine.get('host', '?')}, {what}, profile {launch.get('profile', '?')}, torch {torch}"


def _engine_cell(launch: dict[str, Any]) -> str:
    engine = (launch.get("git") or {}).get("engine")
    version = (launch.get("versions") or {}).get("kovqa", "?")
    return (
        f"{version} {engine['commit'][:9]}{' changed' if engine.get('dirty') else ''}" if engine else version
    )

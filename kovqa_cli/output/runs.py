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

from kovqa_cli.output.console import document, note, out, short, table

if TYPE_CHECKING:
    from kovqa_core.runs.compare import Comparison
    from kovqa_core.runs.summary import Story, Summary

MOST_ROWS = 16  # of a table of scores
Row = TypeVar("Row")


def runs(found: Sequence[Summary], root: Path, as_json: bool, quiet: bool) -> None:
    """The table of runs."""
    if as_json:
        document({"runs": [_plain(asdict(each)) for each in found]})
        return
    if quiet:
        out("\n".join(each.folder.name for each in found))
        return
    if not found:
        note(f"no runs in {root}/ → kovqa train begins one, --root DIR looks elsewhere")
        return
    table(
        [("name", "left"), ("recipe", "left"), ("task", "left"), ("data", "left"), ("steps", "right"),
         ("best", "right"), ("begun", "left"), ("state", "text")],
        [[each.folder.name, each.recipe, each.task, each.data, _steps(each), _score(each.task, each.best),
          _when(each.begun), _state(each)] for each in found],
    )  # fmt: skip


def run(found: Story, as_json: bool, quiet: bool) -> None:
    """All about one run."""
    about = found.summary
    if as_json:
        settings = found.run.model_dump(mode="json") if found.run else None
        document({"next": next_commands(about), **_plain(asdict(found)), "run": settings})
        return
    if quiet:
        out(about.state)
        return
    out(f"{short(about.folder)}: {_state(about)}")
    if found.detail:
        out(found.detail)
    if about.recipe:
        out(
            f"recipe {about.recipe} ({about.family}, {about.task}) on profile {about.profile}, data {about.data or '-'}"
        )
        out(f"steps {_steps(about)}, best score {_score(about.task, about.best) or '-'}")
    if found.launches and (data := found.launches[-1].get("data") or {}).get("fingerprint"):
        rows = ", ".join(f"{split} {count:,} rows" for split, count in (data.get("rows") or {}).items())
        out(f"data {data['fingerprint'][:12]}: {rows}")
    _changes(found)
    _scores(found)
    _checkpoints(found)
    _launches(found)
    for command in next_commands(about):
        out(f"next: {command}")


def _changes(found: Story) -> None:
    if found.changed is None and found.run:
        note("its recipe or profile is not here to compare with; all settings: --json")
    if found.changed:
        table(
            [("setting", "left"), ("usually", "text"), ("here", "text"), ("from", "text")],
            [[c.key, _value(c.usual), _value(c.value), c.origin] for c in found.changed],
        )  # fmt: skip


def _scores(found: Story) -> None:
    if found.scores:
        task = found.summary.task
        shown = _spread(found.scores)
        table(
            [("step", "right"), ("score", "right"), ("best so far", "right")],
            [[f"{r['step']:,}", _score(task, r["score"]), _score(task, r["best"])] for r in shown],
        )
        _left_out(found.scores, shown)


def _checkpoints(found: Story) -> None:
    if found.checkpoints:
        table(
            [("checkpoint", "left"), ("size", "right"), ("", "left")],
            [
                [c.name, f"{c.size / 1e6:,.1f} MB", _marks(last=c.last, best=c.best, resumable=c.resumable)]
                for c in found.checkpoints
            ],
        )


def _launches(found: Story) -> None:
    if found.launches:
        table(
            [("launched", "left"), ("ended", "left"), ("steps", "right"), ("how", "text"), ("machine", "text"),
             ("engine", "left")],
            [[_time(each.get("began")), _time(each.get("ended")),
              f"{each.get('from_step', 0)} – {each.get('step', '?')}",
              _how(each, found.summary.state == "running" and each is found.launches[-1]), _machine(each), _engine(each)]
             for each in found.launches],
        )  # fmt: skip


def comparison(a: Path, b: Path, found: Comparison, as_json: bool, quiet: bool) -> None:
    """Two runs side by side."""
    if as_json:
        document({"a": str(a), "b": str(b), **asdict(found)})
        return
    if quiet:
        out("\n".join(f"{each.section}.{each.key}" for each in found.differences))
        return
    names = (a.name, b.name) if a.name != b.name else (short(a), short(b))
    if found.differences:
        table(
            [("", "left"), ("what differs", "left"), (names[0], "text"), (names[1], "text")],
            [[each.section, each.key, _value(each.a), _value(each.b)] for each in found.differences],
        )
    else:
        out("no setting, version or data differs")
    if found.scores:
        shared = [row for row in found.scores if None not in row] or found.scores
        shown = _spread(shared)
        shown += [row for row in found.scores[-1:] if row not in shown]
        table(
            [("step", "right"), (names[0], "right"), (names[1], "right")],
            [[f"{step:,}", _number(one), _number(other)] for step, one, other in shown],
        )
        _left_out(found.scores, shown)


def next_commands(about: Summary) -> list[str]:
    """What one would type next."""
    folder = _quoted(short(about.folder))
    if about.state in ("stopped", "failed", "planned"):
        return [f"kovqa train --resume -o {folder}"]
    if about.state != "finished":
        return []
    if about.task == "caption":
        return [f"kovqa caption -i PICTURE --model {folder}"]
    written = _quoted(f"{about.folder.name}.jsonl")
    test = _quoted(f"{about.data}/test.jsonl")
    return [
        f"kovqa predict -i PICTURE --question '…' --model {folder}",
        f"kovqa predict --input {test} -o {written} --model {folder}",
        f"kovqa evaluate {written} --index {test}",
    ]


# ----------------------------------------------------------------------------------- words


def _spread(rows: Sequence[Row]) -> list[Row]:
    """So many rows as a screen holds, evenly spread, the last one among them."""
    every = -(-len(rows) // MOST_ROWS)
    return list(rows[::-1][::every][::-1])


def _left_out(rows: Sequence[object], shown: Sequence[object]) -> None:
    if len(shown) < len(rows):
        note(f"{len(shown)} of {len(rows)} evaluations; all of them: --json")


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Paths as text, all the way down; times as people write them."""
    plain = json.loads(json.dumps(values, default=str))
    for about in (plain, plain.get("summary")):
        if about and "begun" in about:
            about["begun"] = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(about["begun"]))
    return plain


def _quoted(text: str) -> str:
    """For a shell; Hangul needs no quotes."""
    return text if re.fullmatch(r"[\w@%+=:,./-]+", text) else shlex.quote(text)


def _state(about: Summary) -> str:
    return f"{about.state}: {about.error}" if about.error else about.state


def _steps(about: Summary) -> str:
    if about.state == "broken":
        return ""
    return f"{about.steps:,}/{about.total:,}" if about.total is not None else f"{about.steps:,}"


def _score(task: str, value: float | None) -> str:
    """Questions count in percent, captions in CIDEr."""
    if value is None:
        return ""
    return f"{value:.3f}" if task == "caption" else f"{value:.2%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _time(written: str | None) -> str:
    return (written or "")[:16].replace("T", " ")


def _value(value: Any) -> str:
    return (
        "-" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    )


def _marks(**marks: bool) -> str:
    return ", ".join(name for name, true in marks.items() if true)


def _how(launch: dict[str, Any], running: bool) -> str:
    if "outcome" not in launch:
        return "running" if running else "killed"
    return f"{launch['outcome']}: {launch['error']}" if launch.get("error") else str(launch["outcome"])


def _machine(launch: dict[str, Any]) -> str:
    machine = launch.get("machine") or {}
    gpus = machine.get("gpus") or []
    what = f"{len(gpus)} × {gpus[0]}" if gpus else f"{machine.get('cores', '?')} cores"
    torch = (launch.get("versions") or {}).get("torch", "?")
    return f"{machine.get('host', '?')}, {what}, profile {launch.get('profile', '?')}, torch {torch}"


def _engine(launch: dict[str, Any]) -> str:
    engine = (launch.get("git") or {}).get("engine")
    version = (launch.get("versions") or {}).get("kovqa", "?")
    return (
        f"{version} {engine['commit'][:9]}{' changed' if engine.get('dirty') else ''}" if engine else version
    )

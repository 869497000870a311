"""Everything printed. Results go to stdout, all else to stderr; bars only where somebody watches."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kovqa_core.data.example import Answer, Example
    from kovqa_core.data.look import Seen
    from kovqa_core.planning import Training
    from kovqa_core.results.scores import Score
    from kovqa_core.settings.run import Run
    from rich.console import Console

SCHEMA = 1


@contextlib.contextmanager
def reader() -> Iterator[None]:
    """Whoever reads stdout may leave early: `kovqa … | head` is no error."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def out(text: str) -> None:
    """A result, on stdout."""
    with reader():
        print(text)


def note(text: str) -> None:
    """Something worth knowing, on stderr."""
    print(text, file=sys.stderr, flush=True)


def document(values: Mapping[str, Any]) -> None:
    """One JSON document, on stdout."""
    out(json.dumps({"schema": SCHEMA, **values}, ensure_ascii=False))


def console(stderr: bool = False) -> Console:
    """A rich console; NO_COLOR, FORCE_COLOR and COLUMNS are its own business."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else 160  # a file has no width
    return Console(stderr=stderr, highlight=False, width=width)


def table(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout.

    Args:
        columns: (heading, "left", "right" or "text"); only a text wraps.
        rows: cells.
    """
    from rich import box
    from rich.table import Table

    grid = Table(box=box.SIMPLE, pad_edge=False)
    for heading, side in columns:
        grid.add_column(
            heading, justify="right" if side == "right" else "left", no_wrap=side != "text", overflow="fold"
        )
    for row in rows:
        grid.add_row(*row)
    with reader():
        console().print(grid)


def span(seconds: float) -> str:
    """3h05m, 4m20s or 12s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


# --------------------------------------------------------------------------------- results


def index_report(report: Mapping[str, Any], folder: Path, checked: bool, as_json: bool, quiet: bool) -> None:
    """What an index holds and what was left out."""
    if as_json:
        document({"path": None if checked else str(folder), **report})
        return
    if not quiet:
        rows, pictures = report["rows"], report["pictures"]
        counts = ", ".join(f"{split} {rows[split]:,} rows on {pictures[split]:,} pictures" for split in rows)
        classes = f"; {report['answers']:,} answers (each seen at least {report['min_count']}×)"
        note(counts + (classes if report["answers"] else ""))
        for split, share in report["covered"].items():
            if share is not None and share < 1:
                note(f"{split}: {share:.1%} of the questions have an answer that training knows")
        for split, shared in report["pictures_shared_with_train"].items():
            if shared:
                note(f"warning: {shared:,} pictures of {split} are in train too: its score will flatter")
        for reason, count in report["left_out"].items():
            note(f"left out, {reason}: {count:,} (first: {report['left_out_rows'][reason][0]})")
    if not checked:
        out(str(folder))


def examples(seen: Sequence[Seen], as_json: bool) -> None:
    """Examples of an index, with where their pictures lie."""
    if as_json:
        rows = [{"split": s.split, **vars(s.example), "image": str(s.picture)} for s in seen]
        document({"examples": rows})
        return
    columns = [
        ("split", "left"),
        ("id", "text"),
        ("picture", "text"),
        ("question", "text"),
        ("answers", "text"),
    ]
    table(
        columns,
        [[s.split, s.example.id, str(s.picture), s.example.question, _answers(s.example)] for s in seen],
    )


def _answers(example: Example) -> str:
    scored = [answer if score == 1 else f"{answer} {score:g}" for answer, score in example.answers.items()]
    return ", ".join([*scored, *example.captions])


def written(folder: Path, sizes: Mapping[str, int], as_json: bool, quiet: bool) -> None:
    """A folder of files, with their sizes in bytes."""
    if as_json:
        document({"path": str(folder), "bytes": sizes})
        return
    if not quiet:
        for name, size in sizes.items():
            note(f"{name}: {size:,} bytes")
    out(str(folder))


def plan(planned: Training, quiet: bool) -> None:
    """What is about to happen."""
    for line in planned.missing:
        note(f"warning: {line}")
    if quiet:
        return
    run = planned.run
    recipe, profile = run.recipe, run.profile
    each = f"{profile.processes} × {run.micro_batch} × {run.accumulate}"
    length = f"{recipe.optim.epochs} epochs" if recipe.optim.epochs else f"{recipe.optim.steps} steps"
    note(f"recipe {recipe.name} ({recipe.family}, {recipe.task}) on profile {profile.name}, {length}")
    note(
        f"batch {recipe.optim.global_batch} = {each} (processes × micro-batch × accumulation), {profile.precision}"
    )
    note(f"run folder {run.folder}" + (f", going on from {planned.resumed}" if planned.resumed else ""))


def command(planned: Training, as_json: bool) -> None:
    """The launch command of a dry run."""
    launch = planned.launch
    if as_json:
        document(
            {
                "command": launch.shell(),
                "argv": launch.argv,
                "env": launch.env,
                "run": planned.run.model_dump(mode="json"),
                "from": dict(planned.origin),
                "missing": planned.missing,
            }
        )
    else:
        out(launch.shell())


def finished(run: Run, result: Mapping[str, Any], as_json: bool, quiet: bool) -> None:
    """Where the model is, how good it is, what to type next."""
    if as_json:
        document({"path": str(run.folder), **{k: v for k, v in result.items() if k != "schema"}})
        return
    if not quiet:
        score = result["best_score"]
        scored = (
            f"best score {score:.2%} ({result['best']})" if score is not None else f"model {result['best']}"
        )
        note(f"finished in {span(result['seconds'])}, {result['examples_per_second']:,} examples/s; {scored}")
        note(f"next: kovqa predict --model {short(run.folder)} -i PICTURE --question '…'")
    out(short(run.folder))


def interrupted(run: Run) -> None:
    """What a stopped run left, and how it goes on."""
    from kovqa_core.runs import pointed

    last = pointed(run.folder, "last")
    kept = f"{last.name} is complete" if last else "there is no checkpoint yet"
    note(f"stopped; {kept} → go on with: kovqa train --resume -o {short(run.folder)}")


def short(path: Path) -> str:
    """A path as seen from here, where that is shorter."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def answer(found: Answer, model: Path, as_json: bool, quiet: bool) -> None:
    """One answer."""
    if as_json:
        document({"answer": found.text, "score": round(found.score, 6), "model": str(model)})
        return
    if not quiet:
        note(f"{short(model)}, confidence {found.score:.1%}")
    out(found.text)


def predictions(path: Path, rows: int, model: Path, as_json: bool, quiet: bool) -> None:
    """A predictions file."""
    if as_json:
        document({"path": str(path), "rows": rows, "model": str(model)})
        return
    if not quiet:
        note(f"{rows:,} answers by {short(model)}")
    out(str(path))


def scores(found: Sequence[Score], as_json: bool, quiet: bool) -> None:
    """Scores by kind of question."""
    if as_json:
        rows = [{"kind": s.kind, "rows": s.rows, "score": s.score, "majority": s.majority} for s in found]
        document({"score": found[-1].score, "kinds": rows[:-1], "all": rows[-1]})
    elif quiet:
        out(f"{found[-1].score:.4f}")
    else:
        table(
            [("kind", "left"), ("questions", "right"), ("score", "right"), ("most frequent answer", "right")],
            [[s.kind or "all", f"{s.rows:,}", f"{s.score:.1%}", f"{s.majority:.1%}"] for s in found],
        )

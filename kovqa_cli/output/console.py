"""Everything printed. Results go to stdout, all else to stderr; bars only where somebody watches.

Text of files, models and servers passes through here, and reaches a terminal as one line without control
characters (`messages/one_line.py`); square brackets in it are not markup. Messages are translated here, and nowhere
before: `--json` and the files that people keep do not change with the language.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovqa_core.messages import Message, message, shell_quote
from kovqa_core.messages.languages import show_text
from kovqa_core.messages.one_line import escape_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

OUTPUT_SCHEMA = 1


@contextlib.contextmanager
def exit_on_broken_pipe() -> Iterator[None]:
    """Whoever reads stdout may leave early: `kovqa … | head` is not an error."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def print_result(*lines: str) -> None:
    """A result, on stdout: a path, an answer, the lines of a file.

    A pipe or file gets it as it is, because it is data there; a terminal gets each of the lines as one line.
    """
    if sys.stdout.isatty():
        print_text(*lines)
        return
    with exit_on_broken_pipe():
        print("\n".join(lines))


def print_text(*lines: str) -> None:
    """Text for people, on stdout."""
    with exit_on_broken_pipe():
        print("\n".join(map(show_text, lines)))


def print_note(*lines: str) -> None:
    """Something worth knowing, on stderr."""
    print("\n".join(map(show_text, lines)), file=sys.stderr, flush=True)


def error_line(problem: str, hint: str = "") -> Message:
    """An error as one line: what is wrong and where, its code, what to do."""
    from kovqa_core.messages.error_codes import find_error_code

    if code := find_error_code(problem):
        problem = message("cli.error-code", "{problem} [{code}]", problem=problem, code=code)
    if not hint:
        return message("cli.error", "kovqa: {problem}", problem=problem)
    return message("cli.error-with-hint", "kovqa: {problem} → {hint}", problem=problem, hint=hint)


def ask_yes_no(question: str) -> bool:
    """A question on stderr; no where only Enter is pressed. The caller knows that somebody is there."""
    import typer

    return typer.confirm(show_text(question), err=True)


def print_warnings(warnings: Iterable[str]) -> None:
    """Things a person should know, on stderr: also where little is wanted."""
    for warning in warnings:
        print_note(message("cli.warning", "warning: {warning}", warning=warning))


def print_json(values: Mapping[str, Any]) -> None:
    """One JSON document, on stdout: in UTF-8, whatever the terminal's encoding; control characters by escapes."""
    import json  # a start does without

    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    text = json.dumps({"schema": OUTPUT_SCHEMA, **values}, ensure_ascii=False)
    with exit_on_broken_pipe():
        print(escape_json(text))


def print_outcome(
    value: str | Sequence[str],
    fields: Mapping[str, Any],
    notes: Iterable[str] = (),
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """What a command came to: one JSON document; or notes on stderr and the essential value on stdout.

    Args:
        value: the answer, path or id that `-q` prints alone; or several, a line each.
        fields: of the JSON document, besides `schema`.
        notes: lines worth knowing, left out by `-q`.
    """
    if as_json:
        print_json(fields)
        return
    if not quiet:
        for note in notes:
            print_note(note)
    print_result(*([value] if isinstance(value, str) else value))


def print_report(
    value: str | Sequence[str],
    fields: Mapping[str, Any],
    print_tables: Callable[[], None],
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """What a command looked up: one JSON document, the essential value alone, or text for people.

    Args:
        value: what `-q` prints; or several, a line each.
        fields: of the JSON document, besides `schema`.
        print_tables: prints tables and lines.
    """
    if as_json:
        print_json(fields)
    elif quiet:
        print_result(*([value] if isinstance(value, str) else value))
    else:
        print_tables()


def is_somebody_there() -> bool:
    """Is there somebody at a terminal who can answer a question?"""
    return sys.stdin.isatty() and sys.stderr.isatty() and os.environ.get("CI", "") in ("", "false")


def make_console(*, stderr: bool = False) -> Console:
    """A rich console; NO_COLOR, FORCE_COLOR and COLUMNS are its own business."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else 160  # a file has no width
    return Console(stderr=stderr, highlight=False, width=width)


def plain_text(text: str) -> Text:
    """A text for rich, not markup: `[image]` is a word, `:smile:` stays what it is."""
    from rich.text import Text

    return Text(show_text(text))


def format_duration(seconds: float) -> Message:
    """3h05m, 4m20s or 12s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return message("cli.hours", "{hours}h{minutes:02}m", hours=hours, minutes=minutes)
    if minutes:
        return message("cli.minutes", "{minutes}m{seconds:02}s", minutes=minutes, seconds=rest)
    return message("cli.seconds", "{seconds}s", seconds=rest)


# --------------------------------------------------------------------------------- results


def format_score(metric: str | None, task: str, value: float) -> str:
    """A training's score with its name, as the table of metrics shows it: `score 51.20%`, `CIDEr 0.912`."""
    from kovqa_core.evaluate.metrics import format_metric

    return format_metric(metric, task, value)


def short_path(path: Path | str) -> str:
    """A path as seen from here, where that is shorter; a name as it is."""
    if isinstance(path, str):
        return path
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def model_name(folder: Path | str) -> str:
    """A model by its name on the hub and the commit, where its folder is a copy of one; else its path from here."""
    from kovqa_core.download.hub_copies import hub_identity

    repo, mark, commit = hub_identity(folder).partition("@") if isinstance(folder, Path) else ("", "", "")
    return f"{repo}{mark}{commit[:12]}" or short_path(folder)


def shell_path(path: Path | str) -> str:
    """A path as seen from here, quoted for a command that is pasted."""
    return shell_quote(short_path(path))

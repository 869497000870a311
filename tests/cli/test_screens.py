"""Tables as they look at 60, 80 and 120 columns, in both languages, beside their recorded texts.

`python -m tests.cli.test_screens` records them anew; look at the difference.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import typer
from rich.cells import cell_len

from kovqa_cli.main import app

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "screens"
WIDTHS, LANGUAGES = (60, 80, 120), ("en", "ko")


def run_words(*words: str) -> Callable[[], None]:
    """A command."""
    return lambda: typer.main.get_command(app)([*words], standalone_mode=False)


def show_runs() -> None:
    from kovqa_core.runs.summary import RunSummary

    from kovqa_cli.output.runs import print_runs

    runs = [
        RunSummary(Path("runs") / name, state, begun, recipe, "beit3", "vqa", "cpu", "data/aihub", steps, 20_000, best)
        for name, recipe, state, steps, best, begun in (
            ("kobeit3-1121-093000", "kobeit3", "stopped", 12_000, 0.512, 1_795_000_000.0),
            ("한글-이름이-아주-긴-실행-폴더-1122", "tiny", "finished", 20_000, 0.981, 1_795_100_000.0),
        )
    ]  # fmt: skip
    print_runs(runs, Path("runs"), as_json=False, quiet=False)


def show_evaluation(*more: str) -> Callable[[], None]:
    """`kovqa evaluate` of forty questions of three types."""

    def show() -> None:
        with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
            folder = Path()
            rows = [
                f'{{"id": "{n}", "image": "{n % 20}.png", "question": "무엇인가요?", "answers": {{"{n % 4}": 1.0}}, '
                f'"kind": "{("색", "개수", "위치를 묻는 질문")[n % 3]}"}}\n'
                for n in range(40)
            ]
            (folder / "test.jsonl").write_text("".join(rows), "utf-8")
            for file, step in (("a.jsonl", 4), ("b.jsonl", 3)):
                answers = [f'{{"id": "{n}", "answer": "{n % step}"}}\n' for n in range(40)]
                (folder / file).write_text("".join(answers), "utf-8")
            run_words("evaluate", "b.jsonl", "--index", "test.jsonl", *more)()

    return show


SCREENS: Mapping[str, Callable[[], None]] = {
    "profiles": run_words("profiles"),
    "recipes": run_words("recipes"),
    "models": run_words("models"),
    "download": run_words("download", "--list", "-o", "no-such-folder"),
    "runs": show_runs,
    "evaluate": show_evaluation(),
    "evaluate-against": show_evaluation("--against", "a.jsonl"),
}


def capture(screen: str, width: int, language: str) -> str:
    """What a screen shows at a width, in a language: stdout, then stderr."""
    changed = {"COLUMNS": str(width), "KOVQA_LANG": language, "KOVQA_PROFILE": "cpu", "TZ": "Asia/Seoul"}
    before = dict(os.environ)
    os.environ.update(changed)
    out, notes = io.StringIO(), io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(notes),
            contextlib.suppress(SystemExit),
        ):
            SCREENS[screen]()
    finally:
        os.environ.clear()
        os.environ.update(before)
    lines = [line.rstrip() for line in f"{out.getvalue()}{notes.getvalue()}".splitlines()]
    return "\n".join(line for line in lines if not line.startswith("~")) + "\n"


@pytest.mark.parametrize("screen", SCREENS)
def test_screens_are_as_recorded(screen: str) -> None:
    for width in WIDTHS:
        for language in LANGUAGES:
            recorded = (FOLDER / f"{screen}-{width}-{language}.txt").read_text("utf-8")
            assert capture(screen, width, language) == recorded


def test_recorded_tables_fit() -> None:
    """Lines of a table; a note below it is the terminal's to wrap."""
    for path in FOLDER.glob("*.txt"):
        width = int(path.stem.split("-")[-2])
        for table in path.read_text("utf-8").split("\n\n"):
            if "──" in table:
                assert max(map(cell_len, table.splitlines())) <= width, path.name


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in SCREENS:
        for columns in WIDTHS:
            for code in LANGUAGES:
                (FOLDER / f"{name}-{columns}-{code}.txt").write_text(capture(name, columns, code), "utf-8")

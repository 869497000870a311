"""What `kovqa runs` suggests, and where it looked."""

from __future__ import annotations

from pathlib import Path

import pytest
from kovqa_core.data.tables import read_table
from kovqa_core.errors import DataError, ModelError, SettingsError
from kovqa_core.models.config import recipe_model_config
from kovqa_core.models.memory import ElementSize, recipe_step_memory
from kovqa_core.runs.summary import RunSummary, find_run
from kovqa_core.settings.resolve import load_recipe

from kovqa_cli.output.next_commands import next_commands


@pytest.mark.parametrize(
    ("rows", "split"),
    [
        ({"train": 9, "val": 3, "test": 2}, "test"),
        ({"train": 9, "val": 3, "test": 0}, "val"),
        ({"train": 9, "val": 3}, "val"),
        ({"train": 9, "val": 0, "test": 0}, None),
        ({}, "test"),  # not known
    ],
)
def test_a_split_with_rows_is_suggested(rows: dict[str, int], split: str | None) -> None:
    commands = next_commands(RunSummary(Path("runs/a"), "finished", 0.0, task="vqa", data="idx"), rows)
    assert len(commands) == (3 if split else 1)
    assert all(f"idx/{split}.jsonl" in command for command in commands[1:])


def test_an_unknown_run_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        SettingsError, match=r"unknown run 'nope', neither in runs/ nor in this folder; known: none"
    ):
        find_run("nope")
    for folder in ("first", "runs/second"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "run.yaml").write_text("")
    with pytest.raises(SettingsError, match="known: first, second"):
        find_run("nope")
    assert find_run("first") == Path("first")


def test_an_empty_table_says_so(tmp_path: Path) -> None:
    table = tmp_path / "test.jsonl"
    table.write_text("")
    with pytest.raises(DataError, match="is empty: it has no rows") as caught:
        list(read_table(table))
    assert caught.value.hint == "name another table; of an index, a split that has rows"


def test_a_model_of_the_index_alone_needs_no_base() -> None:
    recipe = load_recipe("tiny-vlm-scratch")
    assert recipe_model_config(recipe)
    with pytest.raises(ModelError, match="made of the index when training starts"):
        recipe_step_memory(recipe, None, ElementSize(4, is_cpu=True))

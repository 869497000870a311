"""What can be shown, and what is refused before anything is read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.view.inputs import ScoringRules, open_inputs

from tests.conftest import Small


def test_an_index_and_one_of_its_splits(small: Small, answers: tuple[Path, Path]) -> None:
    whole = open_inputs(small.index, answers)
    assert (whole.first_split, whole.named_split, list(whole.splits)) == (
        "test",
        "",
        ["train", "val", "test"],
    )
    one = open_inputs(small.index / "val.jsonl")
    assert (one.first_split, one.named_split) == ("val", "val")
    assert "train" in one.splits  # how often training saw an answer
    assert open_inputs(small.captions).task == "caption"


def test_what_cannot_be_shown(small: Small, answers: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no index in"):
        open_inputs(tmp_path)
    with pytest.raises(DataError, match="no index file"):
        open_inputs(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="holds predictions, not an index") as only:
        open_inputs(answers[1])
    assert "kovqa view INDEX --predictions" in only.value.hint
    link = tmp_path / "link.jsonl"
    link.symlink_to(answers[0])
    with pytest.raises(SettingsError, match="twice"):
        open_inputs(small.index, [answers[0], link])
    with pytest.raises(SettingsError, match="3 times"):
        open_inputs(small.index, [*answers, link])
    with pytest.raises(SettingsError, match="unknown normal form"):
        open_inputs(small.index, rules=ScoringRules("none"))


def test_empty_splits(small: Small, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    shutil.copytree(small.index, folder)
    (folder / "val.jsonl").write_text("")
    assert list(open_inputs(folder, images=small.root).splits) == ["train", "test"]
    with pytest.raises(DataError, match="has no rows"):
        open_inputs(folder / "val.jsonl", images=small.root)
    for name in ("train", "test"):
        (folder / f"{name}.jsonl").write_text("")
    with pytest.raises(DataError, match="has no rows"):
        open_inputs(folder, images=small.root)

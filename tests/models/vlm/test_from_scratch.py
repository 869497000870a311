"""A vision language model from nothing: no file is read but the index's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from kovqa_core.errors import SettingsError
from kovqa_core.index.reader import open_index
from kovqa_core.models import family
from kovqa_core.models.vlm.config import ModelConfig
from kovqa_core.models.vlm.from_scratch import iterate_index_texts, write_random_base
from kovqa_core.settings.recipe import DataSettings
from kovqa_core.settings.resolve import resolve_settings

from tests.conftest import VLM, Small


@pytest.mark.parametrize(
    "more", [["model.train=lora"], ["model.base=somewhere"], ["model.weights=somewhere"]]
)
def test_it_takes_no_base_and_learns_as_a_whole(small: Small, more: list[str]) -> None:
    recipe = resolve_settings(
        "tiny-vlm-scratch", "cpu", [*VLM, *more], {"data.index": str(small.index)}
    ).recipe
    with pytest.raises(SettingsError, match="neither base nor weights, and train: full"):
        family.create_model(recipe, [])


def test_nothing_has_to_be_here(small: Small) -> None:
    recipe = resolve_settings("tiny-vlm-scratch", "cpu", [], {"data.index": str(small.index)}).recipe
    assert ModelConfig(**recipe.model).required_files() == []
    _, processor, note = family.create_model(recipe, [])
    assert note.startswith("newly initialised; ")
    texts = ["한글도 English도, 漢字와 😀도", "\t두 줄\n"]
    tokenizer = processor.hf.tokenizer  # type: ignore[attr-defined]
    assert [tokenizer.decode(tokenizer(text)["input_ids"]) for text in texts] == texts


def test_the_same_index_gives_the_same_files(small: Small, tmp_path: Path) -> None:
    """Processes that train together each make their own."""
    for name in ("one", "other"):
        write_random_base(tmp_path / name, iterate_index_texts(DataSettings(index=str(small.index))), 1)
    files = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("one", "other")]
    assert files[0] == files[1]
    assert "model.safetensors" in files[0]


def test_texts_come_from_all_kinds_of_rows(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index has row after row of one kind."""
    rows = list(open_index(small.index).split("train"))
    monkeypatch.setattr("kovqa_core.models.vlm.from_scratch._MAX_TOKENIZER_ROWS", 40)
    texts = set(iterate_index_texts(DataSettings(index=str(small.index))))
    taken = Counter(row.question_type for row in rows if row.question in texts)
    assert set(taken) == {row.question_type for row in rows}

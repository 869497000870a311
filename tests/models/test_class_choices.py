"""Classifiers that answer with one of a row's choices: the likeliest of those that are classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kovqa_core.data.decoding import DecodingOptions
from kovqa_core.data.example import Answer, Example
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.index.reader import open_index
from kovqa_core.models import family
from kovqa_core.models.checkpoint_info import CheckpointInfo
from kovqa_core.settings.resolve import resolve_settings

from tests.conftest import FUSION, SMALL, Small


@pytest.fixture(params=[("tiny", SMALL), ("nia", FUSION)], ids=["beit3", "fusion"])
def folder(request: pytest.FixtureRequest, small: Small, tmp_path: Path) -> Path:
    name, sets = request.param
    flags = {"data.index": str(small.index), "model.tokenizer": str(small.tokenizer)}
    recipe = resolve_settings(name, "cpu", sets, flags).recipe
    model, processor, _ = family.create_model(recipe, open_index(small.index).answers())
    family.write_model_folder(model, processor, tmp_path, CheckpointInfo(recipe.family, "vqa"))
    return tmp_path


def answers(
    folder: Path, small: Small, rows: Sequence[Example], decoding: DecodingOptions, top_k: int
) -> list[Answer]:
    model, processor = family.read_model_folder(folder, "vqa", decoding=decoding, top_k=top_k)
    images, rng = open_index(small.index).images, np.random.default_rng(0)
    items = [processor.encode(row, images, train=False, rng=rng) for row in rows]
    with torch.inference_mode():
        return model.eval().answer(processor.collate(items))


def test_of_a_rows_choices_the_likeliest_class(folder: Path, small: Small) -> None:
    """Its score among all classes stays; a choice that is no class is never given; a row may offer none."""
    index = open_index(small.index)
    classes, choosing = index.answers(), DecodingOptions(choices=True)
    few = [f" {classes[3]}", "낯선 답", classes[0], classes[5]]
    rows = list(index.split("val"))[:3]
    rows = [
        replace(rows[0], choices=few),
        replace(rows[1], choices=()),
        replace(rows[2], choices=classes[:2]),
    ]
    free = answers(folder, small, rows, DecodingOptions(), len(classes))
    chosen = answers(folder, small, rows, choosing, 3)
    scores = dict(free[0].likeliest)
    expected = sorted((few[0], few[2], few[3]), key=lambda text: -scores[text.strip()])
    assert [text for text, _ in chosen[0].likeliest] == expected
    assert chosen[0].text == expected[0]
    assert chosen[0].score == pytest.approx(scores[expected[0].strip()], rel=1e-5)
    assert (chosen[1].text, chosen[1].score) == (free[1].text, pytest.approx(free[1].score, rel=1e-5))
    assert len(chosen[2].likeliest) == 2
    alone = answers(folder, small, rows[:1], choosing, 1)
    assert alone[0].text == chosen[0].text and alone[0].likeliest == ()
    model_family = family.load_family(family.read_checkpoint_info(folder).family)
    _, processor = family.read_model_folder(folder, "vqa", decoding=choosing)
    assert model_family.count_foreign_choices is not None
    assert model_family.count_foreign_choices(processor, rows) == 1
    foreign = replace(rows[0], choices=["낯선 답", "또 하나"])
    with pytest.raises(
        DataError, match=f"id {foreign.id}: none of its choices is an answer that the model knows"
    ):
        answers(folder, small, [foreign], choosing, 1)
    for other in (replace(choosing, calibrated=True), replace(choosing, choice_score="text")):
        with pytest.raises(SettingsError, match="answers in one way only"):
            family.read_model_folder(folder, "vqa", decoding=other)

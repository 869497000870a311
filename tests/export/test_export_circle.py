"""What was exported opens again: in every command, with the same answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from kovqa_core.answer import local
from kovqa_core.answer.job import AnswerOptions
from kovqa_core.export.export_model import export_checkpoint
from kovqa_core.models.checkpoint_info import read_checkpoint_info
from kovqa_core.models.precision import own_precision

from tests.conftest import Small
from tests.export.untrained import CASES, write_untrained

QUESTION = "분홍색 별은 어디에 있나요?"


@pytest.mark.parametrize("name", CASES)
def test_an_export_answers_as_the_model_does(
    name: str, small: Small, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    step = write_untrained(name, small, tiny_vlm, tmp_path / "단계")
    export_checkpoint(step, tmp_path / "밖")
    info = read_checkpoint_info(step)
    assert replace(read_checkpoint_info(tmp_path / "밖"), model=None) == info
    assert own_precision(tmp_path / "밖") == own_precision(step)
    question = QUESTION if info.task == "vqa" else ""
    image = next((small.root / "images").glob("*.png"))
    options = AnswerOptions(step, info.task, precision="fp32")
    models = [local.load_model(replace(options, model=folder)) for folder in (step, tmp_path / "밖")]
    before, after = (local.answer_one_image(model, image, question) for model in models)
    assert before.text == after.text
    assert before.score == pytest.approx(after.score, rel=1e-5 if info.family != "vlm" else 0.05)
    export_checkpoint(tmp_path / "밖", tmp_path / "또")
    for file in (tmp_path / "밖").rglob("*"):
        again = tmp_path / "또" / file.relative_to(tmp_path / "밖")
        assert file.is_dir() or file.read_bytes() == again.read_bytes(), file

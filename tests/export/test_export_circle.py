"""What was exported opens again: in every command, with the same answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from kovqa_core.answer import local
from kovqa_core.answer.job import AnswerOptions
from kovqa_core.errors import ModelError
from kovqa_core.export.export_model import export_checkpoint
from kovqa_core.models import family
from kovqa_core.models.checkpoint_info import read_checkpoint_info
from kovqa_core.models.precision import own_precision
from kovqa_core.runs.folder import find_model_folder

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
        # A vision language model's card names the folder that it was made of, which is another now.
        is_card = info.family == "vlm" and file.name == "README.md"
        assert file.is_dir() or is_card or file.read_bytes() == again.read_bytes(), file


def test_an_export_of_an_earlier_version_opens_where_its_files_tell_all(
    small: Small, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    """BEiT-3's do, without `kovqa.json`; a fusion model's do not say how its parts are joined."""
    for name in ("beit3:vqa", "beit3:caption", "fusion"):
        folder = tmp_path / name.replace(":", "-")
        export_checkpoint(write_untrained(name, small, tiny_vlm, tmp_path / "steps" / name), folder)
        (folder / "kovqa.json").unlink()
    assert find_model_folder(tmp_path / "beit3-vqa", "vqa") == tmp_path / "beit3-vqa"
    assert read_checkpoint_info(tmp_path / "beit3-vqa").task == "vqa"
    assert read_checkpoint_info(tmp_path / "beit3-caption").task == "caption"
    family.read_model_folder(tmp_path / "beit3-caption", "caption")
    with pytest.raises(ModelError, match="no kovqa model in"):
        find_model_folder(tmp_path / "fusion", "vqa")


@pytest.mark.parametrize("file", ["question/model.safetensors", "head.safetensors"])
def test_a_damaged_part_of_an_export_is_named(
    file: str, small: Small, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    export_checkpoint(write_untrained("fusion", small, tiny_vlm, tmp_path / "s"), tmp_path / "x")
    (tmp_path / "x" / file).write_bytes(b"\x00" * 100)
    with pytest.raises(ModelError, match=file):
        family.read_model_folder(tmp_path / "x", "vqa")

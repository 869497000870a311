"""Images that a base model's processor refuses: their rows are left out, and the others of the batch are answered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from kovqa_core.answer.inference import answer_examples
from kovqa_core.data.example import Example
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import DataError
from kovqa_core.models.family import read_model_folder
from PIL import Image

SIZES = [(64, 48), (1, 3000), (3000, 2), (300, 4), (1, 1), (2, 90)]


@pytest.mark.parametrize(("model_type", "refused"), [("qwen3_vl", [1, 2]), ("gemma3", [])])
def test_an_image_too_long_for_the_model_leaves_the_others_their_answers(
    tiny_vlm: Callable[[str], Path], tmp_path: Path, model_type: str, refused: list[int]
) -> None:
    examples = []
    for number, size in enumerate(SIZES):
        Image.new("RGB", size, "red").save(tmp_path / f"{number}.png")
        examples.append(Example(f"q{number}", f"{number}.png", "무엇?"))
    model, processor = read_model_folder(tiny_vlm(model_type), "vqa")
    faults: dict[int, DataError] = {}
    answers = answer_examples(
        model, processor, examples, tmp_path, RankInfo(0, 0, 1), torch.device("cpu"), len(SIZES),
        on_fault=faults.__setitem__,
    )  # fmt: skip
    assert [number for number, _ in answers] == [n for n in range(len(SIZES)) if n not in refused]
    assert sorted(faults) == refused
    for number in refused:
        width, height = SIZES[number]
        assert faults[number].message.startswith(f"id q{number}: image of {width} x {height} pixels")

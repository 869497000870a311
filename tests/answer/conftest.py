"""A running server of a model, and a table to ask it; no host but 127.0.0.1 can be reached."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from kovqa_core.index.reader import open_index
from kovqa_core.models import family
from kovqa_core.models.checkpoint_info import CheckpointInfo
from kovqa_core.settings.resolve import resolve_settings

from tests.answer.server import Vllm, running
from tests.conftest import FUSION, SMALL, Small
from tests.download.conftest import only_here  # noqa: F401 - a fixture for every test here

AnswerFolder = Callable[[str], Path]


@pytest.fixture(scope="session")
def answer_folder(
    small: Small,
    trained: Path,
    tiny_vlm: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> AnswerFolder:
    """The folder of a small model of each family."""

    def new_folder(recipe_name: str, sets: Sequence[str], index: Path, task: str) -> Path:
        folder = tmp_path_factory.mktemp(recipe_name)
        flags = {"data.index": str(index), "model.tokenizer": str(small.tokenizer)}
        recipe = resolve_settings(recipe_name, "cpu", sets, flags).recipe
        answers = open_index(index).answers() if task == "vqa" else []
        model, processor, _ = family.create_model(recipe, answers)
        family.write_model_folder(model, processor, folder, CheckpointInfo(recipe.family, task))
        return folder

    folders = {
        "beit3": lambda: trained,
        "caption": lambda: new_folder("tiny-caption", SMALL, small.captions, "caption"),
        "fusion": lambda: new_folder("nia", FUSION, small.index, "vqa"),
        "vlm": lambda: tiny_vlm("qwen3_vl"),
    }
    return lambda name: folders[name]()


@pytest.fixture
def vllm() -> Iterator[Vllm]:
    """A server with one model."""
    with running() as server:
        yield server


@pytest.fixture
def table(small: Small, tmp_path: Path) -> Path:
    """40 questions, each different, about the demo images, which are linked beside the table."""
    images = sorted((small.root / "images").glob("*.png"))
    (tmp_path / "images").symlink_to(small.root / "images")
    rows = [
        {
            "id": f"Q{n}",
            "image": f"images/{images[n % len(images)].name}",
            "question": f"{n}번 그림은?",
            "메모": n,
        }
        for n in range(40)
    ]
    path = tmp_path / "질문.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def settings(**extra: str) -> dict[str, str]:
    """Variables that the fixtures have set, for processes of their own."""
    kovqa_variables = {name: value for name, value in os.environ.items() if name.startswith("KOVQA_")}
    return {**kovqa_variables, **extra}

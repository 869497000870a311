"""Check 13: a trained model answers on a GPU as on a CPU, whatever the batch."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from kovqa_core.answer.inference import answer_examples
from kovqa_core.demo.dataset import write_demo_dataset
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.index.build import build_index
from kovqa_core.index.reader import open_index
from kovqa_core.models import family
from kovqa_core.runs.folder import follow_pointer
from kovqa_core.settings.resolve import resolve_settings
from kovqa_core.settings.run import Run, make_run
from kovqa_core.tokenizer.train import train_tokenizer
from kovqa_core.train.loop import run_training

from tests.conftest import SMALL, Small
from tests.gpu.devices import CPU, autocast_on, on_devices
from tests.train.test_resume import ALONE, never_stop

QUESTIONS, LEAST = 300, 0.99
DTYPES = (torch.float32, torch.bfloat16)


def learned(device: torch.device, small: Small, folder: Path) -> Run:
    """A run on drawn scenes: on a GPU long enough that its answers are decided ones, on a CPU two steps."""
    if device.type == "cpu":
        data = {"data.index": str(small.index), "model.tokenizer": str(small.tokenizer)}
        settings = resolve_settings("tiny", "cpu", [*SMALL, "optim.steps=2", "eval.every_steps=9"], data)
    else:
        write_demo_dataset(folder / "raw", 400, 150, 3)
        build_index("aihub", folder / "raw", None, folder / "index")
        train_tokenizer([folder / "raw" / "text.txt"], folder / "spm.model", 500)
        data = {"data.index": str(folder / "index"), "model.tokenizer": str(folder / "spm.model")}
        sets = [
            "optim.steps=1200",
            "eval.every_steps=1200",
            "profile.loader_workers=8",
            "profile.precision=bf16",
        ]
        settings = resolve_settings("tiny", "cpu", sets, data)
    (folder / "run").mkdir(parents=True)
    return make_run(settings.recipe, settings.profile, folder / "run", [])


@pytest.mark.parametrize("device", on_devices())
def test_answers_are_the_cpus(small: Small, tmp_path: Path, device: torch.device) -> None:
    run = learned(device, small, tmp_path / "learned")
    run_training(run, ALONE, device, never_stop)
    step = follow_pointer(run.folder, "last")
    assert step is not None
    model, processor = family.read_model_folder(step, "vqa")
    index = open_index(Path(str(run.recipe.data.index)))
    asked = [*index.split("val"), *index.split("train")][:QUESTIONS]

    def answers(on: torch.device, dtype: torch.dtype, batch: int) -> list[str]:
        found = answer_examples(
            model.to(on), processor, asked, index.images, RankInfo(0, 0, 1), on, batch,
            autocast=partial(autocast_on, on, dtype),
        )  # fmt: skip
        return [answer.text for _, answer in found]

    expected = answers(CPU, torch.float32, 32)
    assert len(set(expected)) > (5 if device.type == "cuda" else 0)
    for dtype in DTYPES if device.type == "cuda" else DTYPES[:1]:
        for batch in (7, 64):
            actual = answers(device, dtype, batch)
            same = sum(a == e for a, e in zip(actual, expected, strict=True))
            least = LEAST * len(expected) if device.type == "cuda" else len(expected)
            assert same >= least, (dtype, batch, same)

"""A family from outside: one module and one line of the table; planned, trained, saved, loaded, exported, asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import SettingsError
from kovqa_core.export.export_model import export_checkpoint
from kovqa_core.index.reader import open_index
from kovqa_core.models import FAMILIES, FamilyModules, family
from kovqa_core.models.checkpoint_info import CheckpointInfo
from kovqa_core.plan.training import plan_training
from kovqa_core.runs.events import StartEvent, WarningEvent
from kovqa_core.runs.folder import find_model_folder, read_result
from kovqa_core.train.loop import run_training
from typer.testing import CliRunner

from kovqa_cli.main import app
from kovqa_cli.output.training import training_progress
from tests.conftest import Small

# The smallest model that learns anything: answers by the mean colour of the image, without reading the question.
COLOUR_FAMILY = """
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from kovqa_core.data.answers import read_answers, write_answers
from kovqa_core.data.example import Answer
from kovqa_core.data.image_io import open_image
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.config import FamilyConfig
from kovqa_core.models.export_check import ExportedModel
from kovqa_core.models.family import FamilyModel, ModelFamily
from kovqa_core.models.memory import StepMemory
from kovqa_core.models.token_count import TokenCount


class ModelConfig(FamilyConfig):
    scale: float = 1.0


def COUNT_STEP_MEMORY(config, task, classes, by):
    numbers = 4 * (classes or 1)
    return StepMemory(4.0 * numbers, numbers, numbers, 0.0, 12.0, 12.0, 12.0, 4.0, 0.0)


class ColourModel(FamilyModel):
    def __init__(self, answers):
        super().__init__()
        self.answers, self.head = answers, torch.nn.Linear(3, len(answers))

    def forward(self, batch, step):
        return {"loss": cross_entropy(self.head(batch.tensors["colour"]), batch.tensors["target"])}

    def answer(self, batch):
        best = self.head(batch.tensors["colour"]).softmax(1).max(1)
        return [Answer(self.answers[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist())]


class ColourProcessor:
    def __init__(self, answers):
        self.answers = answers

    def encode(self, example, images, *, train, rng):
        colour = np.asarray(open_image(images / example.image), np.float32).mean((0, 1)) / 255
        known = [self.answers.index(answer) for answer in example.answers if answer in self.answers]
        return example.id, colour, known[0] if known else -100

    def collate(self, items):
        ids, colours, targets = zip(*items)
        tensors = {"colour": torch.from_numpy(np.stack(colours)), "target": torch.tensor(targets)}
        return ModelBatch(tensors, list(ids))


def new_model(recipe, answers):
    return ColourModel(answers), ColourProcessor(answers), "newly initialised"


def save_model(model, processor, folder):
    save_file(model.state_dict(), folder / "model.safetensors")
    write_answers(folder / "answers.txt", processor.answers)


def load_model(folder, options):
    model, processor, _ = new_model(None, read_answers(folder / "answers.txt"))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model, processor


def export_model(folder, output, options):
    model, processor = load_model(folder, options)
    save_model(model, processor, output)
    return ExportedModel('load_file("model.safetensors")\\n')


def count_text_tokens(processor, examples):
    return TokenCount(texts=len(examples), tokens=100, unknown=31, texts_with_unknown=7)


FAMILY = ModelFamily(new_model, load_model, save_model, export_model, count_text_tokens=count_text_tokens)
"""

RECIPE = """\
family: colour
task: vqa
model: {scale: 2.0}
optim: {steps: 3, global_batch: 8, lr: 1e-2}
log_every: 1
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "kovqa_colour.py").write_text(COLOUR_FAMILY, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(FAMILIES, "colour", FamilyModules("kovqa_colour", "kovqa_colour", "kovqa_colour"))
    file = tmp_path / "colour.yaml"
    file.write_text(RECIPE, "utf-8")
    return file


def test_a_new_family_is_one_module_and_one_line(
    small: Small, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"data.index": str(small.index)}
    sets = ["profile.threads=1", "profile.loader_workers=0"]
    planned = plan_training(
        str(recipe), "cpu", sets=sets, flags=flags, folder=tmp_path / "run", resume=False, dry_run=False
    )
    planned.run.folder.mkdir()
    needs = planned.memory_plan.needs
    assert needs is not None
    assert needs.peak > 0
    run_training(planned.run, RankInfo(0, 0, 1), torch.device("cpu"), lambda: False)
    # What its tokenizer does not know is said before the first step.
    started = capsys.readouterr().err
    assert "does not know 31% of the tokens" in started.partition("train  step 1")[0]
    with training_progress(quiet=True) as show:  # also where little is wanted
        for event in (StartEvent(0, 3, "from nothing"), WarningEvent("warning: look")):
            show(event)
    assert capsys.readouterr().err == "warning: look\n"

    step = find_model_folder(tmp_path / "run", "vqa")
    result = read_result(tmp_path / "run")
    assert result is not None
    assert (result.steps, step.name) == (3, "step-000003")
    index = open_index(small.index)
    example = index.split("val")[0]
    words = ["predict", "-i", str(index.images / example.image), "--question", example.question]
    done = CliRunner().invoke(app, [*words, "--model", str(tmp_path / "run"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["answer"] in index.answers()
    report = export_checkpoint(tmp_path / "run", tmp_path / "exported")
    assert report.files == ("README.md", "answers.txt", "model.safetensors")


def test_what_a_new_family_does_not_offer_is_refused(small: Small, recipe: Path, tmp_path: Path) -> None:
    flags = {"data.index": str(small.index)}
    with pytest.raises(SettingsError, match="scales"):
        plan_training(
            str(recipe), "cpu", sets=["model.scales=1"], flags=flags, folder=tmp_path / "run",
            resume=False, dry_run=True,
        )  # fmt: skip
    model, processor, _ = family.load_family("colour").new_model(None, ["예", "아니요"])  # type: ignore[arg-type]
    step = tmp_path / "step"
    step.mkdir()
    family.write_model_folder(model, processor, step, CheckpointInfo("colour", "vqa"))
    with pytest.raises(SettingsError, match="no beam search"):
        family.read_model_folder(step, "vqa", num_beams=3)
    with pytest.raises(SettingsError, match="bring no code"):
        family.read_model_folder(step, "vqa", family.LoadOptions(trust_remote_code=True))
    with pytest.raises(SettingsError, match="one form only"):
        export_checkpoint(step, tmp_path / "x", as_upstream=True)
    with pytest.raises(SettingsError, match="cannot checkpoint activations"):
        model.prepare(activation_checkpointing=True, compile=False)

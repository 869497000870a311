"""What a tiny model of a class can do, by kovqa's own code: answer, train, resume, merge.

Each step is tried by itself, so that a class which cannot learn may still answer.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kovqa_core.data.example import Example
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import KovqaError, Stopped
from kovqa_core.index.reader import open_index
from kovqa_core.models import family
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.family import DEFAULT_LOADING, LoadOptions
from kovqa_core.models.vlm import generation
from kovqa_core.models.vlm.family import export_model
from kovqa_core.models.vlm.hf_libraries import peft, transformers
from kovqa_core.models.vlm.model import VlmModel, answer_loss
from kovqa_core.models.vlm.processor import VlmProcessor
from kovqa_core.runs.folder import follow_pointer
from kovqa_core.settings.resolve import resolve_settings
from kovqa_core.settings.run import Run, make_run
from kovqa_core.train.loop import run_training
from PIL import Image
from safetensors.torch import load_file

from bench.vlm_classes.tiny_model import CLASS_NAMES, write_tiny_model

STEPS = ("answers", "batch = alone", "trains", "resumes", "merges")
SETTINGS = (
    "optim.global_batch=4", "optim.steps=3", "optim.warmup_steps=1", "eval.every_steps=99", "log_every=1",
    "model.max_pixels=1600", "model.max_new_tokens=3", "profile.threads=1", "profile.micro_batch={default: 2}",
)  # fmt: skip
_IMAGE_SIZES = ((64, 32), (33, 33), (40, 60), (96, 24))  # pixels: they make different numbers of tokens
_SCORE_TOLERANCE, _LOGIT_TOLERANCE, _LOSS_TOLERANCE = 1e-4, 1e-3, 1e-4


class Failed(Exception):
    """A step does not hold; says what."""


@dataclass
class Trial:
    """What came of a class.

    Attributes:
        model_type: as in config.json.
        class_name: of transformers.
        held: steps that hold.
        reason: why the first that does not hold does not; empty: all hold.
        refused: did kovqa say so itself, in one line?
        parameters: of the tiny model.
    """

    model_type: str
    class_name: str
    held: list[str] = field(default_factory=list)
    reason: str = ""
    refused: bool = False
    parameters: int = 0


def try_class(model_type: str, index: Path, folder: Path) -> Trial:
    """Make a tiny model of a class in an empty folder and try everything; the folder is gone afterwards."""
    trial = Trial(model_type, CLASS_NAMES[model_type])
    base = folder / "base"
    try:
        texts = tuple(f"{e.question} {' '.join(e.answers)}" for e in open_index(index).split("train"))
        _note(trial, folder, "", lambda: _write(trial, base, texts))
        if trial.reason:
            return trial
        examples, images = _examples_of_all_shapes(index, folder / "images")
        answers = _Answers(base, examples, images)
        _note(trial, folder, "answers", answers.require_seeing)
        if "answers" in trial.held:
            _note(trial, folder, "batch = alone", answers.require_equal_alone)
        runs = _Runs(base, index, folder, examples, images)
        _note(trial, folder, "trains", runs.train)
        if "trains" in trial.held:
            _note(trial, folder, "resumes", runs.resume)
            _note(trial, folder, "merges", runs.merge)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return trial


def _note(trial: Trial, folder: Path, step: str, check: Callable[[], None]) -> None:
    try:
        check()
    except KovqaError as error:
        # Said without the folder's name, which is another one each time.
        reason, refused = str(error.message).replace(f"{folder / 'base'}", "MODEL"), True
    except Failed as error:
        reason, refused = str(error), False
    except Exception as error:  # of a library: what kovqa should have said before
        frame: Any = error.__traceback__
        while frame.tb_next:
            frame = frame.tb_next
        where = f"{Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}"
        text = str(error).strip().splitlines()
        reason, refused = f"{type(error).__name__}: {text[0] if text else ''} ({where})", False
    else:
        if step:
            trial.held.append(step)
        return
    if not trial.reason:
        trial.reason, trial.refused = f"{step or 'no tiny model of it was made'}: {reason}", refused


def _write(trial: Trial, base: Path, texts: tuple[str, ...]) -> None:
    net = write_tiny_model(trial.model_type, base, texts)
    trial.parameters = sum(p.numel() for p in net.parameters())


def _examples_of_all_shapes(index: Path, folder: Path) -> tuple[list[Example], Path]:
    opened = open_index(index)
    folder.mkdir(parents=True)
    reshaped = []
    for example, size in zip(list(opened.split("val"))[:4], _IMAGE_SIZES, strict=True):
        Image.open(opened.images / example.image).convert("RGB").resize(size).save(
            folder / f"{example.id}.png"
        )
        reshaped.append(replace(example, image=f"{example.id}.png"))
    return reshaped, folder


def _encode(processor: Any, examples: Sequence[Example], images: Path, *, train: bool) -> list[Any]:
    rng = np.random.default_rng(0)
    return [processor.encode(example, images, train=train, rng=rng) for example in examples]


class _Answers:
    """Answers of the base as it is."""

    def __init__(self, base: Path, examples: Sequence[Example], images: Path) -> None:
        self._base, self._examples, self._images = base, examples, images

    @torch.inference_mode()
    def require_seeing(self) -> None:
        """The first token's logits are functions of image and question."""
        model, processor = family.read_model_folder(self._base, "vqa", LoadOptions(fp32=True))
        assert isinstance(model, VlmModel) and isinstance(processor, VlmProcessor)
        self._model, self._processor = model.eval(), processor
        first, second = self._examples[1], self._examples[2]
        plain = self._first_logits(first)
        other_image = self._first_logits(replace(first, image=second.image))
        other_question = self._first_logits(replace(first, question="어디 있나요?"))
        if not torch.isfinite(plain).any():
            raise Failed("logits are not finite")
        if torch.allclose(plain, other_image, atol=1e-6):
            raise Failed("another image changes nothing")
        if torch.allclose(plain, other_question, atol=1e-6):
            raise Failed("another question changes nothing")
        short = family.read_model_folder(self._base, "vqa")[0]  # in 16 bits
        short.eval().answer(processor.collate(_encode(processor, [first], self._images, train=False)))

    def _first_logits(self, example: Example) -> torch.Tensor:
        batch = self._processor.collate(_encode(self._processor, [example], self._images, train=False))
        recorded: list[torch.Tensor] = []

        def record(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            recorded.append(scores.nan_to_num())
            return scores

        # Through `generate`, as answers are: it may pass an image on in its own way.
        generation.generate_tokens(
            self._model.generator,
            self._model.prompts(batch),
            max_new_tokens=1,
            do_sample=False,
            logits_processor=[record],
        )
        if not recorded:
            raise Failed("its `generate` calls no logits processor")
        return recorded[0]

    @torch.inference_mode()
    def require_equal_alone(self) -> None:
        """Answers of a batch are those of its rows by themselves."""
        items = _encode(self._processor, self._examples, self._images, train=False)
        together = self._model.answer(self._processor.collate(items))
        alone = [self._model.answer(self._processor.collate([item]))[0] for item in items]
        for a, b in zip(together, alone, strict=True):
            if a.text != b.text or abs(a.score - b.score) > _SCORE_TOLERANCE:
                raise Failed(f"in a batch {a.text!r} ({a.score:.5f}), alone {b.text!r} ({b.score:.5f})")


class _Runs:
    """Runs of a few steps."""

    def __init__(
        self, base: Path, index: Path, folder: Path, examples: Sequence[Example], images: Path
    ) -> None:
        self._base, self._index, self._folder = base, index, folder
        self._examples, self._images = examples, images

    def train(self) -> None:
        """A run ends, its losses are those of plain logits, and the model is another one afterwards."""
        self._whole = self._run("whole")
        run_training(self._whole, RankInfo(0, 0, 1), torch.device("cpu"), lambda: False)
        model, processor = family.read_model_folder(_last_step(self._whole), "vqa")
        assert isinstance(model, VlmModel) and isinstance(processor, VlmProcessor)
        self._model, self._processor = model.eval(), processor
        saved = load_file(_last_step(self._whole) / "adapter" / "adapter_model.safetensors")
        loaded = peft.get_peft_model_state_dict(model.net, save_embedding_layers=False)
        if any(not torch.equal(saved[name], loaded[name]) for name in saved):
            raise Failed("what was saved is not what is loaded")
        items = _encode(processor, self._examples, self._images, train=True)
        batch = processor.collate(items)
        with torch.no_grad():
            self._require_loss(batch, [processor.collate([item]) for item in items])
            self._require_causal(batch)

    def _require_loss(self, batch: ModelBatch, rows: Sequence[ModelBatch]) -> None:
        """The loss of a batch is that of its rows, and of the logits of all positions."""
        ours = float(self._model(batch, 0)["loss"])
        weights = [float(self._model.loss_weight(row, 0)) for row in rows]
        alone = [float(self._model(row, 0)["loss"]) for row in rows]
        mean = sum(w * loss for w, loss in zip(weights, alone, strict=True)) / sum(weights)
        if not math.isfinite(ours) or abs(ours - mean) > _LOSS_TOLERANCE * abs(mean):
            raise Failed(f"the loss of a batch is {ours:.6f}, that of its rows one by one {mean:.6f}")
        inputs = {n: t for n, t in batch.tensors.items() if n not in ("labels", "prompt_lengths")}
        logits = self._model.net(**inputs, use_cache=False).logits
        plain = float(answer_loss(logits[:, :-1], batch.tensors["labels"][:, 1:], len(batch.ids), "rows"))
        if abs(ours - plain) > _LOSS_TOLERANCE * abs(plain):
            raise Failed(f"the loss is {ours:.6f}, that of all logits {plain:.6f}")

    def _require_causal(self, batch: ModelBatch) -> None:
        """What predicts an answer's first token does not see the answer."""
        inputs = {n: t for n, t in batch.tensors.items() if n not in ("labels", "prompt_lengths")}
        starts = batch.tensors["prompt_lengths"]
        others = inputs["input_ids"].clone()
        for row, start in enumerate(starts):
            others[row, start] = (others[row, start] + 1) % 256  # a letter for a letter
        first, second = (
            self._model.net(**{**inputs, "input_ids": ids}, use_cache=False).logits
            for ids in (inputs["input_ids"], others)
        )
        rows = torch.arange(len(starts))
        if (first[rows, starts - 1] - second[rows, starts - 1]).abs().max() > _LOGIT_TOLERANCE:
            raise Failed("an answer is seen before it is predicted")

    def resume(self) -> None:
        """Stopped and taken up again, a run has the same losses and weights."""
        resumed = self._run("resumed")
        calls = iter(range(9))
        try:
            run_training(resumed, RankInfo(0, 0, 1), torch.device("cpu"), lambda: next(calls) == 0)
        except Stopped:
            run_training(resumed, RankInfo(0, 0, 1), torch.device("cpu"), lambda: False)
        else:
            raise Failed("the run did not stop")
        weights = [
            load_file(_last_step(run) / "adapter" / "adapter_model.safetensors")
            for run in (self._whole, resumed)
        ]
        if not all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0]):
            raise Failed("resumed, a run ends with other weights")

    @torch.inference_mode()
    def merge(self) -> None:
        """The exported folder, opened by transformers alone, has the logits of the checkpoint."""
        export_model(_last_step(self._whole), self._folder / "merged", DEFAULT_LOADING)
        networks = [
            transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
            for folder in (self._folder / "merged", self._base)
        ]
        batch = self._processor.collate(_encode(self._processor, self._examples, self._images, train=False))
        inputs = self._model.prompts(batch)
        ours, merged, base = (net(**inputs).logits for net in (self._model.net, *networks))
        if (difference := float((ours - merged).abs().max())) > _LOGIT_TOLERANCE:
            raise Failed(f"merged, logits differ by {difference:.1e}")
        if (ours - base).abs().max() < _LOGIT_TOLERANCE:
            raise Failed("nothing was learned")

    def _run(self, name: str) -> Run:
        flags = {"data.index": str(self._index), "model.base": str(self._base)}
        settings = resolve_settings("tiny-vlm", "cpu", list(SETTINGS), flags)
        (self._folder / name).mkdir()
        return make_run(settings.recipe, settings.profile, self._folder / name, [])


def _last_step(run: Run) -> Path:
    step = follow_pointer(run.folder, "last")
    assert step is not None
    return step

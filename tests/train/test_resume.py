"""Exact resume: stopped and taken up again, a run ends with the same bits."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kovqa_core.data.example import Answer, Example
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import ModelError, Stopped, WorkerError
from kovqa_core.evaluate.metrics import Metric
from kovqa_core.index.reader import open_index
from kovqa_core.plan.claim import claim_planned_run
from kovqa_core.plan.rerun import plan_rerun
from kovqa_core.plan.training import plan_training
from kovqa_core.runs.folder import RunResult, follow_pointer, read_result
from kovqa_core.runs.validation_samples import SAMPLE_ROWS, SAMPLES_FILE, read_samples
from kovqa_core.settings.resolve import resolve_settings
from kovqa_core.settings.run import RecipeChange, Run, make_run, read_run, write_run
from kovqa_core.train import checkpoint, optim, validation
from kovqa_core.train.loop import run_training
from safetensors.torch import load_file

from tests.conftest import SMALL, Small
from tests.tools.training_log import read_log

ALONE, CPU = RankInfo(0, 0, 1), torch.device("cpu")


def make_small_run(small: Small, folder: Path, *sets: str) -> Run:
    """A small run."""
    flags = {"data.index": str(small.index), "model.tokenizer": str(small.tokenizer)}
    options = [*SMALL, "optim.steps=8", "eval.every_steps=4", *sets]
    settings = resolve_settings("tiny", "cpu", options, flags)
    folder.mkdir()
    return make_run(settings.recipe, settings.profile, folder, [])


def never_stop() -> bool:
    return False


def stop_after(calls: int) -> Callable[[], bool]:
    """Asks for a stop at the n-th step."""
    seen = [0]

    def stop() -> bool:
        seen[0] += 1
        return seen[0] == calls

    return stop


def checkpoint_bytes(run: Run) -> dict[str, bytes]:
    """Every file of the last checkpoint that resuming or answering reads."""
    folder = follow_pointer(run.folder, "last")
    assert folder is not None
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "sets",
    [
        (),
        ("optim.ema_decay=0.9", "optim.max_grad_norm=1.0"),
        ("data.augment=randaug", "data.flip=true", "model.drop_path=0.3"),
        ("profile.loader_workers=1", "data.augment=crop"),
    ],
    ids=["plain", "averages", "augmented", "workers"],
)
def test_stop_and_resume_is_bit_identical(small: Small, tmp_path: Path, sets: tuple[str, ...]) -> None:
    uninterrupted = make_small_run(small, tmp_path / "whole", *sets)
    run_training(uninterrupted, ALONE, CPU, never_stop)
    interrupted = make_small_run(small, tmp_path / "parts", *sets)
    with pytest.raises(Stopped, match="stopped at step 3 of 8"):
        run_training(interrupted, ALONE, CPU, stop_after(3))
    with pytest.raises(Stopped, match="stopped at step 5 of 8"):
        run_training(interrupted, ALONE, CPU, stop_after(2))
    run_training(interrupted, ALONE, CPU, never_stop)
    assert checkpoint_bytes(uninterrupted) == checkpoint_bytes(interrupted)
    losses = [
        [r["loss"] for r in read_log(run.folder) if r["kind"] == "train"]
        for run in (uninterrupted, interrupted)
    ]
    assert losses[0] == losses[1]


class Killed(BaseException):
    """Where a process ended."""


def end_at(monkeypatch: pytest.MonkeyPatch, place: object, name: str, call: int) -> None:
    """The n-th call of a function ends the run before it does anything."""
    original, calls = getattr(place, name), [0]

    def killed(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            raise Killed
        return original(*args, **kwargs)

    monkeypatch.setattr(place, name, killed)


def everything(run: Run) -> dict[str, object]:
    """All that a run leaves, but for what a clock says."""
    files: dict[str, object] = {
        str(p.relative_to(run.folder)): p.read_bytes()
        for p in run.folder.rglob("*")
        if p.is_file()
        and (p.relative_to(run.folder).parts[0].startswith("step-") or p.name in ("best", "last"))
    }
    clock = ("seconds", "examples_per_second")
    rows = [{k: v for k, v in row.items() if k not in clock} for row in read_log(run.folder)]
    ended = {k: v for k, v in _fields(read_result(run.folder)).items() if k not in clock}
    samples = (run.folder / SAMPLES_FILE).read_text("utf-8")
    return {**files, "log": rows, "result": ended, "samples": samples}


def _fields(result: RunResult | None) -> dict[str, object]:
    return asdict(result) if result else {}


def doubt(answers: Sequence[tuple[int, Answer]], split: Sequence[Example], metric: Metric) -> float:
    """A score that rises from one evaluation of this run to the next; so few steps change no answer."""
    return 1 - sum(answer.score for _, answer in answers) / len(split)


@pytest.fixture(scope="module")
def undisturbed(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "score_split", doubt)
        yield left_by_a_whole_run(small, tmp_path_factory)


def left_by_a_whole_run(small: Small, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    run = make_small_run(small, tmp_path_factory.mktemp("undisturbed") / "run", *EVALUATED)
    run_training(run, ALONE, CPU, never_stop)
    left = everything(run)
    assert [step for step in (4, 8) if f"step-{step:06d}/kovqa.json" in left] == [8]  # 8 is better, 4 gone
    return left


EVALUATED = ("optim.ema_decay=0.5", "save.keep=1", "optim.lr=0.01", "optim.min_lr=0.01")
MOMENTS = {
    "an evaluation raises": (validation, "answer_examples", 1),
    "scored, not yet in the log": (validation, "score_split", 1),
    "in the log, not in the checkpoint": (checkpoint, "record_evaluation", 1),
    "score written, best not": (checkpoint, "_point_to_best", 2),
    "best written, state not": (checkpoint, "_write_progress", 2),
}


@pytest.mark.parametrize(
    ("moment", "step"), [("an evaluation raises", 4), *((moment, 8) for moment in MOMENTS)]
)
def test_an_evaluation_that_ends_the_run_loses_nothing(
    small: Small, tmp_path: Path, undisturbed: dict[str, object], moment: str, step: int
) -> None:
    """The checkpoint is whole, and goes on with the evaluation that it lacks."""
    run = make_small_run(small, tmp_path / "run", *EVALUATED)
    place, name, call = MOMENTS[moment]
    with pytest.MonkeyPatch.context() as patch:
        end_at(patch, place, name, call if step == 4 else call + (1 if call == 1 else 2))
        with pytest.raises(Killed):
            run_training(run, ALONE, CPU, never_stop)
    last = follow_pointer(run.folder, "last")
    assert last is not None
    assert last.name == f"step-{step:06d}"
    assert json.loads((last / "trainer/state.json").read_text())["evaluation_due"]
    assert read_result(run.folder) is None
    run_training(run, ALONE, CPU, never_stop)
    assert everything(run) == undisturbed


def test_a_finished_evaluation_is_not_done_again(small: Small, tmp_path: Path) -> None:
    """... nor anything else of a checkpoint written before evaluations could be due."""
    run = make_small_run(small, tmp_path / "run", *EVALUATED)
    with pytest.raises(Stopped):
        run_training(run, ALONE, CPU, stop_after(4))
    state = json.loads((run.folder / "step-000004/trainer/state.json").read_text())
    assert state.keys() == {"step", "score", "best", "best_step", "scale"}
    assert state["score"] == json.loads((run.folder / "step-000004/kovqa.json").read_text())["score"]
    with pytest.MonkeyPatch.context() as patch:
        end_at(patch, validation, "answer_examples", 1)
        with pytest.raises(Stopped):
            run_training(run, ALONE, CPU, stop_after(1))


def test_augmentation_and_depth_change_the_result(small: Small, tmp_path: Path) -> None:
    """... or the test above would compare nothing."""
    results = []
    for name, sets in (("a", ()), ("b", ("data.augment=crop",)), ("c", ("model.drop_path=0.3",))):
        run = make_small_run(small, tmp_path / name, *sets)
        run_training(run, ALONE, CPU, never_stop)
        results.append(checkpoint_bytes(run)["model.safetensors"])
    assert len(set(results)) == 3


def test_log_has_every_step_once(small: Small, tmp_path: Path) -> None:
    run = make_small_run(small, tmp_path / "run", "save.every_steps=2")
    with pytest.raises(Stopped):
        run_training(run, ALONE, CPU, stop_after(5))
    log = run.folder / "log.jsonl"
    log.write_text(log.read_text() + json.dumps({"kind": "train", "step": 6, "loss": 1.0}) + '\n{"kind": "tr')
    with (run.folder / SAMPLES_FILE).open("a") as stream:
        stream.write('{"kind": "eval", "step": 7, "samples": []}\n{"kind": "ev')
    run_training(run, ALONE, CPU, never_stop)
    assert [r["step"] for r in read_log(run.folder) if r["kind"] == "train"] == list(range(1, 9))
    assert [r["step"] for r in read_log(run.folder) if r["kind"] == "eval"] == [4, 8]
    samples, problems = read_samples(run.folder)
    assert [evaluation.step for evaluation in samples] == [4, 8]
    assert not problems
    assert [len(evaluation.samples) for evaluation in samples] == [SAMPLE_ROWS] * 2
    examples = {example.id: example for example in open_index(small.index).split("val")}
    for sample in samples[-1].samples:
        assert sample.question == examples[sample.id].question
        assert sample.truth == [*examples[sample.id].answers]
        assert sample.points == examples[sample.id].answers.get(sample.answer, 0)


def test_checkpoints_are_pruned_but_the_best_stays(small: Small, tmp_path: Path) -> None:
    """... also of a run that cannot keep its samples, which is no reason to end."""
    run = make_small_run(small, tmp_path / "run", "save.every_steps=1", "save.keep=2")
    (run.folder / SAMPLES_FILE).mkdir(parents=True)
    run_training(run, ALONE, CPU, never_stop)
    result = read_result(run.folder)
    assert result is not None
    step_folders = {p.name for p in run.folder.glob("step-*")}
    assert step_folders == {"step-000007", "step-000008", result.best}


def test_published_checkpoint_cannot_be_resumed(small: Small, tmp_path: Path) -> None:
    run = make_small_run(small, tmp_path / "run")
    with pytest.raises(Stopped):
        run_training(run, ALONE, CPU, stop_after(3))
    shutil.rmtree(run.folder / "step-000003" / "trainer")
    log = (run.folder / "log.jsonl").read_bytes()
    with pytest.raises(ModelError, match="cannot be resumed"):
        run_training(run, ALONE, CPU, never_stop)
    (run.folder / "last").unlink()  # nor does it begin anew over what is left
    with pytest.raises(ModelError, match="cannot be resumed"):
        run_training(run, ALONE, CPU, never_stop)
    assert log.count(b"\n") > 0
    assert (run.folder / "log.jsonl").read_bytes() == log


def test_loss_that_is_not_finite_stops_and_names_the_batch(small: Small, tmp_path: Path) -> None:
    run = make_small_run(small, tmp_path / "run", "optim.lr=1e30", "optim.min_lr=1e30", "save.every_steps=1")
    with pytest.raises(WorkerError, match=r"not finite at step \d+") as caught:
        run_training(run, ALONE, CPU, never_stop)
    if "loss" in caught.value.message:
        ids = caught.value.message.split("batch: ")[1].split(", ")
        assert len(ids) == 8
        assert all(one.strip().isdigit() for one in ids)
    last = follow_pointer(run.folder, "last")
    assert last is not None  # what was saved before is still there
    assert (last / "model.safetensors").exists()


def change_run(run: Run, *changes: str) -> Run:
    """`kovqa train --resume -o FOLDER --change …`, up to the start of its processes."""
    again = partial(
        plan_training, None, None, sets=[], flags={}, folder=run.folder, resume=True, dry_run=False
    )
    with claim_planned_run(again(changes=changes), pytest.fail):
        return read_run(run.folder / "run.yaml")


def rates(run: Run) -> list[float]:
    return [row["lr"] for row in read_log(run.folder) if row["kind"] == "train"]


def test_a_finished_run_goes_on_with_more_steps_and_another_rate(small: Small, tmp_path: Path) -> None:
    run = make_small_run(small, tmp_path / "run", "optim.ema_decay=0.5")
    write_run(run)
    run_training(run, ALONE, CPU, never_stop)
    first_rates = rates(run)
    twin = run.model_copy(update={"folder": tmp_path / "twin"})
    shutil.copytree(run.folder, twin.folder)
    changes = ("optim.steps=12", "optim.lr=5e-4", "optim.max_grad_norm=0.1")
    changed = change_run(twin, *changes)
    run_training(changed, ALONE, CPU, never_stop)
    # Killed between the change and its first step, and again after two steps.
    change_run(run, *changes)
    with pytest.raises(Stopped, match="stopped at step 10 of 12"):
        run_training(change_run(run), ALONE, CPU, stop_after(2))
    run_training(change_run(run, *changes), ALONE, CPU, never_stop)
    assert checkpoint_bytes(changed) == checkpoint_bytes(run)
    result = read_result(run.folder)
    assert result is not None
    assert result.steps == 12
    # The longer curve, as documented: from the change on, as if it had been so from the beginning.
    settings = changed.recipe.optim
    curve = [
        optim.learning_rate(step, settings, optim.count_training_steps(settings, 24)) for step in range(12)
    ]
    assert rates(run) == pytest.approx(first_rates[:8] + curve[8:])
    assert curve[8] > 2 * first_rates[7]
    # A rerun meets the changes at the same steps.
    planned = plan_rerun(run.folder, tmp_path / "again", force=False, dry_run=False)
    with claim_planned_run(planned, pytest.fail) as claimed:
        run_training(claimed.run, ALONE, CPU, never_stop)
    assert rates(claimed.run) == rates(run)
    for name in ("model.safetensors", "trainer/optimizer.safetensors"):
        assert checkpoint_bytes(claimed.run)[name] == checkpoint_bytes(run)[name], name


@pytest.mark.parametrize("spoiled", [False, True])
def test_a_run_that_met_nan_goes_on_as_its_hint_says(small: Small, tmp_path: Path, spoiled: bool) -> None:
    """Step 1 has rate 0; step 2 ruins the weights; at step 3 the loss is not a number."""
    run = make_small_run(small, tmp_path / "a run", "optim.lr=1e30", "optim.max_grad_norm=null")
    write_run(run)
    if spoiled:  # a checkpoint after step 2, too
        with pytest.raises(Stopped):
            run_training(run, ALONE, CPU, stop_after(2))
    with pytest.raises(Stopped if not spoiled else WorkerError) as caught:
        run_training(run, ALONE, CPU, stop_after(1))
    if not spoiled:
        with pytest.raises(WorkerError) as caught:
            run_training(run, ALONE, CPU, never_stop)
    removal, command = re.findall(r"(?:rm|kovqa) [^;(]*", "rm ; " * (not spoiled) + caught.value.hint)
    for path in map(Path, shlex.split(removal)[2:]):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    words = shlex.split(command)
    assert words[:5] == ["kovqa", "train", "--resume", "-o", str(run.folder)]
    assert words[5:] == ["--change", "optim.lr=1e+29"]
    changed = change_run(run, "optim.lr=1e-3")
    run_training(changed, ALONE, CPU, never_stop)
    assert max(rates(changed)[1:]) <= 1e-3
    result = read_result(run.folder)
    assert result is not None
    assert result.steps == 8


def test_without_a_checkpoint_nan_is_a_matter_of_a_new_run(small: Small, tmp_path: Path) -> None:
    run = make_small_run(small, tmp_path / "run", "optim.lr=1e30", "optim.max_grad_norm=null")
    with pytest.raises(WorkerError) as caught:
        run_training(run, ALONE, CPU, never_stop)
    assert "--set optim.lr=1e+29" in caught.value.hint
    assert "--resume" not in caught.value.hint


def test_a_change_has_the_patience_of_a_new_best_score() -> None:
    progress = checkpoint.TrainProgress(step=12, best=0.5, best_step=4)
    for changed_at, stops in ((None, True), (8, True), (10, False), (12, False)):
        changes = [RecipeChange(step=changed_at, key="optim.lr")] if changed_at else []
        recipe = SimpleNamespace(eval=SimpleNamespace(patience=2))
        run = SimpleNamespace(recipe=recipe, changes=changes)
        state: Any = SimpleNamespace(run=run, progress=progress, eval_every=2)
        assert validation.should_stop_early(state) is stops


def test_the_text_side_learns_first_and_alone(small: Small, tmp_path: Path) -> None:
    """Bit for bit: the rest as it was, decay included; also when the phase is stopped and taken up."""
    sets = (
        "optim.freeze_vision_steps=5",
        "optim.weight_decay=0.5",
        "optim.ema_decay=0.5",
        "save.every_steps=1",
        "save.keep=9",
    )
    uninterrupted = make_small_run(small, tmp_path / "whole", *sets)
    run_training(uninterrupted, ALONE, CPU, never_stop)
    first, fifth, sixth = (
        load_file(uninterrupted.folder / f"step-{n:06d}/trainer/weights.safetensors") for n in (1, 5, 6)
    )
    learned = {name for name in first if not torch.equal(first[name], fifth[name])}
    text = {name for name in first if "text" in name or not name.startswith("net.encoder.")}
    assert learned <= text
    assert all(".layers.1.text." in name for name in text - learned)  # nothing reads these: they never learn
    assert {"net.encoder.text_embed.weight", "net.head.3.weight"} <= learned
    assert "net.encoder.patch_embed.weight" not in learned
    assert not torch.equal(fifth["net.encoder.patch_embed.weight"], sixth["net.encoder.patch_embed.weight"])
    stopped = make_small_run(small, tmp_path / "parts", *sets)
    for calls in (3, 3):  # inside the phase, and one step after it
        with pytest.raises(Stopped):
            run_training(stopped, ALONE, CPU, stop_after(calls))
    run_training(stopped, ALONE, CPU, never_stop)
    assert checkpoint_bytes(uninterrupted) == checkpoint_bytes(stopped)

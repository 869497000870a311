"""An image that cannot be read is a row left out of training and validation, by the rule of all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from kovqa_core.errors import DataError, Stopped
from kovqa_core.index.reader import open_index
from kovqa_core.models.batches import iterate_batches
from kovqa_core.models.family import create_model
from kovqa_core.runs.left_out import read_run_left_out
from kovqa_core.settings.run import Run
from kovqa_core.train.loop import run_training

from tests.conftest import Small
from tests.tools.training_log import read_log
from tests.train.test_resume import ALONE, CPU, checkpoint_bytes, make_small_run, never_stop, stop_after


@pytest.fixture
def images(small: Small, tmp_path: Path) -> Path:
    """The images of the small data set; of the learned ones one is cut off, of the held out ones one is gone."""
    index = open_index(small.index)
    shutil.copytree(index.images, tmp_path / "images")
    truncated, missing = (tmp_path / "images" / index.split(name)[0].image for name in ("train", "val"))
    truncated.write_bytes(truncated.read_bytes()[:-300])
    missing.unlink()
    return tmp_path / "images"


def records(run: Run, kind: str) -> list[dict[str, Any]]:
    return [row for row in read_log(run.folder) if row["kind"] == kind]


def test_it_is_named_and_counted_and_a_resumed_run_ends_alike(
    small: Small, tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = open_index(small.index)
    truncated, missing = index.split("train")[0].image, index.split("val")[0].image
    sets = (
        f"data.images={images}",
        "optim.steps=20",
        "eval.every_steps=10",
        "optim.global_batch=4",
        "log_every=1",
    )
    whole = make_small_run(small, tmp_path / "whole", *sets)
    run_training(whole, ALONE, CPU, never_stop)
    said = capsys.readouterr().err
    assert f"{images / truncated} cannot be read" in said
    assert f"{images / missing} is missing" in said
    parts = make_small_run(small, tmp_path / "parts", *sets, "profile.loader_workers=1")
    with pytest.raises(Stopped):
        run_training(parts, ALONE, CPU, stop_after(7))
    run_training(parts, ALONE, CPU, never_stop)
    weights = [checkpoint_bytes(run)["model.safetensors"] for run in (whole, parts)]
    assert weights[0] == weights[1]
    assert [row["loss"] for row in records(whole, "train")] == [
        row["loss"] for row in records(parts, "train")
    ]
    counted = read_run_left_out(whole.folder, whole)
    assert (
        counted.training
        == counted.unreadable
        == sum(row.get("left_out", 0) for row in records(whole, "train"))
        > 0
    )
    assert truncated in counted.first_fault
    assert f"unreadable {counted.training} (first: id " in counted.lines()[0]
    held_out = sum(example.image == missing for example in index.split("val"))
    assert [row["left_out"] for row in records(whole, "eval")] == [held_out] * 2
    assert [row["rows"] for row in records(whole, "eval")] == [len(index.split("val")) - held_out] * 2
    assert counted.lines()[-1].endswith("they are not scored")


def test_more_than_a_tenth_is_an_error_that_names_one(small: Small, tmp_path: Path, images: Path) -> None:
    for image in images.iterdir():
        image.write_bytes(b"")
    run = make_small_run(small, tmp_path / "run", f"data.images={images}", "optim.global_batch=8")
    run = run.model_copy(update={"allow_left_out": False})
    with pytest.raises(
        DataError, match=r"8 of 8 rows \(100.0%\) are left out: unreadable 8 \(first: id "
    ) as caught:
        run_training(run, ALONE, CPU, never_stop)
    assert caught.value.hint == "mend them, or go on without them: add --allow-left-out"


def test_a_validation_that_lacks_too_much_ends_a_run_which_can_go_on(
    small: Small, tmp_path: Path, images: Path
) -> None:
    """What was learned is saved before; allowed, the run goes on from there."""
    run = make_small_run(small, tmp_path / "run", f"data.images={images}").model_copy(
        update={"allow_left_out": False}
    )
    with pytest.raises(
        DataError, match=r"9 of 38 rows \(23.7%\) are left out: of the validation split"
    ) as caught:
        run_training(run, ALONE, CPU, never_stop)
    assert "--allow-left-out" in caught.value.hint
    run_training(run.model_copy(update={"allow_left_out": True}), ALONE, CPU, never_stop)
    assert [(row["step"], row["rows"], row["left_out"]) for row in records(run, "eval")] == [
        (4, 29, 9),
        (8, 29, 9),
    ]


@pytest.mark.parametrize("dropped", [0.0, 0.5])
def test_a_batch_that_is_left_out_whole_has_a_loss_of_0(small: Small, tmp_path: Path, dropped: float) -> None:
    """Whatever the loss, and though DDP waits for a gradient of each parameter."""
    run = make_small_run(
        small, tmp_path / "run", f"model.caption={{drop_worst: {dropped}, drop_worst_after: 0}}"
    )
    recipe = run.recipe.model_copy(update={"task": "caption" if dropped else "vqa"})
    model, processor, _ = create_model(recipe, ["예", "아니요"])
    index = open_index(small.captions if dropped else small.index)
    keys = iter([[(0, 0), (0, 1)]])
    (batch,) = iterate_batches(keys, index.split("train"), tmp_path, processor, train=True, keep_faults=True)
    assert (batch.tensors, batch.ids) == ({}, [])
    assert batch.left_out == [index.split("train")[number].id for number in (0, 1)]
    assert "is missing" in batch.faults[1].message
    output = model(batch, 1)
    output["loss"].backward()
    assert (output["loss"].item(), model.loss_weight(batch, 1)) == (0, 0)
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters() if p.requires_grad)

"""What a plan says of batches, and what the recipe alone decides of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.models.config import recipe_model_config
from kovqa_core.plan.batch_notes import batch_notes, require_learnable_choices, require_loss_micro_batch
from kovqa_core.plan.micro_batch import choose_micro_batch
from kovqa_core.plan.training import plan_training
from kovqa_core.settings.resolve import load_profile, load_recipe, resolve_settings
from kovqa_core.settings.run import Run, make_run, read_run, split_global_batch, write_run
from PIL import Image

from kovqa_cli.output.training import print_plan
from tests.conftest import SMALL, Small

COMPAT = Path(__file__).parents[1] / "fixtures" / "compat"


def planned(small: Small, folder: Path, *sets: str) -> Run:
    flags = {"data.index": str(small.index), "model.tokenizer": str(small.tokenizer)}
    settings = resolve_settings("tiny", "cpu", [*SMALL, *sets], flags)
    return make_run(settings.recipe, settings.profile, folder, [])


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (9, "left out of each epoch: 7 of 196 rows (3.6 %), others each time; they fill no batch of 9"),
        (128, "left out of each epoch: 68 of 196 rows (35 %)"),
        (7, None),
        (196, None),
        (500, None),  # an error of its own
    ],
)
def test_the_rest_of_an_epoch(small: Small, tmp_path: Path, batch: int, words: str | None) -> None:
    notes = batch_notes(planned(small, tmp_path, f"optim.global_batch={batch}"))
    assert len(notes) == (words is not None)
    assert words is None or notes[0].startswith(words)


def test_the_rest_of_an_epoch_of_some_kinds_of_questions(small: Small, tmp_path: Path) -> None:
    from kovqa_core.index.reader import open_index

    kinds = [example.question_type for example in open_index(small.index).split("train")]
    kind = max(set(kinds), key=kinds.count)
    count = kinds.count(kind)
    assert 2 < count < len(kinds)
    sets = [f"data.kinds=[{kind}]", f"optim.global_batch={count - 1}"]
    (note,) = batch_notes(planned(small, tmp_path, *sets))
    assert f"1 of {count} rows" in note


def test_an_index_elsewhere_has_no_rest(tmp_path: Path) -> None:
    recipe = load_recipe("kobeit3")
    assert batch_notes(make_run(recipe, load_profile("a100x4"), tmp_path, [])) == []


def test_the_plan_says_it(small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = {"data.index": str(small.index), "model.tokenizer": str(small.tokenizer)}
    sets = [*SMALL, "optim.global_batch=10", "optim.loss_micro_batch=5"]
    plan = plan_training(
        "tiny", "cpu", sets=sets, flags=flags, folder=tmp_path / "run", resume=False, dry_run=True
    )
    print_plan(plan, quiet=False)
    said = capsys.readouterr().err
    assert "batch 10 = 1 × 5 × 2" in said
    assert "mean of means over micro-batches of 5, which no profile changes" in said
    assert "left out of each epoch: 6 of 196 rows" in said


# ------------------------------------------------------------------ a micro-batch of the recipe's


@pytest.mark.parametrize("recipe", ["llava-v1", "dacon-llava"])
@pytest.mark.parametrize("profile", ["a100x1", "rtx3090x1", "rtx3090x4", "colab-t4", "mps", "cpu"])
def test_the_originals_sixteen_rows_on_every_profile(recipe: str, profile: str, tmp_path: Path) -> None:
    machine = load_profile(profile)
    run = make_run(load_recipe(recipe), machine, tmp_path, [])
    assert (run.micro_batch, run.accumulate) == (16, 16 // machine.processes)
    (note,) = batch_notes(run)
    assert "micro-batches of 16, which no profile changes" in note
    holds = machine.max_micro_batch(recipe)
    assert (f"process of profile {profile} is said to hold {holds}" in note) == (holds < 16)


@pytest.mark.parametrize(
    ("batch", "processes", "loss_micro_batch", "plan"),
    [(256, 4, 16, (16, 4)), (256, 1, 256, (256, 1)), (8, 1, 16, (8, 1)), (12, 2, 3, (3, 2))],
)
def test_split(batch: int, processes: int, loss_micro_batch: int, plan: tuple[int, int]) -> None:
    assert split_global_batch(batch, 2, processes, loss_micro_batch) == plan


@pytest.mark.parametrize(("batch", "processes", "loss_micro_batch"), [(64, 8, 16), (8, 2, 16), (12, 2, 4)])
def test_processes_that_cannot_share_whole_micro_batches(
    batch: int, processes: int, loss_micro_batch: int
) -> None:
    with pytest.raises(SettingsError) as caught:
        split_global_batch(batch, 2, processes, loss_micro_batch)
    assert f"{processes} processes cannot share a global batch of {batch} equally" in caught.value.message


def test_no_other_micro_batch_can_be_typed() -> None:
    recipe, profile = load_recipe("llava-v1"), load_profile("a100x1")
    for typed in ("8", "auto", "32"):
        with pytest.raises(
            SettingsError, match=f"--micro-batch {typed}: the recipe's loss is the mean of means"
        ):
            choose_micro_batch(recipe, profile, typed)
    choose_micro_batch(recipe, profile, "16")
    with pytest.raises(SettingsError, match="global_batch 24 is not a multiple of loss_micro_batch 16"):
        resolve_settings("llava-v1", "cpu", ["optim.global_batch=24"])


@pytest.mark.parametrize(
    "setting", ["model.loss=focal_original", "model.gradient_times_loss=true", "model.scope=batch"]
)
def test_a_loss_of_whole_micro_batches_needs_their_size(setting: str) -> None:
    recipe = resolve_settings("nia-transformer", "cpu", [setting]).recipe
    with pytest.raises(SettingsError, match=re.escape(f"by {setting} the loss depends on")) as caught:
        require_loss_micro_batch(recipe, recipe_model_config(recipe))
    assert "--set optim.loss_micro_batch=512" in caught.value.hint
    stated = resolve_settings("nia-transformer", "cpu", [setting, "optim.loss_micro_batch=64"]).recipe
    require_loss_micro_batch(stated, recipe_model_config(stated))
    for name in ("nia", "nia-transformer", "kobeit3", "coco-caption", "llava-v1"):
        require_loss_micro_batch(load_recipe(name), recipe_model_config(load_recipe(name)))


# ------------------------------------------------------------------------- runs of earlier versions


@pytest.mark.parametrize(("family", "fixed"), [("caption", True), ("beit3", False), ("vlm", False)])
def test_a_run_of_an_earlier_version_keeps_its_means(family: str, fixed: bool, tmp_path: Path) -> None:
    text = (COMPAT / family / "run" / "run.yaml").read_text("utf-8").replace("@HERE@", str(tmp_path))
    (tmp_path / "run.yaml").write_text(text, "utf-8")
    run = read_run(tmp_path / "run.yaml")
    assert run.recipe.optim.loss_micro_batch == (run.micro_batch if fixed else None)
    assert ("recipe.optim.loss_micro_batch" in run.origin) == fixed


@pytest.mark.parametrize(
    ("recipe", "setting"),
    [
        ("tiny-vlm", "model.loss=tokens"),
        ("nia", "model.class_weights=effective"),
        ("nia", "model.gradient_times_loss=true"),
        ("nia-transformer", "model.scope=batch"),
    ],
)
def test_so_does_every_loss_that_depended_on_it(recipe: str, setting: str, tmp_path: Path) -> None:
    settings = resolve_settings(recipe, "cpu", [setting])
    run = make_run(settings.recipe, settings.profile, tmp_path, [])
    file = write_run(run)
    assert read_run(file) == run  # of today: as it says
    lines = file.read_text("utf-8").split("\n")
    file.write_text("\n".join(line for line in lines if "loss_micro_batch" not in line), encoding="utf-8")
    assert read_run(file).recipe.optim.loss_micro_batch == run.micro_batch


def test_what_the_index_has_and_the_model_is_not_shown(small: Small, tmp_path: Path) -> None:
    """Nothing is ignored without a word: choices and context, by each family and with the switch on and off."""
    from kovqa_core.index.build import build_index

    rows = [
        {
            "image": "a.png",
            "question": f"{n}?",
            "answer": "개" if n else "말",
            "choices": ["개", "소"],
            "split": "train",
        }
        for n in range(20)
    ]
    rows[3]["context"] = "글"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "t.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    build_index("table", tmp_path / "t.jsonl", None, tmp_path / "index")

    def notes(recipe: str, folder: Path, *sets: str) -> list[str]:
        settings = resolve_settings(
            recipe, "cpu", ["optim.global_batch=4", *sets], {"data.index": str(folder)}
        )
        return batch_notes(make_run(settings.recipe, settings.profile, tmp_path / "run", []))

    index = tmp_path / "index"
    beit3 = notes("tiny", index, *SMALL, "optim.global_batch=4")
    assert beit3 == ["family beit3 reads neither the context of 1 rows nor the choices of 20"]
    assert notes("tiny-vlm-scratch", index) == [
        "family vlm is not shown the choices of 20 rows",
        "to list them and learn the answer's letter: --set model.choices=true",
    ]
    assert notes("tiny-vlm-scratch", index, "model.choices=true") == [
        "not learned: 1 training rows whose answer is none of their choices"
    ]
    assert notes("tiny-vlm-scratch", small.index, "model.choices=true") == [
        "model.choices is true, but no training row has choices"
    ]


@pytest.mark.parametrize(("foreign", "switch", "allowed", "refused"), [
    (2, "true", False, False), (3, "true", False, True), (3, "true", True, False), (3, "false", False, False),
])  # fmt: skip
def test_answers_that_are_none_of_their_choices_are_refused_on_paper(
    tmp_path: Path, foreign: int, switch: str, allowed: bool, refused: bool
) -> None:
    from kovqa_core.index.build import build_index

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    lines = [f"a.png,{n}?,{'말' if n < foreign else '개'},개|소,train\n" for n in range(20)]
    (tmp_path / "t.csv").write_text("image,question,answer,choices,split\n" + "".join(lines), "utf-8")
    build_index("table", tmp_path / "t.csv", None, tmp_path / "index")
    settings = resolve_settings(
        "tiny-vlm-scratch", "cpu", [f"model.choices={switch}"], {"data.index": str(tmp_path / "index")}
    )
    run = make_run(settings.recipe, settings.profile, tmp_path / "run", [], allow_left_out=allowed)
    if refused:
        with pytest.raises(DataError, match=r"3 of 20 rows \(15.0%\) are left out: their answer is none of"):
            require_learnable_choices(run)
    else:
        require_learnable_choices(run)

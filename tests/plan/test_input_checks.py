"""What is refused, or said, of settings before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from kovqa_core.errors import SettingsError
from kovqa_core.paths import settings_files
from kovqa_core.plan.input_checks import require_falling_rate
from kovqa_core.settings.resolve import load_recipe

from tests.conftest import SMALL
from tests.plan.conftest import Plan


def refusal(plan: Plan, folder: Path, *sets: str, **options: object) -> str:
    with pytest.raises(SettingsError) as caught:
        plan(folder, sets=[*SMALL, "optim.steps=12", *sets], **options)
    return str(caught.value)


@pytest.mark.parametrize("dry_run", [False, True])
def test_an_index_smaller_than_one_batch(plan: Plan, tmp_path: Path, dry_run: bool) -> None:
    said = refusal(plan, tmp_path / "run", "optim.global_batch=200", dry_run=dry_run)
    assert "has 196 training rows, fewer than one batch of 200" in said
    assert "--set optim.global_batch=196 or less" in said
    said = refusal(plan, tmp_path / "run", "optim.global_batch=196", "data.kinds=[개수]", dry_run=dry_run)
    assert "training rows, fewer than one batch of 196" in said
    assert plan(tmp_path / "run", sets=[*SMALL, "optim.steps=2", "optim.global_batch=196"]).run


@pytest.mark.parametrize("typed", ["optim.min_lr=1", "optim.lr=1e-8"])
def test_a_rate_that_rises(plan: Plan, tmp_path: Path, typed: str) -> None:
    said = refusal(plan, tmp_path / "run", typed)
    assert "optim.min_lr, with which a run ends, is" in said
    assert f"--set {typed}: " in said


def test_no_recipe_has_a_rate_that_rises() -> None:
    for name in settings_files("recipes"):
        require_falling_rate(load_recipe(name), {})


def test_a_name_in_micro_batch_that_is_none(plan: Plan, tmp_path: Path) -> None:
    for typed in ("profile.micro_batch={defualt: 4}", "profile.micro_batch.Default=4"):
        said = refusal(plan, tmp_path / "run", typed)
        assert "did you mean default" in said
        assert f"--set {typed}: " in said
    sets = [*SMALL, "optim.steps=12"]
    near = plan(tmp_path / "run", sets=[*sets, "profile.micro_batch.tiny-captoin=4"])
    assert [
        each
        for each in near.warnings
        if "'tiny-captoin', which is not a recipe known here; did you mean tiny-" in each
    ]
    own = plan(tmp_path / "run", sets=[*sets, "profile.micro_batch.xqzw=4"])
    assert [each for each in own.warnings if each.endswith("'xqzw', which is not a recipe known here")]
    assert not plan(tmp_path / "run", sets=[*sets, "profile.micro_batch={default: 4, kobeit3: 2}"]).warnings


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"micro_batch": "3"}, "micro-batch 2, not 3: it must divide the 8 examples"),
        ({"micro_batch": "32"}, "micro-batch 8, not 32: it must divide the 8 examples"),
        ({"typed": "profile.micro_batch.tiny=5"}, "micro-batch 4, not 5"),
        ({"typed": "profile.micro_batch={default: 7}"}, "micro-batch 4, not 7"),
        ({"micro_batch": "4"}, None),
        ({}, None),  # the profile says the most that fits, and not what is wanted
    ],
)
def test_a_micro_batch_that_divides_nothing(
    plan: Plan, tmp_path: Path, options: dict[str, str], words: str | None
) -> None:
    sets = [*SMALL, "optim.steps=12", *([options["typed"]] if "typed" in options else [])]
    planned = plan(tmp_path / "run", sets=sets, micro_batch=options.get("micro_batch"))
    notes = [note for note in planned.notes if note.startswith("micro-batch")]
    assert len(notes) == (words is not None)
    assert words is None or notes[0].startswith(words)


def test_where_a_micro_batch_came_from(plan: Plan, tmp_path: Path) -> None:
    run = plan(tmp_path / "run", micro_batch="4").run
    assert run.origin["profile.micro_batch.tiny"] == "--micro-batch 4"

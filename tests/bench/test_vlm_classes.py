"""Classes of transformers as tiny random models: a few on every change, all of docs/vlm_classes.md in a soak test."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.vlm_classes.__main__ import make_index, read_table
from bench.vlm_classes.tiny_model import CLASS_NAMES
from bench.vlm_classes.trial import STEPS, try_class

TABLE = Path(__file__).parents[2] / "docs" / "vlm_classes.md"


def documented() -> dict[str, list[str]]:
    """model_type -> steps that hold, by the table."""
    return {name: trial.held for name, trial in read_table(TABLE).items()}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_index(tmp_path_factory.mktemp("scenes"))


@pytest.mark.parametrize(
    ("model_type", "steps"),
    [
        ("video_llama_3", STEPS),  # makes logits of all positions, whatever it is asked for
        ("mistral_large4", STEPS),  # peft would rename its shared experts' updates, and lose them
        ("idefics3", STEPS),  # its processor takes no sanitised texts
        ("t5gemma2", ()),
        ("mistral4", ()),
    ],
)
def test_a_class_does_what_can_be_done(
    model_type: str, steps: tuple[str, ...], index: Path, tmp_path: Path
) -> None:
    trial = try_class(model_type, index, tmp_path / "model")
    assert trial.held == list(steps), trial.reason
    assert trial.refused or not trial.reason  # in kovqa's own words


def test_the_table_has_every_class_of_transformers_and_forty_that_hold_all() -> None:
    rows = documented()
    assert rows.keys() == CLASS_NAMES.keys()
    assert sum(steps == list(STEPS) for steps in rows.values()) >= 40


@pytest.mark.soak
@pytest.mark.parametrize("model_type", sorted(name for name, steps in documented().items() if steps))
def test_the_table_is_true(model_type: str, index: Path, tmp_path: Path) -> None:
    trial = try_class(model_type, index, tmp_path / "model")
    if "pip install" in trial.reason:  # a package that this class alone wants: num2words
        pytest.skip(trial.reason)
    assert trial.held == documented()[model_type], trial.reason

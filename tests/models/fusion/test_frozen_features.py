"""Frozen encoders: they stay as they are, and features from a file train as those computed in every epoch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from kovqa_core.models.fusion.config import ModelConfig
from pydantic import ValidationError
from safetensors.torch import load_file

from tests.conftest import FUSION, Kovqa, Small, sets
from tests.encoders import picture_folder, question_folder

FROZEN = (
    *(each for each in FUSION if "random_init" not in each and "_config" not in each),
    "model.freeze=both", "model.transformer_ffn=64", "model.transformer_heads=2", "model.hidden_size=32",
    "model.mean=[0.5,0.5,0.5]", "optim.steps=4", "eval.every_steps=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def encoders(small: Small, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("encoders")
    return question_folder(folder / "xlm", small.tokenizer), picture_folder(folder / "resnet")


def train(kovqa: Kovqa, small: Small, encoders: tuple[Path, Path], run: Path, *more: str) -> str:
    named = (f"model.question='{encoders[0]}'", f"model.picture='{encoders[1]}'")
    done = kovqa(
        "train", "-r", "laptop-features", "-p", "cpu", "--data", small.index, "-o", run,
        *sets(*FROZEN, *named, *more),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def losses(run: Path) -> list[float]:
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def test_features_of_a_file_train_as_those_computed_anew(
    kovqa: Kovqa, small: Small, encoders: tuple[Path, Path], tmp_path: Path
) -> None:
    kept, anew = tmp_path / "kept", tmp_path / "anew"
    train(kovqa, small, encoders, kept)
    train(kovqa, small, encoders, anew, "model.feature_cache_gb=0")
    assert len(list(kept.glob("image-features-*.npy"))) == 1
    assert not list(anew.glob("*.npy"))
    assert len(losses(kept)) == 4
    assert losses(kept) == pytest.approx(losses(anew), rel=1e-5)
    trained = load_file(kept / "step-000004" / "model.safetensors")
    published = load_file(encoders[1] / "model.safetensors")
    statistics = "bn1.running_mean"  # a batch norm that trains would move it
    assert np.array_equal(trained[f"picture.{statistics}"], published[statistics])
    assert not np.array_equal(
        trained["out.weight"], load_file(anew / "step-000002" / "model.safetensors")["out.weight"]
    )


@pytest.mark.soak
def test_a_run_that_goes_on_reads_the_same_file(
    kovqa: Kovqa, small: Small, encoders: tuple[Path, Path], tmp_path: Path
) -> None:
    """... and makes a damaged one again, as it was."""
    kept = tmp_path / "kept"
    train(kovqa, small, encoders, kept)
    (file,) = kept.glob("image-features-*.npy")
    content, written = file.read_bytes(), file.stat().st_mtime_ns
    done = kovqa("train", "--resume", "-o", kept, "--change", "optim.steps=5")
    assert done.returncode == 0, done.stderr
    assert file.stat().st_mtime_ns == written
    file.write_bytes(content[: len(content) // 2])
    done = kovqa("train", "--resume", "-o", kept, "--change", "optim.steps=6")
    assert done.returncode == 0, done.stderr
    assert file.read_bytes() == content


@pytest.mark.soak
def test_what_cannot_be_kept_is_said(
    kovqa: Kovqa, small: Small, encoders: tuple[Path, Path], tmp_path: Path
) -> None:
    too_large = train(
        kovqa, small, encoders, tmp_path / "large", "model.feature_cache_gb=1e-6", "optim.steps=2"
    )
    assert "more than model.feature_cache_gb: 1e-06" in too_large
    augmented = train(kovqa, small, encoders, tmp_path / "flip", "data.flip=true", "optim.steps=2")
    assert "computes in every epoch" in augmented
    assert not list(tmp_path.rglob("*.npy"))


def test_a_product_cannot_be_frozen() -> None:
    with pytest.raises(ValidationError, match="grid only"):
        ModelConfig(freeze="picture")

"""One experiment on every strategy: the same losses, and a run begun on one goes on on another.

`pytest -m soak -s tests/train/test_strategies.py` prints the whole table: 1×8, 2×4, 4×2 (processes ×
accumulated micro-batches) on all five.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from kovqa_core.train.log import read_log
from safetensors.numpy import load_file

from tests.conftest import SMALL, Small
from tests.train import many
from tests.train.many import Job, launch

STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "fsdp2")
STEPS = 6

# Everything that could mean another thing where weights or moments are cut up.
WHOLE = (
    *SMALL, "optim.global_batch=16", "profile.micro_batch={default: 2}", f"optim.steps={STEPS}", "eval.every_steps=3",
    "optim.clip=0.5", "optim.ema=0.5", "optim.layer_decay=0.8", "optim.text_first_steps=2", "model.drop_path=0.2",
)  # fmt: skip


def flags_of(small: Small) -> dict[str, str]:
    return {"data.index": str(small.index), "model.tokenizer": str(small.tokenizer)}


def curve(folder: Path, key: str = "loss") -> list[float]:
    rows = [row for row in read_log(folder) if row["kind"] == "train"]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row[key] for row in rows]


def same(folder: Path, other: Path) -> None:
    """Two runs went the same way."""
    assert len(curve(folder)) == STEPS
    assert curve(folder) == pytest.approx(curve(other), rel=1e-5)
    assert curve(folder, "grad_norm") == pytest.approx(curve(other, "grad_norm"), rel=1e-5)
    scores = [[row["score"] for row in read_log(f) if row["kind"] == "eval"] for f in (folder, other)]
    assert scores[0] == scores[1]
    for file in ("model", "trainer/weights", "trainer/optimizer"):
        one, two = (load_file(f / f"step-{STEPS:06d}" / f"{file}.safetensors") for f in (folder, other))
        assert one.keys() == two.keys()
        for name in one:
            assert one[name].shape == two[name].shape
            assert one[name] == pytest.approx(two[name], rel=1e-3, abs=2e-6), name


@pytest.fixture(scope="module")
def alone(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, no strategy to speak of: what all must equal."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    many.do(Job(str(folder), "ddp", "tiny", flags_of(small), list(WHOLE)), 0, 1)
    return folder


@pytest.fixture(scope="module")
def pair(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes: each strategy from beginning to end, and one run that wanders."""
    folder = tmp_path_factory.mktemp("pair")
    rest = ("tiny", flags_of(small), list(WHOLE))
    jobs = [Job(str(folder / name), name, *rest) for name in STRATEGIES]
    wanders = str(folder / "wanders")
    jobs += [Job(wanders, "zero2", *rest, stop=1), Job(wanders, "fsdp2", *rest, stop=2)]
    launch(2, jobs, folder)
    many.do(Job(wanders, "ddp", *rest, stop=4), 0, 1)
    launch(2, [Job(wanders, "zero3", *rest)], folder)
    return folder


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_goes_the_same_way(alone: Path, pair: Path, strategy: str) -> None:
    same(pair / strategy, alone)


def test_a_run_begun_on_one_strategy_goes_on_on_another(alone: Path, pair: Path) -> None:
    """zero2 on two processes, fsdp2 on two, ddp on one, zero3 on two."""
    same(pair / "wanders", alone)


def test_the_comparison_would_see_a_difference(small: Small, alone: Path, tmp_path: Path) -> None:
    sets = [*WHOLE, "optim.clip=0.499"]
    many.do(Job(str(tmp_path / "run"), "ddp", "tiny", flags_of(small), sets), 0, 1)
    with pytest.raises(AssertionError):
        same(tmp_path / "run", alone)

"""One experiment on every strategy: the same losses, and a run begun on one goes on on another.

`pytest -m soak -s tests/train/test_strategies.py` prints the whole table: 1×8, 2×4, 4×2 (processes ×
accumulated micro-batches) on all five.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import FUSION, SMALL, VLM, Small
from tests.tools.training_log import read_log
from tests.train import many
from tests.train.many import Job, launch

pytestmark = pytest.mark.xdist_group("strategies")  # one run of each

STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "fsdp2")
STEPS = 6

# Everything that could mean another thing where weights or moments are sharded.
WHOLE = (
    *SMALL, "profile.micro_batch={default: 2}", f"optim.steps={STEPS}", "eval.every_steps=2",
    "optim.max_grad_norm=0.5", "optim.ema_decay=0.5", "optim.layer_decay=0.8", "optim.freeze_vision_steps=1",
    "model.drop_path=0.2",
)  # fmt: skip


# Gradients averaged in 16 bits.
BF16 = ("ddp", "zero2", "fsdp2")

# Captions whose largest losses of a whole global batch do not count: two forward passes, and weights of
# micro-batches that are known only then. `stop`: two of the steps, and no evaluation.
DROPS = (
    *SMALL, "model.caption={mask: 0.6, drop_worst: 0.3, drop_worst_after: 0}", "optim.max_grad_norm=0.5",
    "optim.lr=1e-2", "optim.steps=4",
)  # fmt: skip


def flags_of(small: Small) -> dict[str, str]:
    return {"data.index": str(small.index), "model.tokenizer": str(small.tokenizer)}


def curve(folder: Path, key: str = "loss") -> list[float]:
    rows = [row for row in read_log(folder) if row["kind"] == "train"]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return [row[key] for row in rows]


def assert_same_run(folder: Path, other: Path) -> None:
    """Two runs went the same way: losses, norms, scores, weights, averages and moments."""
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
            np.testing.assert_allclose(one[name], two[name], rtol=1e-3, atol=2e-6, err_msg=name)


@pytest.fixture(scope="module")
def alone(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, no strategy to speak of: what all must equal."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    many.do(Job(str(folder), "ddp", "tiny", flags_of(small), list(WHOLE)), 0, 1)
    return folder


@pytest.fixture(scope="module")
def pair(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes: each strategy from beginning to end, and one run that switches between them."""
    folder = tmp_path_factory.mktemp("pair")
    rest = ("tiny", flags_of(small), list(WHOLE))
    jobs = [Job(str(folder / name), name, *rest) for name in STRATEGIES]
    switching = str(folder / "switching")
    captions = {**flags_of(small), "data.index": str(small.captions)}
    micro_batch = "profile.micro_batch={default: 2}"
    jobs += [
        Job(str(folder / f"drops-{name}"), name, "tiny-caption", captions, [*DROPS, micro_batch], stop=2)
        for name in STRATEGIES
    ]
    jobs += [
        Job(
            str(folder / f"{name}-bf16"),
            name,
            "tiny",
            flags_of(small),
            [*WHOLE, "profile.gradient_reduction=bf16"],
            stop=2,
        )
        for name in BF16
    ]
    jobs += [Job(switching, "zero2", *rest, stop=2), Job(switching, "fsdp2", *rest, stop=4)]
    launch(2, jobs, folder)
    many.do(Job(switching, "ddp", *rest, stop=5), 0, 1)
    launch(2, [Job(switching, "zero3", *rest)], folder)
    return folder


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_goes_the_same_way(alone: Path, pair: Path, strategy: str) -> None:
    assert_same_run(pair / strategy, alone)


@pytest.fixture(scope="module")
def drops_alone(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole batch in one forward pass, which ranks its losses itself."""
    folder = tmp_path_factory.mktemp("drops") / "run"
    captions = {**flags_of(small), "data.index": str(small.captions)}
    sets = [*DROPS, "profile.micro_batch={default: 8}"]
    many.do(Job(str(folder), "ddp", "tiny-caption", captions, sets, stop=2), 0, 1)
    return folder


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_largest_losses_of_a_global_batch_are_those_of_any_cut(
    drops_alone: Path, pair: Path, strategy: str
) -> None:
    for key in ("loss", "grad_norm"):
        assert len(curve(drops_alone, key)) == 2
        assert curve(pair / f"drops-{strategy}", key) == pytest.approx(curve(drops_alone, key), rel=1e-5)


@pytest.mark.parametrize("strategy", BF16)
def test_gradients_averaged_in_16_bits_are_nearly_those(alone: Path, pair: Path, strategy: str) -> None:
    norms, exact = (curve(folder, "grad_norm")[:2] for folder in (pair / f"{strategy}-bf16", alone))
    assert norms != exact
    assert norms == pytest.approx(exact, rel=2e-2)


def test_a_run_begun_on_one_strategy_goes_on_on_another(alone: Path, pair: Path) -> None:
    """zero2 on two processes, fsdp2 on two, ddp on one, zero3 on two."""
    assert_same_run(pair / "switching", alone)


def test_the_comparison_would_see_a_difference(small: Small, alone: Path, tmp_path: Path) -> None:
    sets = [*WHOLE, "optim.max_grad_norm=0.499"]
    many.do(Job(str(tmp_path / "run"), "ddp", "tiny", flags_of(small), sets), 0, 1)
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "run", alone)


@pytest.mark.soak
def test_one_curve_on_every_machine(small: Small, tmp_path: Path) -> None:
    """1×8, 2×4, 4×2 (processes × accumulated micro-batches of 2) on all strategies: one curve, one table."""
    sets = [*WHOLE, "optim.global_batch=16", "optim.steps=12", "optim.epochs=null", "eval.every_steps=6"]
    for world in (1, 2, 4):
        folders = {name: str(tmp_path / f"{world}-{name}") for name in STRATEGIES}
        jobs = [Job(folder, name, "tiny", flags_of(small), sets) for name, folder in folders.items()]
        launch(world, jobs, tmp_path)
    first = curve(tmp_path / "1-ddp")
    print(f"\n{'':12}" + "".join(f"{f'step {n}':>11}" for n in (1, 4, 8, 12)) + "   farthest from 1×8 ddp")
    for world in (1, 2, 4):
        for name in STRATEGIES:
            losses = curve(tmp_path / f"{world}-{name}")
            difference = max(abs(a / b - 1) for a, b in zip(losses, first, strict=True))
            cells = "".join(f"{losses[n - 1]:11.7f}" for n in (1, 4, 8, 12))
            print(f"{world}×{8 // world} {name:8}{cells}   {difference:.1e}")
            assert difference < 1e-5, (world, name)


FAMILIES = {
    "beit3 vqa": ("tiny", SMALL),
    "beit3 caption": ("tiny-caption", SMALL),
    # eps: without it AdamW's first steps make as much of rounding errors, where the gradient is 0 (biases
    # before a batch norm), as of gradients.
    "fusion": ("nia", (*FUSION, "optim.eps=1e-3")),
    "fusion grid": ("nia-grid", (*FUSION, "model.transformer_ffn=64", "optim.eps=1e-3")),
    "vlm lora": ("tiny-vlm", VLM),
    "vlm full": ("tiny-vlm", (*VLM, "model.train=full")),
}


@pytest.mark.soak
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_on_every_strategy(
    small: Small, tiny_vlm: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    """... and taken up once by the same strategy."""
    recipe, sets = FAMILIES[name]
    flags = flags_of(small)
    if name.endswith("caption"):
        flags["data.index"] = str(small.captions)
    if recipe == "tiny-vlm":
        flags = {"data.index": str(small.index), "model.base": str(tiny_vlm("qwen3_vl"))}
    rest = (recipe, flags, [*sets, "optim.steps=4", "optim.epochs=null", "eval.every_steps=4",
        "profile.micro_batch={default: 2}"])  # fmt: skip
    launch(2, [Job(str(tmp_path / s), s, *rest, stop=n) for s in STRATEGIES for n in (2, None)], tmp_path)
    for strategy in STRATEGIES[1:]:
        assert curve(tmp_path / strategy) == pytest.approx(curve(tmp_path / "ddp"), rel=1e-5)

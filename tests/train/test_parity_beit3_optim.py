"""Parameter groups and learning rates are the original's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from kovqa_core.models.beit3 import family
from kovqa_core.models.beit3.pretrained_weights import original_names
from kovqa_core.models.parameter_rules import ParameterRules
from kovqa_core.settings.recipe import OptimSettings
from kovqa_core.train.optim import (
    ParamGroup,
    count_training_steps,
    learning_rate,
    make_optimizer,
    make_param_groups,
)

from tests import parity

Case = dict[str, Any]
WHOLE = {"vqa": "vqa.pth", "captioning": "captioning.pth"}  # models with a file of all their weights


@dataclass(frozen=True)
class Named:
    """The family's rules on names, in a model whose head lies at `head_layer_id`."""

    head_layer_id: int

    def layer_id(self, name: str) -> int:
        return family.beit3_layer_id(name, self.head_layer_id)

    def is_head_parameter(self, name: str) -> bool:
        return family.is_beit3_head(name)

    def no_weight_decay(self, name: str) -> bool:
        return family.beit3_no_weight_decay(name)


def cases(model: str | None = None) -> list[Case]:
    cases = [c for c in parity.json_of("expected_param_groups.json") if model in (None, c["model"])]
    assert cases
    return cases


def optim_of(case: Case) -> OptimSettings:
    """The original ignores the head's factor beside layer decay, ours refuses it; 0 means none."""
    head = case["task_head_lr_weight"] if case["layer_decay"] >= 1 else 0
    return OptimSettings(
        steps=1,
        global_batch=1,
        lr=1e-3,
        weight_decay=case["weight_decay"],
        layer_decay=case["layer_decay"],
        head_lr_scale=head or 1.0,
    )


def dimensions(model: str) -> dict[str, int]:
    """Dimensions of every parameter of a recorded model, in the order of the recorded weights."""
    if model in WHOLE:
        return {name: t.ndim for name, t in parity.weights(WHOLE[model]).items()}
    backbone = {n: t.ndim for n, t in parity.weights("captioning.pth").items() if n.startswith("beit3.")}
    heads = parity.tensors_of("other_heads.safetensors")
    own = {n.split(":", 1)[1]: t.ndim for n, t in heads.items() if n.startswith(f"{model}:")}
    return backbone | own


def compare(groups: list[ParamGroup], case: Case, names_of: Any = lambda name: [name]) -> None:
    """Weight decay and rate factor of every parameter, under the original's names."""
    expected = case["params"]
    seen = 0
    for group in groups:
        for name in (original for ours in group.names for original in names_of(ours)):
            assert group.weight_decay == expected[name]["weight_decay"], name
            assert group.lr_scale == pytest.approx(expected[name]["lr_scale"], rel=0, abs=1e-12), name
            seen += 1
    assert seen


def order(groups: list[ParamGroup]) -> dict[str, int]:
    return {name: number for number, group in enumerate(groups) for name in group.names}


def test_parity_beit3_groups_of_recorded_names() -> None:
    """All recorded settings and models; groups in the original's order of creation."""
    for case in cases():
        ndim = dimensions(case["model"])
        depth = case["num_layers"] + 1
        groups = make_param_groups([(n, ndim[n]) for n in case["params"]], Named(depth), optim_of(case))
        compare(groups, case)
        assert order(groups) == {name: row["group"] for name, row in case["params"].items()}, case["model"]


@pytest.mark.parametrize("model", list(WHOLE))
def test_parity_beit3_groups_in_order_of_the_model(model: str) -> None:
    """Walking through the parameters as the original's model has them creates the same groups."""
    for case in cases(model):
        depth = case["num_layers"] + 1
        groups = make_param_groups(dimensions(model).items(), Named(depth), optim_of(case))
        assert order(groups) == {name: row["group"] for name, row in case["params"].items()}


def test_parity_beit3_groups_of_our_vqa_model() -> None:
    """Our own names and shapes (fused, flattened) end up with the same decay and rate."""
    model = parity.vqa_model()
    named = [(name.removeprefix("net."), p) for name, p in model.named_parameters()]
    for case in cases("vqa"):
        groups = make_param_groups([(f"net.{n}", p.ndim) for n, p in named], model, optim_of(case))
        compare(groups, case, lambda name: original_names(name.removeprefix("net.")))
        assert set(parity.originals(named)) == case["params"].keys()


def test_parity_beit3_groups_of_our_caption_encoder() -> None:
    encoder = parity.caption_encoder()
    named = [(f"encoder.{name}", p.ndim) for name, p in encoder.named_parameters()]
    for case in cases("captioning"):
        compare(
            make_param_groups(named, Named(len(encoder.layers) + 1), optim_of(case)), case, original_names
        )
        ours = {original for name, _ in named for original in original_names(name)}
        assert ours == {name for name in case["params"] if name.startswith("beit3.")}


def test_parity_beit3_groups_reach_the_optimizer() -> None:
    """`make_optimizer` hands the same decay and factor of every trained parameter to AdamW."""
    model = parity.vqa_model()
    ranked: ParameterRules = model
    name_of = {id(p): name.removeprefix("net.") for name, p in model.named_parameters()}
    for case in cases("vqa"):
        optimizer = make_optimizer(model, ranked, optim_of(case))
        groups = [
            ParamGroup(g["weight_decay"], g["lr_scale"], [name_of[id(p)] for p in g["params"]])
            for g in optimizer.param_groups
        ]
        compare(groups, case, original_names)
        trained = {name_of[id(p)] for p in model.parameters() if p.requires_grad}
        assert {name for g in groups for name in g.names} == trained


def test_parity_beit3_rates() -> None:
    """Every value of the recorded schedules; our settings state warm-up in epochs or in steps."""
    for case in parity.json_of("expected_lr_schedules.json"):
        in_steps = case["warmup_steps"] > 0
        optim = OptimSettings(
            epochs=case["epochs"],
            warmup_epochs=0 if in_steps else case["warmup_epochs"],
            warmup_steps=case["warmup_steps"] if in_steps else 0,
            global_batch=1,
            lr=case["base_value"],
            min_lr=case["final_value"],
        )
        planned = count_training_steps(optim, case["niter_per_ep"])
        assert planned.total == len(case["values"])
        ours = [learning_rate(step, optim, planned) for step in range(planned.total)]
        assert ours == pytest.approx(case["values"], rel=0, abs=1e-12)

"""LLaVA v1: a whole run of `kovqa train`'s loop gives the original's losses, gradients and weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kovqa_core.index.build import build_index
from kovqa_core.models import family
from kovqa_core.models.vlm.convert_llava import convert_llava_folder
from kovqa_core.models.vlm.llava_weight_files import EMBEDDING_NAME, LM_HEAD_NAME
from kovqa_core.runs.folder import follow_pointer
from kovqa_core.settings.resolve import resolve_settings
from kovqa_core.settings.run import make_run
from kovqa_core.train import loader, loop
from kovqa_core.train.optim import learning_rate
from safetensors.torch import load_file, save_file

from tests import parity
from tests.models.vlm.llava_folders import BASE_ROWS, RUNS
from tests.tools.training_log import read_log
from tests.train.test_resume import ALONE, CPU, never_stop

ON_DISK = {
    EMBEDDING_NAME: "language_model.model.embed_tokens.weight",
    LM_HEAD_NAME: "language_model.lm_head.weight",
}


def index_of(folder: Path) -> Path:
    """The recorded rows as an index."""
    rows = [
        {
            "id": row["id"],
            "split": "train",
            "image": row["image"],
            "question": row["conversations"][0]["value"].removeprefix("<image>\n"),
            "answer": row["conversations"][1]["value"],
        }
        for row in parity.json_of("train_data.json", "llava")
    ]
    table = folder / "rows.json"
    table.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    build_index("table", table, parity.path("images", "llava"), folder / "index")
    return folder / "index"


def start_of(run: str, folder: Path) -> Path:
    """The model the recorded run began with: its projector and rows were drawn, and recorded."""
    trained, drawn = f"train_{run}/llava-tiny", f"train_{run}/initial_trainables.safetensors"
    convert_llava_folder(
        parity.path(trained, "llava"),
        folder,
        parity.path("base/vicuna-tiny", "llava"),
        parity.path("base/openai/clip-tiny-patch14", "llava"),
    )
    weights, initial = load_file(folder / "model.safetensors"), load_file(parity.path(drawn, "llava"))
    for name in ("weight", "bias"):
        weights[f"multi_modal_projector.linear_1.{name}"] = initial[f"model.mm_projector.{name}"]
    if "lm_head.new_rows" in initial:
        weights[ON_DISK[EMBEDDING_NAME]][BASE_ROWS:] = initial["model.embed_tokens.new_rows"]
        weights[ON_DISK[LM_HEAD_NAME]][BASE_ROWS:] = initial["lm_head.new_rows"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("run", RUNS)
def test_a_whole_training_is_the_originals(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = parity.json_of(f"train_{run}/trace.json", "llava")
    micro_batch, epochs = trace["per_device_train_batch_size"], trace["num_train_epochs"]
    accumulated = trace["gradient_accumulation_steps"]
    warmup = math.ceil(trace["warmup_ratio"] * len(trace["grad_norm_before_clip"]))
    sets = [
        "model.dtype=fp32", f"optim.loss_micro_batch={micro_batch}", f"optim.global_batch={micro_batch * accumulated}",
        f"optim.epochs={epochs}", "optim.warmup_epochs=0", f"optim.warmup_steps={warmup}", "profile.threads=1",
        f"optim.lr={trace['learning_rate']}", f"optim.weight_decay={trace['weight_decay']}",
        f"optim.betas={trace['adam_betas']}", f"optim.eps={trace['adam_epsilon']}",
        f"optim.max_grad_norm={trace['max_grad_norm']}", f"eval.every_epochs={epochs + 1}",
        *([] if trace["new_token_ids"] else ["model.tokens=[]"]),
    ]  # fmt: skip
    flags = {
        "data.index": str(index_of(tmp_path)),
        "model.base": str(start_of(run, tmp_path / "base")),
    }
    settings = resolve_settings("llava-v1", "cpu", sets, flags)
    planned = make_run(settings.recipe, settings.profile, tmp_path / "run", [])
    planned.folder.mkdir()

    def recorded_order(rows: int, epoch: int, seed: int) -> Any:
        return np.array(trace["sample_order"][epoch * rows : (epoch + 1) * rows])

    monkeypatch.setattr(loader, "epoch_order", recorded_order)
    loop.run_training(planned, ALONE, CPU, never_stop)

    log = [row for row in read_log(planned.folder) if row["kind"] == "train"]
    micro = np.array(trace["micro_batch_loss"]).reshape(-1, accumulated).mean(1)
    assert [row["loss"] for row in log] == pytest.approx(micro.tolist(), abs=1e-4)
    assert [row["grad_norm"] for row in log] == pytest.approx(trace["grad_norm_before_clip"], rel=1e-3)
    rates = [row["learning_rate"] for row in trace["logged_steps"]]  # the original logs the next step's
    assert [row["lr"] for row in log][1:] == pytest.approx(rates[:-1], rel=1e-6)

    step = follow_pointer(planned.folder, "last")
    assert step is not None
    model, _ = family.read_model_folder(step, "vqa")
    final = load_file(parity.path(f"train_{run}/final_trainables.safetensors", "llava"))
    from kovqa_core.models.vlm.tuning import merge_adapter

    net = merge_adapter(model.net)
    projector = net.model.multi_modal_projector
    parity.close(projector.linear_1.weight, final["model.mm_projector.weight"], 1e-5, "projector")
    parity.close(projector.linear_1.bias, final["model.mm_projector.bias"], 1e-5, "its bias")
    if trace["new_token_ids"]:
        rows = net.get_input_embeddings().weight[BASE_ROWS:]
        parity.close(rows, final["model.embed_tokens.new_rows"], 1e-5, "rows")


def test_the_warm_up_of_transformers_reaches_its_rate_one_step_later() -> None:
    from kovqa_core.settings.recipe import OptimSettings
    from kovqa_core.train.optim import TrainingSteps

    theirs = OptimSettings(steps=10, global_batch=1, lr=1.0, min_lr=0.0, warmup_steps=4, warmup_reaches=False)
    length = TrainingSteps(10, 4, 10)
    assert [learning_rate(step, theirs, length) for step in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]
    ours = theirs.model_copy(update={"warmup_reaches": True})
    assert learning_rate(3, ours, length) == learning_rate(4, ours, length) == 1.0

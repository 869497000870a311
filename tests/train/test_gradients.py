"""No gradient depends on how a global batch is cut into micro-batches and processes, though rows are left out.

`pytest -s tests/train/test_gradients.py` prints the table: relative differences from one forward pass.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kovqa_core.index.build import build_index
from PIL import Image

from tests.conftest import FUSION, SMALL, VLM, Small, clean_env
from tests.train import gradients
from tests.train.gradients import Case, Cut, asked_text, file_of

pytestmark = pytest.mark.xdist_group("gradients")  # one table of measurements

WHOLE, WHOLE_OF_18 = Cut(1, 1, 16), Cut(1, 1, 18)
OF_WHOLE = {
    WHOLE: [Cut(1, 2, 8), Cut(1, 4, 4), Cut(1, 16, 1), Cut(2, 2, 4), Cut(2, 8, 1)],
    WHOLE_OF_18: [Cut(3, 2, 3)],
}
UNREADABLE = (2, 7, 11)
CUTS = [*OF_WHOLE, *(cut for cuts in OF_WHOLE.values() for cut in cuts)]

VIT = "model.picture_config={architecture: vit_tiny_patch16_224, img_size: 32, embed_dim: 32, depth: 2, num_heads: 2}"
# What a model draws itself is drawn for a micro-batch: here nothing is.
NO_DROPOUT = (
    *FUSION, VIT, "model.picture_dropout=0", "model.head_dropout=0", "model.transformer_dropout=0",
    "model.question_config={hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64, "
    "hidden_dropout_prob: 0, attention_probs_dropout_prob: 0}",
)  # fmt: skip
FP32 = (*VLM, "model.train=full", "model.dtype=fp32")
DROPS = "model.caption={mask: 0.6, drop_worst: 0.2, drop_worst_after: 0}"
LOSSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "beit3 vqa": ("tiny", (*SMALL, "model.drop_path=0.2")),
    "beit3 caption": ("tiny-caption", (*SMALL, "model.drop_path=0.2")),
    "beit3 caption drop worst": ("tiny-caption", (*SMALL, DROPS)),
    "fusion ce": ("nia", NO_DROPOUT),
    "fusion class weights": ("nia", (*NO_DROPOUT, "model.class_weights=inverse_sqrt", "model.smoothing=0.1")),
    "fusion focal weights": ("nia-grid", (*NO_DROPOUT, "model.loss=focal", "model.class_weights=effective")),
    "vlm rows": ("tiny-vlm", FP32),
    "vlm tokens": ("tiny-vlm", (*FP32, "model.loss=tokens")),
}  # fmt: skip
# 16 bits round 1e-3 off; means of means were 6 % and more off.
HALF = {f"beit3 caption {half}": half for half in ("bf16", "fp16")}
LOSSES |= {name: ("tiny-caption", (*SMALL, f"profile.precision={half}")) for name, half in HALF.items()}
# An original's losses, which are means of micro-batches (here of 4 rows).
ORIGINALS: dict[str, tuple[str, tuple[str, ...]]] = {
    "vlm tokens mean of means": ("tiny-vlm", (*LOSSES["vlm tokens"][1], "optim.loss_micro_batch=4")),
    "beit3 caption mean of means": ("tiny-caption", (*SMALL, DROPS, "optim.loss_micro_batch=4")),
}


def write_uneven_index(small: Small, folder: Path, *, long_answers: bool) -> str:
    """18 rows to learn from, half with one word and half with many: questions, captions and (or three classes) answers."""
    words = (small.root / "text.txt").read_text("utf-8").split()
    rows = []
    for number in range(18):
        length = 1 if number % 2 else 6 + number // 2
        text = " ".join(words[number : number + length])
        Image.new("RGB", (40, 40), (12 * number, 200 - 9 * number, 99)).save(folder / f"{number}.png")
        answer = text if long_answers else {0: "드문 답", 1: "희귀"}.get(number % 9, "흔한 답")
        rows.append({"id": str(number), "split": "train", "image": f"{number}.png", "question": f"{text}?",
                     "answer": answer, "caption": text})  # fmt: skip
    table = folder / "rows.jsonl"
    table.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    build_index("table", table, folder, folder / f"index {long_answers}")
    return str(folder / f"index {long_answers}")


@pytest.fixture(scope="module")
def measured(small: Small, tiny_vlm: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gradients")
    texts, classes = (write_uneven_index(small, folder, long_answers=long) for long in (True, False))
    for number in UNREADABLE:  # rows left out, among them all of a micro-batch
        (folder / f"{number}.png").write_bytes(b"")
    vlm = {"data.index": texts, "model.base": str(tiny_vlm("qwen2_5_vl"))}
    others = {"data.index": classes, "model.tokenizer": str(small.tokenizer)}
    cases = [
        Case(name, recipe, vlm if recipe == "tiny-vlm" else others, list(sets))
        for name, (recipe, sets) in (LOSSES | ORIGINALS).items()
    ]
    (folder / "cases.json").write_text(asked_text(cases, CUTS), encoding="utf-8")
    words = [sys.executable, "-P", gradients.__file__, str(folder / "cases.json"), str(folder)]
    done = subprocess.run(
        words, env=clean_env(OMP_NUM_THREADS="1"), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def difference(folder: Path, name: str, whole: Cut, cut: Cut) -> tuple[float, float]:
    """Of the gradient (norm of the difference over the norm) and of the loss, relative."""
    one, other = (np.load(file_of(folder, name, each)) for each in (whole, cut))
    assert np.linalg.norm(one["gradient"]) > 1e-3
    off = np.linalg.norm(one["gradient"] - other["gradient"]) / np.linalg.norm(one["gradient"])
    return float(off), abs(float(other["loss"]) / float(one["loss"]) - 1)


@pytest.mark.parametrize("name", LOSSES)
def test_a_gradient_is_the_same_however_the_batch_is_cut(measured: Path, name: str) -> None:
    found = {cut: difference(measured, name, whole, cut) for whole, cuts in OF_WHOLE.items() for cut in cuts}
    print(f"\n{name:26}" + "".join(f"  {cut}: {off:.1e}" for cut, (off, _) in found.items()))
    assert np.load(file_of(measured, name, WHOLE_OF_18))["left_out"] == len(UNREADABLE)
    for cut, (gradient, loss) in found.items():
        assert gradient < (2e-2 if name in HALF else 1e-5), str(cut)
        assert loss < (2e-3 if name in HALF else 1e-6), str(cut)


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_mean_of_an_originals_micro_batches_is_the_same_on_more_processes(
    measured: Path, name: str
) -> None:
    gradient, loss = difference(measured, name, Cut(1, 4, 4), Cut(2, 2, 4))
    assert gradient < 1e-5
    assert loss < 1e-6
    # ... and is another loss than the mean of all: the table above would see one.
    assert difference(measured, name, WHOLE, Cut(1, 4, 4))[0] > 1e-2

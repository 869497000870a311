"""No parity test has sizes of its own: all pass on a second set of recorded results, of other sizes.

The second set is not kovqa's: see `tests/second_recording`. That its arithmetic is the originals' is shown on the first set,
by the numbers that the originals' own code gave.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from kovqa_core.files import read_json
from safetensors.torch import load_file

from tests import parity
from tests.models.vlm.llava_reference import reference_logits
from tests.second_recording import beit3_reference as reference
from tests.second_recording import nia_set
from tests.second_recording.beit3_set import write_beit3_set
from tests.second_recording.llava_set import write_llava_set
from tests.train.test_parity_beit3_optim import dimensions

ROOT = Path(__file__).parents[2]
PARITY_TESTS = (
    "tests/models/beit3", "tests/models/fusion/test_parity_nia.py", "tests/models/test_safe_unpickle.py",
    "tests/train/test_parity_beit3_training.py", "tests/train/test_parity_beit3_optim.py",
    "tests/models/vlm/test_parity_forward.py", "tests/models/vlm/test_parity_text.py", "tests/cli/test_import_beit3.py",
    "tests/export/test_onnx_export.py",
)  # fmt: skip
MANY = 100  # parity tests that must at least have run


@torch.no_grad()
def test_the_reference_gives_the_numbers_of_the_original_code() -> None:
    """Logits, losses, every state, captions found: of the first set."""
    about = parity.json_of("config.json")
    sizes = reference.Sizes(about["num_heads"], about["patch_size"])
    vqa, captioning = parity.weights("vqa.pth"), parity.weights("captioning.pth")
    inputs, expected = (
        parity.tensors_of("inputs.safetensors"),
        parity.tensors_of("expected_forward.safetensors"),
    )
    given = inputs["image"], inputs["language_tokens"], inputs["padding_mask"].bool()
    parity.close(reference.vqa_logits(vqa, sizes, *given), expected["vqa.logits"], 2e-5, "logits")
    patches = torch.ones(len(given[2]), expected["vl.out"].shape[1] - given[2].shape[1], dtype=torch.bool)
    real = torch.cat([patches, ~given[2]], 1)
    for number, state in enumerate(reference.encode(vqa, sizes, *given)[:-1]):
        parity.close(state[real], expected[f"vl.hidden{number}"][real], 2e-5, f"state {number}")
    recorded, losses = (
        parity.tensors_of("caption_inputs.safetensors"),
        parity.tensors_of("expected_caption.safetensors"),
    )
    masked = recorded["language_masked_pos"].bool()
    logits = reference.caption_logits(
        captioning, sizes, recorded["image"], recorded["masked_tokens"], recorded["padding_mask"].bool()
    )[masked]
    parity.close(logits, losses["logits_at_masked"], 2e-5, "logits of masked tokens")
    case = parity.json_of("expected_train_caption.json")
    for name, drop in (("keep_all", 0.0), ("drop_worst", case["drop_worst_ratio"])):
        loss = reference.caption_loss(
            logits, recorded["language_tokens"][masked], case["label_smoothing"], drop
        )
        parity.close(loss, losses[f"loss.{name}"], 1e-5, name)
    case, image = (
        parity.json_of("expected_beam_search.json")[1],
        parity.tensors_of("beam_images.safetensors")["image"],
    )
    settings = {key: case[key] for key in ("num_beams", "max_len", "length_penalty")}
    for ids, score, one in zip(case["decoded_ids"], case["scores"], image, strict=True):
        found = reference.beam_search(captioning, sizes, one, about["mask_id"], **settings)
        assert reference.decoded(found, case["max_len"]) == ids
        assert found.score == pytest.approx(score, abs=1e-5)


def test_the_reference_trains_as_the_original_did() -> None:
    about = parity.json_of("config.json")
    sizes = reference.Sizes(about["num_heads"], about["patch_size"])
    batches = parity.tensors_of("train_batches_vqa.safetensors")
    for case in parity.json_of("expected_train_vqa.json")[1:3]:
        w = reference.leaves(parity.weights("vqa.pth"))
        case |= {"num_layers": about["num_layers"]}
        optimizer = reference.adamw(w, case)
        for number, rate in enumerate(case["lr_per_update"]):
            padding = batches[f"padding_mask.{number}"].bool()
            given = batches[f"image.{number}"], batches[f"language_tokens.{number}"], padding
            loss = reference.vqa_loss(reference.vqa_logits(w, sizes, *given), batches[f"labels.{number}"])
            assert loss.item() == pytest.approx(case["losses"][number], rel=1e-4)
            loss.backward()
            norm = reference.step(optimizer, w, rate, case["clip_grad"])
            assert norm == pytest.approx(case["grad_norms"][number], rel=1e-3)
    for case in parity.json_of("expected_param_groups.json"):
        ndim = dimensions(case["model"])
        for name, row in case["params"].items():
            decay, scale = reference.parameter_rule(name, ndim[name], case)
            assert (decay, scale) == (row["weight_decay"], pytest.approx(row["lr_scale"])), name


def test_the_losses_of_vqa_nia_are_the_originals() -> None:
    """The encoders are the libraries' own; these few lines are what is written out beside them."""
    import numpy as np

    recording = dict(np.load(parity.path("focal.npz", "vqa_nia")))
    smoothing = parity.json_of("config.json", "vqa_nia")["focal"]["label_smoothing"]
    logits, targets, weight = (torch.from_numpy(recording[k]) for k in ("logits", "targets", "class_weight"))
    functions = {"upstream": nia_set.original_focal, "per_sample": nia_set.focal_by_row}
    for key in (key for key in recording if key.endswith("/loss")):
        kind, gamma, weighting, _ = key.split("/")
        chosen = weight if weighting == "weighted" else None
        loss = functions[kind](logits, targets, float(gamma[1:]), chosen, smoothing)
        assert loss.item() == pytest.approx(float(recording[key]), abs=1e-5), key


@torch.no_grad()
def test_the_reference_of_llava_gives_the_originals_logits() -> None:
    """Of the merged folder, which holds the run with tokens around the image; and of LLaVA 1.5."""
    recorded, cases = (
        load_file(parity.path("forward.safetensors", "llava")),
        parity.json_of("forward.json", "llava"),
    )
    clip = parity.json_of("base/openai/clip-tiny-patch14/config.json", "llava")["vision_config"]
    pixels = load_file(parity.path("pixel_values.safetensors", "llava"))
    folder, name = "merged/llava-tiny-merged", "im_start_end/single_0"
    weights = torch.load(parity.path(f"{folder}/pytorch_model.bin", "llava"), weights_only=True)
    ids, image = recorded[f"{name}/input_ids"][0].tolist(), pixels[cases[name]["images"][0]]
    config = parity.json_of(f"{folder}/config.json", "llava")
    found = reference_logits(weights, config, clip, ids, image)
    parity.close(found, recorded[f"{name}/logits"][0], 1e-4, folder)
    folder = "llava15/llava-v1.5-tiny"
    weights = torch.load(parity.path(f"{folder}/pytorch_model.bin", "llava"), weights_only=True)
    newer = load_file(parity.path("llava15/forward.safetensors", "llava"))
    ids, image = newer["0/input_ids"].flatten().tolist(), newer["0/pixel_values"][0]
    config = parity.json_of(f"{folder}/config.json", "llava")
    found = reference_logits(weights, config, clip, ids, image)
    parity.close(found, newer["0/logits"][0], 1e-4, folder)


def test_every_parity_test_passes_on_other_sizes(tmp_path: Path) -> None:
    for name, write in (("beit3", write_beit3_set), ("vqa_nia", nia_set.write_nia_set)):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
    write_llava_set(tmp_path / "llava")
    first, second = parity.json_of("config.json"), read_json(tmp_path / "beit3" / "config.json")
    for size in (
        "embed_dim",
        "num_heads",
        "num_layers",
        "ffn_dim",
        "patch_size",
        "vocab_size",
        "num_classes",
        "mask_id",
    ):
        assert first[size] != second[size], size
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", *PARITY_TESTS, "-q", "-k", "parity", f"--junitxml={report}"]
    environment = {**os.environ, "KOVQA_PARITY_DIR": str(tmp_path)}
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    suite = ElementTree.parse(report).getroot()[0]
    assert int(suite.attrib["tests"]) > MANY
    assert suite.attrib["skipped"] == "0"

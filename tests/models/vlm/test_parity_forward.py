"""LLaVA v1 and 1.5, converted: features, logits, losses and greedy answers as the original's."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kovqa_core.errors import ModelError
from kovqa_core.models.vlm import export_llava, generation
from kovqa_core.models.vlm.convert_llava import convert_llava_folder
from kovqa_core.models.vlm.llava_folder import detect_llava_folder
from kovqa_core.models.vlm.llava_weight_files import load_torch_tensors
from kovqa_core.models.vlm.model import answer_loss
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tests import parity
from tests.models.vlm.llava_folders import (
    BASE_ROWS,
    LANGUAGE,
    NUM_PATCHES,
    RUNS,
    VISION,
    Converted,
    converted,
)

PIXELS = load_file(parity.path("pixel_values.safetensors", "llava"))
FORWARD = load_file(parity.path("forward.safetensors", "llava"))
FORWARD_CASES = parity.json_of("forward.json", "llava")
GREEDY_CASES = parity.json_of("generate.json", "llava")


# The run with tokens around the image; the merged folder holds it.
(FRAMED,) = [run for run in RUNS if parity.json_of(f"train_{run}/trace.json", "llava")["new_token_ids"]]


@pytest.fixture(scope="module", params=[*RUNS, "merged"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Converted]:
    """A run's name, and its model."""
    if request.param == "merged":
        return FRAMED, converted("merged/llava-tiny-merged", tmp_path_factory.mktemp("merged"))
    llava = converted(f"train_{request.param}/llava-tiny", tmp_path_factory.mktemp(request.param))
    rows = load_file(parity.path(f"train_{request.param}/final_trainables.safetensors", "llava"))
    if "lm_head.new_rows" in rows:  # the original draws these anew whenever it loads; recorded once
        with torch.no_grad():
            llava.net.lm_head.weight[BASE_ROWS:][: len(rows["lm_head.new_rows"])] = rows["lm_head.new_rows"]
    return request.param, llava


def expanded(ids: Tensor, llava: Converted, patches: int = NUM_PATCHES) -> Tensor:
    """Ids with the image's one placeholder repeated for each of its features."""
    image_token_id = llava.net.config.image_token_id
    row = [x for token in ids.tolist() for x in ([image_token_id] * patches if token == -200 else [token])]
    return torch.tensor([row])


def test_patch_features_are_the_originals(run: tuple[str, Converted]) -> None:
    name, llava = run
    recorded = load_file(parity.path("vision.safetensors", "llava"))
    order = parity.json_of("vision.json", "llava")["image_order"]
    pixels = torch.stack([PIXELS[f"{file}|square"] for file in order])
    with torch.no_grad():
        seen = llava.net.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2]
        projected = llava.net.model.multi_modal_projector(seen[:, 1:])
    parity.close(seen, recorded["hidden_states_minus_2"], 1e-4, "features")
    parity.close(projected, recorded[f"projected_{name}"], 1e-4, "projected features")


GROUPS = sorted({key.partition("/")[2] for key in FORWARD_CASES})


@pytest.mark.parametrize("group", GROUPS)
def test_logits_and_losses_are_the_originals(run: tuple[str, Converted], group: str) -> None:
    name, llava = run
    key = f"{name}/{group}"
    ids, mask = FORWARD[f"{key}/input_ids"], FORWARD[f"{key}/attention_mask"]
    labels = FORWARD[f"{key}/expanded_labels"]
    length = labels.shape[1]
    rows = [expanded(row[keep.bool()], llava)[0] for row, keep in zip(ids, mask, strict=True)]
    batch = torch.zeros(len(rows), length, dtype=torch.long)
    attended = torch.zeros(len(rows), length, dtype=torch.long)
    for i, row in enumerate(rows):
        batch[i, : len(row)], attended[i, : len(row)] = row, 1
    pixels = torch.stack([PIXELS[image] for image in FORWARD_CASES[key]["images"] if image != "zeros"])
    with torch.no_grad():
        logits = llava.net(input_ids=batch, attention_mask=attended, pixel_values=pixels).logits
    vocab = BASE_ROWS + len(
        llava.processor.tokenizer.get_added_vocab().keys() & {"<im_patch>", "<im_start>", "<im_end>"}
    )
    logits = logits[..., :vocab]  # without <image>, which the original's vocabulary does not have
    real = FORWARD[f"{key}/expanded_attention_mask"].bool()
    if f"{key}/logits" in FORWARD:
        parity.close(logits, FORWARD[f"{key}/logits"], 1e-3, "logits")
    else:
        first = FORWARD[f"{key}/logits_first64"]
        parity.close(logits[..., : first.shape[-1]][real], first[real], 1e-3, "logits")
        total = logits.logsumexp(-1)
        parity.close(total[real], FORWARD[f"{key}/logits_logsumexp"][real], 1e-3, "their sum")
    loss = answer_loss(logits[:, :-1], labels[:, 1:], len(rows), "tokens")
    parity.close(loss, FORWARD[f"{key}/loss"], 1e-4, "loss")


def make_generator(llava: Converted, max_new_tokens: int) -> generation.TextGenerator:
    return generation.TextGenerator(
        llava.net, llava.processor.tokenizer, [LANGUAGE["eos_token_id"]], [], max_new_tokens
    )


def test_greedy_answers_are_the_originals_in_a_batch(run: tuple[str, Converted]) -> None:
    """All recorded questions at once, padded on the left: the original answered one by one."""
    name, llava = run
    chosen = [case for case in GREEDY_CASES if case["run"] == name]
    rows = [expanded(torch.tensor(case["input_ids"]), llava)[0] for case in chosen]
    longest = max(map(len, rows))
    ids = torch.stack([torch.nn.functional.pad(row, (longest - len(row), 0)) for row in rows])
    mask = torch.stack([torch.arange(longest) >= longest - len(row) for row in rows]).long()
    pixels = torch.stack([PIXELS[f"{case['image']}|square"] for case in chosen])
    inputs = {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}
    max_new_tokens = max(len(case["new_ids"]) for case in chosen)
    with torch.inference_mode():
        generated = generation.generate_tokens(
            make_generator(llava, max_new_tokens), inputs, max_new_tokens=max_new_tokens, do_sample=False
        )
    for case, row in zip(chosen, generated[:, longest:].tolist(), strict=True):
        assert row[: len(case["new_ids"])] == case["new_ids"], case["question"]


def test_llava_one_point_five_is_the_originals(tmp_path: Path) -> None:
    llava = converted("llava15/llava-v1.5-tiny", tmp_path)
    assert llava.folder_type == "merged"
    recorded = load_file(parity.path("llava15/forward.safetensors", "llava"))
    for number, case in enumerate(parity.json_of("llava15/forward.json", "llava")):
        image = Image.open(parity.path(f"images/{case['image']}", "llava")).convert("RGB")
        pixels = torch.as_tensor(llava.processor.image_processor(image, return_tensors="pt")["pixel_values"])
        parity.close(pixels[0], recorded[f"{number}/pixel_values"], 0.03, "pixels")
        ids = expanded(recorded[f"{number}/input_ids"].flatten(), llava)
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values": recorded[f"{number}/pixel_values"].reshape(
                1, 3, VISION["image_size"], VISION["image_size"]
            ),
        }
        with torch.inference_mode():
            logits = llava.net(**inputs).logits[..., :BASE_ROWS]
            generated = generation.generate_tokens(
                make_generator(llava, case["max_new_tokens"]),
                inputs,
                max_new_tokens=case["max_new_tokens"],
                do_sample=False,
            )
        parity.close(logits, recorded[f"{number}/logits"], 1e-3, "logits")
        assert generated[0, ids.shape[1] :].tolist() == case["new_ids"]


def test_an_adapter_folder_is_added_to_its_base(tmp_path: Path) -> None:
    """LLaVA's LoRA layout, made here: updates of two layers and the recorded projector."""
    trained = parity.path(f"train_{FRAMED}/llava-tiny", "llava")
    folder = tmp_path / "이름에 아무 뜻도 없는 폴더"
    folder.mkdir()
    (folder / "config.json").write_bytes((trained / "config.json").read_bytes())
    (folder / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 8}')
    torch.manual_seed(0)
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_{}.weight"
    down, up = torch.randn(4, LANGUAGE["hidden_size"]), torch.randn(LANGUAGE["hidden_size"], 4)
    torch.save({name.format("A"): down, name.format("B"): up}, folder / "adapter_model.bin")
    trained_tensors = torch.load(trained / "mm_projector.bin", weights_only=True)
    torch.save(
        {f"base_model.model.{n}": t for n, t in trained_tensors.items()}, folder / "non_lora_trainables.bin"
    )
    assert detect_llava_folder(folder).folder_type == "lora"
    language, vision = (
        parity.path("base/vicuna-tiny", "llava"),
        parity.path("base/openai/clip-tiny-patch14", "llava"),
    )
    convert_llava_folder(folder, tmp_path / "plain", language, vision)
    llava = load_file(tmp_path / "plain" / "model.safetensors")
    base = load_file(language / "model.safetensors")
    weight = "layers.1.self_attn.q_proj.weight"
    parity.close(
        llava[f"language_model.model.{weight}"], base[f"model.{weight}"] + 2 * up @ down, 1e-5, "weight"
    )
    projector = llava["multi_modal_projector.linear_1.weight"]
    assert torch.equal(projector, trained_tensors["model.mm_projector.weight"])


def test_a_folder_that_is_not_llavas_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llava", "mm_vision_tower": "clip"}')
    with pytest.raises(ModelError, match="holds no projector, no adapter and no LLaVA weights"):
        detect_llava_folder(tmp_path)
    trained = parity.path(f"train_{FRAMED}/llava-tiny", "llava")
    with pytest.raises(ModelError, match="does not hold its language model"):
        convert_llava_folder(trained, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / "mm_projector.bin").write_bytes(pickle.dumps({"a": Evil()}))
    with pytest.raises(ModelError, match=r"could run foreign code|not tensors as torch\.save writes them"):
        load_torch_tensors(tmp_path / "mm_projector.bin")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "around", ["numpy number", "path and arguments", "module.", "compiled", "below model"]
)
def test_what_training_scripts_keep_around_a_projector_does_no_harm(around: str, tmp_path: Path) -> None:
    weights = {"model.mm_projector.weight": torch.ones(2, 3), "model.mm_projector.bias": torch.zeros(2)}
    content = {
        "numpy number": {"state_dict": weights, "best": np.float64(0.5)},
        "path and arguments": {"model": weights, "args": Namespace(lr=1e-3), "from": Path("a")},
        "module.": {"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}},
        "compiled": {"model": {f"_orig_mod.{name}": tensor for name, tensor in weights.items()}},
        "below model": {"model": weights},
    }[around]
    torch.save(content, tmp_path / "mm_projector.bin")
    read = load_torch_tensors(tmp_path / "mm_projector.bin")
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], weights[name]) for name in weights)


def test_the_projector_is_exported_as_the_original_wrote_it(tmp_path: Path) -> None:
    llava = converted(f"train_{FRAMED}/llava-tiny", tmp_path)
    export_llava.write_llava_projector(llava.net, llava.processor, "openai/clip-tiny-patch14", tmp_path)
    theirs = torch.load(
        parity.path(f"train_{FRAMED}/llava-tiny/mm_projector.bin", "llava"), weights_only=True
    )
    ours = load_torch_tensors(tmp_path / "mm_projector.bin")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_hub_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    llava = converted("train_plain_image/llava-tiny", tmp_path)
    assert detect_llava_folder(llava.folder).folder_type == "hub"
    with pytest.raises(ModelError, match="Hugging Face's layout already"):
        convert_llava_folder(llava.folder, tmp_path / "again")


def test_a_training_can_begin_with_a_plain_vicuna(tmp_path: Path) -> None:
    """The projector as torch draws it; the frame's rows the mean of all before, in both tables."""
    llava = converted("base/vicuna-tiny", tmp_path)
    assert llava.folder_type == "language"
    table, head = llava.net.get_input_embeddings().weight, llava.net.lm_head.weight
    patch, first = BASE_ROWS, BASE_ROWS + 1  # <im_patch>, <im_start>
    assert table.shape == head.shape == (BASE_ROWS + 3, LANGUAGE["hidden_size"])
    for rows in (table, head):
        parity.close(rows[first], rows[:first].mean(0), 1e-6, "<im_start>")
        assert not torch.equal(rows[patch], rows[first])
    weight = llava.net.model.multi_modal_projector.linear_1.weight
    bound = VISION["hidden_size"] ** -0.5
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)

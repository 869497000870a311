"""LLaVA folders of every make: logits as computed from the original's weights, or one error that names the cause."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from kovqa_core.errors import ModelError
from kovqa_core.models.vlm import base, chat_template
from kovqa_core.models.vlm.config import ModelConfig
from kovqa_core.models.vlm.convert_llava import ConversionSettings, convert_llava_folder
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tests import parity
from tests.models.vlm.llava_folders import (
    BASE_ROWS,
    CLIP,
    MERGED,
    NEWER,
    PAIR,
    PLAIN_TRAINED,
    TABLES,
    TRAINED,
    VICUNA,
    Weights,
    adapter,
    pad_tables,
    vicuna,
    without,
    write_folder,
)
from tests.models.vlm.llava_reference import IMAGE_PLACEHOLDER, read_json, reference_ids, reference_logits

IMAGE = parity.path("images/im_01.png", "llava")
QUESTION = "What color is the dog?"
V1 = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. USER: {image}\n" + QUESTION + " ASSISTANT:"
)
LLAMA_2 = (
    "[INST] <<SYS>>\nYou are a helpful language and vision assistant. You are able to understand the visual content "
    "that the user provides, and assist the user with a variety of tasks using natural language.\n<</SYS>>\n\n{image}\n"
    + QUESTION
    + " [/INST]"
)


def keep_rows(*rows: int) -> Callable[[Weights], None]:
    """Of both tables Vicuna's rows, and these."""

    def change(weights: Weights) -> None:
        for name in TABLES:
            weights[name] = torch.cat([weights[name][:BASE_ROWS], weights[name][list(rows)]])

    return change


def name_layer_zero(weights: Weights) -> None:
    for name in ("weight", "bias"):
        weights[f"model.mm_projector.0.{name}"] = weights.pop(f"model.mm_projector.{name}")


@dataclass(frozen=True)
class Variant:
    """A folder that can be converted.

    Attributes:
        source: the recorded folder it is made of.
        config: changes of its configuration.
        change: changes its weights.
        tokens: LLaVA's tokens, in the order of their ids.
        style: the prompt that is requested.
    """

    source: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    change: Callable[[Weights], None] = lambda weights: None
    tokens: tuple[str, ...] = ()
    style: str | None = None


FRAME = ("<im_start>", "<im_end>")
VARIANTS = {
    "patch token alone": Variant(MERGED, {"mm_use_im_start_end": False}, keep_rows(1000), ("<im_patch>",)),
    "keys absent: patch token alone": Variant(
        MERGED, {"mm_use_im_start_end": None, "mm_use_im_patch_token": None}, keep_rows(1000), ("<im_patch>",)
    ),
    "patch token absent: with frame": Variant(MERGED, {"mm_use_im_patch_token": None}, tokens=("<im_patch>", *FRAME)),
    "frame alone": Variant(MERGED, {"mm_use_im_patch_token": False}, keep_rows(1001, 1002), FRAME),
    "no token, one layer": Variant(
        MERGED, {"mm_use_im_patch_token": False, "mm_use_im_start_end": False}, keep_rows()
    ),
    "padded tables": Variant(NEWER, {}, pad_tables),
    "padded tables, one layer": Variant(MERGED, {}, pad_tables, ("<im_patch>", *FRAME)),
    "one table, no head": Variant(NEWER, {"tie_word_embeddings": True}, without("lm_head.weight")),
    "one table, tokens, no head": Variant(
        MERGED, {"tie_word_embeddings": True}, without("lm_head.weight"), ("<im_patch>", *FRAME)
    ),
    "layer 0": Variant(NEWER, {"mm_vision_select_layer": 0}),
    "layer 2": Variant(NEWER, {"mm_vision_select_layer": 2}),
    "last layer": Variant(NEWER, {"mm_vision_select_layer": -1}),
    "first layer by its negative number": Variant(NEWER, {"mm_vision_select_layer": -4}),
    "class token kept": Variant(NEWER, {"mm_vision_select_feature": "cls_patch"}),
    "mlp1x_gelu": Variant(
        MERGED, {"mm_projector_type": "mlp1x_gelu"}, name_layer_zero, ("<im_patch>", *FRAME)
    ),
    "positions scaled": Variant(NEWER, {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    "another rotation": Variant(NEWER, {"rope_theta": 500.0, "rms_norm_eps": 0.01}),
    "Llama 2's prompt": Variant(NEWER, {}, style="llava_llama_2"),
    "square images": Variant(NEWER, {"image_aspect_ratio": None}),
}  # fmt: skip


def converted_logits(folder: Path) -> tuple[Tensor, Tensor]:
    """Logits [N, V] and pixels [3, H, W] of the question, as kovqa asks it."""
    config = ModelConfig(base=str(folder), dtype="fp32")
    net, hf = base.load_base_network(folder, config).eval(), base.load_hf_processor(folder, config)
    turns = chat_template.user_message(QUESTION, "none", Image.open(IMAGE).convert("RGB"))
    inputs = hf.apply_chat_template(
        [turns], return_tensors="pt", **chat_template.template_arguments(hf, add_generation_prompt=True)
    )
    with torch.no_grad():
        return net(**inputs).logits[0], inputs["pixel_values"][0]


def expected_logits(
    folder: Path, weights: Weights, config: Mapping[str, Any], variant: Variant, pixels: Tensor
) -> Tensor:
    framed = "<im_start><image><im_end>" if FRAME[0] in variant.tokens else "<image>"
    prompt = (LLAMA_2 if variant.style else V1).replace("{image}", framed)
    added = {token: BASE_ROWS + number for number, token in enumerate(variant.tokens)}
    ids = reference_ids(prompt, folder / "tokenizer.model", added)
    assert ids.count(IMAGE_PLACEHOLDER) == 1
    tables = {name: weights[name][: BASE_ROWS + len(added)] for name in TABLES if name in weights}
    clip = read_json(CLIP / "config.json")["vision_config"]
    return reference_logits({**weights, **tables}, config, clip, ids, pixels)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_folder_answers_as_the_originals_weights_do(name: str, tmp_path: Path) -> None:
    variant = VARIANTS[name]
    weights, config = write_folder(tmp_path / "llava", variant.source, variant.config, variant.change)
    added = {token: BASE_ROWS + number for number, token in enumerate(variant.tokens)}
    (tmp_path / "llava" / "added_tokens.json").write_text(json.dumps(added))
    settings = ConversionSettings(prompt_style=variant.style)
    convert_llava_folder(tmp_path / "llava", tmp_path / "plain", vision=CLIP, settings=settings)
    logits, pixels = converted_logits(tmp_path / "plain")
    expected = expected_logits(tmp_path / "llava", weights, config, variant, pixels)
    parity.close(logits[:, : expected.shape[1]], expected, 1e-3, "logits")


# ------------------------------------------------------------------------------ bases of other makes


def tables(folder: Path) -> list[Tensor]:
    weights = load_file(folder / "model.safetensors")
    return [weights[f"language_model.{name}"] for name in ("model.embed_tokens.weight", "lm_head.weight")]


@pytest.mark.parametrize("trained", [TRAINED, PLAIN_TRAINED])
def test_rows_that_a_base_is_padded_with_make_no_difference(trained: Path, tmp_path: Path) -> None:
    convert_llava_folder(trained, tmp_path / "a", VICUNA, CLIP)
    padded = vicuna(tmp_path / "padded", {"vocab_size": BASE_ROWS + 24}, pad_tables)
    convert_llava_folder(trained, tmp_path / "b", padded, CLIP)
    for exact, ours in zip(tables(tmp_path / "a"), tables(tmp_path / "b"), strict=True):
        assert exact.shape == ours.shape
        patch = BASE_ROWS  # the original takes the first row of the padding for it; it is in no prompt and no answer
        assert torch.equal(exact[:patch], ours[:patch])


def test_a_padded_vicuna_begins_as_the_original_resizes_it(tmp_path: Path) -> None:
    """`resize_token_embeddings` to 1001 keeps one row of the padding; the frame's rows are the mean of those before."""
    padded = vicuna(tmp_path / "padded", {"vocab_size": BASE_ROWS + 24}, pad_tables)
    convert_llava_folder(padded, tmp_path / "plain", vision=CLIP)
    theirs = load_file(padded / "model.safetensors")
    for name, ours in zip(TABLES, tables(tmp_path / "plain"), strict=True):
        assert ours.shape == (BASE_ROWS + 3, 64)
        assert torch.equal(ours[: BASE_ROWS + 1], theirs[name][: BASE_ROWS + 1])
        for row in ours[BASE_ROWS + 1 :]:
            parity.close(row, theirs[name][: BASE_ROWS + 1].mean(0), 1e-6, "row of the frame")


def test_a_base_with_one_table_gets_the_trained_rows_in_both(tmp_path: Path) -> None:
    shared = vicuna(tmp_path / "shared", {"tie_word_embeddings": True}, without("lm_head.weight"))
    convert_llava_folder(TRAINED, tmp_path / "plain", shared, CLIP)
    text_table, head = tables(tmp_path / "plain")
    trained = torch.load(TRAINED / "mm_projector.bin", weights_only=True)["model.embed_tokens.weight"]
    assert torch.equal(text_table, trained)
    assert torch.equal(head, trained)


def test_a_tokenizer_may_have_few_pieces(tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("what color is the dog\n무슨 색인가요\nthe dog is black\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(texts), model_prefix=str(tmp_path / "small"), vocab_size=300, model_type="bpe", byte_fallback=True,
        character_coverage=1.0, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "small.model")).get_piece_size()
    assert pieces <= 300

    def cut(weights: Weights) -> None:
        weights.update({name: weights[name][:pieces] for name in TABLES})

    base_folder = vicuna(tmp_path / "vicuna", {"vocab_size": pieces}, cut)
    shutil.copy(tmp_path / "small.model", base_folder / "tokenizer.model")
    convert_llava_folder(PLAIN_TRAINED, tmp_path / "plain", base_folder, CLIP)
    assert len(tables(tmp_path / "plain")[0]) == pieces + 1  # <image>


def test_a_rank_stabilised_adapter_is_scaled_by_the_root(tmp_path: Path) -> None:
    convert_llava_folder(adapter(tmp_path / "lora", PAIR, use_rslora=True), tmp_path / "plain", VICUNA, CLIP)
    name = "model.layers.1.self_attn.q_proj.weight"
    before = load_file(VICUNA / "model.safetensors")[name]
    after = load_file(tmp_path / "plain" / "model.safetensors")[f"language_model.{name}"]
    parity.close(after - before, torch.full_like(before, 8 / 4**0.5 * 4), 1e-5, "update")


# ------------------------------------------------------------------------------ where LLaVA puts its files


def test_the_projector_of_an_output_folder_lies_beside_it(tmp_path: Path) -> None:
    """Of `--output_dir llava/checkpoint-2400`: `llava/mm_projector/checkpoint-2400.bin`."""
    folder, file = (
        tmp_path / "llava" / "checkpoint-2400",
        tmp_path / "llava" / "mm_projector" / "checkpoint-2400.bin",
    )
    folder.mkdir(parents=True)
    file.parent.mkdir()
    shutil.copy(TRAINED / "config.json", folder)
    weights = torch.load(TRAINED / "mm_projector.bin", weights_only=True)
    torch.save(weights, file, _use_new_zipfile_serialization=False)  # as torch wrote before 1.6
    assert convert_llava_folder(folder, tmp_path / "plain", VICUNA, CLIP) == "projector"
    written = load_file(tmp_path / "plain" / "model.safetensors")["multi_modal_projector.linear_1.weight"]
    assert torch.equal(written, weights["model.mm_projector.weight"])
    # Trained again, the folder holds an older one, too: which is meant, is said by giving the file.
    torch.save({name: tensor + 1 for name, tensor in weights.items()}, folder / "mm_projector.bin")
    with pytest.raises(ModelError, match="two projectors"):
        convert_llava_folder(folder, tmp_path / "x", VICUNA, CLIP)
    for number, given in enumerate((file, folder / "mm_projector.bin")):
        convert_llava_folder(given, tmp_path / f"given {number}", VICUNA, CLIP)
        plain = load_file(tmp_path / f"given {number}" / "model.safetensors")
        expected = weights["model.mm_projector.weight"] + number
        assert torch.equal(plain["multi_modal_projector.linear_1.weight"], expected)


def test_whole_weights_count_unless_a_base_is_given(tmp_path: Path) -> None:
    """The published 1.5 has the projector of its first stage beside its weights."""
    weights, _ = write_folder(tmp_path / "llava", NEWER, {})
    first = {name: tensor + 1 for name, tensor in weights.items() if "mm_projector" in name}
    torch.save(first, tmp_path / "llava" / "mm_projector.bin")
    assert convert_llava_folder(tmp_path / "llava", tmp_path / "a", vision=CLIP) == "merged"
    assert convert_llava_folder(tmp_path / "llava", tmp_path / "b", VICUNA, CLIP) == "projector"
    name = "multi_modal_projector.linear_2.weight"
    whole, stage = (load_file(tmp_path / folder / "model.safetensors")[name] for folder in "ab")
    assert torch.equal(stage, whole + 1)


def test_an_imported_folder_has_the_published_names(tmp_path: Path) -> None:
    """As llava-hf publishes them: version 4 of transformers takes other names for missing weights, and draws those."""
    scaling = {"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 500.0}
    weights, _ = write_folder(tmp_path / "llava", NEWER, scaling)
    convert_llava_folder(tmp_path / "llava", tmp_path / "plain", vision=CLIP)
    renamed = {name.replace("model.vision_tower.vision_tower.", "vision_tower.") for name in weights}
    renamed = {
        re.sub(r"^(model\.(embed|layers|norm)|lm_head)", r"language_model.\1", name) for name in renamed
    }
    renamed = {name.replace("model.mm_projector.0", "multi_modal_projector.linear_1") for name in renamed}
    renamed = {name.replace("model.mm_projector.2", "multi_modal_projector.linear_2") for name in renamed}
    renamed = {name for name in renamed if "position_ids" not in name and "inv_freq" not in name}
    assert load_file(tmp_path / "plain" / "model.safetensors").keys() == renamed
    text = read_json(tmp_path / "plain" / "config.json")["text_config"]
    assert (text["rope_theta"], text["rope_scaling"]["factor"]) == (500.0, 4.0)
    assert read_json(tmp_path / "plain" / "preprocessor_config.json")["do_pad"] is True
    assert not isinstance(
        read_json(tmp_path / "plain" / "tokenizer_config.json").get("extra_special_tokens"), list
    )

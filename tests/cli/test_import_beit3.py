"""kovqa import: a fine-tuned checkpoint of BEiT-3 becomes a model that answers and captions as the original did."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kovqa as kovqa_api
import pytest
import torch
from kovqa_core.answer.job import AnswerOptions
from kovqa_core.answer.local import load_model
from kovqa_core.errors import KovqaError, ModelError, SettingsError
from kovqa_core.explain.explanation import explain_answer
from kovqa_core.models import family
from kovqa_core.models.beit3.beam_search import BeamSearchSettings, run_beam_search
from kovqa_core.models.beit3.config import NAMED_DIMENSIONS, find_weights
from kovqa_core.models.beit3.family import Beit3Model
from kovqa_core.models.beit3.import_original import config_from_tensors, import_beit3_checkpoint
from kovqa_core.models.beit3.network import Beit3VqaNet
from kovqa_core.models.beit3.pretrained_weights import to_original_state

from kovqa_cli.commands.import_model import import_
from kovqa_cli.output.download import print_fetched_assets
from tests import parity
from tests.conftest import Kovqa, Small

ABOUT = parity.json_of("config.json")
CLASSES = [f"답 {i}" for i in range(ABOUT["num_classes"])]
HEADS = f"model.custom.num_heads={ABOUT['num_heads']}"  # what the recorded weights do not tell
SPM = parity.path("tokenizer.model")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """As the original writes them."""
    path = tmp_path / "answer2label.txt"
    path.write_text("".join(json.dumps({"answer": a, "label": i}) + "\n" for i, a in enumerate(CLASSES)))
    return path


def test_an_imported_classifier_answers(kovqa: Kovqa, labels: Path, tmp_path: Path) -> None:
    done = kovqa(
        "import", parity.path("vqa.pth"), "--labels", labels, "--tokenizer", SPM, "--set", HEADS, "-o", "모델"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "모델\n"
    tensors = parity.weights("vqa.pth")
    size = f"BEiT-3 custom, {ABOUT['image_size']} px: {len(CLASSES)} answers"
    for text in (f"{len(tensors)} tensors taken", size, "next: kovqa predict", "--model 모델"):
        assert text in done.stderr
    spare_rows = ABOUT["vocab_size"] - ABOUT["tokenizer_vocab"]
    assert ("warning" in done.stderr) == (spare_rows not in (0, 8))

    _, processor = family.read_model_folder(tmp_path / "모델", "vqa")
    assert processor.answers == CLASSES  # type: ignore[attr-defined]
    loaded = kovqa_api.load(tmp_path / "모델", device="cpu")
    image = parity.path("images/rgb.png")
    answer = loaded.answer(image, "무엇인가요?")
    explained = explain_answer(load_model(AnswerOptions(tmp_path / "모델")), image, "무엇?", method="rollout")
    assert {answer.text, explained.answer.text} <= set(CLASSES)


@pytest.mark.parametrize("number", [0, -1])
def test_parity_of_an_imported_captioner(number: int, tmp_path: Path) -> None:
    case = parity.json_of("expected_beam_search.json")[number]
    search = {
        "max_text": "max_len",
        "caption.num_beams": "num_beams",
        "caption.length_penalty": "length_penalty",
    }
    sets = [HEADS, *(f"model.{key}={case[name]}" for key, name in search.items())]
    imported = import_beit3_checkpoint(parity.path("captioning.pth"), None, str(SPM), tmp_path / "m", sets)
    assert (imported.task, imported.num_classes, imported.unused) == ("caption", None, [])
    loaded: Any = load_model(AnswerOptions(tmp_path / "m", task="caption"))
    image = parity.tensors_of("beam_images.safetensors")["image"]
    with torch.inference_mode():
        found = run_beam_search(loaded.model.net, image, loaded.model.task.search, ABOUT["mask_id"])
    assert [loaded.processor.tokenizer.decode(one.token_ids) for one in found] == case["captions"]


def test_captions_are_searched_for_as_the_original_s_own_prediction_did(kovqa: Kovqa, tmp_path: Path) -> None:
    """Its commands for prediction leave all three at their defaults, the length at that of questions (B51)."""
    import_beit3_checkpoint(parity.path("captioning.pth"), None, str(SPM), tmp_path / "m", [HEADS])
    model: Any = family.read_model_folder(tmp_path / "m", "caption")[0]
    assert model.task.search == BeamSearchSettings(num_beams=3, max_length=64, length_penalty=0.6)
    done = kovqa("caption", "--model", "m", "-i", parity.path("images/rgb.png"), "-q")
    assert done.returncode == 0 and done.stdout.strip()


State = dict[str, torch.Tensor]


def heads_of(task: str) -> State:
    """The recorded heads of another task beside a body."""
    recorded = parity.tensors_of("other_heads.safetensors")
    heads = {
        name.partition(":")[2]: tensor for name, tensor in recorded.items() if name.startswith(f"{task}:")
    }
    assert heads
    return heads


def body() -> State:
    return {name: t for name, t in parity.weights("captioning.pth").items() if name.startswith("beit3.")}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda: body() | heads_of("retrieval"), "is a BEiT-3 for retrieval, or trained by contrast (itc)"),
        (lambda: body() | heads_of("nlvr2"), "is a BEiT-3 for NLVR2"),
        (lambda: body() | heads_of("image_classification"), "is a BEiT-3 for image classes"),
        (body, "is the body of a BEiT-3: it has no head that answers"),
        (lambda: parity.weights("pretrain_fp16.pth"), "is a pretrained BEiT-3: it has no head"),
        (lambda: without("pooler.norm.bias"), "pooler.norm.bias is missing"),
        (lambda: without("beit3.text_embed.weight"), "does not tell the sizes of a BEiT-3: 'beit3.text_embed.weight'"),
        (lambda: parity.weights("vqa.pth") | {"beit3.extra": torch.ones(2)}, "beit3.extra is unknown"),
        (lambda: swapped("beit3.encoder.embed_positions.A.weight", 6), "6 rows is not of a square grid"),
        (lambda: swapped("beit3.encoder.layers.1.self_attn.k_proj.B.weight", 5), "wanted"),
        (lambda: parity.weights("vqa.pth") | {"beit3.encoder.layers.9.self_attn_layer_norm.A.weight": torch.ones(1)},
         "is missing"),
    ],
)  # fmt: skip
def test_another_checkpoint_is_one_error(
    change: Callable[[], State], expected: str, labels: Path, tmp_path: Path
) -> None:
    torch.save({"model": change()}, tmp_path / "x.pth")
    with pytest.raises(ModelError, match=re.escape(expected)) as caught:
        import_beit3_checkpoint(tmp_path / "x.pth", labels, str(SPM), tmp_path / "m", [HEADS])
    assert "x.pth" in caught.value.message and caught.value.hint and "reinit" not in caught.value.hint
    assert not (tmp_path / "m").exists()


def without(name: str) -> State:
    return {key: tensor for key, tensor in parity.weights("vqa.pth").items() if key != name}


def swapped(name: str, rows: int) -> State:
    return parity.weights("vqa.pth") | {name: parity.weights("vqa.pth")[name][:rows]}


def test_options_that_do_not_fit_are_one_error(small: Small, labels: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.txt"
    few.write_text("예\n아니요\n", encoding="utf-8")
    vqa, captioning = parity.path("vqa.pth"), parity.path("captioning.pth")
    published = tmp_path / "beit3_base_patch16_480_vqa.pth"
    shutil.copyfile(vqa, published)
    spm, heads = str(SPM), [HEADS]
    for file, given, tokenizer, sets, error, expected in (
        (vqa, None, spm, heads, SettingsError, f"chooses among {len(CLASSES)} answers, which only --labels names"),
        (vqa, few, spm, heads, ModelError, f"gives 2 answers, the checkpoint has {len(CLASSES)}"),
        (vqa, labels, str(small.tokenizer), heads, ModelError, f"the text table of {vqa} {ABOUT['vocab_size']} rows"),
        (vqa, labels, None, heads, SettingsError, "which tokenizer was"),
        (published, labels, None, heads, KovqaError, "tokenizer beit3.spm not found"),
        (vqa, labels, spm, [], SettingsError, "does not tell the number of its attention heads"),
        (vqa, labels, spm, [HEADS.partition("=")[0] + "=7"], SettingsError, "not a multiple of the heads"),
        (vqa, labels, spm, [*heads, "model.reinit=[head]"], SettingsError, "setting of a training's beginning"),
        (vqa, labels, spm, [*heads, "optim.lr=1"], SettingsError, "unknown setting 'optim'"),
        (vqa, labels, spm, [*heads, "model.beams=2"], SettingsError, "beams"),
        (captioning, labels, spm, heads, SettingsError, "writes captions: it has no labels"),
    ):  # fmt: skip
        with pytest.raises(error, match=re.escape(expected)):
            import_beit3_checkpoint(file, given, tokenizer, tmp_path / "m", sets)
        assert not (tmp_path / "m").exists()


def test_files_as_they_come(labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 16 bits, called .zip by a browser, with arguments of the training beside the weights; by an asset's name."""
    monkeypatch.setenv("KOVQA_HOME", str(tmp_path / "home"))
    assets = tmp_path / "home" / "assets"
    assets.mkdir(parents=True)
    half = {name: tensor.half() for name, tensor in parity.weights("vqa.pth").items()}
    saved = {"model": half, "args": argparse.Namespace(lr=1.0), "model_ema": dict(half), "epoch": 3}
    torch.save(saved, assets / "beit3_base_patch16_480_vqa.pth")
    shutil.copyfile(SPM, assets / "beit3.spm")
    assert find_weights("beit3_base_patch16_480_vqa").name == "beit3_base_patch16_480_vqa.pth"
    torch.save({"model": half}, tmp_path / "beit3_base_patch16_480_vqa.zip")
    for number, name in enumerate(
        ("beit3_base_patch16_480_vqa", tmp_path / "beit3_base_patch16_480_vqa.zip")
    ):
        import_(Path(name), tmp_path / f"m{number}", labels, sets=[HEADS], json=True)
        net = family.read_model_folder(tmp_path / f"m{number}", "vqa")[0].net  # type: ignore[attr-defined]
        assert all(torch.equal(t, half[n].float().reshape(t.shape)) for n, t in original_state(net).items())


def original_state(net: Beit3VqaNet) -> State:
    return to_original_state(net.state_dict(), ABOUT["patch_size"])


def test_what_is_no_checkpoint_is_one_error(labels: Path, tmp_path: Path) -> None:
    whole = parity.path("vqa.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pth").write_text("<html>")
    torch.save({"vit.cls_token": torch.ones(2)}, tmp_path / "vit.pth")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "data.pkl").touch()
    for name, expected in (
        ("cut.pth", "truncated or damaged"),
        ("text.pth", "is not a PyTorch checkpoint"),
        ("vit.pth", "neither a BEiT-3 nor a VQA_NIA: its weights have names such as vit.cls_token"),
        ("archive", "is an unpacked weights file"),
        ("missing.pth", "checkpoint .*missing.pth not found"),
    ):
        with pytest.raises(KovqaError, match=expected):
            import_(tmp_path / name, tmp_path / "m", labels, str(SPM))
        assert not (tmp_path / "m").exists()
    with pytest.raises(SettingsError, match="--base and --vision are LLaVA's"):
        import_(parity.path("vqa.pth"), tmp_path / "m", labels, str(SPM), base="vicuna")


def test_a_much_smaller_tokenizer_is_warned_about(small: Small, labels: Path, tmp_path: Path) -> None:
    """As KoBEiT3's is, whose table kept the rows of another."""
    tensors = dict(parity.weights("vqa.pth"))
    table = tensors["beit3.text_embed.weight"]
    tensors["beit3.text_embed.weight"] = torch.cat([table, table[:50]])
    torch.save({"model": tensors}, tmp_path / "x.pth")
    (warning,) = import_beit3_checkpoint(
        tmp_path / "x.pth", labels, str(SPM), tmp_path / "m", [HEADS]
    ).warnings
    assert f"{ABOUT['tokenizer_vocab']} ids, the text table {ABOUT['vocab_size'] + 50} rows" in warning


@pytest.mark.parametrize("size", ["base", "large"])
def test_published_dimensions_are_read_from_the_tensors(size: str) -> None:
    """At 480 pixels with VQAv2's answers, without memory for them; names and numbers are B1's and B11's."""
    sizes = {"image_size": 480, "patch_size": 16, "num_classes": 3129, "vocab_size": 64010}
    with torch.device("meta"):
        net = Beit3VqaNet(parity.config(size=size, custom=None, **sizes))
        tensors = to_original_state(net.state_dict(), 16)
    assert len(tensors) == {"base": 497, "large": 977}[size]
    config = config_from_tensors(tensors, Path("x.pth"), "vqa")
    assert config.dimensions == NAMED_DIMENSIONS[size]
    told = (
        config.size,
        config.image_size,
        config.patch_size,
        config.num_classes,
        config.vocab_size,
        config.max_text,
    )
    assert told == (size, 480, 16, 3129, 64010, 64)


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("beit3_base_patch16_480_vqa.pth", "--labels answer2label.txt --tokenizer beit3.spm -o MODEL"),
        ("beit3_large_patch16_480_coco_captioning.pth", "captioning.pth --tokenizer beit3.spm -o MODEL"),
        ("beit3_base_patch16_480_nocaps.pth", "nocaps.pth --tokenizer beit3.spm -o MODEL"),
        ("beit3_base_patch16_224.pth", ""),
        ("beit3_base_patch16_384_coco_retrieval.pth", ""),
    ],
)
def test_a_download_names_the_import(file: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_fetched_assets([("asset", [Path(file)])], as_json=False, quiet=False)
    shown = capsys.readouterr()
    assert shown.out == f"{file}\n"
    assert (
        (command in shown.err and f"next: kovqa import {file} " in shown.err) if command else shown.err == ""
    )


def test_parity_of_imported_weights(labels: Path, tmp_path: Path) -> None:
    """Bit for bit what `model.weights` reads, and the original's logits."""
    import_beit3_checkpoint(parity.path("vqa.pth"), labels, str(SPM), tmp_path / "m", [HEADS])
    model = family.read_model_folder(tmp_path / "m", "vqa")[0]
    assert isinstance(model, Beit3Model)
    for name, tensor in parity.vqa_model().net.state_dict().items():
        assert torch.equal(model.net.state_dict()[name], tensor), name
    given = parity.tensors_of("inputs.safetensors")
    with torch.inference_mode():
        logits = model.eval().net(given["image"], given["language_tokens"], given["padding_mask"].bool())
    parity.close(logits, parity.tensors_of("expected_forward.safetensors")["vqa.logits"], 5e-5, "logits")

"""kovqa export: what is written is loaded by the libraries it is meant for, and gives the same outputs."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from kovqa_core.demo.scenes import make_scene, paint_scene
from kovqa_core.models import family
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.beit3.pretrained_weights import read_pretrained_weights
from kovqa_core.models.checkpoint_info import CheckpointInfo
from kovqa_core.models.fusion import vqa
from kovqa_core.models.torchvision_compat import load_torchvision
from kovqa_core.runs.folder import find_model_folder
from kovqa_core.settings.resolve import resolve_settings

from tests.conftest import FUSION, Kovqa, Small

TEXTS = ["그림에 도형이 모두 몇 개 있나요?", " 빈칸  둘 ", "漢字 🙂 abc", "1/2 < 3 & 4", "", "색 " * 60]


def run_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the Python of an exported folder's card leaves behind."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    paint_scene(make_scene(Random(3))).save("image.jpg")
    card = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


@pytest.fixture
def fusion(small: Small, tmp_path: Path) -> Path:
    """A checkpoint of a small fusion model whose BatchNorm statistics are not the initial ones."""
    flags = {"data.index": str(small.index), "model.tokenizer": str(small.tokenizer)}
    recipe = resolve_settings("nia", "cpu", FUSION, flags).recipe
    model, processor, _ = family.create_model(recipe, ["예", "아니요", "두\n줄"])
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(generator=torch.Generator().manual_seed(1))
    (tmp_path / "단계").mkdir()
    info = CheckpointInfo("fusion", "vqa", recipe.name, step=7, score=0.5)
    family.write_model_folder(model, processor, tmp_path / "단계", info)
    return tmp_path / "단계"


def test_transformers_and_timm_load_a_fusion_model(
    kovqa: Kovqa, fusion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = kovqa("export", fusion, "-o", "밖으로", "--verify", "--json")
    assert done.returncode == 0, done.stderr
    verified = json.loads(done.stdout)["verified"]
    assert verified["difference"] < verified["tolerance"] < 1e-3
    folder = tmp_path / "밖으로"
    report = json.loads(done.stdout)
    assert report["files"] == sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    load_torchvision()  # beside a torch for CPUs the libraries do not load by themselves
    names = run_card(folder, monkeypatch)

    model, processor = family.read_model_folder(fusion, "vqa")
    texts = [*TEXTS, unicodedata.normalize("NFD", TEXTS[0])]
    pixels = torch.rand(len(texts), 3, 32, 32, generator=torch.Generator().manual_seed(2))
    ids = [processor.tokenizer.encode_with_specials(unicodedata.normalize("NFC", text), 24) for text in texts]
    assert [list(names["model"].tokenizer(t, truncation=True, max_length=24).input_ids)
            for t in texts] == ids  # fmt: skip
    tokens, padding = vqa.pad_token_ids(ids)
    with torch.inference_mode():
        ours = vqa.fusion_logits(
            model.eval().net, ModelBatch({"image": pixels, "tokens": tokens, "padding": padding}, [])
        )
    published = names["model"]
    assert (published.logits(texts, pixels) - ours).abs().max() < 1e-5
    assert published.answers == ["예", "아니요", "두\n줄"]
    about = published.picture.pretrained_cfg
    assert (about["input_size"], about["crop_mode"], about["crop_pct"]) == ((3, 32, 32), "squash", 1.0)


def test_exported_encoders_start_another_training(
    kovqa: Kovqa, fusion: Path, small: Small, tmp_path: Path
) -> None:
    """Both folders are what `model.question` and `model.picture` name."""
    assert kovqa("export", fusion, "-o", "x").returncode == 0
    sets = [s for s in FUSION if "random_init" not in s and "_config" not in s]
    encoders = [f"model.question={tmp_path}/x/question", f"model.picture={tmp_path}/x/picture"]
    recipe = resolve_settings("nia", "cpu", [*sets, *encoders], {"data.index": str(small.index)}).recipe
    started, _, _ = family.create_model(recipe, ["예"])
    ours, _ = family.read_model_folder(fusion, "vqa")
    for one, other in ((started.net.question, ours.net.question), (started.net.picture, ours.net.picture)):
        for (name, value), wanted in zip(one.named_parameters(), other.parameters(), strict=True):
            assert torch.equal(value, wanted), name


def test_a_trained_run_becomes_the_file_of_the_original(
    kovqa: Kovqa, trained: Path, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = kovqa("export", trained, "-o", "x")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "x\n"
    run_card(tmp_path / "x", monkeypatch)
    step = find_model_folder(trained, "vqa")
    exported = read_pretrained_weights(tmp_path / "x" / "beit3.pth").tensors
    as_folder = read_pretrained_weights(tmp_path / "x").tensors
    assert all(torch.equal(as_folder[name], tensor) for name, tensor in exported.items())
    original = read_pretrained_weights(step).tensors
    assert exported.keys() == original.keys()
    for name, tensor in original.items():
        assert torch.equal(exported[name].reshape(tensor.shape), tensor), name
    assert (tmp_path / "x" / "answers.txt").read_bytes() == (step / "answers.txt").read_bytes()
    assert (tmp_path / "x" / "tokenizer.model").read_bytes() == small.tokenizer.read_bytes()
    card = (tmp_path / "x" / "README.md").read_text(encoding="utf-8")
    fingerprint = json.loads((small.index / "index.json").read_text(encoding="utf-8"))["fingerprint"]
    for text in (
        f"| `{fingerprint}` |",
        "recipe | `tiny` |",
        "step | `6` |",
        "visual-question-answering",
        "질문",
    ):
        assert text in card


def test_nothing_is_written_over(kovqa: Kovqa, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine").touch()
    done = kovqa("export", trained, "-o", "x")
    assert done.returncode == 2
    assert "x is not empty" in done.stderr
    assert kovqa("export", tmp_path / "nowhere", "-o", "y").returncode == 3
    assert not (tmp_path / "y").exists()

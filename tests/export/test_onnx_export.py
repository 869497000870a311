"""kovqa export --onnx: the folder answers as kovqa does, where neither torch nor kovqa is."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kovqa_core.answer.job import AnswerOptions
from kovqa_core.answer.local import answer_one_image, load_model
from kovqa_core.errors import MachineError, ModelError, SettingsError
from kovqa_core.export import onnx_export
from kovqa_core.export.onnx_beit3 import beit3_onnx_model
from kovqa_core.export.onnx_export import ONNX_MODELS, export_onnx, write_files_beside
from kovqa_core.export.onnx_graphs import OnnxGraph, OnnxModel, run_graphs, write_graph
from kovqa_core.models import FAMILIES, family
from kovqa_core.models.beit3.import_original import import_beit3_checkpoint
from kovqa_core.models.checkpoint_info import CheckpointInfo
from kovqa_core.models.fusion.tokenizer import open_question_tokenizer
from kovqa_core.models.fusion.vqa import FusionProcessor
from kovqa_core.models.xlmr_tokenizer import load_xlmr_tokenizer
from kovqa_core.runs.folder import find_model_folder
from kovqa_core.settings.resolve import resolve_settings
from PIL import Image

from kovqa_cli.commands.export_model import export
from tests import parity
from tests.conftest import FUSION, Small

ABOUT = parity.json_of("config.json")
SPM = parity.path("tokenizer.model")
HEADS = f"model.custom.num_heads={ABOUT['num_heads']}"
TEXTS = [
    "무엇인가요?",
    " 빈칸  둘 ",
    "漢字 🙂 abc",
    "<mask>를 </s> 채우세요 <s>",
    "",
    "a" * 300,
    "색이\u3000무엇? (１)",
]
PICTURES = ["rgb.png", "rgba.png", "gray.png", "palette.png"]


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded captioner, as a checkpoint folder."""
    folder = tmp_path_factory.mktemp("캡션")
    import_beit3_checkpoint(parity.path("captioning.pth"), None, str(SPM), folder / "m", [HEADS])
    return folder / "m"


def read_program(folder: Path, about: Mapping[str, object] = {}) -> dict[str, Any]:
    """What `run_onnx.py` of a folder has, with some settings changed."""
    names = runpy.run_path(str(folder / "run_onnx.py"))
    names["ABOUT"].update(about)
    return names


def write_folder_without_networks(model: OnnxModel, task: str, folder: Path) -> Path:
    folder.mkdir()
    write_files_beside(model, task, folder)
    return folder


_WITHOUT_TORCH = """
import json, sys
for name in ("torch", "kovqa", "kovqa_core", "kovqa_cli", "transformers"):
    sys.modules[name] = None
from run_onnx import answer, answer_logits, encode_text, load_pixels
images, texts = json.load(sys.stdin)
answers = [answer(image, texts[0]) for image in images]
import numpy as np
pixels = np.concatenate([load_pixels(image) for image in images])
together = answer_logits(pixels, [encode_text(text) for text in texts[: len(images)]])
print(json.dumps([answers, together.tolist()]))
"""


def test_an_exported_classifier_answers_without_torch(tmp_path: Path) -> None:
    """The recorded weights: the same answers as kovqa's one by one, and in a batch of texts of several lengths."""
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"답 {i}\n" for i in range(ABOUT["num_classes"])), encoding="utf-8")
    import_beit3_checkpoint(parity.path("vqa.pth"), labels, str(SPM), tmp_path / "m", [HEADS])
    report = export_onnx(tmp_path / "m", tmp_path / "밖으로")
    assert report.onnx_difference is not None and report.onnx_difference <= 1e-4
    assert report.files == (
        "README.md", "answers.txt", "model.onnx", "preprocessing.json", "run_onnx.py", "tokenizer.model",
    )  # fmt: skip

    images = [parity.path(f"images/{name}") for name in PICTURES if (SPM.parent / "images" / name).exists()]
    assert images
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH], cwd=report.folder, capture_output=True, text=True,
        input=json.dumps([list(map(str, images)), TEXTS]), check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers, together = json.loads(done.stdout)
    loaded = load_model(AnswerOptions(tmp_path / "m"))
    for image, (text, score) in zip(images, answers, strict=True):
        ours = answer_one_image(loaded, image, TEXTS[0])
        assert (ours.text, ours.score) == (text, pytest.approx(score, abs=1e-5)), image.name
    alone = np.array(together)[0].argmax()
    assert f"답 {alone}" == answers[0][0], "with longer texts in its batch, too"

    given, expected = (
        parity.tensors_of("inputs.safetensors"),
        parity.tensors_of("expected_forward.safetensors"),
    )
    arrays = {
        "pixels": given["image"].numpy(),
        "tokens": given["language_tokens"].numpy(),
        "padding": given["padding_mask"].bool().numpy(),
    }
    logits = run_graphs(report.folder)("model", arrays)
    parity.close(torch.from_numpy(logits), expected["vqa.logits"], 1e-4, "logits")
    with pytest.raises(ModelError, match="is an export for onnxruntime"):
        find_model_folder(report.folder, "vqa")
    card = (report.folder / "README.md").read_text(encoding="utf-8")
    assert "pip install onnxruntime numpy pillow sentencepiece\nfrom run_onnx import answer" in card


@pytest.mark.parametrize("number", [1, -1])
def test_parity_of_the_exported_search(captioner: Path, number: int, tmp_path: Path) -> None:
    """Its program, with both networks run by torch in place of onnxruntime."""
    model, processor = family.read_model_folder(captioner, "caption")
    described = beit3_onnx_model(model.eval(), processor)  # type: ignore[arg-type]
    folder = write_folder_without_networks(described, "caption", tmp_path / "x")
    case = parity.json_of("expected_beam_search.json")[number]
    search = {
        "max_text": case["max_len"],
        "num_beams": case["num_beams"],
        "length_penalty": case["length_penalty"],
    }
    program = read_program(folder, search)
    images = parity.tensors_of("beam_images.safetensors")["image"].numpy()
    networks = {f"{graph.name}.onnx": TorchSession(graph) for graph in described.graphs}
    caption = program["caption"]
    caption.__globals__.update(
        open_network=networks.__getitem__, load_pixels=lambda row: images[row : row + 1]
    )
    assert [caption(row)[0] for row in range(len(images))] == case["captions"]


class TorchSession:
    """Runs a graph as onnxruntime's sessions do."""

    def __init__(self, graph: OnnxGraph) -> None:
        self.graph = graph

    @torch.no_grad()
    def run(self, outputs: list[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        assert outputs == [self.graph.output]
        given = [torch.from_numpy(np.ascontiguousarray(feeds[name])) for name in self.graph.inputs]
        return [self.graph.network(*given).numpy()]


def test_the_program_reads_text_and_images_as_kovqa_does(
    captioner: Path, small: Small, tmp_path: Path
) -> None:
    model, processor = family.read_model_folder(captioner, "caption")
    described = beit3_onnx_model(model, processor)  # type: ignore[arg-type]
    folder = write_folder_without_networks(described, "caption", tmp_path / "x")
    program, tokenizer = read_program(folder), load_xlmr_tokenizer(SPM)
    for text in TEXTS:
        assert program["encode_text"](text) == tokenizer.encode_with_specials(text, 64), text
        ids = tokenizer.encode(text)
        assert program["decode_ids"](ids) == tokenizer.decode(ids), text
    fast = tmp_path / "tokenizer.json"
    write_word_tokenizer(fast)
    for file, special_ids in ((small.tokenizer, {}), (fast, {})):
        shutil.copyfile(file, folder / file.name)
        program = read_program(folder, {"tokenizer": file.name, "special_ids": special_ids, "max_text": 20})
        plain = open_question_tokenizer(file, None)
        for text in TEXTS:
            assert program["encode_text"](text) == plain.encode_with_specials(text, 20), text
    for name, as_stored in (
        ("turned.jpg", False),
        ("turned.jpg", True),
        ("clear.png", False),
        ("clear.png", True),
    ):
        write_odd_image(tmp_path / name)
        about = {"image_loading": "as_stored" if as_stored else "as_shown"}
        pixels = read_program(folder, about)["load_pixels"](tmp_path / name)
        assert np.abs(pixels - own_pixels(tmp_path / name, as_stored=as_stored)).max() < 1e-6, (
            name,
            as_stored,
        )


def own_pixels(image: Path, *, as_stored: bool) -> np.ndarray:
    from kovqa_core.data.image_io import open_image
    from kovqa_core.models import image_transforms

    square = image_transforms.resize_square(open_image(image, as_stored=as_stored), ABOUT["image_size"])
    return image_transforms.normalise_pixels(
        torch.from_numpy(image_transforms.image_to_array(square))[None]
    ).numpy()


def write_odd_image(path: Path) -> None:
    """Turned by EXIF, or half transparent."""
    noise = np.random.default_rng(1).integers(0, 256, (40, 60, 4), np.uint8)
    if path.suffix == ".png":
        Image.fromarray(noise).save(path)
        return
    image = Image.fromarray(noise[..., :3])
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)


def write_word_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(
        models.WordLevel({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "abc": 4}, unk_token="[UNK]")
    )
    tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(path))


def test_what_cannot_be_exported_is_one_error(
    captioner: Path, tiny_vlm: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x"
    with pytest.raises(SettingsError, match="family vlm, which is not exported to ONNX"):
        export_onnx(tiny_vlm("qwen3_vl"), out)
    assert set(ONNX_MODELS) == set(FAMILIES) - {"vlm"}
    for options in ({"as_upstream": True}, {"trust_remote_code": True}):
        with pytest.raises(SettingsError, match="--onnx does not go with --"):
            export(captioner, out, onnx=True, **options)  # type: ignore[arg-type]
    monkeypatch.setattr(onnx_export, "write_graph", lambda graph, folder: None)
    for difference in (2e-4, float("inf")):
        other = OnnxModel((), {}, ("t", b""), None, lambda run, d=difference: d)  # type: ignore[misc]
        monkeypatch.setattr(onnx_export, "_read_onnx_model", lambda *_, model=other: model)
        with pytest.raises(ModelError, match="onnxruntime gives other logits than torch"):
            export_onnx(captioner, out)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MachineError, match="--onnx needs onnxscript") as refused:
        export_onnx(captioner, out)
    assert "pip install 'kovqa[onnx]'" in refused.value.hint
    assert not out.exists()


class Asks(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if float(x.sum()) > 0 else -x


class Counts(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.ones(len(x), 1)  # fixes the size to the example's, and nobody says so


def test_a_network_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    asks, counts = (
        OnnxGraph("model", network, {"x": torch.ones(2, 3)}, {"x": {0: "batch"}}, "y")
        for network in (Asks(), Counts())
    )
    with pytest.raises(ModelError, match="torch cannot write this network as ONNX"):
        write_graph(asks, tmp_path)
    write_graph(counts, tmp_path)
    run = run_graphs(tmp_path)
    assert run("model", {"x": np.ones((2, 3), np.float32)}).max() == 2
    with pytest.raises(ModelError, match=r"onnxruntime refuses model\.onnx"):
        run("model", {"x": np.ones((3, 3), np.float32)})


@pytest.mark.soak
def test_an_exported_captioner_finds_the_original_s_captions(captioner: Path, tmp_path: Path) -> None:
    report = export_onnx(captioner, tmp_path / "x")
    assert report.onnx_difference is not None and report.onnx_difference <= 1e-4
    images = parity.tensors_of("beam_images.safetensors")["image"].numpy()
    for case in parity.json_of("expected_beam_search.json"):
        search = {
            "max_text": case["max_len"], "num_beams": case["num_beams"], "length_penalty": case["length_penalty"],
        }  # fmt: skip
        caption = read_program(report.folder, search)["caption"]
        caption.__globals__["load_pixels"] = lambda row: images[row : row + 1]
        assert [caption(row)[0] for row in range(len(images))] == case["captions"]


@pytest.mark.soak
@pytest.mark.parametrize("sets", [
    (), ("model.transformer=2", "model.transformer_heads=4"),
    ("model.fusion=grid", "model.transformer=1", "model.transformer_heads=4"),
    ("model.question_config={model_type: bert, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, "
     "intermediate_size: 64, pad_token_id: 0}",
     "model.picture_config={architecture: vit_base_patch16_siglip_224, img_size: 32, depth: 1, embed_dim: 48, "
     "num_heads: 3}"),
])  # fmt: skip
def test_an_exported_fusion_model_answers_as_kovqa_does(
    sets: tuple[str, ...], small: Small, tmp_path: Path
) -> None:
    flags = {"data.index": str(small.index), "model.tokenizer": str(small.tokenizer)}
    recipe = resolve_settings("nia", "cpu", [*FUSION, *sets], flags).recipe
    model, processor, _ = family.create_model(recipe, ["예", "아니요", "두\n줄"])
    assert isinstance(processor, FusionProcessor)
    for parameter in model.parameters():
        parameter.data.mul_(3)  # so that logits are no rounding
    (tmp_path / "m").mkdir()
    family.write_model_folder(model, processor, tmp_path / "m", CheckpointInfo("fusion", "vqa"))
    report = export_onnx(tmp_path / "m", tmp_path / "x")
    assert report.onnx_difference is not None and report.onnx_difference <= 1e-4
    program, loaded = read_program(report.folder), load_model(AnswerOptions(tmp_path / "m"))
    for image, text in zip(sorted((small.root / "images").glob("*.png"))[:3], TEXTS, strict=False):
        ours = answer_one_image(loaded, image, text)
        assert program["answer"](image, text) == (ours.text, pytest.approx(ours.score, abs=1e-5))

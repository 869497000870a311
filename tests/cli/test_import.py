"""kovqa import: a checkpoint of VQA_NIA becomes a model that answers as it did."""

from __future__ import annotations

import csv
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
from kovqa_core.errors import ModelError, SettingsError
from kovqa_core.index.upstream.nia import NIA_CSV_COLUMNS
from kovqa_core.models import family
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.fusion import vqa
from kovqa_core.models.fusion.config import ModelConfig
from kovqa_core.models.fusion.import_original import (
    check_tensor_shapes,
    config_from_tensors,
    import_original_checkpoint,
    read_label_classes,
)
from kovqa_core.models.fusion.network import FusionNet

from tests import parity
from tests.conftest import Kovqa, Small

NIA = "vqa_nia"
ABOUT = parity.json_of("config.json", NIA)
NUM_CLASSES, TEXT_ROWS = ABOUT["n_answers"], ABOUT["text"]["vocab_size"]
TENSORS = {name: shape for name, shape, _ in parity.json_of("keys.json", NIA)}
DROPPED = TENSORS.keys() & {"bert.embeddings.position_ids", "layer_norm.weight", "layer_norm.bias"}
# What becomes the recorded number of classes: by count, as few as these in the order seen; pandas takes NA for nothing.
RARE = [f"답 {i}" for i in range(NUM_CLASSES - 4)]
COUNTS = {"예": 1, "두\n줄": 1, " 사과": 5, "사과": 3, "NA": 9, **dict.fromkeys(RARE, 1)}
CLASSES = [" 사과", "사과", "예", "두\n줄", *RARE]
XLMR = {
    "model_type": "xlm-roberta", "vocab_size": 250_002, "hidden_size": 768, "num_hidden_layers": 12,
    "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 514, "type_vocab_size": 1,
    "pad_token_id": 1,
}  # fmt: skip
SETS = (
    "--set", f"model.question_config.num_attention_heads={ABOUT['text']['num_attention_heads']}",
    "--set", f"model.image_size={ABOUT['image_size_hw'][0]}",
)  # fmt: skip
PICKLED = ABOUT["pickle"]["file"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with as many ids as the recorded question encoder has rows."""
    folder = tmp_path_factory.mktemp("토크나이저")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["무엇이 보이나요?", "이것은 무슨 색인가요?", "사진에 몇 개 있나요?"]),
        model_prefix=str(folder / "spm"), vocab_size=TEXT_ROWS - 2, minloglevel=2,
        user_defined_symbols=[f"[{i}]" for i in range(TEXT_ROWS - 25)],
    )  # fmt: skip
    return folder / "spm.model"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The original's table of a data set with these answers; test rows count for nothing."""
    path = tmp_path_factory.mktemp("자료") / "data_ko.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(NIA_CSV_COLUMNS)
        for number in range(max(COUNTS.values())):
            for answer, count in COUNTS.items():
                if number < count:
                    split = "train" if number % 2 == 0 else "valid"
                    rows.writerow(["./data/image/1.jpg", "무엇?", answer, "vqa", "", "", split])
        rows.writerow(["./data/image/1.jpg", "무엇?", "시험에만", "vqa", "", "", "test"])
    return path


def import_arguments(table: Path, tokenizer: Path, file: str = PICKLED) -> list[object]:
    return ["import", parity.path(file, NIA), "--labels", table, "--tokenizer", tokenizer, *SETS]


def test_an_imported_model_answers(kovqa: Kovqa, table: Path, tokenizer: Path, tmp_path: Path) -> None:
    done = kovqa(*import_arguments(table, tokenizer), "-o", "모델")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "모델\n"
    taken = f"{len(TENSORS) - len(DROPPED)} tensors taken"
    assert all(name in done.stderr for name in (taken, *DROPPED, f"{NUM_CLASSES} answers"))
    assert "warning" not in done.stderr

    model, processor = family.read_model_folder(tmp_path / "모델", "vqa")
    assert processor.answers == CLASSES
    inputs = np.load(parity.path("inputs.npz", NIA))
    tensors = {
        "image": torch.from_numpy(inputs["image"]),
        "tokens": torch.from_numpy(inputs["input_ids"]),
        "padding": torch.from_numpy(inputs["attention_mask"] == 0),
    }
    with torch.inference_mode():
        logits = vqa.fusion_logits(model.eval().net, ModelBatch(tensors, []))
    expected = torch.from_numpy(np.load(parity.path("expected.npz", NIA))["logits_base"])
    parity.close(logits, expected, 1e-4, "logits")

    image = parity.path("transform/rgb.png", NIA)
    answered = kovqa("predict", "--model", "모델", "-i", image, "--question", "무엇이 보이나요?", "--json")
    assert answered.returncode == 0, answered.stderr
    assert json.loads(answered.stdout)["answer"] in CLASSES
    again = kovqa(*import_arguments(table, tokenizer), "-o", "모델")
    assert again.returncode == 0 and "is there already" in again.stderr
    (tmp_path / "모델" / "mine.txt").write_text("mine")
    again = kovqa(*import_arguments(table, tokenizer), "-o", "모델")
    assert again.returncode == 2
    assert "모델 is not empty" in again.stderr


def test_a_state_dict_and_a_list_of_answers(
    kovqa: Kovqa, tokenizer: Path, table: Path, tmp_path: Path
) -> None:
    (tmp_path / "answers.txt").write_text("".join(f"{i}\n" for i in range(NUM_CLASSES)), encoding="utf-8")
    done = kovqa(*import_arguments(tmp_path / "answers.txt", tokenizer, "state_dict.pt"), "-o", "m", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    taken = len(TENSORS) - len(DROPPED)
    assert (report["classes"], report["taken"], report["arguments"]) == (NUM_CLASSES, taken, {})
    about = json.loads((tmp_path / "m" / "kovqa.json").read_text(encoding="utf-8"))
    assert (about["family"], about["task"]) == ("fusion", "vqa")
    assert about["imported"]["checkpoint"] == "state_dict.pt"


def test_layers_that_were_never_saved_are_warned_about(
    kovqa: Kovqa, table: Path, tokenizer: Path, tmp_path: Path
) -> None:
    """A model trained with --use_transformer_layer has the same tensors as any other."""
    key = b"use_transformer_layer"
    with (
        zipfile.ZipFile(parity.path(PICKLED, NIA)) as old,
        zipfile.ZipFile(tmp_path / "tf.pt", "w") as new,
    ):
        for info in old.infolist():
            before, match, after = old.read(info).partition(key)
            data = before + match + after.replace(b"\x89", b"\x88", len(match) and 1)  # false -> true
            new.writestr(info.filename, data)
    arguments = import_arguments(table, tokenizer)
    done = kovqa(arguments[0], tmp_path / "tf.pt", *arguments[2:], "-o", "m")
    assert done.returncode == 0, done.stderr
    assert "warning: trained with --use_transformer_layer" in done.stderr


def test_classes_have_the_order_of_the_original() -> None:
    """Where that is not the order by count and first appearance."""
    recorded = parity.json_of("answers/answers.json", NIA)
    wanted = [answer for answer, *_ in recorded["pinned_order"]]
    assert wanted != [answer for answer, *_ in recorded["stable_order"]]
    assert read_label_classes(parity.path("answers/data_ko.csv", NIA), len(wanted)) == wanted


def test_what_does_not_fit_is_one_error(small: Small, table: Path, tokenizer: Path, tmp_path: Path) -> None:
    (tmp_path / "answers.txt").write_text("예\n아니요\n", encoding="utf-8")
    state = torch.load(parity.path("state_dict.pt", NIA), weights_only=True)
    torch.save({n: t for n, t in state.items() if "i_model.bn1.bias" not in n}, tmp_path / "lacking.pt")
    torch.save({**state, "extra.weight": torch.ones(2)}, tmp_path / "strange.pt")
    torch.save({"head.weight": torch.ones(2)}, tmp_path / "foreign.pt")
    good: dict[str, Any] = {
        "checkpoint": parity.path(PICKLED, NIA),
        "labels": table,
        "tokenizer": str(tokenizer),
        "sets": SETS[1::2],
    }
    for changed, error, expected in (
        (
            {"labels": tmp_path / "answers.txt"},
            ModelError,
            f"gives 2 answers, the checkpoint has {NUM_CLASSES}",
        ),
        ({"tokenizer": str(small.tokenizer)}, ModelError, f"502 ids, the checkpoint {TEXT_ROWS}"),
        (
            {"checkpoint": tmp_path / "lacking.pt"},
            ModelError,
            f"picture.bn1.bias is absent, wanted {TENSORS['i_model.bn1.bias']}",
        ),
        ({"checkpoint": tmp_path / "strange.pt"}, ModelError, "it has an unknown 'extra'"),
        ({"checkpoint": tmp_path / "foreign.pt"}, ModelError, "is not a model of VQA_NIA"),
        ({"sets": []}, SettingsError, "--set model.question_config.num_attention_heads=N"),
        ({"sets": [*good["sets"], "optim.lr=1"]}, SettingsError, "unknown setting 'optim'"),
        (
            {"sets": [*good["sets"], "model.transformer=3"]},
            ModelError,
            "encoder.layers.0.linear1.bias is absent",
        ),
    ):
        with pytest.raises(error, match=re.escape(expected)):
            import_original_checkpoint(folder=tmp_path / "m", **{**good, **changed})  # type: ignore[arg-type]
        assert not (tmp_path / "m").exists()


def test_the_published_dimensions_are_read_from_the_tensors() -> None:
    """XLM-RoBERTa base and ResNet-50, without memory for them: 528 tensors with three never used."""
    with torch.device("meta"):
        net = FusionNet(
            ModelConfig(question_config=XLMR, picture_config={"architecture": "resnet50"}, num_classes=7)
        )
    first = {
        "question": "bert",
        "picture": "i_model",
        "hidden": "linear",
        "norm": "h_layer_norm",
        "out": "out_linear",
    }
    named = [(name.partition("."), tensor) for name, tensor in net.state_dict().items()]
    tensors = {f"{first[one]}.{rest}": tensor for (one, _, rest), tensor in named}
    assert len(tensors) == 528 - 3
    config = config_from_tensors(tensors, Path("x.pt"))
    check_tensor_shapes(tensors, config, Path("x.pt"))
    assert config.question_config.items() >= XLMR.items()
    assert config.picture_config == {"architecture": "resnet50"}
    assert (config.hidden_size, config.num_classes, config.image_size, config.max_text) == (1024, 7, 224, 50)

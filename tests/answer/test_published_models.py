"""A published model by its name on the hub: found by every command, asked for captions, in 4 bits, or missing."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import kovqa
import numpy as np
import pytest
from kovqa_core.answer.fingerprint_differences import name_differences
from kovqa_core.answer.job import AnswerJob, AnswerOptions, run_answer_job
from kovqa_core.answer.local import answer_one_image, load_model, local_backend
from kovqa_core.answer.model_fingerprint import model_fingerprint
from kovqa_core.data.decoding import DecodingOptions
from kovqa_core.data.example import Example
from kovqa_core.errors import AssetError, MachineError, ModelError, SettingsError
from kovqa_core.models.checkpoint_info import CheckpointInfo, write_checkpoint_info
from kovqa_core.serve.served_models import load_served_models
from typer.testing import CliRunner

from kovqa_cli.main import app
from tests.answer.conftest import AnswerFolder
from tests.conftest import Small
from tests.hub_cache import COMMIT, cache_model

NAME = Path("team/vlm")
KOREAN, ENGLISH = "이 이미지를 한 문장으로 설명하세요.", "Describe this image in one sentence."
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)


@pytest.fixture
def image(small: Small) -> Path:
    return next((small.root / "images").glob("*.png"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Lays a model folder into the hub's cache, as team/vlm."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return lambda folder: cache_model(tmp_path / "cache", str(NAME), folder)


def asked(loaded_processor: object, image: Path) -> str:
    """The text of a prompt for an image, with a question and a context that a caption has no use for."""
    example = Example("", str(image), "무슨 색인가요?", context="설명서")
    item = loaded_processor.encode(example, Path("/"), train=False, rng=np.random.default_rng(0))  # type: ignore[attr-defined]
    [text] = [part["text"] for part in item.turns[0]["content"] if part["type"] == "text"]
    return str(text)


def test_a_chat_model_is_asked_for_captions(answer_folder: AnswerFolder, image: Path) -> None:
    folder = answer_folder("vlm")
    for instruction, text in ((None, KOREAN), ("en", ENGLISH)):
        loaded = load_model(AnswerOptions(folder, "caption", instruction=instruction))
        assert asked(loaded.processor, image) == text
        assert loaded.info.task == "caption" and loaded.model.generator.max_new_tokens == 64  # type: ignore[attr-defined]
    question = load_model(AnswerOptions(folder))
    assert asked(question.processor, image).startswith("설명서\n무슨 색인가요?\n")
    korean, english = (
        model_fingerprint(folder, AnswerOptions(folder, "caption", instruction=name)) for name in ("ko", "en")
    )
    assert name_differences(korean, english) == ["decoded in another way"]
    assert not name_differences(korean, model_fingerprint(folder, AnswerOptions(folder, "caption")))


def test_open_answers_are_asked_for_without_a_line_and_may_be_long(
    answer_folder: AnswerFolder, image: Path
) -> None:
    folder, plain = (
        answer_folder("vlm"),
        model_fingerprint(answer_folder("vlm"), AnswerOptions(answer_folder("vlm"))),
    )
    options = AnswerOptions(folder, instruction="none", max_new_tokens=40)
    loaded = load_model(options)
    assert asked(loaded.processor, image) == "설명서\n무슨 색인가요?"
    assert loaded.model.generator.max_new_tokens == 40  # type: ignore[attr-defined]
    assert name_differences(plain, model_fingerprint(folder, options)) == ["decoded in another way"]
    assert name_differences(plain, model_fingerprint(folder, replace(options, instruction=None))) != []
    with pytest.raises(SettingsError, match="chosen, and not written"):
        load_model(replace(options, decoding=DecodingOptions(choices=True)))
    for family in ("beit3", "fusion"):
        with pytest.raises(SettingsError, match=f"family {family} takes no instruction"):
            load_model(replace(options, model=answer_folder(family)))


def test_captions_of_a_model_trained_for_answers_come_with_a_word(
    answer_folder: AnswerFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = cache_model(tmp_path, "team/vlm", answer_folder("vlm"))
    write_checkpoint_info(folder, CheckpointInfo("vlm", "vqa", recipe="dacon-vlm-lora"))
    load_model(AnswerOptions(folder, "caption"))
    assert "trained to answer questions (recipe dacon-vlm-lora)" in capsys.readouterr().err


def test_others_caption_only_what_they_were_trained_to(answer_folder: AnswerFolder) -> None:
    for family in ("beit3", "fusion"):
        with pytest.raises(ModelError, match="was trained for vqa, not for caption"):
            load_model(AnswerOptions(answer_folder(family), "caption"))
    with pytest.raises(SettingsError, match="takes no instruction"):
        load_model(AnswerOptions(answer_folder("caption"), "caption", instruction="en"))


def test_a_table_is_captioned_by_name(
    answer_folder: AnswerFolder, hub: Callable[[Path], Path], image: Path, tmp_path: Path
) -> None:
    hub(answer_folder("vlm"))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / image.name).symlink_to(image)
    options = AnswerOptions(NAME, "caption")
    run_answer_job(AnswerJob(tmp_path / "images", tmp_path / "c.jsonl", options), local_backend(options))
    [row] = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text("utf-8").splitlines()]
    record = json.loads((tmp_path / ".c.jsonl.json").read_text("utf-8"))["fingerprint"]
    assert (record["hub"], record["instruction"]) == (f"team/vlm@{COMMIT}", KOREAN)
    model = kovqa.load(str(NAME), task="caption")
    assert model.caption(image).text == row["caption"]


def test_a_server_calls_models_by_their_names(
    answer_folder: AnswerFolder, hub: Callable[[Path], Path]
) -> None:
    snapshot = hub(answer_folder("vlm"))
    models = load_served_models([NAME, snapshot, answer_folder("caption")], AnswerOptions())
    assert list(models)[:2] == ["team/vlm", "team/vlm-2"]
    assert [model.task for model in models.values()] == ["vqa", "vqa", "caption"]


# ------------------------------------------------------------------------------ in 4 bits


def test_families_without_a_4_bit_form_refuse_it(answer_folder: AnswerFolder) -> None:
    for family, task in (("beit3", "vqa"), ("caption", "caption"), ("fusion", "vqa")):
        with pytest.raises(SettingsError, match="have no 4-bit form") as caught:
            load_model(AnswerOptions(answer_folder(family), task, load="4bit"))
        assert caught.value.hint == "leave out --load 4bit"
    with pytest.raises(SettingsError, match="--load 8bit"):
        load_model(AnswerOptions(answer_folder("vlm"), load="8bit"))


def test_answers_of_two_forms_never_mix(answer_folder: AnswerFolder) -> None:
    folder = answer_folder("vlm")
    whole, four = (model_fingerprint(folder, AnswerOptions(folder, load=form)) for form in ("auto", "4bit"))
    assert name_differences(whole, four) == ["with weights in another form (auto, not 4bit; see --load)"]


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is here")
def test_4_bits_without_their_library_name_the_extra(answer_folder: AnswerFolder) -> None:
    with pytest.raises(MachineError, match="need bitsandbytes") as caught:
        load_model(AnswerOptions(answer_folder("vlm"), load="4bit"))
    assert "pip install 'kovqa[qlora]'" in caught.value.hint


def test_what_is_quantised_already_is_not_quantised_again(
    answer_folder: AnswerFolder, tmp_path: Path
) -> None:
    folder = cache_model(tmp_path, "team/vlm", answer_folder("vlm"))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "fp8"}})
    )
    with pytest.raises(SettingsError, match="published with quantised weights"):
        load_model(AnswerOptions(folder, load="4bit"))


@needs_bitsandbytes
def test_a_4_bit_model_answers(small: Small, tmp_path: Path, image: Path) -> None:
    from tests.models.vlm.tiny_vlm import write_tiny_vlm

    folder = write_tiny_vlm("qwen3_vl", tmp_path / "wide", ("무슨 색인가요? 빨간색",) * 50, wide=True)
    whole, four = (
        load_model(AnswerOptions(folder, load=form, precision="fp32")) for form in ("auto", "4bit")
    )
    sizes = [sum(p.numel() * p.element_size() for p in each.model.parameters()) for each in (whole, four)]
    assert sizes[1] < 0.5 * sizes[0]
    assert answer_one_image(four, image, "무슨 색인가요?").text


# ------------------------------------------------------------------------------ without a network

_TABLE = ["--input", "t.jsonl", "-o", "a.jsonl"]
_QUESTION = ["-i", "IMAGE", "--question", "무슨 색인가요?"]


@pytest.mark.parametrize(
    "words",
    [
        ["predict", *_QUESTION], ["predict", *_TABLE], ["predict", *_TABLE, "-p", "cpu"], ["caption", "-i", "IMAGE"],
        ["caption", *_TABLE], ["chat", "-i", "IMAGE"], ["serve", "--port", "0"], ["explain", *_QUESTION],
    ],
    ids=lambda words: " ".join(words[:2]),
)  # fmt: skip
def test_a_model_that_is_not_here_is_one_line_that_says_how_to_bring_it(
    words: Sequence[str], hub: Callable[[Path], Path], image: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.jsonl").write_text(json.dumps({"id": "1", "image": image.name, "question": "색?"}))
    typed = [str(image) if word == "IMAGE" else word for word in words]
    if "--input" in words:
        typed += ["--images", str(image.parent)]
    error = CliRunner().invoke(app, [*typed, "--model", "team/absent@v2"]).exception
    assert isinstance(error, AssetError) and error.exit_code == 5
    assert error.message.startswith("team/absent@v2 is neither a folder here nor a model of the hub")
    assert "kovqa download hf:team/absent@v2;" in error.hint and "--from FOLDER" in error.hint
    assert not (tmp_path / "a.jsonl").exists()


def test_so_it_is_in_python(hub: Callable[[Path], Path]) -> None:
    with pytest.raises(AssetError, match="team/absent is neither"):
        kovqa.load("team/absent")

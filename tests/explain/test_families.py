"""Every family scores a given answer as it would give it, and says where it comes from."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kovqa_core.answer.ask_model import ImageQuestion
from kovqa_core.answer.job import AnswerOptions
from kovqa_core.answer.local import LoadedModel, load_model
from kovqa_core.data.decoding import DecodingOptions
from kovqa_core.errors import SettingsError
from kovqa_core.explain.explanation import explain_answer
from kovqa_core.explain.score_items import AnswerScorer, answering
from kovqa_core.index.reader import open_index
from kovqa_core.models import family
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.beit3.caption import Beit3CaptionProcessor, masked_token_logits
from kovqa_core.models.beit3.explain import _caption_prefixes, _layer_with_attention
from kovqa_core.models.beit3.network import MultiwayEncoder
from kovqa_core.models.checkpoint_info import CheckpointInfo, read_checkpoint_info
from kovqa_core.models.explain_functions import ExplainFunctions
from kovqa_core.models.image_transforms import normalise_pixels
from kovqa_core.models.vlm.model import VlmModel
from kovqa_core.settings.resolve import resolve_settings
from PIL import Image

from tests.conftest import FUSION, SMALL, VLM, Small

CASES = {
    "beit3:vqa": ("tiny", (*SMALL, "model.image_size=64")),
    "beit3:caption": ("tiny-caption", (*SMALL, "model.image_size=64")),
    "fusion": ("nia", FUSION),
    "vlm": ("tiny-vlm-scratch", VLM),
    "vlm:qwen3_vl": ("tiny-vlm", VLM),
    "vlm:llava": ("tiny-vlm", VLM),
}
QUESTION = "분홍색 별은 어디에 있나요?"


@dataclass(frozen=True)
class Untrained:
    """A small model as it is made, loaded from its checkpoint; of a captioner no question."""

    loaded: LoadedModel
    question: str

    @property
    def functions(self) -> ExplainFunctions[family.FamilyModel, family.ExampleProcessor]:
        of_family = family.load_family(read_checkpoint_info(self.loaded.folder).family)
        assert of_family.explain is not None
        return of_family.explain


@pytest.fixture(scope="module", params=CASES)
def untrained(
    request: pytest.FixtureRequest, small: Small, tmp_path_factory: pytest.TempPathFactory
) -> Untrained:
    name, sets = CASES[request.param]
    index = small.captions if name == "tiny-caption" else small.index
    flags = {"data.index": str(index), "model.image_loading": "as_stored"}
    if not name.startswith("tiny-vlm"):
        flags["model.tokenizer"] = str(small.tokenizer)
    elif name == "tiny-vlm":
        flags["model.base"] = str(request.getfixturevalue("tiny_vlm")(request.param.partition(":")[2]))
    recipe = resolve_settings(name, "cpu", sets, flags).recipe
    answers = open_index(index).answers() if recipe.task == "vqa" else []
    model, processor, _ = family.create_model(recipe, answers)
    folder = tmp_path_factory.mktemp("모델")
    family.write_model_folder(model, processor, folder, CheckpointInfo(recipe.family, recipe.task))
    loaded = load_model(AnswerOptions(folder, recipe.task, precision="fp32"))
    return Untrained(loaded, QUESTION if recipe.task == "vqa" else "")


def encode(untrained: Untrained, image: Path, question: str) -> object:
    example = ImageQuestion(image, question).to_example()
    rng = np.random.default_rng(0)
    return untrained.loaded.processor.encode(example, Path(), train=False, rng=rng)


def test_an_answer_is_scored_as_it_would_be_given(untrained: Untrained, small: Small) -> None:
    loaded, functions = untrained.loaded, untrained.functions
    images = sorted((small.root / "images").glob("*.png"))[:3]
    longer = f"{untrained.question} {untrained.question}" if untrained.question else ""
    items = [
        encode(untrained, image, question)
        for image, question in zip(images, (untrained.question, longer, untrained.question), strict=True)
    ]
    batch = loaded.processor.collate(items)
    text = "노란 별이 있습니다." if not untrained.question else "예"
    if isinstance(loaded.model, VlmModel):
        # A list's scores are among all tokens, a free answer's among those that it may have.
        loaded.model.generator = replace(loaded.model.generator, suppress_tokens=[])
    with answering(loaded):
        scores = functions.score_answer(loaded.model, loaded.processor, batch, text)
        expected = [known_log_odds(loaded, loaded.processor.collate([item]), text) for item in items]
    assert scores.dtype == torch.float32
    assert scores.tolist() == pytest.approx(expected, abs=2e-4)  # padding of a batch: rounding alone
    same = functions.with_pixels(items[0], functions.item_pixels(items[0]))
    white = functions.with_pixels(items[0], np.full_like(functions.item_pixels(items[0]), 255))
    scorer = AnswerScorer(loaded, functions, text)
    first, again, other = scorer.score_items([lambda: items[0], lambda: same, lambda: white])
    assert first == again
    assert first != other


def known_log_odds(loaded: LoadedModel, batch: ModelBatch, text: str) -> float:
    """By another way: what the model itself says, or the arithmetic that captions are learned by."""
    info = read_checkpoint_info(loaded.folder)
    functions, model, processor = family.load_family(info.family), loaded.model, loaded.processor
    if isinstance(processor, Beit3CaptionProcessor):
        return caption_log_odds(model, processor, batch, text)
    if functions.set_decoding is not None:  # of a list of one answer the score is its probability
        functions.set_decoding(model, processor, DecodingOptions(answers=(text,)))
        (answer,) = model.answer(batch)
        functions.set_decoding(model, processor, DecodingOptions())
        probability = answer.score
    else:
        assert functions.set_top_k is not None
        functions.set_top_k(model, 999)
        (answer,) = model.answer(batch)
        functions.set_top_k(model, 1)
        probability = dict(answer.likeliest)[text]
    return math.log(probability / (1 - probability))


def caption_log_odds(model: Any, processor: Beit3CaptionProcessor, batch: ModelBatch, text: str) -> float:
    """Every token by a pass of its own, in which it is masked and all after it are missing."""
    mask_id = processor.tokenizer.mask_id
    token_ids = processor.tokenizer.encode_with_specials(text, processor.config.max_text)
    total = 0.0
    for place in range(1, len(token_ids)):
        tensors = {
            "image": batch.tensors["image"],
            "tokens": torch.tensor([[*token_ids[:place], mask_id]]),
            "padding": None,
            "noise": None,
            "positions": torch.tensor([[0, place]]),
        }
        logits = masked_token_logits(model.net, ModelBatch(tensors, ["1"]))[0, : mask_id + 1]
        total += float(logits.log_softmax(-1)[token_ids[place]])
    return total - math.log(-math.expm1(total))


@pytest.mark.parametrize("untrained", [name for name in CASES if not name.startswith("vlm:")], indirect=True)
def test_an_explanation_is_the_same_each_time_and_as_people_see_the_image(
    untrained: Untrained, small: Small, tmp_path: Path
) -> None:
    loaded, question = untrained.loaded, untrained.question.partition(" ")[0]
    image, turned = Image.open(min((small.root / "images").glob("*.png"))), Image.Exif()
    turned[0x0112] = 6  # to be shown turned by a quarter, clockwise
    image.save(tmp_path / "as it is.png")
    image.save(tmp_path / "turned.png", exif=turned)
    plain = explain_answer(loaded, tmp_path / "as it is.png", question)
    shown = explain_answer(loaded, (tmp_path / "turned.png").read_bytes(), question)
    assert (plain.answer, plain.method) == (shown.answer, "occlusion")
    assert np.array_equal(np.rot90(plain.heat, -1), shown.heat)  # these models read images as they are stored
    assert plain.heat.dtype == np.float32
    assert plain.heat.min() >= 0
    assert [each.word for each in plain.words] == question.split()
    assert explain_answer(
        loaded, tmp_path / "as it is.png", question, answer=plain.answer.text
    ).largest_drop == (plain.largest_drop)


def test_rollout_is_of_the_forward_pass_itself(untrained: Untrained, small: Small) -> None:
    loaded = untrained.loaded
    net: Any = getattr(loaded.model, "net", None)
    image = min((small.root / "images").glob("*.png"))
    if not isinstance(getattr(net, "encoder", None), MultiwayEncoder):
        with pytest.raises(SettingsError, match="has no attention rollout"):
            explain_answer(loaded, image, untrained.question, method="rollout")
        return
    tensors = loaded.processor.collate([encode(untrained, image, untrained.question)]).tensors
    pixels = normalise_pixels(tensors["image"])
    with answering(loaded):
        if untrained.question:
            streams, mask, _ = net.encoder.embed(pixels, tensors["tokens"], tensors["padding"], None)
            expected = net.encoder.class_token(pixels, tensors["tokens"], tensors["padding"], None)
        else:
            streams, mask = _caption_prefixes(net.encoder, loaded.processor, pixels, "노란 별")[-1]
            token_ids = loaded.processor.tokenizer.encode_with_specials("노란 별", 24)
            tokens = torch.tensor([[*token_ids[:-1], loaded.processor.tokenizer.mask_id]])
            expected = net.hidden_states(pixels, tokens, None)[:, -1]
        for layer in net.encoder.layers:
            streams, attention = _layer_with_attention(layer, streams, mask)
            assert attention.sum(-1).min().item() == pytest.approx(1, abs=1e-5)
        read = streams[0][:, 0] if untrained.question else net.encoder.norm["text"](streams[1])[:, -1]
    assert torch.allclose(read, expected, atol=1e-5)
    sharper = replace(loaded, model=copy.deepcopy(loaded.model))
    for layer in sharper.model.net.encoder.layers:  # as it is made, it attends to all patches alike
        layer.vision.qkv.weight.data *= 50
    explanation = explain_answer(sharper, image, untrained.question, method="rollout")
    assert (explanation.heat.min(), explanation.heat.max()) == (0, 1)
    assert math.isnan(explanation.largest_drop)

"""Examples -> batches: tokens, classes, images; all randomness from the generator passed in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kovqa_core.data.example import Example
from kovqa_core.errors import DataError
from kovqa_core.models.beit3.vqa import Beit3VqaProcessor
from kovqa_core.models.xlmr_tokenizer import BOS_ID, EOS_ID, PAD_ID, load_xlmr_tokenizer
from kovqa_core.settings.recipe import DataSettings
from PIL import Image

from tests import parity

ANSWERS = ["예", "아니요", "왼쪽"]


def processor(data: DataSettings | None = None) -> Beit3VqaProcessor:
    tokenizer = load_xlmr_tokenizer(parity.path("tokenizer.model"))
    return Beit3VqaProcessor(parity.config(), tokenizer, ANSWERS, data or DataSettings())


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one image, dark to the left and bright to the right."""
    columns = np.linspace(0, 255, 90).astype(np.uint8)
    Image.fromarray(np.tile(columns[None, :, None], (70, 1, 3))).save(tmp_path / "a.png")
    return tmp_path


def ask(question: str = "색이 무엇인가요?", **answers: float) -> Example:
    return Example("q1", "a.png", question, answers or {"예": 1.0})


def test_an_encoded_example(folder: Path) -> None:
    side = parity.config().image_size
    item = processor().encode(ask(예=0.6, 모름=1.0, 왼쪽=0.3), folder, train=False, rng=generator())
    assert item.id == "q1"
    assert (item.image.shape, item.image.dtype) == ((3, side, side), np.uint8)
    assert (item.tokens[0], item.tokens[-1]) == (BOS_ID, EOS_ID)
    assert item.labels == [(0, 0.6), (2, 0.3)]


@pytest.mark.parametrize("train", [False, True])
def test_an_image_is_upright_unless_its_model_was_trained_on_stored_ones(folder: Path, train: bool) -> None:
    """Dark to the left becomes dark above by EXIF's orientation 6."""
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.open(folder / "a.png").save(folder / "a.png", exif=turned)
    tokenizer = load_xlmr_tokenizer(parity.path("tokenizer.model"))
    varies = {}
    for loading in ("as_shown", "as_stored"):
        config = parity.config().model_copy(update={"image_loading": loading})
        made = Beit3VqaProcessor(config, tokenizer, ANSWERS, DataSettings(augment="crop"))
        pixels = made.encode(ask(), folder, train=train, rng=generator()).image
        varies[loading] = (int(np.ptp(pixels[0, :, 5])) > 60, int(np.ptp(pixels[0, 5])) > 60)
    assert varies == {"as_shown": (True, False), "as_stored": (False, True)}


def test_answers_find_their_classes_in_normal_form(folder: Path) -> None:
    """Letters in the index, none in the class list; the scores of one class add up to at most 1."""
    tokenizer = load_xlmr_tokenizer(parity.path("tokenizer.model"))
    made = Beit3VqaProcessor(parity.config(), tokenizer, ["open 24h", "Mac", "mac"], DataSettings())
    example = Example(
        "q1", "a.png", "?", {"OPEN 24H": 0.9, "Open  24h": 0.6, "MAC": 0.3, "Mac": 0.3, "x": 1.0}
    )
    item = made.encode(example, folder, train=False, rng=generator())
    assert item.labels == [(0, 1.0), (2, 0.3), (1, 0.3)]


def test_an_empty_question_is_framed() -> None:
    assert processor().tokenizer.encode_with_specials("", 64) == [BOS_ID, EOS_ID]


def test_decomposed_questions_give_the_same_tokens(folder: Path) -> None:
    import unicodedata

    made = processor()
    composed, decomposed = (
        made.encode(
            ask(unicodedata.normalize(form, "강아지가 몇 마리인가요?")), folder, train=False, rng=generator()
        )
        for form in ("NFC", "NFD")
    )
    assert composed.tokens == decomposed.tokens


@pytest.mark.parametrize("augment", ["none", "crop", "randaug"])
def test_training_images_are_the_generators_alone(folder: Path, augment: str) -> None:
    made = processor(DataSettings(augment=augment, flip=True))
    once, again = (
        [made.encode(ask(), folder, train=True, rng=generator(s)) for s in range(8)] for _ in range(2)
    )
    for a, b in zip(once, again, strict=True):
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.noise, b.noise)
    assert len({item.image.tobytes() for item in once}) > 1
    assert len({item.noise.tobytes() for item in once}) == 8


def test_validation_images_are_never_augmented(folder: Path) -> None:
    made = processor(DataSettings(augment="randaug", flip=True))
    plain = processor().encode(ask(), folder, train=False, rng=generator()).image
    for seed in range(8):
        item = made.encode(ask(), folder, train=False, rng=generator(seed))
        assert np.array_equal(item.image, plain)


def count_flipped(made: Beit3VqaProcessor, example: Example, folder: Path) -> int:
    """Of 40 encodings, how many are brighter on the left."""
    items = [made.encode(example, folder, train=True, rng=generator(seed)).image for seed in range(40)]
    half = parity.config().image_size // 2
    return sum(bool(i[:, :, :half].mean() > i[:, :, half:].mean()) for i in items)


def test_half_of_the_images_are_flipped(folder: Path) -> None:
    assert 8 < count_flipped(processor(DataSettings(flip=True)), ask(), folder) < 32
    assert count_flipped(processor(), ask(), folder) == 0


@pytest.mark.parametrize(
    "example",
    [ask("왼쪽에 무엇이 있나요?"), ask("Is it on the right?"), ask("어디에 있나요?", 왼쪽=1.0)],
)
def test_questions_about_left_and_right_are_not_flipped(folder: Path, example: Example) -> None:
    assert count_flipped(processor(DataSettings(flip=True)), example, folder) == 0


def test_an_image_that_cannot_be_read_is_named_with_the_id(folder: Path) -> None:
    for name in ("gone.png", "text.png"):
        (folder / "text.png").write_text("not an image")
        with pytest.raises(DataError) as caught:
            processor().encode(Example("q7", name, "?", {}), folder, train=True, rng=generator())
        assert caught.value.message.startswith("id q7: ")
        assert str(folder / name) in caught.value.message


def test_a_batch_is_as_long_as_its_longest_question(folder: Path) -> None:
    made = processor()
    questions = ["?", "강아지가 몇 마리인가요?"]
    items = [made.encode(ask(question), folder, train=False, rng=generator()) for question in questions]
    tokens, padding = (made.collate(items).tensors[name] for name in ("tokens", "padding"))
    assert tokens is not None
    assert padding is not None
    assert tokens.shape == padding.shape == (2, len(items[1].tokens))
    assert torch.equal(padding, tokens == PAD_ID)
    assert tokens[0, : len(items[0].tokens)].tolist() == items[0].tokens


def test_a_batch_without_padding_has_no_mask(folder: Path) -> None:
    made = processor()
    items = [made.encode(ask(), folder, train=False, rng=generator()) for _ in range(2)]
    assert made.collate(items).tensors["padding"] is None


def test_a_batch_lists_the_classes_of_each_row(folder: Path) -> None:
    made = processor()
    rows = [ask(예=1.0), ask(모름=1.0), ask(아니요=0.3, 왼쪽=0.6)]
    batch = made.collate([made.encode(row, folder, train=False, rng=generator()) for row in rows])
    positions, scores = batch.tensors["label_positions"], batch.tensors["label_scores"]
    assert positions is not None
    assert scores is not None
    assert positions.tolist() == [[0, 0], [2, 1], [2, 2]]
    assert scores.tolist() == pytest.approx([1.0, 0.3, 0.6])
    assert batch.ids == ["q1"] * 3

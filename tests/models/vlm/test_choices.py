"""Choices by letter, by text, beside an empty image; and training on their letters alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kovqa_core.data.decoding import DecodingOptions
from kovqa_core.data.example import Answer, Example
from kovqa_core.errors import ModelError, SettingsError
from kovqa_core.index.reader import open_index
from kovqa_core.models import family
from kovqa_core.models.vlm import choice_scores
from kovqa_core.models.vlm.processor import IGNORE_INDEX

from tests.conftest import Small
from tests.models.vlm.test_generation import log_likelihood
from tests.models.vlm.test_vlm import tiny_vlm_recipe

CHOICES: tuple[Sequence[str], ...] = (("빨간색", "빨간 원 두 개와 파란 네모", "파랑"), ("예", "아니요"), ())
LETTERS = ("model.choices=true", "model.loss=letters", "model.dtype=fp32")


class Asked:
    """A tiny model, and three questions of different lengths."""

    def __init__(self, small: Small, base: Path, *sets: str) -> None:
        recipe = tiny_vlm_recipe(small, base, "model.dtype=fp32", *sets)
        self.model: Any
        self.processor: Any
        self.model, self.processor, _ = family.create_model(recipe, [])
        self.model.eval()
        self.index = open_index(small.index)
        rows = list(self.index.split("train"))[:3]
        self.rows = [
            replace(
                row, choices=choices, question=row.question * (n + 1),
                answers={choices[1]: 1.0} if choices else row.answers,
            )
            for n, (row, choices) in enumerate(zip(rows, CHOICES, strict=True))
        ]  # fmt: skip

    def batch(self, rows: Sequence[Example], *, train: bool = False, seed: int = 0) -> Any:
        items = [
            self.processor.encode(row, self.index.images, train=train, rng=np.random.default_rng([seed, n]))
            for n, row in enumerate(rows)
        ]
        return self.processor.collate(items)

    def answers(self, rows: Sequence[Example], decoding: DecodingOptions, top_k: int = 3) -> list[Answer]:
        vlm = family.load_family("vlm")
        assert vlm.set_decoding is not None
        vlm.set_decoding(self.model, self.processor, decoding)
        self.model.top_k = top_k
        with torch.inference_mode():
            answers: list[Answer] = self.model.answer(self.batch(rows))
        return answers


@pytest.fixture(scope="module", params=["llava", "qwen3_vl"])
def asked(request: pytest.FixtureRequest, small: Small, tiny_vlm: Callable[[str], Path]) -> Asked:
    return Asked(small, tiny_vlm(request.param))


def shares(log_probabilities: Sequence[float]) -> list[float]:
    values = np.exp(np.array(log_probabilities) - max(log_probabilities))
    return list(values / values.sum())


@pytest.mark.parametrize("calibrated", [False, True])
def test_whole_texts_are_compared_token_by_token(asked: Asked, *, calibrated: bool) -> None:
    """As one forward pass for each choice and row has it; alone as in a batch."""
    decoding = DecodingOptions(choices=True, choice_score="text", calibrated=calibrated)
    answers = asked.answers(asked.rows, decoding)
    batch, blank = choice_scores.split_blank_images(asked.batch(asked.rows))
    assert (blank is not None) == calibrated
    for row, choices in enumerate(CHOICES[:2]):
        expected = [log_likelihood(asked.model, asked.model.prompts(batch), row, text) for text in choices]
        if blank is not None:
            unseen = [log_likelihood(asked.model, asked.model.prompts(blank), row, text) for text in choices]
            expected = [seen - one for seen, one in zip(expected, unseen, strict=True)]
        found = dict(answers[row].likeliest)
        assert [found[text] for text in choices] == pytest.approx(shares(expected), abs=2e-5)
        assert answers[row].text == choices[int(np.argmax(expected))]
        (alone,) = asked.answers([asked.rows[row]], decoding)
        assert dict(alone.likeliest) == pytest.approx(found, abs=2e-5)
    (free,) = asked.answers([asked.rows[2]], DecodingOptions())
    assert answers[2].text == free.text and answers[2].likeliest == ()


def test_letters_are_calibrated_beside_a_grey_image_of_the_same_size(asked: Asked) -> None:
    rows = asked.rows[:2]
    seen, calibrated = (
        asked.answers(rows, DecodingOptions(choices=True, calibrated=value)) for value in (False, True)
    )
    grey = asked.batch(rows)
    item = asked.processor.encode(rows[0], asked.index.images, train=False, rng=np.random.default_rng(0))
    _, blank = choice_scores.split_blank_images(grey)
    assert blank is not None and blank.tensors["input_ids"].equal(grey.tensors["input_ids"])
    assert {turn["type"] for turn in item.turns[0]["content"]} == {"image", "text"}
    with torch.inference_mode():
        unseen = choice_scores.letter_scores(
            asked.model.generator, asked.model.prompts(blank), [row.choices for row in rows]
        ).softmax(1)
    for row, (one, other) in enumerate(zip(seen, calibrated, strict=True)):
        choices = rows[row].choices
        ratios = [dict(one.likeliest)[text] / float(unseen[row, n]) for n, text in enumerate(choices)]
        expected = [ratio / sum(ratios) for ratio in ratios]
        assert [dict(other.likeliest)[text] for text in choices] == pytest.approx(expected, abs=1e-5)
        (alone,) = asked.answers([rows[row]], DecodingOptions(choices=True, calibrated=True))
        assert dict(alone.likeliest) == pytest.approx(dict(other.likeliest), abs=2e-5)


def test_the_loss_of_letters_is_among_letters_alone(small: Small, tiny_vlm: Callable[[str], Path]) -> None:
    """A row without choices learns its answer's tokens; both are one mean over rows."""
    asked = Asked(small, tiny_vlm("qwen3_vl"), *LETTERS)
    batch = asked.batch(asked.rows, train=True)
    net, labels = asked.model.generator.net, batch.tensors["labels"]
    with torch.no_grad():
        loss = float(asked.model(batch, 0)["loss"])
        inputs = {n: t for n, t in batch.tensors.items() if n not in ("labels", "prompt_lengths")}
        logits = net(**inputs).logits[:, :-1].float()
    letters = [asked.processor.hf.tokenizer.encode(each, add_special_tokens=False)[0] for each in "ABC"]
    expected = []
    for row, choices in enumerate(CHOICES):
        at = (labels[row, 1:] != IGNORE_INDEX).nonzero()[:, 0]
        if choices:
            expected.append(-float(logits[row, at[0], letters[: len(choices)]].log_softmax(-1)[1]))
        else:
            chances = logits[row, at].log_softmax(-1).gather(1, labels[row, 1:][at, None])
            expected.append(-float(chances.mean()))
    assert loss == pytest.approx(sum(expected) / 3, abs=1e-5)
    assert asked.model.loss_weight(batch, 0) == 3.0
    batch.tensors["labels"][0][batch.tensors["labels"][0] == letters[1]] = 5
    with pytest.raises(ModelError, match="another token than the tokenizer makes of the letter alone"):
        asked.model(batch, 0)
    for setting in ("model.loss=letters", "model.shuffle_choices=true"):
        with pytest.raises(SettingsError, match="need choices: true"):
            family.create_model(tiny_vlm_recipe(small, tiny_vlm("qwen3_vl"), setting), [])


def test_training_rows_list_their_choices_in_an_order_of_their_own(
    small: Small, tiny_vlm: Callable[[str], Path]
) -> None:
    """The same at the same epoch and row; the answer's letter moves along, and questions to be answered stay."""
    asked = Asked(small, tiny_vlm("qwen3_vl"), "model.choices=true", "model.shuffle_choices=true")
    row = replace(asked.rows[0], choices=["하나", "둘", "셋", "넷"], answers={"셋": 1.0})

    def prompt(seed: int, *, train: bool = True) -> tuple[str, str]:
        rng = np.random.default_rng(seed)
        turns = asked.processor.encode(row, asked.index.images, train=train, rng=rng).turns
        return turns[0]["content"][1]["text"], turns[1]["content"][0]["text"] if train else ""

    assert prompt(5) == prompt(5)
    seen = [prompt(seed) for seed in range(40)]
    assert all(f"{letter}. 셋\n" in f"{text}\n" for text, letter in seen)
    assert {letter for _, letter in seen} == set("ABCD")
    assert len({text for text, _ in seen}) > 10
    assert "A. 하나\nB. 둘\nC. 셋\nD. 넷" in prompt(3, train=False)[0]

"""Ways to answer: greedy, sampled, from a list, by letter, by vote."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kovqa_core.data.example import Answer
from kovqa_core.errors import SettingsError
from kovqa_core.evaluate.ensemble import vote_answers
from kovqa_core.index.reader import open_index
from kovqa_core.models import family
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.vlm import choice_scores, generation
from kovqa_core.models.vlm.processor import append_answers, left_pad_prompts

from tests.conftest import Small
from tests.models.vlm.test_vlm import tiny_vlm_recipe

ANSWERS = ["빨간색", "빨간 원", "파란색", "두 개", "세 개", "빨간"]


@pytest.fixture(scope="module", params=["llava", "qwen3_vl", "gemma3", "internvl"])
def model(
    request: pytest.FixtureRequest, small: Small, tiny_vlm: Callable[[str], Path]
) -> tuple[family.FamilyModel, ModelBatch]:
    model, processor, _ = family.create_model(tiny_vlm_recipe(small, tiny_vlm(request.param)), [])
    index = open_index(small.index)
    rng = np.random.default_rng(0)
    items = [processor.encode(e, index.images, train=False, rng=rng) for e in list(index.split("val"))[:3]]
    return model.eval(), processor.collate(items)


def likelihood(model: family.FamilyModel, inputs: dict[str, torch.Tensor], row: int, answer: str) -> float:
    """Probability of an answer and its end after one prompt."""
    return math.exp(log_likelihood(model, inputs, row, answer))


def log_likelihood(
    model: family.FamilyModel, inputs: dict[str, torch.Tensor], row: int, answer: str
) -> float:
    """Its logarithm: token by token, in one forward pass of the prompts padded on the left."""
    generator = model.generator  # type: ignore[attr-defined]
    new_ids = [*generator.tokenizer.encode(answer, add_special_tokens=False), generator.eos_token_ids[0]]
    prompt_length = inputs["input_ids"].shape[1]
    extended = {}
    for name, value in inputs.items():
        if value.shape[:2] == (len(inputs["input_ids"]), prompt_length) and name.endswith(("_ids", "_mask")):
            added = (
                torch.tensor(new_ids)
                if name == "input_ids"
                else torch.full((len(new_ids),), int(name.endswith("mask")))
            )
            value = torch.cat([value, added.expand(len(value), -1)], 1)
        extended[name] = value
    with torch.inference_mode():
        logits = generator.net(**extended).logits[row, prompt_length - 1 : -1].float()
    return float(logits.log_softmax(-1)[range(len(new_ids)), new_ids].sum())


def test_greedy_scores_are_the_mean_probability_of_the_tokens(
    model: tuple[family.FamilyModel, ModelBatch],
) -> None:
    net, batch = model
    generator, inputs = net.generator, net.prompts(batch)  # type: ignore[attr-defined]
    with torch.inference_mode():
        answers = generation.answer_greedily(generator, inputs)
        assert answers == net.answer(batch)
        generated = generator.net.generate(
            **inputs, max_new_tokens=generator.max_new_tokens, do_sample=False, suppress_tokens=generator.suppress_tokens,
            eos_token_id=generator.eos_token_ids, output_scores=True, return_dict_in_generate=True,
        )  # fmt: skip
    new_ids = generated.sequences[:, inputs["input_ids"].shape[1] :]
    probabilities = torch.stack(generated.scores, 1).float().softmax(-1)
    probabilities = probabilities.gather(2, new_ids[..., None])[..., 0]
    for row, answer in enumerate(answers):
        ends = [i for i, token in enumerate(new_ids[row].tolist()) if token in generator.eos_token_ids]
        length = ends[0] + 1 if ends else new_ids.shape[1]
        assert answer.score == pytest.approx(float(probabilities[row, :length].mean()), abs=1e-5)
        assert not set(new_ids[row, :length].tolist()) & set(generator.suppress_tokens)


def test_samples_are_a_function_of_seed_and_id(model: tuple[family.FamilyModel, ModelBatch]) -> None:
    net, batch = model
    inputs = net.prompts(batch)  # type: ignore[attr-defined]

    def sample(seed: int, ids: list[str]) -> list[Answer]:
        with torch.inference_mode():
            return generation.answer_by_sampling(net.generator, inputs, ids, seed, temperature=2.0)  # type: ignore[attr-defined]

    before = torch.random.get_rng_state()
    first = sample(1, batch.ids)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert sample(1, batch.ids) == first
    assert sample(1, ["다른", batch.ids[1], "것"])[1] == first[1]
    assert any(sample(seed, batch.ids) != first for seed in range(2, 6))


def test_samples_have_the_frequencies_of_the_model() -> None:
    """4,000 questions, five tokens, one of them of probability 0."""
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, -torch.inf])
    sampler = generation._GumbelSampler([f"q{n}" for n in range(4000)], 7, 0.5)
    for _ in range(2):  # every step samples anew
        frequencies = sampler(torch.empty(0), logits.expand(4000, 5)).argmax(1).bincount(minlength=5) / 4000
        assert frequencies.tolist() == pytest.approx((logits / 0.5).softmax(0).tolist(), abs=0.025)
        assert frequencies[4] == 0


def test_the_likeliest_of_a_list_is_found_with_its_probability(
    model: tuple[family.FamilyModel, ModelBatch],
) -> None:
    net, batch = model
    inputs = net.prompts(batch)  # type: ignore[attr-defined]
    with torch.inference_mode():
        trie = generation.build_answer_trie(net.generator, ANSWERS)  # type: ignore[attr-defined]
        chosen = generation.choose_from_trie(net.generator, inputs, trie, num_beams=len(ANSWERS))  # type: ignore[attr-defined]
    for row, answer in enumerate(chosen):
        likelihoods = {text: likelihood(net, inputs, row, text) for text in ANSWERS}
        assert answer.text == max(likelihoods, key=lambda text: likelihoods[text])
        assert answer.score == pytest.approx(likelihoods[answer.text], rel=1e-3)


def test_a_list_of_one_is_answered_with_it(model: tuple[family.FamilyModel, ModelBatch]) -> None:
    net, batch = model
    with torch.inference_mode():
        trie = generation.build_answer_trie(net.generator, ["세 개"])  # type: ignore[attr-defined]
        chosen = generation.choose_from_trie(net.generator, net.prompts(batch), trie)  # type: ignore[attr-defined]
    assert {answer.text for answer in chosen} == {"세 개"}


def test_letters_share_their_probability(
    model: tuple[family.FamilyModel, ModelBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among as many as a question has choices."""
    net, batch = model
    inputs = net.prompts(batch)  # type: ignore[attr-defined]
    generator = net.generator  # type: ignore[attr-defined]
    choices = [["가", "나", "다", "라"], ["빨강", "파랑"], ["하나", "둘", "셋"]]
    with torch.inference_mode():
        chosen = choice_scores.choose_by_letter(generator, inputs, choices)
        generated = generator.net.generate(
            **inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
    first = [generator.tokenizer.encode(letter, add_special_tokens=False)[0] for letter in "ABCD"]
    for answer, offered, logits in zip(chosen, choices, generated.logits[0].float(), strict=True):
        probabilities = logits[first[: len(offered)]].softmax(-1)
        assert answer.text == offered[int(probabilities.argmax())]
        assert answer.score == pytest.approx(float(probabilities.max()), abs=1e-5)
    # In a batch of both kinds a row without choices is answered freely, the others as if they were alone.
    some = net.answer(replace(batch, choices=[choices[0], (), choices[2]]))  # type: ignore[attr-defined]
    free = net.answer(batch)  # type: ignore[attr-defined]
    assert [each.text for each in some] == [chosen[0].text, free[1].text, chosen[2].text]
    monkeypatch.setattr(choice_scores, "CHOICE_LETTERS", "AA")
    with pytest.raises(SettingsError, match="with the same first token"):
        choice_scores.choose_by_letter(generator, inputs, [["예", "아니요"]] * 3)


def test_a_trie_says_what_may_follow(model: tuple[family.FamilyModel, ModelBatch]) -> None:
    """Every answer is a way through it, and there is no other; one written alike is no second."""
    generator = model[0].generator  # type: ignore[attr-defined]
    trie = generation.build_answer_trie(generator, [*ANSWERS, ANSWERS[0]])
    assert sorted(trie.answer_by_tokens.values()) == sorted(ANSWERS)
    prefixes, complete = [()], []
    while prefixes:
        prefix = prefixes.pop()
        extended = [(*prefix, token) for token in trie.next_token_ids.get(prefix, [])]
        prefixes += extended
        complete += [] if extended else [prefix]
    assert sorted(complete) == sorted(trie.answer_by_tokens)
    assert all(tokens[-1] == generator.eos_token_ids[0] for tokens in complete)


def test_votes_go_to_the_most_and_then_to_the_surest() -> None:
    a, b, c = Answer("빨강", 0.9), Answer("파랑", 0.5), Answer("파랑", 0.3)
    assert vote_answers([[a], [b], [c]]) == [Answer("파랑", pytest.approx(0.8 / 3))]
    assert vote_answers([[a], [b]]) == [Answer("빨강", 0.45)]
    assert vote_answers([[b], [a]]) == [Answer("빨강", 0.45)]
    assert vote_answers([[a, b]]) == [a, b]
    letters = [[Answer("IS USx", 0.4)], [Answer("no", 0.9)], [Answer("is usx", 0.2)]]
    assert vote_answers(letters) == [Answer("IS USx", pytest.approx(0.6 / 3))], "one answer in normal form"
    with pytest.raises(ValueError, match="shorter"):
        vote_answers([[a, b], [a]])


def test_what_each_token_sees_of_images_moves_with_it() -> None:
    """As `cross_attention_mask` of Mllama: [B, N, images, tiles]."""
    lengths = torch.tensor([2, 3])
    ids = torch.tensor([[5, 6, 0], [7, 8, 9]])
    seen = ids[..., None, None] * torch.tensor([[1, 10]])  # tells whose row it is
    tensors = {"input_ids": ids, "cross_attention_mask": seen, "prompt_lengths": lengths}
    prompts = left_pad_prompts(tensors, 3)
    assert prompts["input_ids"].tolist() == [[3, 5, 6], [7, 8, 9]]
    assert prompts["cross_attention_mask"][:, :, 0, 1].tolist() == [[0, 50, 60], [70, 80, 90]]
    rows = append_answers(tensors, [[1], [2, 2]], 3)
    assert rows["cross_attention_mask"][:, :, 0, 0].tolist() == [[5, 6, 6, 6, 6], [7, 8, 9, 9, 9]]

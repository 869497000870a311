"""Ways to answer: greedy, drawn, from a list, by letter, by vote."""

from __future__ import annotations

from collections.abc import Callable
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
from kovqa_core.models.vlm import generation

from tests.conftest import Small
from tests.models.vlm.test_vlm import asked

LIST = ["빨간색", "빨간 원", "파란색", "두 개", "세 개", "빨간"]


@pytest.fixture(scope="module", params=["llava", "qwen3_vl", "gemma3", "internvl"])
def model(
    request: pytest.FixtureRequest, small: Small, tiny_vlm: Callable[[str], Path]
) -> tuple[family.FamilyModel, ModelBatch]:
    made, processor, _ = family.create_model(asked(small, tiny_vlm(request.param)), [])
    index = open_index(small.index)
    rng = np.random.default_rng(0)
    items = [processor.encode(e, index.images, train=False, rng=rng) for e in list(index.split("val"))[:3]]
    return made.eval(), processor.collate(items)


def likelihood(model: family.FamilyModel, inputs: dict[str, torch.Tensor], row: int, answer: str) -> float:
    """Probability of an answer and its end after one prompt: token by token, in one forward pass each."""
    speaker = model.speaker  # type: ignore[attr-defined]
    said = [*speaker.tokenizer.encode(answer, add_special_tokens=False), speaker.ends[0]]
    longest = inputs["input_ids"].shape[1]
    grown = {}
    for name, value in inputs.items():
        if value.shape[:2] == (len(inputs["input_ids"]), longest) and name.endswith(("_ids", "_mask")):
            filled = (
                torch.tensor(said)
                if name == "input_ids"
                else torch.full((len(said),), int(name.endswith("mask")))
            )
            value = torch.cat([value, filled.expand(len(value), -1)], 1)
        grown[name] = value
    with torch.inference_mode():
        logits = speaker.net(**grown).logits[row, longest - 1 : -1].float()
    return float(logits.log_softmax(-1)[range(len(said)), said].sum().exp())


def test_greedy_scores_are_the_mean_probability_of_the_tokens(
    model: tuple[family.FamilyModel, ModelBatch],
) -> None:
    net, batch = model
    speaker, inputs = net.speaker, net.prompts(batch)  # type: ignore[attr-defined]
    with torch.inference_mode():
        answers = generation.answer_greedily(speaker, inputs)
        assert answers == net.answer(batch)
        found = speaker.net.generate(
            **inputs, max_new_tokens=speaker.budget, do_sample=False, suppress_tokens=speaker.silent,
            eos_token_id=speaker.ends, output_scores=True, return_dict_in_generate=True,
        )  # fmt: skip
    said = found.sequences[:, inputs["input_ids"].shape[1] :]
    each = torch.stack(found.scores, 1).float().softmax(-1)
    each = each.gather(2, said[..., None])[..., 0]
    for row, answer in enumerate(answers):
        ends = [i for i, token in enumerate(said[row].tolist()) if token in speaker.ends]
        length = ends[0] + 1 if ends else said.shape[1]
        assert answer.score == pytest.approx(float(each[row, :length].mean()), abs=1e-5)
        assert not set(said[row, :length].tolist()) & set(speaker.silent)


def test_draws_are_a_function_of_seed_and_id(model: tuple[family.FamilyModel, ModelBatch]) -> None:
    net, batch = model
    inputs = net.prompts(batch)  # type: ignore[attr-defined]

    def drawn(seed: int, ids: list[str]) -> list[Answer]:
        with torch.inference_mode():
            return generation.answer_by_sampling(net.speaker, inputs, ids, seed, temperature=2.0)  # type: ignore[attr-defined]

    before = torch.random.get_rng_state()
    first = drawn(1, batch.ids)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert drawn(1, batch.ids) == first
    assert drawn(1, ["다른", batch.ids[1], "것"])[1] == first[1]
    assert any(drawn(seed, batch.ids) != first for seed in range(2, 6))


def test_draws_have_the_frequencies_of_the_model() -> None:
    """4,000 questions, five tokens, one of them never said."""
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, -torch.inf])
    draw = generation._GumbelSampler([f"q{n}" for n in range(4000)], 7, 0.5)
    for _ in range(2):  # every step draws anew
        found = draw(torch.empty(0), logits.expand(4000, 5)).argmax(1).bincount(minlength=5) / 4000
        assert found.tolist() == pytest.approx((logits / 0.5).softmax(0).tolist(), abs=0.025)
        assert found[4] == 0


def test_the_likeliest_of_a_list_is_found_with_its_probability(
    model: tuple[family.FamilyModel, ModelBatch],
) -> None:
    net, batch = model
    inputs = net.prompts(batch)  # type: ignore[attr-defined]
    with torch.inference_mode():
        listed = generation.build_answer_trie(net.speaker, LIST)  # type: ignore[attr-defined]
        chosen = generation.choose_from_trie(net.speaker, inputs, listed, beams=len(LIST))  # type: ignore[attr-defined]
    for row, answer in enumerate(chosen):
        all_of_them = {text: likelihood(net, inputs, row, text) for text in LIST}
        assert answer.text == max(all_of_them, key=lambda text: all_of_them[text])
        assert answer.score == pytest.approx(all_of_them[answer.text], rel=1e-3)


def test_a_list_of_one_is_answered_with_it(model: tuple[family.FamilyModel, ModelBatch]) -> None:
    net, batch = model
    with torch.inference_mode():
        listed = generation.build_answer_trie(net.speaker, ["세 개"])  # type: ignore[attr-defined]
        chosen = generation.choose_from_trie(net.speaker, net.prompts(batch), listed)  # type: ignore[attr-defined]
    assert {answer.text for answer in chosen} == {"세 개"}


def test_letters_share_their_probability(
    model: tuple[family.FamilyModel, ModelBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among as many as a question has choices."""
    net, batch = model
    inputs = net.prompts(batch)  # type: ignore[attr-defined]
    speaker = net.speaker  # type: ignore[attr-defined]
    choices = [["가", "나", "다", "라"], ["빨강", "파랑"], ["하나", "둘", "셋"]]
    with torch.inference_mode():
        chosen = generation.choose_by_letter(speaker, inputs, choices)
        found = speaker.net.generate(
            **inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
    first = [speaker.tokenizer.encode(letter, add_special_tokens=False)[0] for letter in "ABCD"]
    for answer, offered, logits in zip(chosen, choices, found.logits[0].float(), strict=True):
        shares = logits[first[: len(offered)]].softmax(-1)
        assert answer.text == offered[int(shares.argmax())]
        assert answer.score == pytest.approx(float(shares.max()), abs=1e-5)
    monkeypatch.setattr(generation, "CHOICE_LETTERS", "AA")
    with pytest.raises(SettingsError, match="alike"):
        generation.choose_by_letter(speaker, inputs, [["예", "아니요"]] * 3)


def test_a_trie_says_what_may_follow(model: tuple[family.FamilyModel, ModelBatch]) -> None:
    """Every answer is a way through it, and there is no other; one written alike is no second."""
    speaker = model[0].speaker  # type: ignore[attr-defined]
    listed = generation.build_answer_trie(speaker, [*LIST, LIST[0]])
    assert sorted(listed.text_of.values()) == sorted(LIST)
    ways, found = [()], []
    while ways:
        way = ways.pop()
        grown = [(*way, token) for token in listed.following.get(way, [])]
        ways += grown
        found += [] if grown else [way]
    assert sorted(found) == sorted(listed.text_of)
    assert all(way[-1] == speaker.ends[0] for way in found)


def test_votes_go_to_the_most_and_then_to_the_surest() -> None:
    a, b, c = Answer("빨강", 0.9), Answer("파랑", 0.5), Answer("파랑", 0.3)
    assert vote_answers([[a], [b], [c]]) == [Answer("파랑", pytest.approx(0.8 / 3))]
    assert vote_answers([[a], [b]]) == [Answer("빨강", 0.45)]
    assert vote_answers([[b], [a]]) == [Answer("빨강", 0.45)]
    assert vote_answers([[a, b]]) == [a, b]
    with pytest.raises(ValueError, match="shorter"):
        vote_answers([[a, b], [a]])

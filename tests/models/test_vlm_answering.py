"""Ways to answer: greedy, drawn, from a list, by letter, by vote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from kovqa_core.data.example import Answer
from kovqa_core.data.index import open_index
from kovqa_core.errors import SettingsError
from kovqa_core.models import family
from kovqa_core.models.family import Batch
from kovqa_core.models.vlm import answering
from kovqa_core.results.votes import vote

from tests.conftest import Small
from tests.models.test_vlm import asked

LIST = ["빨간색", "빨간 원", "파란색", "두 개", "세 개", "빨간"]


@pytest.fixture(scope="module", params=["llava", "qwen3_vl", "gemma3", "internvl"])
def model(
    request: pytest.FixtureRequest, small: Small, tiny_vlm: Callable[[str], Path]
) -> tuple[family.Model, Batch]:
    made, processor, _ = family.new(asked(small, tiny_vlm(request.param)), [])
    index = open_index(small.index)
    rng = np.random.default_rng(0)
    items = [processor.encode(e, index.images, False, rng) for e in list(index.split("val"))[:3]]
    return made.eval(), processor.collate(items)


def likelihood(model: family.Model, inputs: dict[str, torch.Tensor], row: int, answer: str) -> float:
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


def test_greedy_scores_are_the_mean_probability_of_the_tokens(model: tuple[family.Model, Batch]) -> None:
    net, batch = model
    speaker, inputs = net.speaker, net.prompts(batch)  # type: ignore[attr-defined]
    with torch.inference_mode():
        answers = answering.greedy(speaker, inputs)
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


def test_draws_are_a_function_of_the_seed(model: tuple[family.Model, Batch]) -> None:
    net, batch = model
    inputs = net.prompts(batch)  # type: ignore[attr-defined]

    def drawn(seed: int) -> list[Answer]:
        with torch.inference_mode():
            return answering.sampled(net.speaker, inputs, seed, temperature=2.0)  # type: ignore[attr-defined]

    before = torch.random.get_rng_state()
    first = drawn(1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert drawn(1) == first
    assert any(drawn(seed) != first for seed in range(2, 6))


def test_the_likeliest_of_a_list_is_found_with_its_probability(model: tuple[family.Model, Batch]) -> None:
    net, batch = model
    inputs = net.prompts(batch)  # type: ignore[attr-defined]
    with torch.inference_mode():
        chosen = answering.choose(net.speaker, inputs, LIST, beams=len(LIST))  # type: ignore[attr-defined]
    for row, answer in enumerate(chosen):
        all_of_them = {text: likelihood(net, inputs, row, text) for text in LIST}
        assert answer.text == max(all_of_them, key=lambda text: all_of_them[text])
        assert answer.score == pytest.approx(all_of_them[answer.text], rel=1e-3)


def test_a_list_of_one_is_answered_with_it(model: tuple[family.Model, Batch]) -> None:
    net, batch = model
    with torch.inference_mode():
        chosen = answering.choose(net.speaker, net.prompts(batch), ["세 개"])  # type: ignore[attr-defined]
    assert {answer.text for answer in chosen} == {"세 개"}


def test_letters_share_their_probability(model: tuple[family.Model, Batch]) -> None:
    net, batch = model
    inputs = net.prompts(batch)  # type: ignore[attr-defined]
    speaker = net.speaker  # type: ignore[attr-defined]
    with torch.inference_mode():
        chosen = answering.choose_letter(speaker, inputs, ["A", "B", "C", "D"])
        found = speaker.net.generate(
            **inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
        )
    first = [speaker.tokenizer.encode(letter, add_special_tokens=False)[0] for letter in "ABCD"]
    shares = found.logits[0].float()[:, first].softmax(-1)
    assert [answer.text for answer in chosen] == ["ABCD"[i] for i in shares.argmax(1).tolist()]
    assert [a.score for a in chosen] == pytest.approx(shares.amax(1).tolist(), abs=1e-5)
    with pytest.raises(SettingsError, match="alike"):
        answering.choose_letter(speaker, inputs, ["A", "A"])


def test_a_trie_says_what_may_follow() -> None:
    follow = answering.allowed_next([[1, 2, 9], [1, 3, 9], [4, 9]])
    assert follow([]) == [1, 4]
    assert follow([1]) == [2, 3]
    assert follow([1, 3]) == [9]
    assert follow([1, 3, 9]) == follow([7]) == []


def test_votes_go_to_the_most_and_then_to_the_surest() -> None:
    a, b, c = Answer("빨강", 0.9), Answer("파랑", 0.5), Answer("파랑", 0.3)
    assert vote([[a], [b], [c]]) == [Answer("파랑", pytest.approx(0.8 / 3))]
    assert vote([[a], [b]]) == [Answer("빨강", 0.45)]
    assert vote([[b], [a]]) == [Answer("빨강", 0.45)]
    assert vote([[a, b]]) == [a, b]
    with pytest.raises(ValueError, match="shorter"):
        vote([[a, b], [a]])

"""Ways to answer: greedy, drawn, from a closed list by likelihood, by the letter of a choice.

All take the prompts of a batch, padded on the left, and give one Answer an example.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kovqa_core.data.answers import normalise
from kovqa_core.data.example import Answer
from kovqa_core.errors import SettingsError
from kovqa_core.models.vlm.hub import transformers

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Speaker:
    """A network that goes on with texts.

    Attributes:
        net: the network.
        tokenizer: the base model's.
        ends: tokens that end an answer.
        silent: tokens that are never said: marks of pictures, of turns and the like.
        budget: tokens of an answer.
    """

    net: Any
    tokenizer: Any
    ends: list[int]
    silent: list[int]
    budget: int


def never_said(tokenizer: Any, ends: Collection[int]) -> list[int]:
    """Special tokens that are no end."""
    return sorted({*tokenizer.all_special_ids, *_marks(tokenizer)} - set(ends))


def _marks(tokenizer: Any) -> set[int]:
    return {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}


def greedy(speaker: Speaker, inputs: Inputs) -> list[Answer]:
    """The likeliest token each time; the score is the mean probability of the answer's tokens, its end's
    included.
    """
    return _spoken(speaker, inputs, do_sample=False)


def sampled(
    speaker: Speaker, inputs: Inputs, seed: int, temperature: float = 0.7, top_p: float = 1.0
) -> list[Answer]:
    """Tokens drawn by their probability; the same seed and batch draw the same answers.

    Args:
        seed: of the draws; randomness elsewhere is left as it was.
        temperature: below 1 sharper, above 1 flatter.
        top_p: draw among the likeliest tokens that together have this probability.
    """
    devices = [inputs["input_ids"].device] if inputs["input_ids"].is_cuda else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        return _spoken(speaker, inputs, do_sample=True, temperature=temperature, top_p=top_p, top_k=0)


def _spoken(speaker: Speaker, inputs: Inputs, **how: Any) -> list[Answer]:
    heard = _Heard()
    ids = generate(speaker, inputs, max_new_tokens=speaker.budget, logits_processor=[heard], **how)
    said = ids[:, inputs["input_ids"].shape[1] :]
    return [
        Answer(*_text_and_score(speaker, row, p))
        for row, p in zip(said.tolist(), heard.probabilities(said), strict=True)
    ]


def _text_and_score(speaker: Speaker, said: list[int], probabilities: list[float]) -> tuple[str, float]:
    length = next((i + 1 for i, token in enumerate(said) if token in speaker.ends), len(said))
    text = speaker.tokenizer.decode(said[:length], skip_special_tokens=True)
    return normalise(text), sum(probabilities[:length]) / max(1, length)


class _Heard:
    """Notes how likely each chosen token was among those that may be said; keeps no logits."""

    def __init__(self) -> None:
        self._before: Tensor | None = None
        self._noted: list[Tensor] = []

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        if self._before is not None:
            self._noted.append(self._of(ids[:, -1]))
        self._before = scores.float().softmax(-1)
        return scores

    def _of(self, tokens: Tensor) -> Tensor:
        return self.latest().gather(1, tokens[:, None])[:, 0]

    def latest(self) -> Tensor:
        """Probabilities of all tokens at the last step."""
        assert self._before is not None
        return self._before

    def probabilities(self, said: Tensor) -> list[list[float]]:
        """Of every token said, row by row."""
        self._noted.append(self._of(said[:, -1]))
        return torch.stack(self._noted, 1).tolist()


def generate(speaker: Speaker, inputs: Inputs, **how: Any) -> Any:
    """Tokens of prompts and what follows; `how` is what transformers calls a generation."""
    chosen = transformers.GenerationConfig(
        eos_token_id=speaker.ends,
        pad_token_id=padding_id(speaker.tokenizer, speaker.ends),
        suppress_tokens=speaker.silent or None,
        **{name: value for name, value in how.items() if name not in _CALLED},
    )
    return speaker.net.generate(
        **inputs, generation_config=chosen, **{n: v for n, v in how.items() if n in _CALLED}
    )


_CALLED = ("logits_processor", "prefix_allowed_tokens_fn")


def padding_id(tokenizer: Any, ends: Sequence[int]) -> int:
    """The token of places that do not count."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]


# ------------------------------------------------------------------------------ closed lists


def allowed_next(answers: Sequence[Sequence[int]]) -> Callable[[Sequence[int]], list[int]]:
    """A trie of token sequences: which tokens may follow a beginning.

    Returns:
        beginning -> tokens that go on with it; empty where nothing does.
    """
    following: dict[tuple[int, ...], dict[int, None]] = {}
    for answer in answers:
        for length, token in enumerate(answer):
            following.setdefault(tuple(answer[:length]), {})[token] = None
    return lambda beginning: list(following.get(tuple(beginning), {}))


def choose(speaker: Speaker, inputs: Inputs, answers: Sequence[str], beams: int = 8) -> list[Answer]:
    """The likeliest answer of a list, sought along a trie of its tokens.

    With at least as many beams as answers the likeliest is certainly found. The score is the
    probability of the whole answer, its end included.

    Args:
        speaker: the model.
        inputs: prompts.
        answers: the list; not empty.
        beams: beginnings followed at once.
    """
    end = speaker.ends[0]
    said = [[*speaker.tokenizer.encode(answer, add_special_tokens=False), end] for answer in answers]
    text_of = {tuple(ids): answer for ids, answer in zip(said, answers, strict=True)}
    follow, start = allowed_next(said), inputs["input_ids"].shape[1]
    beams = min(beams, len(text_of))
    found = generate(
        speaker, inputs, max_new_tokens=max(map(len, said)), do_sample=False, num_beams=max(beams, 2),
        length_penalty=0.0, early_stopping=False, output_scores=True, return_dict_in_generate=True,
        prefix_allowed_tokens_fn=lambda _, ids: follow(ids[start:].tolist()) or [end],
    )  # fmt: skip
    rows = [tuple(row[: row.index(end) + 1]) for row in found.sequences[:, start:].tolist()]
    likely = found.sequences_scores.exp().tolist()
    return [Answer(text_of[row], p) for row, p in zip(rows, likely, strict=True)]


def choose_letter(speaker: Speaker, inputs: Inputs, letters: Sequence[str]) -> list[Answer]:
    """The likeliest of some letters as an answer's first token; scores are shares among the letters.

    Raises:
        SettingsError: two letters begin with the same token.
    """
    first = [speaker.tokenizer.encode(letter, add_special_tokens=False)[0] for letter in letters]
    if len(set(first)) < len(first):
        raise SettingsError(f"the tokenizer begins two of {', '.join(letters)} alike", "use other letters")
    heard = _Heard()
    generate(speaker, inputs, max_new_tokens=1, do_sample=False, logits_processor=[heard])
    among = heard.latest()[:, first]
    best = (among / among.sum(1, keepdim=True)).max(1)
    return [Answer(letters[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]

"""Ways to answer: greedy, drawn, from a closed list by likelihood, by the letter of a choice.

All take the prompts of a batch, padded on the left, and give one Answer an example.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kovqa_core.data.answers import normalise_answer
from kovqa_core.data.decoding import CHOICE_LETTERS
from kovqa_core.data.example import Answer
from kovqa_core.errors import SettingsError
from kovqa_core.models.vlm.hf_libraries import transformers

PromptTensors = dict[str, Tensor]


@dataclass(frozen=True)
class TextGenerator:
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


def find_suppress_tokens(tokenizer: Any, ends: Collection[int]) -> list[int]:
    """Special tokens that are no end."""
    return sorted({*tokenizer.all_special_ids, *_special_token_ids(tokenizer)} - set(ends))


def _special_token_ids(tokenizer: Any) -> set[int]:
    return {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}


def answer_greedily(speaker: TextGenerator, inputs: PromptTensors) -> list[Answer]:
    """The likeliest token each time; the score is the mean probability of the answer's tokens, its end's
    included.
    """
    return _generate_answers(speaker, inputs)


def answer_by_sampling(
    speaker: TextGenerator, inputs: PromptTensors, ids: Sequence[str], seed: int, temperature: float
) -> list[Answer]:
    """Tokens drawn by their probability: the same seed and id draw the same, whatever else is in the batch.

    As with greedy answers, that holds as far as the network's own numbers do: in 16 bits its neighbours
    in a batch change the last digits of a row, and now and then an answer.

    Args:
        speaker: the model.
        inputs: prompts.
        ids: of the questions.
        seed: of all draws; randomness elsewhere is left as it was.
        temperature: below 1 sharper, above 1 flatter.
    """
    return _generate_answers(speaker, inputs, _GumbelSampler(ids, seed, temperature))


class _GumbelSampler:
    """Noise on the scores that makes the highest of them a draw (Gumbel's); each row has its own, made
    on the CPU: a GPU would make another.
    """

    def __init__(self, ids: Sequence[str], seed: int, temperature: float) -> None:
        self._temperature = temperature
        self._noises = [torch.Generator().manual_seed(_seed_from_text(f"{seed} {id}")) for id in ids]

    def __call__(self, _: Tensor, scores: Tensor) -> Tensor:
        waits = torch.stack(
            [
                torch.empty(scores.shape[1], dtype=torch.float64).exponential_(generator=g)
                for g in self._noises
            ]
        )
        return scores.double() / self._temperature - waits.log().to(scores.device)


def _seed_from_text(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _generate_answers(speaker: TextGenerator, inputs: PromptTensors, *changed: Any) -> list[Answer]:
    """The token of the highest score each time, after `changed`; what is noted are scores before it."""
    heard = _ScoreRecorder()
    ids = generate_tokens(
        speaker, inputs, max_new_tokens=speaker.budget, do_sample=False, logits_processor=[heard, *changed]
    )
    said = ids[:, inputs["input_ids"].shape[1] :]
    return [
        Answer(*_decode_with_score(speaker, row, p))
        for row, p in zip(said.tolist(), heard.probabilities(said), strict=True)
    ]


def _decode_with_score(
    speaker: TextGenerator, said: list[int], probabilities: list[float]
) -> tuple[str, float]:
    length = next((i + 1 for i, token in enumerate(said) if token in speaker.ends), len(said))
    text = speaker.tokenizer.decode(said[:length], skip_special_tokens=True)
    return normalise_answer(text), sum(probabilities[:length]) / max(1, length)


class _ScoreRecorder:
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
        assert self._before is not None
        return self._before.gather(1, tokens[:, None])[:, 0]

    def probabilities(self, said: Tensor) -> list[list[float]]:
        """Of every token said, row by row."""
        self._noted.append(self._of(said[:, -1]))
        return torch.stack(self._noted, 1).tolist()


def generate_tokens(speaker: TextGenerator, inputs: PromptTensors, **how: Any) -> Any:
    """Tokens of prompts and what follows; `how` is what transformers calls a generation."""
    chosen = transformers.GenerationConfig(
        eos_token_id=speaker.ends,
        pad_token_id=find_pad_token_id(speaker.tokenizer, speaker.ends),
        suppress_tokens=speaker.silent or None,
        **{name: value for name, value in how.items() if name not in _CALLABLE_ARGUMENTS},
    )
    return speaker.net.generate(
        **inputs, generation_config=chosen, **{n: v for n, v in how.items() if n in _CALLABLE_ARGUMENTS}
    )


_CALLABLE_ARGUMENTS = ("logits_processor", "prefix_allowed_tokens_fn")


def find_pad_token_id(tokenizer: Any, ends: Sequence[int]) -> int:
    """The token of places that do not count."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]


# ------------------------------------------------------------------------------ closed lists


@dataclass(frozen=True)
class AnswerTrie:
    """Answers as sequences of tokens, each with its end.

    Attributes:
        text_of: tokens -> answer.
        following: beginning -> tokens that go on with it.
    """

    text_of: Mapping[tuple[int, ...], str]
    following: Mapping[tuple[int, ...], Sequence[int]]


def build_answer_trie(speaker: TextGenerator, answers: Sequence[str]) -> AnswerTrie:
    """A list of answers as the model writes them; of two that it writes alike, the first."""
    text_of: dict[tuple[int, ...], str] = {}
    following: dict[tuple[int, ...], dict[int, None]] = {}
    for answer in answers:
        said = (*speaker.tokenizer.encode(answer, add_special_tokens=False), speaker.ends[0])
        text_of.setdefault(said, answer)
        for length, token in enumerate(said):
            following.setdefault(said[:length], {})[token] = None
    return AnswerTrie(text_of, {beginning: list(tokens) for beginning, tokens in following.items()})


def choose_from_trie(
    speaker: TextGenerator, inputs: PromptTensors, listed: AnswerTrie, beams: int = 8
) -> list[Answer]:
    """The likeliest answer of a list, sought along a trie of its tokens.

    With at least as many beams as answers the likeliest is certainly found. The score is the
    probability of the whole answer, its end included.

    Args:
        speaker: the model.
        inputs: prompts.
        listed: the list; not empty.
        beams: beginnings followed at once.
    """
    end, start = speaker.ends[0], inputs["input_ids"].shape[1]
    found = generate_tokens(
        speaker, inputs, max_new_tokens=max(map(len, listed.text_of)), do_sample=False,
        num_beams=max(min(beams, len(listed.text_of)), 2),
        length_penalty=0.0, early_stopping=False, output_scores=True, return_dict_in_generate=True,
        prefix_allowed_tokens_fn=lambda _, ids: listed.following.get(tuple(ids[start:].tolist()), [end]),
    )  # fmt: skip
    rows = [tuple(row[: row.index(end) + 1]) for row in found.sequences[:, start:].tolist()]
    likely = found.sequences_scores.exp().tolist()
    return [Answer(listed.text_of[row], p) for row, p in zip(rows, likely, strict=True)]


def choose_by_letter(
    speaker: TextGenerator, inputs: PromptTensors, choices: Sequence[Sequence[str]]
) -> list[Answer]:
    """Of every prompt's choices the one whose letter is the likeliest first token of an answer.

    Args:
        speaker: the model.
        inputs: prompts that list the choices behind `LETTERS`.
        choices: one list a prompt.

    Returns:
        texts of choices; a score is the letter's share among those of its prompt.

    Raises:
        SettingsError: two letters begin with the same token.
    """
    letters = CHOICE_LETTERS[: max(map(len, choices))]
    first = [speaker.tokenizer.encode(letter, add_special_tokens=False)[0] for letter in letters]
    if len(set(first)) < len(first):
        raise SettingsError(
            f"the tokenizer begins two of {', '.join(letters)} alike", "leave --choices away: --answers FILE"
        )
    scores = _first_token_logits(speaker, inputs)[:, first]
    counts = torch.tensor([len(row) for row in choices], device=scores.device)
    absent = torch.arange(len(first), device=scores.device) >= counts[:, None]
    best = scores.masked_fill(absent, -torch.inf).softmax(1).max(1)
    chosen = zip(choices, best.indices.tolist(), best.values.tolist(), strict=True)
    return [Answer(row[i], share) for row, i, share in chosen]


def _first_token_logits(speaker: TextGenerator, inputs: PromptTensors) -> Tensor:
    """Logits of every token as the first of an answer, [B, V]."""
    noted: list[Tensor] = []

    def note(_: Tensor, scores: Tensor) -> Tensor:
        noted.append(scores.float())
        return scores

    generate_tokens(speaker, inputs, max_new_tokens=1, do_sample=False, logits_processor=[note])
    return noted[0]

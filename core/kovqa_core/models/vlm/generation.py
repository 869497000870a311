"""Ways to answer: greedily, sampled, from a closed list by likelihood; among choices: `choice_scores.py`.

All take the prompts of a batch, padded on the left, and return one Answer per example. Shapes: B rows,
T tokens of the longest prompt, N new tokens, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kovqa_core.data.answers import tidy_answer
from kovqa_core.data.example import Answer
from kovqa_core.errors import ModelError
from kovqa_core.messages import message
from kovqa_core.models.closed_folder import error_reason
from kovqa_core.models.vlm.decode_tokens import decode_token_ids
from kovqa_core.models.vlm.hf_libraries import transformers
from kovqa_core.models.vlm.hf_types import HfNetwork, HfTokenizer, PromptTensors
from kovqa_core.models.vlm.host_values import send_without_waiting

# (token ids so far [B, T + N], scores [B, V]) -> scores; transformers calls these before it chooses.
LogitsProcessor = Callable[[Tensor, Tensor], Tensor]
OnText = Callable[[str], None]  # an answer so far
_CALLABLE_ARGUMENTS = ("logits_processor",)  # not part of a GenerationConfig


@dataclass(frozen=True)
class TextGenerator:
    """A network that continues texts.

    Attributes:
        net: the network.
        tokenizer: the base model's.
        eos_token_ids: tokens that end an answer; the first is the one the chat template writes.
        suppress_tokens: tokens no answer has: placeholders of images, marks of turns and the like.
        max_new_tokens: of an answer.
    """

    net: HfNetwork
    tokenizer: HfTokenizer
    eos_token_ids: list[int]
    suppress_tokens: list[int]
    max_new_tokens: int


def find_suppress_tokens(tokenizer: HfTokenizer, eos_token_ids: Collection[int]) -> list[int]:
    """Special tokens that do not end an answer."""
    special = {*tokenizer.all_special_ids, *_special_token_ids(tokenizer)}
    return sorted(special - {None, *eos_token_ids})


def _special_token_ids(tokenizer: HfTokenizer) -> set[int]:
    return {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}


def find_pad_token_id(tokenizer: HfTokenizer, eos_token_ids: Sequence[int]) -> int:
    """The token of positions that do not count."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else eos_token_ids[0]


def generate_tokens(generator: TextGenerator, prompts: PromptTensors, **arguments: object) -> Any:
    """What `generate` of transformers returns: token ids [B, T + N], or an object that holds them.

    Args:
        generator: the model.
        prompts: padded on the left.
        arguments: of `generate`. What neither they nor this function set comes from the model folder's own
            generation_config.json: a repetition penalty there holds for every way to answer.
    """
    config = transformers.GenerationConfig(
        eos_token_id=generator.eos_token_ids,
        pad_token_id=find_pad_token_id(generator.tokenizer, generator.eos_token_ids),
        suppress_tokens=generator.suppress_tokens or None,
        **{name: value for name, value in arguments.items() if name not in _CALLABLE_ARGUMENTS},
    )
    callables = {name: value for name, value in arguments.items() if name in _CALLABLE_ARGUMENTS}
    try:
        return generator.net.generate(**prompts, generation_config=config, **callables)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, ZeroDivisionError) as error:
        # What network and processor of one folder disagree about is known only here.
        raise ModelError(
            message(
                "vlm.cannot-generate",
                "the model in {folder} cannot answer: its config.json, generation_config.json and processor do not go "
                "together ({reason})",
                folder=generator.net.config.name_or_path or "its folder",
                reason=error_reason(error),
            ),
            message("vlm.cannot-generate.hint", "fetch its whole folder again"),
        ) from error


# ------------------------------------------------------------------------------ any text


def answer_greedily(
    generator: TextGenerator, prompts: PromptTensors, on_text: OnText | None = None
) -> list[Answer]:
    """The likeliest token at each step.

    The score is the mean probability of the answer's tokens, the end-of-sequence token included.

    Args:
        generator: the model.
        prompts: padded on the left.
        on_text: told of the first answer as it grows, token by token; of its last one, the answer itself tells.
    """
    tellers = [_TextTeller(generator, prompts, on_text)] if on_text else []
    return _generate_answers(generator, prompts, *tellers)


class _TextTeller:
    """Tells what the first row's answer is so far; changes no score."""

    def __init__(self, generator: TextGenerator, prompts: PromptTensors, on_text: OnText) -> None:
        self._generator, self._on_text = generator, on_text
        self._prompt_length = prompts["input_ids"].shape[1]

    def __call__(self, token_ids: Tensor, scores: Tensor) -> Tensor:
        new_ids = token_ids[0, self._prompt_length :].tolist()
        if new_ids and new_ids[-1] not in self._generator.eos_token_ids:
            self._on_text(tidy_answer(decode_token_ids(self._generator.tokenizer, new_ids)))
        return scores


def answer_by_sampling(
    generator: TextGenerator, prompts: PromptTensors, ids: Sequence[str], seed: int, temperature: float
) -> list[Answer]:
    """Tokens sampled by their probability: the same seed and id give the same, whatever else is in the batch.

    As with greedy answers, that holds as far as the network's own numbers do: in 16 bits a row's neighbours
    in a batch change its last digits, and now and then an answer.

    Args:
        generator: the model.
        prompts: padded on the left.
        ids: of the questions.
        seed: of all draws; randomness elsewhere is left as it was.
        temperature: below 1 sharper, above 1 flatter.
    """
    return _generate_answers(generator, prompts, _GumbelSampler(ids, seed, temperature))


class _GumbelSampler:
    """Adds Gumbel noise to the scores, so that taking the highest is drawing by probability.

    argmax(log p - log E) with E ~ Exp(1) is distributed as p (Gumbel-max trick): with it, greedy search
    samples. transformers' own sampling draws the whole batch from one global generator, so that an answer
    would depend on its neighbours; here every row has a generator of its own, seeded with its id.
    """

    def __init__(self, ids: Sequence[str], seed: int, temperature: float) -> None:
        self._temperature = temperature
        self._seeds = [_seed_from_text(f"{seed} {id}") for id in ids]
        self._generators: list[torch.Generator] = []

    def __call__(self, _: Tensor, scores: Tensor) -> Tensor:
        if not self._generators:
            # On the device: V numbers a row and a step are much to send. It makes other numbers of a seed than a CPU.
            self._generators = [torch.Generator(scores.device).manual_seed(seed) for seed in self._seeds]
        # Each step draws V numbers per row, whatever is suppressed: -inf stays -inf, and is never drawn.
        # In fp64: fp32 has too few numbers near 0, where log E tells the rare tokens apart. Apple's GPUs have no fp64.
        dtype = torch.float32 if scores.device.type == "mps" else torch.float64
        exponentials = torch.empty(scores.shape, dtype=dtype, device=scores.device)
        for row, generator in zip(exponentials, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores.to(dtype) / self._temperature - exponentials.clamp(min=torch.finfo(dtype).tiny).log()


def _seed_from_text(text: str) -> int:
    """64 bits of a hash: neighbouring seeds or ids give unrelated draws."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


class _ScoreRecorder:
    """Records how likely each chosen token was among those allowed.

    `output_scores` of transformers would keep logits [B, V] of every step; here each step's are reduced to
    one number per row as soon as the next step shows which token was chosen.
    """

    def __init__(self) -> None:
        self._previous: Tensor | None = None  # probabilities of the step before, [B, V]
        self._recorded: list[Tensor] = []

    def __call__(self, token_ids: Tensor, scores: Tensor) -> Tensor:
        if self._previous is not None:
            self._recorded.append(self._probability(token_ids[:, -1]))
        self._previous = scores.float().softmax(-1)
        return scores

    def _probability(self, chosen: Tensor) -> Tensor:
        assert self._previous is not None
        return self._previous.gather(1, chosen[:, None])[:, 0]

    def token_probabilities(self, new_ids: Tensor) -> list[list[float]]:
        """Of every new token, row by row; new_ids are [B, N]. The last step has no step after it: it is read here."""
        self._recorded.append(self._probability(new_ids[:, -1]))
        return torch.stack(self._recorded, 1).tolist()


def _generate_answers(
    generator: TextGenerator, prompts: PromptTensors, *samplers: LogitsProcessor
) -> list[Answer]:
    """The token of the highest score at each step, after `samplers`; probabilities are those before them."""
    recorder = _ScoreRecorder()
    token_ids = generate_tokens(
        generator,
        prompts,
        max_new_tokens=generator.max_new_tokens,
        do_sample=False,
        logits_processor=[recorder, *samplers],
    )
    new_ids = token_ids[:, prompts["input_ids"].shape[1] :]
    rows = zip(new_ids.tolist(), recorder.token_probabilities(new_ids), strict=True)
    return [_decode_with_score(generator, row, probabilities) for row, probabilities in rows]


def _decode_with_score(generator: TextGenerator, new_ids: list[int], probabilities: list[float]) -> Answer:
    """The text up to the first end-of-sequence token; what follows it is the batch's padding."""
    ends = (i + 1 for i, token_id in enumerate(new_ids) if token_id in generator.eos_token_ids)
    length = next(ends, len(new_ids))
    # Without the end: where it is no special token, it would be read as part of the answer.
    answer_ids = [token_id for token_id in new_ids[:length] if token_id not in generator.eos_token_ids]
    text = decode_token_ids(generator.tokenizer, answer_ids)
    return Answer(tidy_answer(text), sum(probabilities[:length]) / max(1, length))


# ------------------------------------------------------------------------------ closed lists


@dataclass(frozen=True)
class AnswerTrie:
    """Answers as sequences of tokens, each with its end-of-sequence token.

    Attributes:
        answer_by_tokens: token ids -> answer.
        next_token_ids: prefix -> token ids that continue it.
    """

    answer_by_tokens: Mapping[tuple[int, ...], str]
    next_token_ids: Mapping[tuple[int, ...], Sequence[int]]


def answer_token_ids(generator: TextGenerator, answer: str) -> list[int]:
    """An answer as the model writes it, with the token that ends it."""
    # The end is part of the answer: without it "빨간" would be as likely as all that begins with it.
    return [*generator.tokenizer.encode(answer, add_special_tokens=False), generator.eos_token_ids[0]]


def build_answer_trie(generator: TextGenerator, answers: Sequence[str]) -> AnswerTrie:
    """A list of answers as the model writes them; of two with the same tokens, the first."""
    answer_by_tokens: dict[tuple[int, ...], str] = {}
    next_token_ids: dict[tuple[int, ...], dict[int, None]] = {}
    for answer in answers:
        token_ids = tuple(answer_token_ids(generator, answer))
        answer_by_tokens.setdefault(token_ids, answer)
        for length, token_id in enumerate(token_ids):
            next_token_ids.setdefault(token_ids[:length], {})[token_id] = None
    return AnswerTrie(answer_by_tokens, {prefix: list(ids) for prefix, ids in next_token_ids.items()})


class _TrieMask:
    """Leaves the tokens that continue a prefix of the trie.

    As transformers' `prefix_allowed_tokens_fn`, which reads the prefix of every beam by itself: on a GPU it waits
    once for each, this once a step for all.
    """

    def __init__(self, trie: AnswerTrie, prompt_length: int, eos_token_id: int) -> None:
        self._trie, self._prompt_length, self._eos_token_id = trie, prompt_length, eos_token_id

    def __call__(self, token_ids: Tensor, scores: Tensor) -> Tensor:
        vocab_size = scores.shape[1]
        positions = []
        for row, prefix in enumerate(token_ids[:, self._prompt_length :].tolist()):
            # A finished beam leaves the trie: only the end continues it.
            allowed = self._trie.next_token_ids.get(tuple(prefix), [self._eos_token_id])
            positions.append(torch.tensor(allowed) + row * vocab_size)
        allowed_positions = send_without_waiting(torch.cat(positions), scores.device)
        mask = torch.full_like(scores, -torch.inf)
        mask.view(-1).index_fill_(0, allowed_positions, 0)
        return scores + mask


def choose_from_trie(
    generator: TextGenerator, prompts: PromptTensors, trie: AnswerTrie, top_k: int = 1, num_beams: int = 8
) -> list[Answer]:
    """The likeliest answer of a list, by beam search along a trie of its tokens.

    With at least as many beams as answers the likeliest is certainly found. The score is the
    probability of the whole answer, its end included.

    Args:
        generator: the model.
        prompts: padded on the left.
        trie: of the list, which is not empty.
        top_k: of the likeliest, how many: no more than there are beams, and than answers. Asking for more leaves the
            search, and so the answer, as it is.
        num_beams: prefixes followed at once.
    """
    eos_token_id, prompt_length = generator.eos_token_ids[0], prompts["input_ids"].shape[1]

    # A single beam would be greedy search, which returns no sequences_scores.
    beams = max(min(num_beams, len(trie.answer_by_tokens)), 2)
    found = min(top_k, beams)
    generated = generate_tokens(
        generator, prompts, max_new_tokens=max(map(len, trie.answer_by_tokens)), do_sample=False,
        num_beams=beams, num_return_sequences=found,
        # 0: a beam's score is the sum of its log-probabilities, not their mean: long answers get no bonus.
        # False: search goes on until no open beam can become better than the best finished one.
        length_penalty=0.0, early_stopping=False, output_scores=True, return_dict_in_generate=True,
        logits_processor=[_TrieMask(trie, prompt_length, eos_token_id)],
    )  # fmt: skip
    rows = generated.sequences[:, prompt_length:].tolist()
    # transformers masks disallowed tokens after the softmax: these are probabilities among all V tokens.
    scored = list(zip(rows, generated.sequences_scores.exp().tolist(), strict=True))
    answers = []
    for first in range(0, len(scored), found):  # beams of one prompt stand together, the best first
        likeliest = dict[str, float]()
        for row, probability in scored[first : first + found]:
            end = row.index(eos_token_id) + 1 if eos_token_id in row else 0
            # None of a beam that has left the trie, or comes to the same end: there are fewer answers than beams.
            answer = trie.answer_by_tokens.get(tuple(row[:end]))
            if answer is not None:
                likeliest.setdefault(answer, probability)
        ranked = tuple(likeliest.items())
        answers.append(Answer(*ranked[0], ranked if top_k > 1 else ()))
    return answers


def first_token_logits(generator: TextGenerator, prompts: PromptTensors) -> Tensor:
    """Logits of every token as the first of an answer, [B, V]."""
    recorded: list[Tensor] = []

    def record(_: Tensor, scores: Tensor) -> Tensor:
        recorded.append(scores.float())
        return scores

    # Through `generate` and not `forward`: it alone knows the positions of rows padded on the left.
    generate_tokens(generator, prompts, max_new_tokens=1, do_sample=False, logits_processor=[record])
    return recorded[0]

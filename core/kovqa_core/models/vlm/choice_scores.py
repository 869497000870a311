"""How likely each of a row's choices is: by its letter, by its whole text, and beside an empty image.

| scores | a choice's score before the softmax over its row's choices |
|---|---|
| by letter | logit of its letter as the first token of the answer |
| by text | log-probability of it as an answer: the sum over its tokens, the end included; longer texts have lower sums |
| calibrated | either, less the same beside an image without content: what a model prefers unseen, and length, fall out |

The image without content is a grey one of the same size (docs/sources/choices.md, C4).

Shapes: B rows, C choices of the longest list, A tokens of the longest choice, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kovqa_core.data.decoding import CHOICE_LETTERS
from kovqa_core.data.example import Answer
from kovqa_core.errors import SettingsError
from kovqa_core.messages import message
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.vlm.generation import TextGenerator, first_token_logits
from kovqa_core.models.vlm.hf_types import HfTokenizer, PromptTensors

BLANK_PREFIX = "blank/"  # of a batch's tensors about the same questions beside empty images


def split_blank_images(batch: ModelBatch) -> tuple[ModelBatch, ModelBatch | None]:
    """A batch, and the same questions beside empty images where it has them."""
    blank = _named(batch, BLANK_PREFIX)
    return (batch, None) if not blank.tensors else (_named(batch, ""), blank)


def _named(batch: ModelBatch, prefix: str) -> ModelBatch:
    def chosen(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        names = [name for name in tensors if name.startswith(BLANK_PREFIX) == bool(prefix)]
        return {name.removeprefix(prefix): tensors[name] for name in names}

    return replace(batch, tensors=chosen(batch.tensors), on_host=chosen(batch.on_host))


def find_letter_tokens(tokenizer: HfTokenizer, count: int) -> list[int]:
    """The first tokens of so many letters.

    Raises:
        SettingsError: two letters begin with the same token.
    """
    letters = CHOICE_LETTERS[:count]
    letter_ids = [tokenizer.encode(letter, add_special_tokens=False)[0] for letter in letters]
    if len(set(letter_ids)) < len(letter_ids):
        raise SettingsError(
            message(
                "vlm.letters-share-a-token",
                "the tokenizer writes two of {letters} with the same first token",
                letters=", ".join(letters),
            ),
            message("vlm.letters-share-a-token.hint", "use --choices-by text, or --answers FILE"),
        )
    return letter_ids


def absent_choices(choices: Sequence[Sequence[str]], width: int, device: torch.device) -> Tensor:
    """Where a row has no choice of that number, bool [B, C]."""
    counts = torch.tensor([len(row) for row in choices], device=device)
    return torch.arange(width, device=device) >= counts[:, None]


def choose_by_letter(
    generator: TextGenerator, prompts: PromptTensors, choices: Sequence[Sequence[str]], top_k: int = 1
) -> list[Answer]:
    """Of every prompt's choices the one whose letter is the likeliest first token of an answer.

    Args:
        generator: the model.
        prompts: that list the choices behind CHOICE_LETTERS.
        choices: one list per prompt; an empty one is answered with "".
        top_k: of the likeliest, how many, or all choices of the prompt.

    Returns:
        texts of choices; a score is the letter's probability among those of its prompt.

    Raises:
        SettingsError: two letters begin with the same token.
    """
    return choose_likeliest(letter_scores(generator, prompts, choices), choices, top_k)


def letter_scores(
    generator: TextGenerator, prompts: PromptTensors, choices: Sequence[Sequence[str]]
) -> Tensor:
    """Logits of the letters of every prompt's choices, [B, C]; -inf where it has no more; arguments as above."""
    letter_ids = find_letter_tokens(generator.tokenizer, max(1, *map(len, choices)))
    scores = first_token_logits(generator, prompts)[:, letter_ids]
    return scores.masked_fill(absent_choices(choices, len(letter_ids), scores.device), -torch.inf)


def text_score(logits: Tensor, answers: Sequence[Sequence[int]]) -> Tensor:
    """Log-probabilities of whole answers, [B].

    Args:
        logits: of their tokens, [B, A, V].
        answers: of each row the tokens; after the last of them, logits count nothing.
    """
    width = logits.shape[1]
    padded = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in answers], device=logits.device)
    lengths = torch.tensor([len(ids) for ids in answers], device=logits.device)
    tokens = logits.float().log_softmax(-1).gather(2, padded[..., None])[..., 0]
    return tokens.masked_fill(torch.arange(width, device=logits.device) >= lengths[:, None], 0).sum(1)


def calibrate_scores(scores: Tensor, blank_scores: Tensor) -> Tensor:
    """Scores [B, C] less what the same choices score beside an empty image."""
    # Of what a row does not have, both are -inf: it stays that.
    return torch.where(scores.isneginf(), scores, scores - blank_scores)


def choose_likeliest(scores: Tensor, choices: Sequence[Sequence[str]], top_k: int = 1) -> list[Answer]:
    """Of every row's choices the one of the highest score; its own score is its share of a softmax over them.

    Args:
        scores: [B, C], -inf where a row has no choice of that number.
        choices: one list per row; an empty one is answered with "".
        top_k: of the likeliest, how many, or all choices of the row.
    """
    some = torch.tensor([bool(row) for row in choices], device=scores.device)
    probabilities = torch.where(some[:, None], scores, 0.0).softmax(1)
    rows = zip(choices, probabilities.max(1).indices.tolist(), probabilities.tolist(), strict=True)
    return [_choice_answer(row or ("",), best if row else 0, chances, top_k) for row, best, chances in rows]


def _choice_answer(choices: Sequence[str], best: int, probabilities: Sequence[float], top_k: int) -> Answer:
    """The chosen one of a row's choices, with those behind it where they are asked for."""
    ranked = sorted(range(len(choices)), key=lambda number: (number != best, -probabilities[number]))[:top_k]
    likeliest = tuple((choices[number], probabilities[number]) for number in ranked)
    return Answer(*likeliest[0], likeliest if top_k > 1 else ())

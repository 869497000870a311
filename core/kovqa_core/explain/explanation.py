"""Where an answer comes from: which places of the image and which words of the question it depends on.

A map shows what the model used, not what it ought to have used. By occlusion (`occlusion.py`) a place is worth the
log-odds (`models/explain_functions.py`) that the answer loses when it is covered; attention rollout, of BEiT-3 alone, is
one pass, but does not know which answer it explains (docs/sources/explain.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kovqa_core.answer.ask_model import ImageQuestion
from kovqa_core.answer.local import LoadedModel
from kovqa_core.data.example import Answer
from kovqa_core.data.image_io import read_image
from kovqa_core.data.image_source import ImageSource
from kovqa_core.errors import SettingsError
from kovqa_core.explain import covers, require_method
from kovqa_core.explain.occlusion import (
    AskedImage,
    find_disagreement,
    find_flatness,
    mark_hottest,
    occlusion_heat,
    scale_heat,
)
from kovqa_core.explain.score_items import AnswerScorer, answering
from kovqa_core.files import to_nfc
from kovqa_core.messages import Message, message
from kovqa_core.models.batches import ExampleProcessor
from kovqa_core.models.explain_functions import ExplainFunctions
from kovqa_core.models.family import FamilyModel, load_family

MAX_WORDS = 64  # of a question that are left out one after the other


@dataclass(frozen=True)
class WordEffect:
    """A word of the question, as it stands between blanks, and the log-odds that the answer loses without it."""

    word: str
    effect: float


@dataclass(frozen=True)
class Explanation:
    """Where an answer comes from.

    Attributes:
        answer: the model's own, or the one that was asked about, without a score then.
        method: "occlusion" or "rollout".
        heat: how much each place of the upright image matters, 0 to 1, float32 [rows, columns].
        largest_drop: the most log-odds that covering one place took; nan: rollout does not know.
        words: of the question, in order, MAX_WORDS at most; empty for a caption.
        doubt: why the map says little; None: covering its marked tenth in another way lowers the answer, too, and by
            more than covering other places.
    """

    answer: Answer
    method: str
    heat: np.ndarray
    largest_drop: float
    words: Sequence[WordEffect]
    doubt: Message | None

    @property
    def marked(self) -> np.ndarray:
        """The tenth of the image that matters most, bool [rows, columns]."""
        return mark_hottest(self.heat)


def explain_answer(
    loaded: LoadedModel,
    image: ImageSource,
    question: str = "",
    *,
    method: str = "auto",
    answer: str | None = None,
) -> Explanation:
    """Which places of an image and which words of a question an answer depends on; the same each time.

    By occlusion that is 124 forward passes, and one for each word, in batches: a second for a small model, minutes for a
    large one on a CPU (BEiT-3 base: 1 at 224 pixels, 5 at 480, of one core's time). By rollout it is 11, and the words.

    Args:
        loaded: of any family.
        image: a file, or its bytes.
        question: "" for a caption.
        method: one of `explain.METHODS`; auto: occlusion, which every family has and which knows the answer.
        answer: explained in place of the model's own; where it has classes, one of them.

    Raises:
        SettingsError: no such method, or none of this model's family.
        DataError: the image cannot be read.
    """
    require_method(method)
    method = "occlusion" if method == "auto" else method
    given, asked = ask_image(loaded, image, question, method=method, answer=answer)
    if method == "rollout":
        heat, largest_drop, doubt = rollout_heat(asked), float("nan"), None
    else:
        heat, largest_drop = occlusion_heat(asked)
        doubt = find_flatness(largest_drop)
    doubt = doubt or find_disagreement(asked, heat)
    words = _word_effects(asked, question, partial(_encode, loaded, image))
    if asked.scorer.functions.as_stored(loaded.processor):
        heat = _turned_upright(heat, image)
    return Explanation(given, method, heat, largest_drop, words, doubt)


def ask_image(
    loaded: LoadedModel, image: ImageSource, question: str, *, method: str, answer: str | None = None
) -> tuple[Answer, AskedImage]:
    """The answer that is to be explained, and what it was asked about; arguments and errors as of `explain_answer`."""
    functions = _find_functions(loaded.info.family, method)
    item = _encode(loaded, image, question)
    given = _answer_item(loaded, item) if answer is None else Answer(answer, float("nan"))
    scorer = AnswerScorer(loaded, functions, given.text)
    (log_odds,) = scorer.score_items([lambda: item])
    return given, AskedImage(scorer, item, functions.item_pixels(item), float(log_odds))


def _find_functions(family: str, method: str) -> ExplainFunctions[FamilyModel, ExampleProcessor]:
    functions = load_family(family).explain
    if functions is None:
        raise SettingsError(
            message(
                "explain.unexplained-family", "answers of family {family} cannot be explained", family=family
            ),
            message("explain.unexplained-family.hint", "name another model with --model"),
        )
    if method == "rollout" and functions.roll_out_attention is None:
        raise SettingsError(
            message("explain.no-rollout", "family {family} has no attention rollout", family=family),
            message("explain.no-rollout.hint", "use --method occlusion"),
        )
    return functions


def _encode(loaded: LoadedModel, image: ImageSource, question: str) -> Any:
    example = ImageQuestion(image, question).to_example()
    return loaded.processor.encode(example, Path(), train=False, rng=np.random.default_rng(0))


def _answer_item(loaded: LoadedModel, item: Any) -> Answer:
    batch = loaded.processor.collate([item]).to(loaded.device)
    with answering(loaded):
        (answer,) = loaded.model.answer(batch)
    return answer


def rollout_heat(asked: AskedImage) -> np.ndarray:
    """Attention that reaches the answer from each place, on the grid; the least is 0."""
    loaded, roll_out = asked.scorer.loaded, asked.scorer.functions.roll_out_attention
    assert roll_out is not None
    batch = loaded.processor.collate([asked.item]).to(loaded.device)
    with answering(loaded):
        attended = roll_out(loaded.model, loaded.processor, batch, asked.scorer.answer)
    return scale_heat(covers.to_grid(attended - attended.min()))


def _turned_upright(heat: np.ndarray, image: ImageSource) -> np.ndarray:
    """The heat of an image that the model reads as it is stored, as people see the image."""
    turn = read_image(image, as_stored=True).turn
    return heat if turn is None else np.asarray(Image.fromarray(heat).transpose(turn))


def _word_effects(asked: AskedImage, question: str, encode: Callable[[str], Any]) -> list[WordEffect]:
    """Of every word what the answer loses if the question is asked without it."""
    words = to_nfc(question).split()
    items = [
        partial(encode, " ".join([*words[:n], *words[n + 1 :]])) for n in range(min(len(words), MAX_WORDS))
    ]
    scores = asked.scorer.score_items(items)
    return [
        WordEffect(word, float(asked.log_odds - score)) for word, score in zip(words, scores, strict=False)
    ]

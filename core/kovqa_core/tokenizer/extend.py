"""Korean tokens for a model of another language, whose own tokens and ids stay as they are.

Only tokens of nothing but Hangul are added, so that text without Hangul finds the same tokens to choose
from as before. What an unknown character costs follows from the lowest score, what a user-defined token
costs from the highest: the new scores stay between the two, and old text is split as it was.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovqa_core.errors import DataError, ModelError, SettingsError
from kovqa_core.files import read_bytes
from kovqa_core.messages import message
from kovqa_core.output_lock import output_lock
from kovqa_core.progress import OnProgress, ignore_progress
from kovqa_core.tokenizer import sentencepiece_model
from kovqa_core.tokenizer.card import TokenizerCard, describe_model, write_sentencepiece_model
from kovqa_core.tokenizer.corpus import clean_corpus, discard_work_folder, discarded_on_failure
from kovqa_core.tokenizer.inspect import HANGUL_RANGES
from kovqa_core.tokenizer.table_text import corpus_file
from kovqa_core.tokenizer.train import (
    CHARACTER_COVERAGE,
    MAX_SENTENCES,
    check_output_free,
    require_learnable,
    tokenizer_work_folder,
    train_on_corpus,
    trainer_settings,
)

if TYPE_CHECKING:
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

DEFAULT_NEW_TOKENS = 10_000  # added where nobody says how many
_KOREAN_TOKEN = re.compile(f"▁?[{HANGUL_RANGES}]+")
_MIN_DONOR_TOKENS = 8_000  # of a model trained for its Korean tokens: enough for all characters of a text


def extend_tokenizer(
    old_path: Path,
    source: Path,
    output: Path,
    max_tokens: int = DEFAULT_NEW_TOKENS,
    on_progress: OnProgress = ignore_progress,
    *,
    allow_left_out: bool = False,
) -> TokenizerCard:
    """Write a model with Korean tokens at its end, and a card; the card.

    Args:
        old_path: a unigram model that follows the id rule.
        source: where the tokens come from: a unigram model, or a text, dump, table or index to train one on.
        output: the model file; `output`.json is its card.
        max_tokens: most tokens to add; single syllables first, then the most probable.
        allow_left_out: see `train_tokenizer`.

    Raises:
        ModelError: a model of another kind, or whose special tokens break the id rule.
        DataError: text that cannot be read; nothing to add.
        SettingsError: a file that cannot be written, or that another process writes.
    """
    source = corpus_file(source)
    with output_lock(output):
        check_output_free(output, (old_path, source))
        old_bytes = read_bytes(old_path)
        sentencepiece_model.load_xlmr_processor(old_bytes, str(old_path))
        model = _require_unigram(old_bytes, old_path)
        old = {
            "path": str(old_path),
            "sha256": hashlib.sha256(old_bytes).hexdigest(),
            "pieces": len(model.pieces),
        }
        donor, donor_description = _korean_donor_model(
            source, output, max_tokens, on_progress, allow_left_out=allow_left_out
        )
        added = _add_korean_tokens(model, donor, max_tokens)
        if not added:
            discard_work_folder(tokenizer_work_folder(output))
            raise DataError(
                message(
                    "tokenizer.nothing-to-add",
                    "{source} has no Korean token that {old} lacks",
                    source=source,
                    old=old_path,
                ),
                message("tokenizer.nothing-to-add.hint", "give Korean text or a Korean model"),
            )
        # Deterministic: equal inputs give an equal SHA-256, which the card holds.
        extended = model.SerializeToString(deterministic=True)
        card = describe_model(extended, old=old, with_=donor_description, added=added)
        try:
            write_sentencepiece_model(output, extended, card)
        finally:
            discard_work_folder(tokenizer_work_folder(output))
        return card


def _korean_donor_model(
    source: Path, output: Path, max_tokens: int, on_progress: OnProgress, *, allow_left_out: bool
) -> tuple[ModelProto, Mapping[str, Any]]:
    """A model to take Korean tokens from, and what the card says of it."""
    if sentencepiece_model.is_sentencepiece_model(source):
        model = read_bytes(source)
        return _require_unigram(model, source), {
            "path": str(source),
            "sha256": hashlib.sha256(model).hexdigest(),
        }
    work_folder = tokenizer_work_folder(output)
    corpus = clean_corpus([source], work_folder, on_progress)
    # More than are wanted: some tokens of a Korean text are not Hangul.
    vocab_size = max(_MIN_DONOR_TOKENS, max_tokens + max_tokens // 4 + 300)
    settings = {
        **trainer_settings(vocab_size, CHARACTER_COVERAGE, min(MAX_SENTENCES, corpus.lines)),
        # Only Hangul tokens are taken over, and 256 byte tokens would take places of the vocabulary (D23).
        "byte_fallback": False,
    }
    with discarded_on_failure(work_folder, DataError, SettingsError):
        require_learnable(corpus, [source], allow_left_out=allow_left_out)
        model = train_on_corpus(corpus, MAX_SENTENCES, settings, on_progress)
    about = {name: value for name, value in corpus.card_fields().items() if value is not None}
    description = {**corpus.sources[0], **about, "settings": settings}
    return sentencepiece_model.parse_model_proto(model), description


def _require_unigram(model: bytes, path: Path) -> ModelProto:
    proto = sentencepiece_model.parse_model_proto(model)
    if proto.trainer_spec.model_type != proto.trainer_spec.UNIGRAM:
        raise ModelError(
            message(
                "tokenizer.not-unigram",
                "{path} is not a unigram model: its scores cannot be mixed",
                path=path,
            ),
            message("tokenizer.not-unigram.hint", "use a unigram model"),
        )
    return proto


def _add_korean_tokens(model: ModelProto, donor: ModelProto, max_tokens: int) -> int:
    """Add Korean tokens, and score those both models have as the donor does; how many were added."""
    scores = {
        token.piece: token.score
        for token in donor.pieces
        if token.type == token.NORMAL and _KOREAN_TOKEN.fullmatch(token.piece)
    }
    old_scores = [token.score for token in model.pieces if token.type == token.NORMAL]
    # New scores stay between these two, for the reason at the top of this file.
    lowest, highest = min(old_scores), max(old_scores)
    # Tokens of both models get the donor's score as well: beside the new ones, the old score would be on another scale.
    for token in model.pieces:
        if token.type == token.NORMAL and token.piece in scores:
            token.score = min(max(scores[token.piece], lowest), highest)
    old_tokens = {token.piece for token in model.pieces}
    # Syllables first, whatever their score: without one, a word that has it falls apart into bytes.
    candidates = sorted(scores.keys() - old_tokens, key=lambda text: (len(text) > 1, -scores[text], text))
    new_tokens = candidates[:max_tokens]
    for text in new_tokens:
        model.pieces.add(piece=text, score=min(max(scores[text], lowest), highest))
    model.trainer_spec.vocab_size = len(model.pieces)
    return len(new_tokens)

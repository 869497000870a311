"""Korean pieces for a model of another language, whose own pieces and ids stay as they are.

Only pieces of nothing but Hangul are added, so that text without Hangul finds the same pieces to choose
from as before. What an unknown character costs follows from the lowest score, what a user-defined piece
costs from the highest: the new scores stay between the two, and old text is cut as it was.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovqa_core.errors import DataError, ModelError
from kovqa_core.files import read_bytes
from kovqa_core.tokenizer import sentencepiece_model
from kovqa_core.tokenizer.corpus import CorpusProgress, clean_corpus
from kovqa_core.tokenizer.inspect import HANGUL_RANGES
from kovqa_core.tokenizer.train import (
    CHARACTER_COVERAGE,
    MAX_SENTENCES,
    check_output_free,
    describe_model,
    tokenizer_work_folder,
    train_on_corpus,
    trainer_settings,
    write_sentencepiece_model,
)

if TYPE_CHECKING:
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

DEFAULT_NEW_TOKENS = 10_000  # added where none says how many
_KOREAN_TOKEN = re.compile(f"▁?[{HANGUL_RANGES}]+")
_MIN_DONOR_TOKENS = 8_000  # pieces a text is cut into at first, so that all its characters are among them


def extend_tokenizer(
    old: Path,
    source: Path,
    output: Path,
    number: int = DEFAULT_NEW_TOKENS,
    told: CorpusProgress | None = None,
) -> dict[str, Any]:
    """Write `old` with Korean pieces at its end, and a card; the card.

    Args:
        old: a unigram model that follows the id rule.
        source: where the pieces come from: a unigram model, or a text or dump to train one on.
        output: the model file; `output`.json is its card.
        number: most pieces to add; single syllables first, then the most probable.
        told: see `train_tokenizer`.

    Raises:
        ModelError: a model of another kind, or whose special pieces break the id rule.
        DataError: text that cannot be read; nothing to add.
        SettingsError: a place that cannot be written.
    """
    check_output_free(output, (old, source))
    before = read_bytes(old)
    sentencepiece_model.load_xlmr_processor(before, str(old))
    model = _require_unigram(before, old)
    given, about = _korean_donor_model(source, output, number, told)
    added = _add_korean_tokens(model, given, number)
    if not added:
        raise DataError(
            f"{source} has no Korean piece that {old} lacks", "give Korean text or a Korean model"
        )
    after = model.SerializeToString(deterministic=True)
    card = {
        "schema": 1,
        "old": {"path": str(old), "sha256": hashlib.sha256(before).hexdigest(), "pieces": len(model.pieces) - added},
        "with": about,
        "added": added,
        **describe_model(after),
    }  # fmt: skip
    write_sentencepiece_model(output, after, card)
    shutil.rmtree(tokenizer_work_folder(output), ignore_errors=True)
    return card


def _korean_donor_model(
    source: Path, output: Path, number: int, told: CorpusProgress | None
) -> tuple[ModelProto, dict[str, Any]]:
    """A model to take Korean pieces from, and what the card says of it."""
    if sentencepiece_model.is_sentencepiece_model(source):
        model = read_bytes(source)
        return _require_unigram(model, source), {
            "path": str(source),
            "sha256": hashlib.sha256(model).hexdigest(),
        }
    corpus = clean_corpus([source], tokenizer_work_folder(output), told)
    if not corpus.lines:
        raise DataError(f"no text in {source}", "give a text file, one sentence a line")
    wanted = max(_MIN_DONOR_TOKENS, number + number // 4 + 300)  # some will be no Hangul
    settings = {
        **trainer_settings(wanted, CHARACTER_COVERAGE, min(MAX_SENTENCES, corpus.lines)),
        "byte_fallback": False,
    }
    model = train_on_corpus(corpus, MAX_SENTENCES, settings, told)
    return sentencepiece_model.parse_model_proto(model), {
        **corpus.sources[0],
        **corpus.card(),
        "settings": settings,
    }


def _require_unigram(model: bytes, path: Path) -> ModelProto:
    found = sentencepiece_model.parse_model_proto(model)
    if found.trainer_spec.model_type != found.trainer_spec.UNIGRAM:
        raise ModelError(f"{path} is no unigram model: its scores cannot be mixed", "use a unigram model")
    return found


def _add_korean_tokens(model: ModelProto, given: ModelProto, number: int) -> int:
    """Add Korean pieces, and score those both models have as the given one does; how many were added."""
    scores = {
        piece.piece: piece.score
        for piece in given.pieces
        if piece.type == piece.NORMAL and _KOREAN_TOKEN.fullmatch(piece.piece)
    }
    known = [piece.score for piece in model.pieces if piece.type == piece.NORMAL]
    lowest, highest = min(known), max(known)
    for piece in model.pieces:
        if piece.type == piece.NORMAL and piece.piece in scores:
            piece.score = min(max(scores[piece.piece], lowest), highest)
    there = {piece.piece for piece in model.pieces}
    new = sorted(scores.keys() - there, key=lambda piece: (len(piece) > 1, -scores[piece], piece))[:number]
    for piece in new:
        model.pieces.add(piece=piece, score=min(max(scores[piece], lowest), highest))
    model.trainer_spec.vocab_size = len(model.pieces)
    return len(new)

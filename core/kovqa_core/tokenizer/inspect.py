"""What is in a SentencePiece model, and how well it fits a text."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovqa_core.errors import DataError
from kovqa_core.files import read_bytes, read_json
from kovqa_core.tokenizer import sentencepiece_model
from kovqa_core.tokenizer.corpus import CorpusProgress, chunk_lines, corpus_chunks
from kovqa_core.tokenizer.train import card_path

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

TOKEN_SCRIPTS = ("Hangul", "Latin", "digits", "other", "bytes", "special")
HANGUL_RANGES = "가-힣ᄀ-ᇿㄱ-ㆎꥠ-ꥼힰ-ퟻ"
_HANGUL_TOKEN, _LATIN_LETTER = re.compile(f"[{HANGUL_RANGES}]"), re.compile("[A-Za-zÀ-ɏ]")
_ENCODE_BATCH_LINES = 1000  # lines encoded at once


@dataclass
class TextCoverage:
    """What a text becomes in a model.

    Attributes:
        lines, words: of the text.
        characters: of the text, each with how often it occurs; blanks are not counted.
        pieces, unknown, bytes: ids of the text; those that are unk; those that stand for one byte.
        covered: how many of the characters are spelled with neither.
    """

    lines: int = 0
    words: int = 0
    characters: Counter[str] = field(default_factory=Counter)
    pieces: int = 0
    unknown: int = 0
    bytes: int = 0
    covered: int = 0

    def report(self) -> dict[str, float]:
        """Counts, and their ratios."""
        characters, pieces = self.characters.total(), max(1, self.pieces)  # a normaliser may drop all
        return {
            "lines": self.lines,
            "words": self.words,
            "characters": characters,
            "pieces": self.pieces,
            "characters_covered": self.covered / characters,
            "unknown_rate": self.unknown / pieces,
            "byte_share": self.bytes / pieces,
            "pieces_per_word": self.pieces / self.words,
            "pieces_per_character": self.pieces / characters,
            "pieces_per_line": self.pieces / self.lines,
        }


def inspect_tokenizers(
    models: Sequence[Path], text: Path | None = None, told: CorpusProgress | None = None
) -> list[dict[str, Any]]:
    """What models hold and, with a text, how they fit it; one report for each.

    A model whose special pieces break the id rule is shown too; the report says so (`broken_rule`).

    Args:
        models: SentencePiece models.
        text: a text file or Wikipedia dump.
        told: called with "lines read", how many so far and the share of the text.

    Raises:
        DataError: a file that cannot be read; no text.
        ModelError: a file that is no SentencePiece model.
    """
    read = [read_bytes(path) for path in models]
    processors = [
        sentencepiece_model.load_spm_processor(model, str(path))
        for path, model in zip(models, read, strict=True)
    ]
    reports = [_model_report(*each) for each in zip(models, read, processors, strict=True)]
    if text:
        for report, fit in zip(reports, _measure_coverage(processors, text, told), strict=True):
            report["text"] = {"path": str(text), **fit.report()}
    return reports


def token_script(piece: str) -> str:
    """Hangul, Latin, digits or other: the first of these that a piece has a character of."""
    if _HANGUL_TOKEN.search(piece):
        return "Hangul"
    if _LATIN_LETTER.search(piece):
        return "Latin"
    return "digits" if any(map(str.isdigit, piece)) else "other"


def _model_report(path: Path, model: bytes, processor: SentencePieceProcessor) -> dict[str, Any]:
    counts = Counter(_token_category(processor, piece) for piece in range(processor.get_piece_size()))
    digest, card = hashlib.sha256(model).hexdigest(), card_path(path)
    about = read_json(card) if card.is_file() else None
    if about is not None and (not isinstance(about, dict) or about.get("sha256") != digest):
        about = {"other": "this card is another model's"}
    return {
        "path": str(path),
        "pieces": processor.get_piece_size(),
        "scripts": {name: counts[name] for name in TOKEN_SCRIPTS},
        "sha256": digest,
        "broken_rule": sentencepiece_model.id_rule_violation(processor),
        "card": about,
    }


def _token_category(processor: SentencePieceProcessor, piece: int) -> str:
    if processor.is_byte(piece):
        return "bytes"
    if processor.is_control(piece) or processor.is_unknown(piece):
        return "special"
    return token_script(processor.id_to_piece(piece))


def _measure_coverage(
    processors: Sequence[SentencePieceProcessor], text: Path, told: CorpusProgress | None
) -> list[TextCoverage]:
    fits = [TextCoverage() for _ in processors]
    byte_ids = [{i for i in range(p.get_piece_size()) if p.is_byte(i)} for p in processors]
    for batch in _line_batches(text, told):
        characters = Counter(
            itertools.chain.from_iterable(itertools.chain.from_iterable(map(str.split, batch)))
        )
        for fit, processor, spelled in zip(fits, processors, byte_ids, strict=True):
            ids = Counter(itertools.chain.from_iterable(processor.encode(batch, num_threads=1)))
            fit.lines += len(batch)
            fit.words += sum(len(line.split()) for line in batch)
            fit.characters += characters
            fit.pieces += ids.total()
            fit.unknown += ids[processor.unk_id()]
            fit.bytes += sum(ids[i] for i in spelled)
    if not fits[0].lines:
        raise DataError(f"no text in {text}", "give a text file, one sentence a line")
    for fit, processor, spelled in zip(fits, processors, byte_ids, strict=True):
        unfit = spelled | {processor.unk_id()}
        fit.covered = sum(n for c, n in fit.characters.items() if unfit.isdisjoint(processor.encode(c)))
    return fits


def _line_batches(text: Path, told: CorpusProgress | None) -> Iterator[list[str]]:
    parts, n = corpus_chunks(text), 0
    for number, piece in enumerate(parts):
        rest = chunk_lines(piece)
        while batch := list(itertools.islice(rest, _ENCODE_BATCH_LINES)):
            yield batch
            n += len(batch)
            if told:
                told("lines read", n, number / len(parts))

"""What is in a SentencePiece model, and how well it fits a text."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovqa_core.files import read_bytes
from kovqa_core.messages import message
from kovqa_core.progress import OnProgress, Progress, ignore_progress
from kovqa_core.tokenizer.card import read_card
from kovqa_core.tokenizer.corpus import chunk_lines, corpus_chunks, no_text_error
from kovqa_core.tokenizer.sentencepiece_model import id_rule_violation, load_spm_processor

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
        characters: of the text, each with how often it occurs; spaces are not counted.
        tokens, unknown, bytes: ids of the text; those that are unk; those that stand for one byte.
        covered: how many of the characters are spelled with neither.
    """

    lines: int = 0
    words: int = 0
    characters: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    unknown: int = 0
    bytes: int = 0
    covered: int = 0

    def ratios(self) -> dict[str, float]:
        """Counts, and their ratios, by the names they have in `--json`."""
        characters, tokens = self.characters.total(), max(1, self.tokens)  # a normaliser may drop everything
        return {
            "lines": self.lines,
            "words": self.words,
            "characters": characters,
            "pieces": self.tokens,
            "characters_covered": self.covered / characters,
            "unknown_rate": self.unknown / tokens,
            "byte_share": self.bytes / tokens,
            "pieces_per_word": self.tokens / self.words,
            "pieces_per_character": self.tokens / characters,
            "pieces_per_line": self.tokens / self.lines,
        }


@dataclass(frozen=True)
class TokenizerReport:
    """What a model holds and, with a text, how it fits it.

    Attributes:
        path: the model file.
        tokens: how many.
        scripts: of its tokens, by `TOKEN_SCRIPTS`.
        sha256: of the file.
        rule_violation: what breaks the id rule of XLM-R; empty where it holds.
        card: what its card says; None without one. A card of another model says only that (`other`).
        text: the text it was measured on, and what that becomes.
    """

    path: str
    tokens: int
    scripts: Mapping[str, int]
    sha256: str
    rule_violation: str
    card: Mapping[str, Any] | None
    text: tuple[str, TextCoverage] | None = None

    def to_json(self) -> dict[str, Any]:
        """The report as `--json` prints it."""
        text = {"text": {"path": self.text[0], **self.text[1].ratios()}} if self.text else {}
        return {
            "path": self.path,
            "pieces": self.tokens,
            "scripts": self.scripts,
            "sha256": self.sha256,
            "broken_rule": self.rule_violation,
            "card": self.card,
            **text,
        }


def inspect_tokenizers(
    models: Sequence[Path], text: Path | None = None, on_progress: OnProgress = ignore_progress
) -> list[TokenizerReport]:
    """What models hold and, with a text, how they fit it; one report for each.

    A model whose special tokens break the id rule is reported too, with what breaks it.

    Args:
        models: SentencePiece models.
        text: a text file or Wikipedia dump.

    Raises:
        DataError: a file that cannot be read; no text.
        ModelError: a file that is not a SentencePiece model.
    """
    contents = [read_bytes(path) for path in models]
    processors = [load_spm_processor(model, str(path)) for path, model in zip(models, contents, strict=True)]
    reports = [_model_report(*each) for each in zip(models, contents, processors, strict=True)]
    if text is None:
        return reports
    coverages = _measure_coverage(processors, text, on_progress)
    return [
        replace(report, text=(str(text), coverage))
        for report, coverage in zip(reports, coverages, strict=True)
    ]


def token_script(token: str) -> str:
    """Hangul, Latin, digits or other: the first of these that a token has a character of."""
    if _HANGUL_TOKEN.search(token):
        return "Hangul"
    if _LATIN_LETTER.search(token):
        return "Latin"
    return "digits" if any(map(str.isdigit, token)) else "other"


def _model_report(path: Path, model: bytes, processor: SentencePieceProcessor) -> TokenizerReport:
    counts = Counter(_token_category(processor, id) for id in range(processor.get_piece_size()))
    digest, card = hashlib.sha256(model).hexdigest(), read_card(path)
    # Somebody may have put another model under the name: its card must not speak for this one.
    if card is not None and (not isinstance(card, dict) or card.get("sha256") != digest):
        card = {"other": message("tokenizer.foreign-card", "this card is another model's")}
    return TokenizerReport(
        path=str(path),
        tokens=processor.get_piece_size(),
        scripts={name: counts[name] for name in TOKEN_SCRIPTS},
        sha256=digest,
        rule_violation=id_rule_violation(processor),
        card=card,
    )


def _token_category(processor: SentencePieceProcessor, id: int) -> str:
    if processor.is_byte(id):
        return "bytes"
    if processor.is_control(id) or processor.is_unknown(id):
        return "special"
    return token_script(processor.id_to_piece(id))


def _measure_coverage(
    processors: Sequence[SentencePieceProcessor], text: Path, on_progress: OnProgress
) -> list[TextCoverage]:
    coverages = [TextCoverage() for _ in processors]
    byte_ids = [{id for id in range(p.get_piece_size()) if p.is_byte(id)} for p in processors]
    for batch in _line_batches(text, on_progress):
        words = [word for line in batch for word in line.split()]
        # Of words, not lines: spaces become part of tokens and are no characters to cover.
        characters = Counter(itertools.chain.from_iterable(words))
        for coverage, processor, bytes_of_model in zip(coverages, processors, byte_ids, strict=True):
            ids = Counter(itertools.chain.from_iterable(processor.encode(batch, num_threads=1)))
            coverage.lines += len(batch)
            coverage.words += len(words)
            coverage.characters += characters
            coverage.tokens += ids.total()
            coverage.unknown += ids[processor.unk_id()]
            coverage.bytes += sum(ids[id] for id in bytes_of_model)
    if not coverages[0].lines:
        raise no_text_error([text])
    for coverage, processor, bytes_of_model in zip(coverages, processors, byte_ids, strict=True):
        # Each distinct character is encoded once, alone: whether it is covered does not depend on its neighbours.
        fallback_ids = bytes_of_model | {processor.unk_id()}
        coverage.covered = sum(
            count
            for character, count in coverage.characters.items()
            if fallback_ids.isdisjoint(processor.encode(character))
        )
    return coverages


def _line_batches(text: Path, on_progress: OnProgress) -> Iterator[list[str]]:
    stage = message("tokenizer.reading", "reading {file}", file=text.name)
    chunks, lines_read = corpus_chunks(text), 0
    for number, chunk in enumerate(chunks):
        lines = chunk_lines(chunk)
        while batch := list(itertools.islice(lines, _ENCODE_BATCH_LINES)):
            yield batch
            lines_read += len(batch)
            on_progress(Progress(stage, lines_read, None, "lines", number / len(chunks)))

"""Text -> SentencePiece model, with the special ids BEiT-3's rule needs."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kovqa_core.errors import DataError
from kovqa_core.files import nfc, read_text, whole_file, write_json

COVERAGE = 0.9995  # of the characters; the rest is spelled in bytes


def train_tokenizer(texts: Sequence[Path], output: Path, vocab_size: int) -> dict[str, Any]:
    """Train a unigram model and write it with a card beside it; the card.

    Pieces 0, 1, 2 are unk, bos, eos and there is no pad, as the ids of XLM-R ask for; bytes stand
    in for characters that are no piece. A text too small for `vocab_size` gives fewer pieces.

    Args:
        texts: text files, one sentence a line.
        output: the model file; `output`.json is its card.
        vocab_size: pieces wanted.

    Raises:
        DataError: no text.
    """
    import sentencepiece

    lines = list(_lines(texts))
    if not lines:
        raise DataError(f"no text in {', '.join(map(str, texts))}", "give text files, one sentence a line")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, model_type="unigram", vocab_size=vocab_size,
            hard_vocab_limit=False, character_coverage=COVERAGE, byte_fallback=True, unk_id=0, bos_id=1,
            eos_id=2, pad_id=-1, num_threads=1, minloglevel=2,
        )  # fmt: skip
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rsplit("] ", 1)[-1]
        raise DataError(
            f"no tokenizer of {vocab_size} pieces can be made of this text ({reason})", "change --vocab-size"
        ) from None
    card = {
        "schema": 1,
        "pieces": sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size(),
        "lines": len(lines),
        "characters": sum(map(len, lines)),
        "sources": [str(path) for path in texts],
        "corpus_sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        "settings": {"model_type": "unigram", "vocab_size": vocab_size, "character_coverage": COVERAGE},
    }
    with whole_file(output) as stream:
        stream.write(model.getvalue())
    write_json(output.with_name(output.name + ".json"), card)
    return card


def _lines(texts: Sequence[Path]) -> Iterator[str]:
    for path in texts:
        for line in read_text(path).splitlines():
            if line.strip():
                yield nfc(line.strip())

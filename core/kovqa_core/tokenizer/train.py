"""Text -> SentencePiece model, with the special ids BEiT-3's rule needs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import re
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kovqa_core.errors import DataError, MachineError, SettingsError
from kovqa_core.files import atomic_file, make_folder, write_json
from kovqa_core.process_pool import parallel_map
from kovqa_core.progress import Progress
from kovqa_core.tokenizer import sentencepiece_model
from kovqa_core.tokenizer.corpus import (
    MAX_LINE_BYTES,
    CleanCorpus,
    CorpusProgress,
    clean_corpus,
    sample_lines,
)

CHARACTER_COVERAGE = 0.9995  # of the characters; the rest is spelled in bytes
MAX_SENTENCES = 5_000_000
_BYTES_PER_CHARACTER = (
    45  # bytes the trainer needs for each character it is given (measured, sentencepiece 0.2.3)
)
_SINGLE_THREAD_LINES = 100_000  # lines that one thread is enough for


def train_tokenizer(
    inputs: Sequence[Path],
    output: Path,
    vocab_size: int,
    coverage: float = CHARACTER_COVERAGE,
    sentences: int = MAX_SENTENCES,
    told: CorpusProgress | None = None,
) -> dict[str, Any]:
    """Train a unigram model and write it with a card beside it; the card (docs/sources/datasets.md, D23).

    Pieces 0, 1, 2 are unk, bos, eos and there is no pad, as the ids of XLM-R ask for; bytes stand
    in for characters that are no piece. A text too small for `vocab_size` gives fewer pieces.
    Neither the number of cores nor an interruption changes the model. Cleaned lines are kept in
    `output`.work until the model is there, so that a run that was stopped goes on.

    Args:
        inputs: Wikipedia dumps, or text files with one sentence a line.
        output: the model file; `output`.json is its card.
        vocab_size: pieces wanted.
        coverage: share of the text's characters that become pieces.
        sentences: most lines given to the trainer; of more, so many are drawn.
        told: called with what is being done, how far it is (0 where that is not known) and the share.

    Raises:
        DataError: no text, or too little for the pieces.
        SettingsError: too few pieces for the text; a place that cannot be written.
        MachineError: the trainer was killed, most often for want of memory.
    """
    check_output_free(output, inputs)
    corpus = clean_corpus(inputs, tokenizer_work_folder(output), told)
    if not corpus.lines:
        raise DataError(f"no text in {', '.join(map(str, inputs))}", "give text files, one sentence a line")
    settings = trainer_settings(vocab_size, coverage, min(sentences, corpus.lines))
    model = train_on_corpus(corpus, sentences, settings, told)
    card = {
        "schema": 1,
        "sources": list(corpus.sources),
        **corpus.card(),
        "lines_given": min(sentences, corpus.lines),
        "settings": settings,
        **describe_model(model),
    }
    write_sentencepiece_model(output, model, card)
    shutil.rmtree(tokenizer_work_folder(output), ignore_errors=True)
    return card


def trainer_settings(vocab_size: int, coverage: float, lines: int) -> dict[str, Any]:
    """What SentencePiece is told. The number of threads changes the model, so the text decides on it."""
    return {
        "model_type": "unigram", "vocab_size": vocab_size, "hard_vocab_limit": False,
        "character_coverage": coverage, "normalization_rule_name": "nmt_nfkc", "byte_fallback": True,
        "unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1, "max_sentence_length": MAX_LINE_BYTES,
        "num_threads": 1 if lines <= _SINGLE_THREAD_LINES else 16,
    }  # fmt: skip


def train_on_corpus(
    corpus: CleanCorpus, sentences: int, settings: dict[str, Any], told: CorpusProgress | None = None
) -> bytes:
    """The model of a corpus; trained in a process of its own, which Ctrl-C can end at any time.

    Raises:
        SettingsError: too few pieces for the text.
        MachineError: the process was killed, most often for want of memory.
    """
    given = min(sentences, corpus.lines)
    memory = f"about {corpus.characters * given / corpus.lines * _BYTES_PER_CHARACTER / 1e9:.1f} GB of memory"

    def tell(_: Progress) -> None:
        if told:
            told(f"training on {given:,} lines, {memory}", 0, 0.0)

    try:
        (model,) = parallel_map(_run_trainer, [(corpus, sentences, settings)], on_progress=tell)
    except MachineError:
        hint = f"{memory} are needed; with fewer --sentences less"
        raise MachineError("the training was killed from outside", hint) from None
    sentencepiece_model.load_xlmr_processor(model, "the model just trained")
    return model


def _run_trainer(corpus: CleanCorpus, sentences: int, settings: dict[str, Any]) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sample_lines(corpus, sentences), model_writer=model, minloglevel=2, **settings
        )
    except (RuntimeError, ValueError) as error:
        raise _trainer_error(settings["vocab_size"], str(error)) from None
    return model.getvalue()


def _trainer_error(vocab_size: int, reason: str) -> Exception:
    if least := re.search(r"required_chars\.? *\d+ vs (\d+)", reason):
        return SettingsError(
            f"{vocab_size} pieces are too few for this text",
            f"ask for {least[1]} or more: every character and byte is a piece of its own",
        )
    said = reason.partition("\n")[0].rsplit("] ", 1)[-1]
    return DataError(
        f"no tokenizer of {vocab_size} pieces can be made of this text ({said})", "give more text"
    )


def describe_model(model: bytes) -> dict[str, Any]:
    """What a card says of every model: pieces, hash, versions and date."""
    return {
        "pieces": sentencepiece_model.load_xlmr_processor(model, "the model").get_piece_size(),
        "sha256": hashlib.sha256(model).hexdigest(),
        "versions": {name: importlib.metadata.version(name) for name in ("kovqa", "sentencepiece")},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def tokenizer_work_folder(model: Path) -> Path:
    """Where cleaned lines are kept until a model is there."""
    return model.with_name(model.name + ".work")


def card_path(model: Path) -> Path:
    """Where a model's card lies."""
    return model.with_name(model.name + ".json")


def write_sentencepiece_model(output: Path, model: bytes, card: dict[str, Any]) -> None:
    """Write a model and its card, each whole."""
    with atomic_file(output) as stream:
        stream.write(model)
    write_json(card_path(output), card)


def check_output_free(output: Path, inputs: Sequence[Path]) -> None:
    """See that a model can be written, before hours of work.

    Raises:
        SettingsError: `output` is a folder or one of the inputs, or cannot be written.
    """
    if output.is_dir():
        raise SettingsError(f"{output} is a folder", "name a file with -o")
    for path in (output, card_path(output)):
        if any(path.exists() and each.exists() and path.samefile(each) for each in inputs):
            raise SettingsError(
                f"{path} is an input, and would be overwritten", "choose another file with -o"
            )
    make_folder(output.parent)

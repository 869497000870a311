"""Text -> SentencePiece model, with the special ids BEiT-3's rule needs."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kovqa_core.errors import DataError, KovqaError, MachineError, SettingsError
from kovqa_core.files import make_folder
from kovqa_core.messages import message
from kovqa_core.output_lock import output_lock
from kovqa_core.process_pool import parallel_map
from kovqa_core.progress import OnProgress, Progress, ignore_progress
from kovqa_core.tokenizer.card import (
    TokenizerCard,
    TrainerSettings,
    card_path,
    describe_model,
    read_card_of,
    write_sentencepiece_model,
)
from kovqa_core.tokenizer.corpus import (
    MAX_LINE_BYTES,
    CleanCorpus,
    clean_corpus,
    discard_work_folder,
    discarded_on_failure,
    no_text_error,
    sample_lines,
)
from kovqa_core.tokenizer.sentencepiece_model import load_xlmr_processor
from kovqa_core.tokenizer.table_text import corpus_file
from kovqa_core.tokenizer.unlearnable import NORMALIZATION_RULE, require_enough_lines

# As in KoBEiT3's tokenizer (docs/sources/beit3.md, B22).
CHARACTER_COVERAGE = 0.9995  # of the characters; the rest is spelled in bytes
MAX_SENTENCES = 5_000_000
# Memory the trainer needs for each character it is given (measured with sentencepiece 0.2.3).
_BYTES_PER_CHARACTER = 45
_SINGLE_THREAD_LINES = 100_000  # lines that one thread is enough for


def train_tokenizer(
    inputs: Sequence[Path],
    output: Path,
    vocab_size: int,
    coverage: float = CHARACTER_COVERAGE,
    sentences: int = MAX_SENTENCES,
    on_progress: OnProgress = ignore_progress,
    *,
    columns: Sequence[str] = (),
    allow_left_out: bool = False,
) -> TokenizerCard:
    """Train a unigram model and write it with a card beside it; the card (docs/sources/datasets.md, D23).

    Tokens 0, 1, 2 are unk, bos, eos and there is no pad, as the ids of XLM-R ask for; bytes stand in for
    characters that are not a token. A text too small for `vocab_size` gives fewer tokens.
    Neither the number of cores nor an interruption changes the model. Cleaned lines are kept in
    `output`.work until the model is there, so that a run that was stopped, or killed for lack of memory, goes on;
    one that failed leaves nothing.

    Args:
        inputs: Wikipedia dumps, text files with one sentence a line, tables, index folders.
        output: the model file; `output`.json is its card.
        vocab_size: tokens wanted.
        coverage: fraction of the text's characters that become tokens; bytes spell the others.
        sentences: most lines given to the trainer; of more, so many are drawn.
        columns: see `clean_corpus`.
        allow_left_out: go on although nothing can be learned from more than 10 % of the lines.

    Raises:
        DataError: no text, too little for the tokens, or too many lines that nothing can be learned from.
        SettingsError: too few tokens for the text; a file that cannot be written, or that another process writes.
        MachineError: the trainer was killed, most often for lack of memory.
    """
    files = [corpus_file(path) for path in inputs]
    with output_lock(output):
        check_output_free(output, files)
        work_folder = tokenizer_work_folder(output)
        corpus = clean_corpus(files, work_folder, on_progress, columns=columns)
        settings = trainer_settings(vocab_size, coverage, min(sentences, corpus.lines))
        # Not where it is killed for lack of memory: with fewer sentences, the cleaned lines are used again.
        with discarded_on_failure(work_folder, DataError, SettingsError):
            require_learnable(corpus, files, allow_left_out=allow_left_out)
            model = train_on_corpus(corpus, sentences, settings, on_progress)
        card = describe_model(
            model,
            sources=list(corpus.sources),
            **corpus.card_fields(),
            lines_given=min(sentences, corpus.lines),
            settings=settings,
        )
        try:
            write_sentencepiece_model(output, model, card)
        finally:
            discard_work_folder(work_folder)
        return card


def require_learnable(corpus: CleanCorpus, inputs: Sequence[Path], *, allow_left_out: bool) -> None:
    """See that there is something to learn from.

    Args:
        inputs: what the corpus was made of, for the error.
        allow_left_out: see `train_tokenizer`.

    Raises:
        DataError: no line, or too many that nothing can be learned from.
    """
    if not allow_left_out:
        require_enough_lines(corpus.left_out, corpus.lines, inputs)
    if not corpus.lines:
        raise no_text_error(inputs)


def trainer_settings(vocab_size: int, coverage: float, lines: int) -> TrainerSettings:
    """Settings of SentencePiece's trainer.

    Its number of threads changes the model, because sums of floats are taken thread by thread: so the text
    decides on it, not the machine.
    """
    return {
        "model_type": "unigram", "vocab_size": vocab_size, "hard_vocab_limit": False,
        "character_coverage": coverage, "normalization_rule_name": NORMALIZATION_RULE, "byte_fallback": True,
        "unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1, "max_sentence_length": MAX_LINE_BYTES,
        "num_threads": 1 if lines <= _SINGLE_THREAD_LINES else 16,
    }  # fmt: skip


def train_on_corpus(
    corpus: CleanCorpus,
    sentences: int,
    settings: TrainerSettings,
    on_progress: OnProgress = ignore_progress,
) -> bytes:
    """The model of a corpus; trained in a process of its own, which Ctrl-C can end at any time.

    Raises:
        SettingsError: too few tokens for the text.
        MachineError: the process was killed, most often for lack of memory.
    """
    line_count = min(sentences, corpus.lines)
    # The trainer keeps all chosen sentences and a suffix array of them in memory.
    gigabytes = corpus.characters * line_count / corpus.lines * _BYTES_PER_CHARACTER / 1e9
    stage = message(
        "tokenizer.training",
        "training on {lines:,} lines, about {gigabytes:.1f} GB of memory",
        lines=line_count,
        gigabytes=gigabytes,
    )

    def report_training(_: Progress) -> None:
        on_progress(Progress(stage))

    try:
        (model,) = parallel_map(_run_trainer, [(corpus, sentences, settings)], on_progress=report_training)
    except MachineError:
        raise MachineError(
            message("tokenizer.trainer-killed", "the training was killed from outside"),
            message(
                "tokenizer.trainer-killed.hint",
                "about {gigabytes:.1f} GB of memory are needed; fewer --sentences need less; the cleaned lines are kept",
                gigabytes=gigabytes,
            ),
        ) from None
    # The id rule is checked once more here: a model that breaks it would only fail when it is loaded to train.
    load_xlmr_processor(model, "the model just trained")
    return model


def _run_trainer(corpus: CleanCorpus, sentences: int, settings: TrainerSettings) -> bytes:
    import sentencepiece

    model = io.BytesIO()
    trainer_options: dict[str, Any] = dict(settings)  # its stub types none of the trainer's own settings
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=sample_lines(corpus, sentences),
            model_writer=model,
            minloglevel=2,
            **trainer_options,
        )
    except (RuntimeError, ValueError) as error:
        raise _trainer_error(int(settings["vocab_size"]), str(error)) from None
    return model.getvalue()


def _trainer_error(vocab_size: int, reason: str) -> KovqaError:
    """The trainer's own words, of which the reason for "too few" is worth a hint of its own."""
    # The trainer says "… required_chars. 500 vs 812": the second number is the least that is possible.
    if least := re.search(r"required_chars\.? *\d+ vs (\d+)", reason):
        return SettingsError(
            message(
                "tokenizer.too-few-tokens", "{tokens} tokens are too few for this text", tokens=vocab_size
            ),
            message(
                "tokenizer.too-few-tokens.hint",
                "ask for {least} or more: every character and byte is a token of its own",
                least=least[1],
            ),
        )
    return DataError(
        message(
            "tokenizer.cannot-train",
            "no tokenizer of {tokens} tokens can be made of this text ({reason})",
            tokens=vocab_size,
            # Its text begins with "Internal: file(line) [condition] ": only what follows is for users.
            reason=reason.partition("\n")[0].rsplit("] ", 1)[-1],
        ),
        message("tokenizer.cannot-train.hint", "give more text"),
    )


def tokenizer_work_folder(model: Path) -> Path:
    """Where cleaned lines are kept until a model is there."""
    return model.with_name(model.name + ".work")


def check_output_free(output: Path, inputs: Sequence[Path]) -> None:
    """Check that a model can be written, before hours of work.

    Raises:
        SettingsError: `output` is a folder, one of the inputs, or another tokenizer, or cannot be written.
    """
    if output.is_dir():
        raise SettingsError(
            message("tokenizer.output-is-folder", "{path} is a folder", path=output),
            message("tokenizer.output-is-folder.hint", "name a file with -o"),
        )
    for path in (output, card_path(output)):
        if any(path.exists() and each.exists() and path.samefile(each) for each in inputs):
            raise SettingsError(
                message(
                    "tokenizer.output-is-input", "{path} is an input, and would be overwritten", path=path
                ),
                message("tokenizer.output-is-input.hint", "choose another file with -o"),
            )
    if output.exists() and not _was_made_of(output, inputs):
        raise SettingsError(
            message(
                "tokenizer.other-output",
                "{path} is there already, and was not made of this text",
                path=output,
            ),
            message("tokenizer.other-output.hint", "choose another file with -o, or remove that one"),
        )
    make_folder(output.parent)


def _was_made_of(output: Path, inputs: Sequence[Path]) -> bool:
    """Does the card of a model say that it was made of these files? By their sizes: a dump is not read for it."""
    card = read_card_of(output)
    if card is None:
        return False
    made_of = card.get("sources") or [card.get("old") or {}, card.get("with") or {}]
    known = {Path(source.get("path", "")).name: source.get("bytes") for source in made_of}
    return all(
        path.name in known and known[path.name] in (None, path.stat().st_size if path.exists() else None)
        for path in inputs
    )

"""Which rows the text table of a new model gets: those of its weights, or rows carried to another tokenizer."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from kovqa_core.errors import ModelError, SettingsError
from kovqa_core.messages import message
from kovqa_core.models.beit3.config import ModelConfig, find_weights, find_weights_tokenizer
from kovqa_core.models.beit3.vocab_transfer import VocabTransfer, plan_vocab_transfer
from kovqa_core.models.config import read_checkpoint_config
from kovqa_core.models.xlmr_tokenizer import XlmrTokenizer, load_xlmr_tokenizer, require_same_tokenizer


def plan_text_rows(
    config: ModelConfig, tokenizer: XlmrTokenizer, table: Tensor | None
) -> tuple[int, VocabTransfer | None]:
    """Rows of the model's text table, and how the weights' rows are transferred; None: they stay as they are.

    Args:
        config: names weights and tokenizers.
        tokenizer: of the new model.
        table: the weights' text table [V, D], if there are weights.

    Raises:
        SettingsError: a table too small for the tokenizer, or of another size than `model.vocab_size`.
        ModelError: the tokenizer of the weights has more ids than their table has rows.
    """
    plan = None if table is None else _plan_transfer(config, tokenizer, table)
    rows = tokenizer.vocab_size if table is None or plan is not None else len(table)
    vocab_size = config.vocab_size or rows
    if table is not None and vocab_size != rows:
        raise SettingsError(
            message(
                "beit3.other-vocab-size",
                "model.vocab_size is {vocab_size}, the text table made of {weights} has {rows} rows",
                vocab_size=vocab_size,
                weights=config.weights,
                rows=rows,
            ),
            message("beit3.other-vocab-size.hint", "leave it out: --set model.vocab_size=null"),
        )
    if vocab_size < tokenizer.vocab_size:
        raise _small_text_table_error(config, tokenizer, vocab_size, is_new=table is None)
    return vocab_size, plan


def _small_text_table_error(
    config: ModelConfig, tokenizer: XlmrTokenizer, rows: int, *, is_new: bool
) -> SettingsError:
    if is_new:
        hint = message(
            "beit3.small-text-table.new-hint", "use --set model.vocab_size={ids}", ids=tokenizer.vocab_size
        )
    else:
        hint = message("beit3.small-text-table.hint", "--set model.text_rows=carried makes rows for them")
    return SettingsError(
        message(
            "beit3.small-text-table",
            "tokenizer {tokenizer} has {ids} ids, the text table only {rows} rows",
            tokenizer=config.tokenizer,
            ids=tokenizer.vocab_size,
            rows=rows,
        ),
        hint,
    )


def _plan_transfer(config: ModelConfig, tokenizer: XlmrTokenizer, table: Tensor) -> VocabTransfer | None:
    """How rows go from the weights' tokenizer to ours; None where both have the same tokens."""
    path = find_weights_tokenizer(config)
    if path is None or config.weights is None:
        return None
    step = find_weights(config.weights)
    is_checkpoint = (step / "config.json").is_file()
    old = open_known_tokenizer(path, read_beit3_config(step)) if is_checkpoint else load_xlmr_tokenizer(path)
    if old.vocab_size > len(table):
        raise ModelError(
            message(
                "beit3.other-weights-tokenizer",
                "{path} has {ids} ids, the text table of {weights} only {rows} rows: those weights were trained "
                "with another tokenizer",
                path=path,
                ids=old.vocab_size,
                weights=config.weights,
                rows=len(table),
            ),
            message("beit3.other-weights-tokenizer.hint", "name theirs: --set model.weights_tokenizer=FILE"),
        )
    # The same tokens in the same order: every row is right where it is.
    if old.vocab == tokenizer.vocab:
        return None
    return plan_vocab_transfer(old.vocab, tokenizer.vocab, old.encode)


def open_known_tokenizer(path: Path, config: ModelConfig) -> XlmrTokenizer:
    """The tokenizer in a file, if it is the one that the configuration knows; see `require_same_tokenizer`."""
    tokenizer = load_xlmr_tokenizer(path)
    require_same_tokenizer(tokenizer.sha256, config.tokenizer_sha256, str(path))
    return tokenizer


def read_beit3_config(folder: Path) -> ModelConfig:
    """The configuration of a checkpoint folder.

    Raises:
        ModelError: it is missing, or broken.
    """
    return read_checkpoint_config(ModelConfig, folder, "beit3")
